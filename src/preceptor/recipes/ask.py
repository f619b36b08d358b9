"""`preceptor ask`: ask teachers over a grid of decodings, score the answers, keep every sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from preceptor.core import artifacts
from preceptor.core.errors import DataError, nearest
from preceptor.core.progress import say
from preceptor.core.run import Run, open_run
from preceptor.core.types import Answer, Decoding, RewardSource, Runtime, TeacherSource
from preceptor.data.answers import read_instructions, read_recorded
from preceptor.data.asking import Asker
from preceptor.recipes.asking.samples import Samples, answers_table, samples_table, summary
from preceptor.recipes.inputs.reading import Question, read_table, refuse_both
from preceptor.recipes.inputs.respondents import (
    open_reward,
    open_runtime,
    open_teacher,
    requests_of,
)
from preceptor.recipes.settings.asking import Ask
from preceptor.recipes.settings.shared import Teacher, teacher_name
from preceptor.reporting.pages.ask import report as ask_report
from preceptor.selection.rewarding import VALUES_SCHEMA, score_answers


@dataclass(frozen=True)
class Prepared:
    """Everything that can be read and checked before a weight is loaded."""

    settings: Ask
    runtime: Runtime
    recorded: list[Answer]
    questions: list[Question]
    teachers: dict[str, tuple[Teacher, TeacherSource]]
    rewards: dict[str, RewardSource]
    asker: Asker
    identity: dict[str, Any]


def ask(settings: Ask, out: Path, command: str = "preceptor ask") -> dict[str, Any]:
    """Ask, score, and write the run folder: `samples.parquet`, `ask.json` and a report.

    `answers.parquet` is written too where no teacher has two answers to one instruction: `select`
    reads it, each reward as the column of its name.

    Args:
        settings: of the run.
        out: the run folder; a folder that the same settings began is finished.
        command: what to type to make the run again, for the provenance.

    Returns:
        The content of `ask.json`.

    Raises:
        PreceptorError: bad settings, data, model or folder; before any weight is loaded, save
            for faults that only asking and scoring can show.
    """
    prepared = prepare(settings, out)
    with open_run(out, prepared.identity, command) as run:
        if run.finished:
            say(f"{out} holds the finished run of these settings")
            ask_report.write(out)
            return artifacts.read_json(run.path(artifacts.ASK))
        samples = _gather(prepared)
        rewards = _score(prepared, run, samples)
        table = samples_table(samples, rewards)
        artifacts.write_table(run.path(artifacts.SAMPLES), table)
        single = answers_table(table, list(rewards))
        if single is not None:
            artifacts.write_table(run.path(artifacts.ANSWERS), single)
        found = summary(settings, samples, rewards, single is not None)
        artifacts.write_json(run.path(artifacts.ASK), found)
        run.facts["asked"] = prepared.asker.facts
        run.facts["answers"] = len(samples.answers)
        run.finish()
        ask_report.write(out)
    return found


def prepare(settings: Ask, out: Path) -> Prepared:
    """Read and check all that is not a weight; `out` is the run folder, not touched yet."""
    inputs: dict[str, str] = {}
    recorded, questions = _read(settings, inputs)
    runtime, asker = open_runtime(settings, out)
    live = [teacher_name(teacher) for teacher in settings.teachers]
    named = sorted({answer.teacher for answer in recorded})
    refuse_both(live, named)
    if settings.route_by is not None:
        _refuse_unrouted(settings.route_by, questions, [*live, *named])
        recorded = _as_routed(settings.route_by, recorded, questions)
    rewards = {
        reward.name: open_reward(reward, runtime, [*live, *named]) for reward in settings.rewards
    }
    for reward in settings.rewards:
        if reward.kind == "column":  # costs nothing, so a fault shows before anybody is asked
            asked = [
                Answer(key, text, name, "", row=row)
                for name in live
                for key, text, row in questions_of(settings, questions, name)
            ]
            score_answers(reward.name, rewards[reward.name], recorded + asked, None)
    teachers = {
        name: (teacher, open_teacher(teacher, runtime))
        for name, teacher in zip(live, settings.teachers, strict=True)
    }
    models = {f"teacher {name}": source.fingerprint for name, (_, source) in teachers.items()}
    models |= {f"reward {name}": r.fingerprint for name, r in rewards.items() if r.fingerprint}
    identity = {"settings": settings.model_dump(mode="json"), "inputs": inputs, "models": models}
    return Prepared(settings, runtime, recorded, questions, teachers, rewards, asker, identity)


def _read(settings: Ask, inputs: dict[str, str]) -> tuple[list[Answer], list[Question]]:
    """Recorded answers, and what live teachers are asked; hashes of both go to `inputs`."""
    recorded: list[Answer] = []
    for source in settings.answers:
        table = read_table(source, inputs)
        recorded += read_recorded(table, source.columns.model_dump(), source.path)
    limit = settings.max_instructions
    if settings.instructions is None:
        kept = set(list(dict.fromkeys(answer.instruction_id for answer in recorded))[:limit])
        return [answer for answer in recorded if answer.instruction_id in kept], []
    source = settings.instructions
    table = read_table(source, inputs, limit)
    questions = read_instructions(table, source.columns.model_dump(), source.path, limit)
    return _of_the_questions(recorded, questions), questions


def _of_the_questions(recorded: list[Answer], questions: list[Question]) -> list[Answer]:
    """The recorded answers to these instructions, each with the columns of its instruction."""
    rows = {key: row for key, _, row in questions}
    kept = [
        replace(answer, row={**rows[answer.instruction_id], **answer.row})
        for answer in recorded
        if answer.instruction_id in rows
    ]
    if recorded and not kept:
        raise DataError(
            "no recorded answer belongs to the instructions",
            where="answers, instructions",
            found=f"recorded id {recorded[0].instruction_id!r}, asked {questions[0][0]!r}",
            next_step="give both tables the same instruction_id column, or none (texts then match)",
        )
    if len(kept) < len(recorded):
        say(
            f"warning: {len(recorded) - len(kept):,} of {len(recorded):,} recorded answers are to "
            "other instructions, and are left aside"
        )
    return kept


def questions_of(settings: Ask, questions: list[Question], name: str) -> list[Question]:
    """What a teacher is asked: everything, or what the column `route_by` gives to it."""
    column = settings.route_by
    return questions if column is None else [q for q in questions if str(q[2][column]) == name]


def _refuse_unrouted(column: str, questions: list[Question], known: Collection[str]) -> None:
    """Every instruction names one of the teachers (raises DataError)."""
    columns = list(questions[0][2])
    if column not in columns:
        raise DataError(
            f"the instructions have no column {column!r}",
            where="route_by",
            found=nearest(column, columns),
            next_step="name the column that says who answers, as `preceptor route` writes it",
        )
    values = [row[column] for _, _, row in questions]
    count = Counter(None if value is None else str(value) for value in values)
    if None in count:
        raise DataError(
            "instructions name nobody who answers them",
            where=f"route_by: column {column!r}",
            found=f"{count[None]:,} of {len(questions):,} are empty",
            next_step="fill the column, or drop these rows",
        )
    for value, n in count.items():
        if value is not None and value not in known:
            raise DataError(
                "instructions name a teacher that is not there",
                where=f"route_by: column {column!r}",
                found=f"{value!r} in {n:,} rows; {nearest(value, known)}",
                next_step="add it to `teachers`, or route without it",
            )


def _as_routed(column: str, recorded: list[Answer], questions: list[Question]) -> list[Answer]:
    """The recorded answers of those whom their instructions name."""
    named = {key: str(row[column]) for key, _, row in questions}
    kept = [answer for answer in recorded if named[answer.instruction_id] == answer.teacher]
    if len(kept) < len(recorded):
        say(
            f"warning: {len(recorded) - len(kept):,} of {len(recorded):,} recorded answers are not "
            f"by whom the column {column!r} names, and are left aside"
        )
    return kept


def points_of(settings: Ask, teacher: Teacher) -> list[Decoding]:
    """The decodings a teacher is asked at, each once; greedy ones have no top-p."""
    grid = settings.decodings
    points = [
        Decoding(temperature, 1.0 if temperature == 0 else top_p, teacher.max_new_tokens)
        for temperature in grid.temperature or (teacher.temperature,)
        for top_p in grid.top_p or (teacher.top_p,)
    ]
    return list(dict.fromkeys(points))


def _gather(prepared: Prepared) -> Samples:
    """Live answers, teacher by teacher and point by point, then recorded ones as they come."""
    settings, samples = prepared.settings, Samples()
    for name, (teacher, source) in prepared.teachers.items():
        questions = questions_of(settings, prepared.questions, name)
        if not questions:
            say(f"{name} is not asked: no instruction names it")
            continue
        texts = [text for _, text, _ in questions]
        requests = [
            request
            for point in points_of(settings, teacher)
            for request in requests_of(texts, point, settings.seed, settings.decodings.samples)
        ]
        replies = prepared.asker(name, source, requests)
        places = iter(range(len(requests)))
        for point in points_of(settings, teacher):
            drawn = 1 if point.greedy else settings.decodings.samples
            for key, text, row in questions:
                for number in range(drawn):
                    reply = replies[next(places)]
                    length = reply.n_generated
                    samples.add(
                        Answer(key, text, name, reply.response, reply.finish_reason, length, row),
                        number,
                        source.price(reply.n_prompt or 0, length),
                        n_prompt=reply.n_prompt,
                        n_generated=length,
                        **asdict(point),
                    )
    samples.add_recorded(prepared.recorded)
    return samples


def _score(prepared: Prepared, run: Run, samples: Samples) -> dict[str, np.ndarray]:
    """Every reward of every answer, as the reward itself gave it; NaN where it may miss."""
    values = {}
    for number, reward in enumerate(prepared.settings.rewards):
        source = prepared.rewards[reward.name]
        with run.stage(f"reward-{number:03d}", VALUES_SCHEMA) as stage:
            values[reward.name] = score_answers(
                reward.name, source, samples.answers, stage, prepared.runtime.fleet
            )
            run.note_seconds(f"scoring {reward.name}", stage)
            if source.facts:
                run.facts.setdefault("rewards", {})[reward.name] = source.facts
    return values
