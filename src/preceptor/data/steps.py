"""Where the steps of a response begin, in tokens; and each step in its local window."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from preceptor.data.rendering import Rendered, Renderer
from preceptor.data.sequences import Lazy


class Steps:
    """Cuts responses into steps at a separator.

    A step ends with the token that completes a separator; white space and further separators that
    follow belong to it, up to the first token that holds something else (`"\\n  - item"` begins at
    `" -"`). White space before everything belongs to the first step. A token that holds the end of
    a separator and text of the next step counts as the end; a single token at the end of it all
    (the end token) is no step of its own.

    Args:
        tokenizer: turns one token id into its text.
        separator: between steps ("\\n").
    """

    def __init__(self, tokenizer: Any, separator: str) -> None:
        self._tokenizer = tokenizer
        self._pieces: dict[int, str] = {}
        own = re.escape(separator)
        self._breaks = re.compile(rf"(?:{own}\s*)*{own}")

    def starts(self, ids: Sequence[int]) -> list[int]:
        """Where in `ids` each step begins; the first one at 0."""
        pieces = [self._piece(token) for token in ids]
        ends, text = np.cumsum([len(piece) for piece in pieces]), "".join(pieces)
        found = [0]
        for match in self._breaks.finditer(text):
            if found == [0] and not text[: match.start()].strip():
                continue
            # the first token that begins where the break has ended, and is not white space
            start = int(np.searchsorted(ends, match.end(), side="left")) + 1
            while start < len(pieces) and not pieces[start].strip():
                start += 1
            if found[-1] < start < len(pieces) - 1:
                found.append(start)
        return found

    def _piece(self, token: int) -> str:
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = str(self._tokenizer.decode([token]))
        return piece


class Windows:
    """The steps of many answers, each as a sequence of its own (`Renderer.windows`).

    Args:
        sequences: the answers, rendered.
        separator: between steps.
        share: of an answer's steps, how many a window holds.

    Attributes:
        sequences: one a step, made when it is asked for.
    """

    def __init__(
        self, renderer: Renderer, sequences: Sequence[Rendered], separator: str, share: float
    ) -> None:
        steps = Steps(renderer.tokenizer, separator)

        @lru_cache(maxsize=4096)
        def windows(answer: int) -> list[Rendered]:
            sequence = sequences[answer]
            return renderer.windows(sequence, steps.starts(sequence.response_ids), share)

        self._n_steps = np.array(
            [len(steps.starts(sequence.response_ids)) for sequence in sequences], dtype=np.int64
        )
        self._first = np.cumsum(self._n_steps) - self._n_steps
        owner = np.repeat(np.arange(len(sequences)), self._n_steps)
        self.sequences = Lazy(
            lambda place: windows(int(owner[place]))[place - int(self._first[owner[place]])],
            len(owner),
        )

    def mean_over_steps(self, values: np.ndarray) -> np.ndarray:
        """One number an answer from one a step."""
        return np.add.reduceat(values, self._first) / self._n_steps
