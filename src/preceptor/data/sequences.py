"""Rendered answers by the million: token ids in flat buffers, and sequences made when needed."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import numpy as np

from preceptor.data.answer_table import Answers
from preceptor.data.rendering import Rendered, Renderer

BLOCK = 4096  # answers rendered together
T = TypeVar("T")


class Lazy(Sequence[T]):
    """A sequence of n things, each made by `get(place)` when it is asked for."""

    def __init__(self, get: Callable[[int], T], n: int) -> None:
        self._get, self._n = get, n

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> list[T]: ...
    def __getitem__(self, place: int | slice) -> T | list[T]:
        if isinstance(place, slice):
            return [self._get(each) for each in range(self._n)[place]]
        return self._get(range(self._n)[place])


@dataclass(frozen=True, eq=False)
class Tokens:
    """Answers as one model reads them.

    Attributes:
        sequences: one an answer, made when it is asked for; empty where ids were not kept.
        n_response: int32, response tokens of each answer, the end token included.
        truncated: whether the model's limit cut something off.
        largest: the largest token id.
        tokenizer: whose ids these are.
    """

    sequences: Sequence[Rendered]
    n_response: np.ndarray
    truncated: np.ndarray
    largest: int
    tokenizer: Any


def tokenize(renderer: Renderer, answers: Answers, keep_ids: bool = True) -> Tokens:
    """Render answers block by block; four bytes a token stay (with `keep_ids`).

    Answers to one instruction are rendered together, so that its prompt is made once.
    """
    blocks: list[tuple[np.ndarray, np.ndarray]] = []
    n_response = np.empty(len(answers), dtype=np.int32)
    truncated = np.empty(len(answers), dtype=bool)
    largest = -1
    order = np.argsort(answers.coded("instruction").codes, kind="stable")
    for low in range(0, len(answers), BLOCK):
        own = order[low : low + BLOCK]
        part = list(answers.pick(own))
        rows = renderer.render([a.instruction for a in part], [a.response for a in part])
        ids = np.concatenate([np.frombuffer(row.ids, dtype=np.int32) for row in rows])
        largest = max(largest, int(ids.max()))
        n_response[own] = [row.n_response for row in rows]
        truncated[own] = [row.truncated for row in rows]
        if keep_ids:
            blocks.append((ids, np.cumsum([0, *(len(row.ids) for row in rows)])))
    slots = np.empty_like(order)
    slots[order] = np.arange(len(order))

    def sequence(place: int) -> Rendered:
        block, inside = divmod(int(slots[place]), BLOCK)
        ids, starts = blocks[block]
        low, high = starts[inside : inside + 2].tolist()
        own: Any = array("i")
        own.frombytes(ids[low:high].tobytes())
        return Rendered(own, int(n_response[place]), bool(truncated[place]))

    kept = Lazy(sequence, len(answers) * keep_ids)
    return Tokens(kept, n_response, truncated, largest, renderer.tokenizer)
