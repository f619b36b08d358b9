"""What passes between rooms: answers, replies, and the contracts of teachers and rewards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


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

    temperature: float
    top_p: float
    max_new_tokens: int


@dataclass(frozen=True)
class Reply:
    """An answer as it was generated: `finish_reason` is `stop` or `length`."""

    response: str
    finish_reason: str
    n_generated: int


Ask = Callable[[Sequence[str], int], list[Reply]]
"""A teacher: (instructions of one batch, seed) -> their replies."""


@dataclass(frozen=True)
class RewardSource:
    """A reward, ready to score.

    Attributes:
        batches: how the answers are grouped (positions in the list); fixed by the answers alone,
            so that a resumed run scores the same groups.
        score: one group of answers -> one finite number each; higher is better.
        fingerprint: of the model behind it, if there is one.
    """

    batches: Callable[[Sequence[Answer]], list[list[int]]]
    score: Callable[[Sequence[Answer]], Sequence[float]]
    fingerprint: str = ""


@dataclass(frozen=True)
class Runtime:
    """Where models run: `device` and `dtype` as in the settings ("auto" allowed)."""

    device: str = "auto"
    dtype: str = "auto"
    batch_tokens: int | None = None
    trust_remote_code: bool = False


def even_batches(n: int, size: int) -> list[list[int]]:
    """0 .. n-1 in consecutive groups of `size`."""
    return [list(range(low, min(low + size, n))) for low in range(0, n, size)]


def length_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Positions grouped by about equal length, so that rows x longest <= budget (or one row)."""
    order = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    batches: list[list[int]] = []
    start = 0
    while start < len(order):
        size = max(1, budget // max(lengths[order[start]], 1))
        batches.append(order[start : start + size])
        start += size
    return batches
