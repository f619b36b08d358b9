"""What a student reads: recorded answers, or answers that are asked for when the run starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from preceptor.core.errors import DataError, SettingsError, nearest
from preceptor.core.run import Run, hash_input
from preceptor.core.types import Answer, TeacherSource
from preceptor.data.answers import read_instructions, read_recorded
from preceptor.data.asking import Asker
from preceptor.data.sources import read_source
from preceptor.recipes.inputs.reading import Question
from preceptor.recipes.inputs.respondents import decoding_of, requests_of
from preceptor.recipes.settings.shared import Source, Teacher, teacher_name
from preceptor.recipes.settings.training import Data


@dataclass(frozen=True)
class Lessons:
    """Recorded answers, or questions that are still to be asked."""

    answers: list[Answer]
    questions: list[Question]


def read_lessons(data: Data, inputs: dict[str, str]) -> Lessons:
    """Read and filter the rows; hashes of what was read go to `inputs` (raises DataError)."""
    if data.answers is not None:
        source = data.answers
        table = _filtered(_table(source, inputs, data.max_rows), data.where, source.path)
        answers = list(read_recorded(table, source.columns.model_dump(), source.path))
        if data.teacher:
            answers = _of(answers, data.teacher, source.path)
        return Lessons(answers, [])
    assert data.instructions is not None
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingsError(
            "answers cannot be asked for by several processes at once",
            where="data: instructions",
            next_step="ask with one process first (`preceptor select`), then set `data: answers`",
        )
    source = data.instructions
    table = _filtered(_table(source, inputs, data.max_rows), data.where, source.path)
    return Lessons([], read_instructions(table, source.columns.model_dump(), source.path, None))


def _table(source: Source, inputs: dict[str, str], rows: int | None) -> pa.Table:
    table = read_source(source.path, source.split, rows).slice(0, rows)
    inputs[source.path] = hash_input(source.path, table)
    return table


def _filtered(table: pa.Table, where: Mapping[str, Any], path: str) -> pa.Table:
    for column, wanted in where.items():
        if column not in table.column_names:
            raise DataError(
                f"the data has no column {column!r}",
                where=path,
                found=nearest(column, table.column_names),
                next_step="correct `where`",
            )
        kept = [str(value) == str(wanted) for value in table[column].to_pylist()]
        table = table.filter(pa.array(kept))
    if table.num_rows == 0:
        raise DataError(
            "no row of the data is left",
            where=path,
            found=f"where {dict(where)}",
            next_step="correct `where`, or read more rows with max_rows",
        )
    return table


def _of(answers: list[Answer], teacher: str, path: str) -> list[Answer]:
    kept = [answer for answer in answers if answer.teacher == teacher]
    if not kept:
        known = sorted({answer.teacher for answer in answers})
        raise DataError(
            f"no answer of {teacher!r}",
            where=path,
            found=nearest(teacher, known),
            next_step="correct `teacher`",
        )
    return kept


def respondent(data: Data) -> dict[str, Teacher]:
    """The one teacher that answers the instructions, by name (raises SettingsError)."""
    if data.ask is not None:
        return {teacher_name(data.ask): data.ask}
    if data.instructions is not None:
        raise SettingsError(
            "nobody answers the instructions",
            where="data: ask",
            next_step="set `ask` to the teacher that answers them, or give `answers`",
        )
    return {}


def gather(
    lessons: Lessons,
    respondents: Mapping[str, tuple[Teacher, TeacherSource]],
    choose: Callable[[Mapping[str, Any]], str],
    asker: Asker,
    seed: int,
    run: Run,
) -> list[Answer]:
    """Every answer: recorded ones as they are, questions asked of the respondent of their row.

    Args:
        respondents: name -> how it decodes, and the source of its answers.
        choose: row -> name of the respondent.
    """
    if not lessons.questions:
        return lessons.answers
    found: dict[int, Answer] = {}
    chosen = [choose(row) for _, _, row in lessons.questions]
    for name, (teacher, source) in respondents.items():
        places = [place for place, own in enumerate(chosen) if own == name]
        if not places:
            continue
        texts = [lessons.questions[place][1] for place in places]
        replies = asker(name, source, requests_of(texts, decoding_of(teacher), seed))
        for place, reply in zip(places, replies, strict=True):
            key, text, row = lessons.questions[place]
            found[place] = Answer(
                key, text, name, reply.response, reply.finish_reason, reply.n_generated, row
            )
    run.facts["asked"] = asker.facts
    return [found[place] for place in range(len(lessons.questions))]
