"""An OpenAI-compatible server, asked with patience: rate limit, retries, counts, clear errors.

The `openai` library makes the connections; its own retries are off, since they are counted here.
The key goes into the header of requests and nowhere else: it is cut out of all that comes back.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from preceptor.core.errors import ModelError, SettingsError
from preceptor.core.progress import say
from preceptor.core.rate_limit import RateLimit
from preceptor.core.retrying import asked_wait, backoff
from preceptor.core.types import Reply, Request
from preceptor.data.chat import (
    LIMITS,
    UnreadableReplyError,
    chat_body,
    estimated_tokens,
    read_reply,
)

HOSTED = "https://api.openai.com/v1"
KINDS = ("409", "429", "5xx", "timeout", "connection", "unreadable")  # of retries
LONGEST_PAUSE = 600.0  # seconds that a server may ask to wait; beyond, it has failed
SECRET = 8  # characters; a shorter key ("none", "EMPTY") is a placeholder

_UNKNOWN_FIELD = re.compile(
    r"unsupported|not supported|unexpected|unknown|unrecogni[sz]ed|extra|instead", re.IGNORECASE
)
_EXPLAINED = {
    401: ("the server does not accept the key", "check `key_env` and the variable that it names"),
    403: ("the key may not use this model", "check the account, `model` and `key_env`"),
    404: ("the server knows no such model or address", "check `model` and `url` (it ends in /v1)"),
}
T = TypeVar("T")


def library() -> Any:
    """The `openai` library (raises SettingsError where it is not installed)."""
    try:
        return importlib.import_module("openai")
    except ImportError as error:
        raise SettingsError(
            "a teacher behind an API needs the library `openai`",
            found=f"{type(error).__name__}: {error}",
            next_step="pip install 'preceptor[openai]'",
        ) from error


class StoppedError(Exception):
    """Another request has failed for good, so this one is not tried further."""


@dataclass(frozen=True)
class _Fault:
    """What went wrong with one try. `kind` is None where a further try would not help."""

    kind: str | None
    text: str
    status: int = 0
    wait: float | None = None


@dataclass
class ChatServer:
    """A server for the time of one asking; entered as an asynchronous context.

    Attributes:
        setting: fields of `OpenAITeacher`.
        identity: of the teacher; `endpoint` is the server's host.
        key: for the header; empty where the server wants none.
        facts: counts, as `open_teacher` of `preceptor.teachers.openai` lists them.
        failure: the first request that failed for good; nothing new is begun then.
    """

    setting: Any
    identity: Mapping[str, str]
    key: str
    facts: dict[str, float]
    failure: Exception | None = None
    client: Any = None
    _retried: Counter[str] = field(default_factory=Counter)  # by kind
    _renamed: bool = False  # the length limit goes by its other name

    async def __aenter__(self) -> ChatServer:
        self.openai = library()
        self.client = self.openai.AsyncOpenAI(
            api_key=self.key or "none",
            base_url=self.setting.url or HOSTED,
            max_retries=0,
            timeout=None,  # asyncio's bounds the whole request, not each read
        )
        self.stopping = asyncio.Event()
        self.limit = RateLimit(
            self.setting.requests_per_minute, self.setting.tokens_per_minute, sleep=self.sleep
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()
        if self._retried:
            kinds = ", ".join(f"{kind}: {n}" for kind, n in sorted(self._retried.items()))
            say(f"{self.where}: retries: {sum(self._retried.values())} ({kinds})")

    @property
    def _limit_name(self) -> str:
        """Hosted models read `max_completion_tokens`, other servers `max_tokens`."""
        return LIMITS[bool(self.setting.url) != self._renamed]

    @property
    def where(self) -> str:
        return f"{self.setting.model} at {self.identity['endpoint']}"

    def fail(self, error: Exception) -> None:
        self.failure = self.failure or error
        self.stopping.set()

    def count(self, name: str, amount: float = 1) -> None:
        self.facts[name] = self.facts.get(name, 0) + amount

    def scrub(self, text: str) -> str:
        return text.replace(self.key, "[key]") if len(self.key) >= SECRET else text

    async def sleep(self, seconds: float) -> None:
        """Sleep; raises StoppedError as soon as another request has failed for good."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        if self.stopping.is_set():
            raise StoppedError

    async def answer(self, request: Request) -> Reply:
        """One reply, after as many tries as are allowed (raises ModelError)."""
        reserved = estimated_tokens([self.setting.system, *(text for _, text in request.messages)])
        reserved += request.decoding.max_new_tokens
        about = request.messages[-1][1]

        async def once() -> Reply:
            return self.take(*read_reply(await self._complete(request), request))

        reply = await self.patiently(once, self.setting.timeout, about, reserved)
        if reply.n_prompt is not None:
            self.limit.settle(reserved, reply.n_prompt + reply.n_generated)
        return reply

    def take(self, reply: Reply, counted: bool) -> Reply:
        self.count("without_usage", not counted)
        self.count("filtered", reply.finish_reason == "content_filter")
        return reply

    def body(self, request: Request) -> dict[str, Any]:
        """What the server is sent."""
        own = self.setting
        return chat_body(request, own.model, own.system, self._limit_name, own.options)

    async def _complete(self, request: Request) -> Any:
        """What the server sends, as JSON; tries the other name of the length limit once."""
        while True:
            body = self.body(request)
            self.count("requests")
            post = self.client.chat.completions.with_raw_response.create
            try:
                raw = await post(
                    model=body.pop("model"), messages=body.pop("messages"), extra_body=body
                )
            except self.openai.APIStatusError as error:
                if not self._may_rename(body, error):
                    raise
                continue
            try:
                return json.loads(self.scrub(raw.text))
            except ValueError as error:
                raise UnreadableReplyError(f"no JSON: {error}") from None

    def _may_rename(self, sent: Mapping[str, Any], error: Any) -> bool:
        """Whether the server wants the length limit under its other name; remembers it."""
        name = next((name for name in LIMITS if name in sent), "")
        text = str(error.body)
        if error.status_code not in (400, 422) or not name or name in self.setting.options:
            return False
        if name not in text or not _UNKNOWN_FIELD.search(text):
            return False
        if name == self._limit_name:  # else a request beside this one has noticed it
            if self._renamed:
                return False
            self._renamed = True
        return True

    async def patiently(
        self,
        call: Callable[[], Awaitable[T]],
        seconds: float,
        about: str = "",
        n_tokens: float | None = None,
    ) -> T:
        """Call until it succeeds: `retries` further tries, with growing waits.

        Args:
            call: one try.
            seconds: for each try.
            about: the instruction, for the error.
            n_tokens: what the rate limit is charged with; None is not charged at all.

        Raises:
            ModelError: the last try failed, or one in a way that a further try would not mend.
            StoppedError: another request failed while this one waited.
        """
        tries = 0
        while True:
            if n_tokens is not None:
                self.count("seconds_rate_limited", await self.limit.admit(n_tokens))
            tries += 1
            try:
                async with asyncio.timeout(seconds):
                    return await call()
            except (TimeoutError, UnreadableReplyError, self.openai.OpenAIError) as error:
                fault = self._fault(error, seconds)
            if fault.kind is None or tries > self.setting.retries:
                raise self._error(fault, about, tries) from None
            self.count("retries")
            self.count(f"retries_{fault.kind}")
            if fault.kind not in self._retried:
                say(f"{self.where}: {fault.text}; trying again")
            self._retried[fault.kind] += 1
            if fault.wait is not None:
                self.limit.pause(fault.wait)
            await self.sleep((fault.wait or 0.0) + backoff(tries))

    def _fault(self, error: Exception, seconds: float) -> _Fault:
        if isinstance(error, TimeoutError | self.openai.APITimeoutError):
            return _Fault("timeout", f"no reply within {seconds:g} s")
        if isinstance(error, self.openai.APIStatusError):
            return self._status_fault(error)
        if isinstance(error, self.openai.APIConnectionError):
            cause = error.__cause__ or error
            return _Fault("connection", self.line(f"{type(cause).__name__}: {cause}"))
        return _Fault("unreadable", self.line(str(error)))

    def _status_fault(self, error: Any) -> _Fault:
        status, body = error.status_code, error.body
        kinds = {408: "timeout", 409: "409", 429: "429"}
        kind = "5xx" if status >= 500 else kinds.get(status)
        wait = asked_wait(error.response.headers)
        out_of_money = isinstance(body, Mapping) and body.get("code") == "insufficient_quota"
        if out_of_money or (wait or 0.0) > LONGEST_PAUSE:
            kind = None
        text = f"status {status}: {self._said(body)}"
        return _Fault(kind, text + (f" (wait {wait:g} s)" if wait else ""), status, wait)

    def _said(self, body: Any) -> str:
        """The server's own words, from an error body of any form."""
        if isinstance(body, Mapping):
            body = body.get("message") or body.get("detail") or body.get("error") or dict(body)
        return self.line(str(body or "no explanation"))

    def line(self, text: str) -> str:
        """Text of the server as one line that is fit for an error."""
        line = " ".join(self.scrub(text).split())
        return line if len(line) <= 300 else line[:300] + "…"

    def _error(self, fault: _Fault, about: str, tries: int) -> ModelError:
        found = fault.text
        if fault.kind is not None:
            what, found = "the server gave no answer", f"{found} (tries: {tries})"
            step = "run the same command again: what was answered is kept, the rest is asked"
        elif fault.status in _EXPLAINED:
            what, step = _EXPLAINED[fault.status]
        elif fault.status == 429 or fault.status >= 500:
            what, step = "the server answers nothing more for now", "see to the account's limits"
        else:
            what = "the server refuses a request"
            step = "mend or drop that instruction; `options: {field: null}` leaves a field out"
            found += f"; the instruction is {about[:80]!r}" if about else ""
        return ModelError(what, where=self.where, found=found, next_step=step)


async def share(
    server: ChatServer, workers: int, items: Sequence[Any], work: Callable[[Any], Awaitable[None]]
) -> None:
    """`workers` at a time take one item after the other.

    After a failure nothing new is begun; what is in flight ends first, then the failure is raised.
    """
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            if server.failure is not None:
                return
            try:
                await work(item)
            except StoppedError:
                return
            except Exception as error:
                server.fail(error)

    async with server:
        await asyncio.gather(*(worker() for _ in range(min(workers, len(items)))))
    if server.failure is not None:
        raise server.failure
