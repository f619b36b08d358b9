"""Asking through a batch endpoint: files of requests go up, files of results come down.

Every line has the request's own key as `custom_id`, and a batch carries hashes of its keys: so a
run that was killed finds its batches at the server again, and pays for none twice.

Source: https://platform.openai.com/docs/guides/batch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from preceptor.core.errors import ModelError
from preceptor.core.progress import say
from preceptor.core.types import Reply, Request
from preceptor.data.chat import UnreadableReplyError, read_reply
from preceptor.data.chat_server import ChatServer, share

ENDPOINT = "/v1/chat/completions"
FILE_LINES, FILE_BYTES = 50_000, 100_000_000  # a file at most; servers take 100 MB or more
PARTS = 8  # of a batch's keys, marked one by one
BATCHES_AT_ONCE = 4
POLL_SECONDS = 20.0  # between two looks at a batch
FILE_SECONDS = 900.0  # for a file to go up or down
LOOK_BACK = 1000  # latest batches of the account, among which those of an earlier run are sought
_RUNNING = ("validating", "in_progress", "finalizing", "cancelling")
_WORTHLESS = ("failed", "cancelling", "cancelled")  # not taken up again
_PASSING = (408, 409, 429)  # statuses of a line that another try may mend; so may all from 500

Emit = Callable[[tuple[int, list[Reply]]], None]


def batch_line(key: str, body: Mapping[str, Any]) -> bytes:
    """A request as a line of a file."""
    line = {"custom_id": key, "method": "POST", "url": ENDPOINT, "body": body}
    return json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def in_files(sizes: Iterable[Sequence[int]]) -> list[list[int]]:
    """Numbers of groups, in files of at most FILE_LINES lines and FILE_BYTES bytes.

    Args:
        sizes: per group, the bytes of each of its lines. A group is never divided.
    """
    files: list[list[int]] = []
    lines = total = 0
    for number, group in enumerate(sizes):
        lines, total = lines + len(group), total + sum(group)
        if not files or lines > FILE_LINES or total > FILE_BYTES:
            files.append([])
            lines, total = len(group), sum(group)
        files[-1].append(number)
    return files


def batch_marks(keys: Iterable[str]) -> dict[str, str]:
    """What a batch is known by again, as metadata: a hash of the keys in each of PARTS parts.

    A run that was killed while it kept a batch's replies looks for the rest: the parts of which
    it kept nothing have their marks still.
    """
    parts: dict[int, list[str]] = {}
    for key in keys:
        parts.setdefault(int(key[0], 16) * PARTS // 16, []).append(key)
    return {
        f"preceptor_{part}": hashlib.blake2b(
            "".join(sorted(own)).encode(), digest_size=12
        ).hexdigest()
        for part, own in sorted(parts.items())
    }


def same_batch(marks: Mapping[str, str], metadata: Any) -> bool:
    """Whether a batch with this metadata holds requests with these marks."""
    if not isinstance(metadata, Mapping):
        return False
    return any(metadata.get(name) == mark for name, mark in marks.items())


def read_results(text: str, wanted: Mapping[str, Request]) -> Iterator[tuple[str, int, Any, bool]]:
    """The results in an output or error file that belong to `wanted`.

    Yields:
        (key, status, reply or the server's error, whether tokens were counted). A status of 200
        comes with a `Reply`; 0 is a line that holds no reply for another reason (the batch
        expired, the reply cannot be read). Lines that are no JSON are passed over.
    """
    for line in text.split("\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        key = row.get("custom_id") if isinstance(row, dict) else None
        if not isinstance(key, str) or key not in wanted:
            continue
        response = row.get("response")
        status = response.get("status_code") if isinstance(response, dict) else None
        body = response.get("body") if isinstance(response, dict) else row.get("error")
        if status != 200:
            yield key, status if isinstance(status, int) else 0, body, False
            continue
        try:
            reply, counted = read_reply(body, wanted[key])
        except UnreadableReplyError as error:
            yield key, 0, str(error), False
            continue
        yield key, 200, reply, counted


async def ask_by_batches(
    server: ChatServer, groups: Sequence[Sequence[Request]], emit: Emit
) -> None:
    """Emit (number of the group, its replies) as batches end (raises ModelError)."""
    sizes = (
        [len(batch_line(request.key(server.identity), server.body(request))) for request in group]
        for group in groups
    )

    async def work(numbers: list[int]) -> None:
        await _File(server, {number: groups[number] for number in numbers}, emit).ask()

    await share(server, BATCHES_AT_ONCE, in_files(sizes), work)


class _File:
    """The requests of one file, and the batches that answer them."""

    def __init__(
        self, server: ChatServer, groups: Mapping[int, Sequence[Request]], emit: Emit
    ) -> None:
        self.server, self.emit = server, emit
        self.waiting = {
            number: [request.key(server.identity) for request in group]
            for number, group in groups.items()
        }
        keys = [key for own in self.waiting.values() for key in own]
        requests = [request for group in groups.values() for request in group]
        self.missing = dict(zip(keys, requests, strict=True))
        self.replies: dict[str, Reply] = {}
        self.refused: list[str] = []  # for good, in the server's words
        self.read: set[str] = set()  # batches

    async def ask(self) -> None:
        """Read batches of earlier runs, then send what is missing, `retries` times again."""
        sent = 0
        while self.waiting:
            batch = await self._found_again()
            again = batch is not None
            if batch is None:
                if sent > self.server.setting.retries:
                    raise self._error("a batch left requests unanswered", f"batches sent: {sent}")
                batch = await self._send()
                sent += 1
            batch = await self._ended(batch)
            self.read.add(batch.id)
            try:
                await self._take_results(batch)
            except ModelError:
                if not again:
                    raise
                say(f"{self.server.where}: the results of batch {batch.id} are gone")
            if self.refused:
                raise self._error("the server refuses a request of a batch", self.refused[0])
            if self.waiting and batch.status in _WORTHLESS:
                raise self._error(f"the batch {batch.id} {_ended_how(batch)}", _reason(batch))

    def _error(self, what: str, found: str) -> ModelError:
        return ModelError(
            what,
            where=self.server.where,
            found=self.server.line(found),
            next_step="mend what the server names, and run the same command again: what was "
            "answered is kept, and batches that still run are found again",
        )

    async def _found_again(self) -> Any:
        """A batch of an earlier run, or one that was made without our hearing of it, or None."""
        marks = batch_marks(self.missing)

        async def look() -> Any:
            seen = 0
            async for batch in self.server.client.batches.list(limit=100):
                fit = batch.id not in self.read and batch.status not in _WORTHLESS
                if fit and same_batch(marks, batch.metadata):
                    return batch
                seen += 1
                if seen >= LOOK_BACK:
                    break
            return None

        batch = await self.server.patiently(look, FILE_SECONDS)
        if batch is not None:
            self.server.count("batches_found_again")
            say(f"{self.server.where}: batch {batch.id} was sent before; taking its results")
        return batch

    async def _send(self) -> Any:
        server, requests = self.server, self.missing
        lines = b"".join(batch_line(key, server.body(asked)) for key, asked in requests.items())
        file = await server.patiently(
            lambda: server.client.files.create(file=("preceptor.jsonl", lines), purpose="batch"),
            FILE_SECONDS,
        )
        made: list[bool] = []

        async def make() -> Any:
            if made and (batch := await self._found_again()):  # the answer to the try was lost
                return batch
            made.append(True)
            batch = await server.client.batches.create(
                input_file_id=file.id,
                endpoint=ENDPOINT,
                completion_window="24h",
                metadata=batch_marks(requests),
            )
            server.count("batches")
            say(f"{server.where}: batch {batch.id} with {len(requests):,} requests was sent")
            return batch

        return await server.patiently(make, server.setting.timeout)

    async def _ended(self, batch: Any) -> Any:
        server, number = self.server, batch.id
        while batch.status in _RUNNING:
            await server.sleep(POLL_SECONDS)
            batch = await server.patiently(
                lambda: server.client.batches.retrieve(number), server.setting.timeout
            )
        return batch

    async def _take_results(self, batch: Any) -> None:
        """Keep what was answered, and emit the groups that are complete."""
        for file in (batch.output_file_id, batch.error_file_id):
            if not file:
                continue
            content = await self.server.patiently(
                lambda file=file: self.server.client.files.content(file), FILE_SECONDS
            )
            text = self.server.scrub(content.content.decode("utf-8", "replace"))
            for key, status, result, counted in read_results(text, self.missing):
                if status == 200:
                    self.replies[key] = self.server.take(result, counted)
                    continue
                self.server.count("batch_lines_failed")
                if 400 <= status < 500 and status not in _PASSING:
                    asked = self.missing[key].messages[-1][1][:80]
                    self.refused.append(f"status {status}: {result}; the instruction is {asked!r}")
        self.missing = {k: asked for k, asked in self.missing.items() if k not in self.replies}
        for number, keys in list(self.waiting.items()):
            if all(key in self.replies for key in keys):
                del self.waiting[number]
                self.emit((number, [self.replies[key] for key in keys]))


def _ended_how(batch: Any) -> str:
    return "was cancelled" if batch.status == "cancelled" else batch.status


def _reason(batch: Any) -> str:
    errors = getattr(batch.errors, "data", None) or []
    return "; ".join(str(error.message) for error in errors[:3]) or f"status {batch.status}"
