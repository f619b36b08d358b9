"""Pairing: the instructions that every teacher answered, teacher by teacher.

Shapes: M teachers, N instructions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from preceptor.core.errors import DataError
from preceptor.data.answer_table import Answers
from preceptor.data.answers import refuse_repeated


@dataclass(frozen=True)
class Paired:
    """Answers of M teachers to the same N instructions, teacher by teacher (item = m * N + n)."""

    teachers: tuple[str, ...]
    instruction_ids: tuple[str, ...]
    answers: Answers
    n_dropped: int = 0  # instructions that some teacher did not answer
    warnings: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.teachers), len(self.instruction_ids)

    def keep(self, kept_N: np.ndarray, warnings: Sequence[str] = ()) -> Paired:
        """The same table with some of its instructions only, and further warnings."""
        items = np.flatnonzero(np.tile(kept_N, len(self.teachers)))
        ids = [key for key, kept in zip(self.instruction_ids, kept_N, strict=True) if kept]
        return replace(
            self,
            instruction_ids=tuple(ids),
            answers=self.answers.pick(items),
            warnings=(*self.warnings, *warnings),
        )


def pair(answers: Answers, min_share: float, limit: int | None = None) -> Paired:
    """Keep the instructions that every teacher answered, in order of appearance.

    Args:
        answers: of all teachers, in any order.
        min_share: refuse when a smaller share of the instructions remains.
        limit: keep at most so many instructions.

    Raises:
        DataError: an answer stands twice, one id has two texts, or too few instructions pair.
    """
    keys, text = answers.coded("instruction_id"), answers.coded("instruction")
    first_row = _first_rows(keys.codes, len(keys.values))
    _refuse_two_texts(answers, text.codes != text.codes[first_row[keys.codes]])
    teachers = answers.teachers()
    by_name = answers.coded("teacher")
    places = {name: place for place, name in enumerate(by_name.values.to_pylist())}
    rank = np.full(len(places), -1, dtype=np.int64)
    rank[[places[name] for name in teachers]] = np.arange(len(teachers))
    # one number for a teacher and an instruction, and where it stands
    cell = rank[by_name.codes] * len(keys.values) + keys.codes
    order = np.argsort(cell, kind="stable")
    _refuse_repeats(answers, order, cell[order])
    counts = np.bincount(keys.codes, minlength=len(keys.values))
    known = np.flatnonzero(counts)
    known = known[np.argsort(first_row[known])]  # in order of appearance
    complete = known[counts[known] == len(teachers)]
    dropped = len(known) - len(complete)
    own = np.bincount(rank[by_name.codes], minlength=len(teachers))
    scarcest = f"{teachers[own.argmin()]} has the fewest, {own.min()}" if len(own) else "no answers"
    if len(complete) < 2 or len(complete) < min_share * len(known):
        raise DataError(
            "too few instructions were answered by all teachers",
            where=f"{len(teachers)} teachers, {len(known)} instructions",
            found=f"{len(complete)} answered by all; {scarcest}",
            next_step="leave that teacher out, ask again, or lower min_paired_share"
            if len(np.unique(text.codes[first_row[known]])) == len(known)
            else "one text has several ids; to use the text as its id, name the text's column as "
            "`columns: {instruction_id: ...}`",
        )
    warnings = []
    if dropped:
        warnings.append(
            f"{dropped} of {len(known)} instructions were dropped: not all teachers answered them "
            f"({scarcest})"
        )
    kept = complete[:limit]
    wanted = np.arange(len(teachers))[:, None] * len(keys.values) + kept
    paired = answers.pick(order[np.searchsorted(cell, wanted.ravel(), sorter=order)])
    warnings += _empty_warning(paired, teachers)
    names = keys.values.take(pa.array(kept)).to_pylist()
    return Paired(tuple(teachers), tuple(names), paired, dropped, tuple(warnings))


def _first_rows(codes: np.ndarray, n: int) -> np.ndarray:
    """The first row of each code; codes without a row give 0."""
    first = np.zeros(n, dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    return first


def _refuse_two_texts(answers: Answers, differs: np.ndarray) -> None:
    if differs.any():
        answer = answers[int(np.argmax(differs))]
        raise DataError(
            "one instruction id has two texts",
            where=f"instruction_id {answer.instruction_id}, teacher {answer.teacher}",
            next_step="give every instruction an id of its own",
        )


def _refuse_repeats(answers: Answers, order: np.ndarray, cells: np.ndarray) -> None:
    """`cells` is sorted; `order` holds the row of each."""
    again = np.diff(cells) == 0
    if again.any():
        repeated = np.unique(cells[1:][again])
        first = answers[int(order[np.searchsorted(cells, repeated)].min())]
        refuse_repeated(
            len(repeated), (first.teacher, first.instruction_id), "teacher and instruction"
        )


def _empty_warning(paired: Answers, teachers: Sequence[str]) -> list[str]:
    by_teacher = paired.blank().reshape(len(teachers), -1).sum(axis=1).tolist()
    empty = Counter({name: n for name, n in zip(teachers, by_teacher, strict=True) if n})
    if not empty:
        return []
    worst = ", ".join(f"{teacher} {count}" for teacher, count in empty.most_common(3))
    return [f"{empty.total()} empty responses are scored as their end token alone (most: {worst})"]
