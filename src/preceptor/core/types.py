"""What passes between rooms: answers, requests, replies, and the contracts of their sources."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from preceptor.core.fleet import Fleet, run_here

ALIKE, ENOUGH = 0.95, 0.25  # rows of a batch: shortest to longest, and least share of the budget


@dataclass(frozen=True)
class Answer:
    """One answer. `row` holds the other columns it came with (rewards, task, reference ...)."""

    instruction_id: str
    instruction: str
    teacher: str
    response: str
    finish_reason: str = "recorded"  # stop | length | recorded
    n_generated: int | None = None
    row: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Decoding:
    """How a teacher decodes; temperature 0 is greedy."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 512

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


@dataclass(frozen=True)
class Request:
    """One thing to ask a teacher.

    Attributes:
        messages: the conversation, as (role, content) pairs; the last one is the user's.
        decoding: how to answer it.
        sample: number of the sample; greedy answers have none but 0.
        run_seed: the run's seed; greedy answers do not depend on it.
        labels: single-token words whose log-probabilities as the first token of the answer are
            wanted beside it ("A", "B"); usually none.
    """

    messages: tuple[tuple[str, str], ...]
    decoding: Decoding = Decoding()
    sample: int = 0
    run_seed: int = 0
    labels: tuple[str, ...] = ()

    @property
    def seed(self) -> int:
        """Seed of this answer alone: 0 <= seed < 2**31, the same whatever else is asked."""
        return int.from_bytes(self._digest("seed", {}, 4), "big") >> 1

    def key(self, identity: Mapping[str, str]) -> str:
        """What the answer store files the answer under: 32 hex digits."""
        return self._digest("key", identity, 16).hex()

    def instruction_hash(self) -> str:
        """Of the conversation alone: 16 hex digits."""
        return hashlib.blake2b(json.dumps(self.messages).encode(), digest_size=8).hexdigest()

    def _digest(self, use: str, identity: Mapping[str, str], size: int) -> bytes:
        decoding, drawn = asdict(self.decoding), [int(self.sample), int(self.run_seed)]
        for name in ("temperature", "top_p"):
            decoding[name] = float(decoding[name])  # 1 is 1.0
        if self.decoding.greedy:
            decoding |= {"temperature": 0.0, "top_p": 1.0}
            drawn = [0, 0]
        content = [use, sorted(identity.items()), self.messages, decoding, drawn, self.labels]
        return hashlib.blake2b(json.dumps(content).encode(), digest_size=size).digest()


def user_turn(text: str) -> tuple[tuple[str, str], ...]:
    """The conversation that holds one message of the user."""
    return (("user", text),)


@dataclass(frozen=True)
class Reply:
    """An answer as it was generated.

    Attributes:
        finish_reason: `stop` or `length`.
        n_generated: tokens, the end token included.
        n_prompt: tokens of the prompt; None where the source does not say.
        logprob: sum of the log-probabilities of the generated tokens, in nats; None where the
            source does not say.
        label_logprobs: one per label of the request, in nats; None where the source does not
            list the label among the likeliest tokens.
    """

    response: str
    finish_reason: str
    n_generated: int
    n_prompt: int | None = None
    logprob: float | None = None
    label_logprobs: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class TeacherSource:
    """A teacher, ready to be asked. Opening one reads config and tokenizer, no weights.

    Attributes:
        identity: what an answer depends on beside the request (model, revision, fingerprint of
            local weights); part of the key it is stored under.
        groups: which requests are answered together (positions); fixed by the requests alone, so
            that a resumed run asks the same groups.
        ask: yields (number of the group, its replies in order) as groups finish, in any order,
            each group once. Weights are loaded, and connections made, at the first `next`; closing
            the iterator lets go of them.
        price: money for (prompt tokens, generated tokens); 0 for teachers that run here.
        facts: counts for the provenance, filled while asking ("retries", say).
    """

    identity: Mapping[str, str]
    groups: Callable[[Sequence[Request]], list[list[int]]]
    ask: Callable[[Sequence[Sequence[Request]]], Iterator[tuple[int, list[Reply]]]]
    price: Callable[[int, int], float] = lambda n_prompt, n_generated: 0.0
    facts: dict[str, float] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """The identity as one line, for the provenance."""
        return json.dumps(dict(sorted(self.identity.items())))


class AskAll(Protocol):
    """Asks a source what the run's answer store does not hold; replies in the requests' order."""

    def __call__(
        self, name: str, source: TeacherSource, requests: Sequence[Request]
    ) -> list[Reply]: ...


Score = Callable[[Sequence[Answer]], Sequence[float]]
"""Answers of one group -> one number each; higher is better."""


@dataclass(frozen=True)
class RewardSource:
    """A reward, ready to score.

    Attributes:
        batches: how the answers are grouped (positions in the list); fixed by the answers alone,
            so that a resumed run scores the same groups.
        open: loads what is needed and gives the function that scores a group.
        fingerprint: of the model behind it, if there is one.
        low, high: the range that the reward declares; the sign guard reads it.
        spread: worth running on a fleet; `open` can be pickled then.
        may_miss: NaN is allowed, and means that there is no score (a judge's reply that cannot
            be read).
        facts: counts for the provenance, filled while scoring.
    """

    batches: Callable[[Sequence[Answer]], list[list[int]]]
    open: Callable[[], Score]
    fingerprint: str = ""
    low: float = -math.inf
    high: float = math.inf
    spread: bool = False
    may_miss: bool = False
    facts: dict[str, float] = field(default_factory=dict)


def _ask_nobody(name: str, source: TeacherSource, requests: Sequence[Request]) -> list[Reply]:
    raise RuntimeError(f"{name}: this runtime has no answer store")


@dataclass(frozen=True)
class Runtime:
    """Where models run: `device` and `dtype` as in the settings ("auto" allowed).

    Attributes:
        fleet: the workers that load models.
        ask: how rewards that question a judge ask it.
        seed: the run's, for judges that sample.
    """

    device: str = "auto"
    dtype: str = "auto"
    batch_tokens: int | None = None
    trust_remote_code: bool = False
    fleet: Fleet = run_here
    ask: AskAll = _ask_nobody
    seed: int = 0


def even_batches(n: int, size: int) -> list[list[int]]:
    """0 .. n-1 in consecutive groups of `size`."""
    return [list(range(low, min(low + size, n))) for low in range(0, n, size)]


def length_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Positions grouped by about equal length, so that rows x longest <= budget (or one row).

    A batch ends sooner where rows fall below `ALIKE` of its longest, for padding is work too; but
    not under a share `ENOUGH` of the budget.
    """
    order = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    batches: list[list[int]] = []
    start = 0
    while start < len(order):
        longest = max(lengths[order[start]], 1)
        rows = order[start : start + max(1, budget // longest)]
        alike = sum(lengths[row] >= ALIKE * longest for row in rows)
        batches.append(rows[: max(alike, math.ceil(ENOUGH * budget / longest))])
        start += len(batches[-1])
    return batches
