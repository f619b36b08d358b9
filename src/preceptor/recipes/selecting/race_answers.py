"""The answers and measurements of a race, round by round: only what was asked exists.

Instructions are numbered in the race's order. Every teacher has answered the first so many of
them: all rounds until it was dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from preceptor.core.types import Reply
from preceptor.data.answer_table import Answers
from preceptor.data.paired import Paired, pair
from preceptor.recipes.inputs.respondents import decoding_of, requests_of
from preceptor.recipes.selecting.preparing import Prepared, live_answers
from preceptor.selection.racing import race_order

Span = tuple[str, int, int]  # a teacher, and its answers to the instructions low .. high - 1


class RaceAnswers:
    """Answers in the race's order: recorded ones from their table, live ones once asked for.

    Attributes:
        teachers: everybody, by name.
        n: instructions that could be asked.
        n_dropped: instructions that some recorded teacher did not answer.
        warnings: about those.
    """

    def __init__(self, prepared: Prepared) -> None:
        self._prepared, settings = prepared, prepared.settings
        stand_in = [Reply("-", "stop", 0)] * len(prepared.questions)
        parts = [prepared.recorded] if len(prepared.recorded) else []
        parts += [live_answers(name, prepared.questions, stand_in) for name in prepared.teachers]
        paired = pair(Answers.join(parts), settings.min_paired_share, settings.max_instructions)
        self.teachers, self.n, self.n_dropped = paired.teachers, paired.shape[1], paired.n_dropped
        self.warnings = paired.warnings[:1] if paired.n_dropped else ()
        self._order = race_order(self.n, settings.seed)
        self._ids = [paired.instruction_ids[place] for place in self._order.tolist()]
        self._recorded = paired.answers
        known = {question[0]: question for question in prepared.questions}
        self._questions = [known[key] for key in self._ids] if prepared.teachers else []
        self._live = {name: Answers.of([]) for name in prepared.teachers}

    def ask(self, name: str, high: int) -> None:
        """Ask a live teacher what it was not asked yet of the first `high` instructions."""
        if name not in self._live or high <= len(self._live[name]):
            return
        teacher, source = self._prepared.teachers[name]
        questions = self._questions[len(self._live[name]) : high]
        texts = [text for _, text, _ in questions]
        requests = requests_of(texts, decoding_of(teacher), self._prepared.settings.seed)
        replies = self._prepared.asker(name, source, requests)
        new = live_answers(name, questions, replies)
        self._live[name] = Answers.join([self._live[name], new]) if self._live[name] else new

    def of(self, teachers: Sequence[str], low: int, high: int) -> Paired:
        """The answers of these teachers, who were all asked, to some of the instructions."""
        answers = self.join([(name, low, high) for name in teachers])
        return Paired(tuple(teachers), tuple(self._ids[low:high]), answers, self.n_dropped)

    def join(self, spans: Sequence[Span]) -> Answers:
        """The answers of these teachers, one teacher after the other; texts are not copied."""
        rows, parts, starts = [], [], {}
        taken = 0
        for name, low, high in spans:
            if name not in self._live:
                first = self.teachers.index(name) * self.n
                rows.append(first + self._order[low:high])
                starts[name], taken = taken, taken + high - low
        if rows:  # one view of them all: joining copies a number for each row of a whole table
            parts.append(self._recorded.pick(np.concatenate(rows)))
        for name, low, high in spans:
            if name in self._live:
                parts.append(self._live[name][low:high])
                starts[name], taken = taken, taken + high - low
        places = [np.arange(starts[name], starts[name] + high - low) for name, low, high in spans]
        return Answers.join(parts).pick(np.concatenate(places))


@dataclass(frozen=True, eq=False)
class Measured:
    """What a round gave: rows of `signals.parquet`, teacher by teacher.

    Attributes:
        teachers: who was asked.
        kept: of the round's instructions, those that every one of them has a score for.
        table: a row a teacher and kept instruction; None where none was kept.
    """

    teachers: tuple[str, ...]
    kept: np.ndarray
    table: pa.Table | None


@dataclass
class Measurements:
    """The rounds of a race, put together for any of its teachers."""

    rounds: list[Measured] = field(default_factory=list)

    def table(self, teachers: Sequence[str]) -> pa.Table:
        """All rows of these teachers, one teacher after the other, rounds in order."""
        pieces = []
        for name in teachers:
            for one in self.rounds:
                if one.table is not None and name in one.teachers:
                    width = int(one.kept.sum())
                    pieces.append(one.table.slice(one.teachers.index(name) * width, width))
        return pa.concat_tables(pieces).combine_chunks()

    def kept(self) -> np.ndarray:
        """Of all instructions so far, those that are compared."""
        return np.concatenate([one.kept for one in self.rounds])

    def tokens(self, name: str) -> tuple[int, int]:
        """(response tokens, answers) of a teacher that were measured."""
        own = [one for one in self.rounds if one.table is not None and name in one.teachers]
        total = 0
        for one in own:
            assert one.table is not None
            width = int(one.kept.sum())
            counts = one.table["n_tokens"].slice(one.teachers.index(name) * width, width)
            total += int(counts.to_numpy().sum())
        return total, sum(int(one.kept.sum()) for one in own)
