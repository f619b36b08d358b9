"""`select --pilot`: the finalists try it out, each in a short training that a reward grades.

Each student is an ordinary run of `sft` in `pilot/NUMBER-TEACHER`, so a killed pilot goes on where
it was. All learn from answers to the same instructions, and answer the same others.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from preceptor.core import artifacts
from preceptor.core.fleet import run_here
from preceptor.core.progress import clock, say
from preceptor.core.run import Run
from preceptor.data.paired import Paired
from preceptor.recipes.planning.draft import Rates
from preceptor.recipes.planning.rates import rates_of_run
from preceptor.recipes.planning.scoring import recorded_as_asked, sequences
from preceptor.recipes.planning.training import steps_of
from preceptor.recipes.selecting.preparing import Prepared
from preceptor.recipes.settings.pilot import Pilot, grading_reward
from preceptor.recipes.settings.rewards import Baseline, Reward
from preceptor.recipes.settings.shared import Columns, Source
from preceptor.recipes.settings.training import Quality, Sft
from preceptor.recipes.sft import prepare_sft
from preceptor.recipes.teaching import course
from preceptor.recipes.teaching.grading import Exam, grades_table, quality_table, read_exam, sit
from preceptor.recipes.teaching.student import MODEL

FOLDER = "pilot"
LESSONS, HELD_OUT, RIVALS = "lessons.parquet", "held_out.parquet", "baseline.parquet"
KEY, TEXT = "pilot.instruction_id", "pilot.instruction"  # beside the columns of the instructions
BASE = "base"  # among the students, whose labels start with a number


@dataclass(frozen=True)
class Student:
    """One training of the pilot: of whom it learns, and where.

    Attributes:
        label: of its teacher, fit for a folder.
        folder: of its run, below the run folder.
    """

    teacher: str
    label: str
    seed: int
    folder: str


@dataclass(frozen=True)
class Plan:
    """Who is tried on what: positions of instructions to learn from and of those held out."""

    finalists: tuple[str, ...]
    students: tuple[Student, ...]
    learned: np.ndarray
    held_out: np.ndarray


def run_pilot(
    prepared: Prepared, run: Run, answers: Paired, ranking: Mapping[str, Any], command: str
) -> dict[str, Any]:
    """Train and grade the finalists' students; `pilot` and `pilot_recommended` of `ranking.json`.

    Args:
        answers: those that were ranked.
        ranking: the content of `ranking.json`.
        command: of the selection, for the provenance of the trainings.

    Raises:
        PreceptorError: what a training or a reward refuses; before the first training, save for
            faults that only scoring can show.
    """
    pilot = prepared.settings.pilot
    assert pilot is not None
    plan = make_plan(pilot, answers, ranking, prepared.settings.seed)
    folder = run.folder / FOLDER
    folder.mkdir(exist_ok=True)
    _write_lessons(folder, answers, plan)
    exam = _exam(prepared, folder, answers, plan)
    lessons = str(folder.resolve() / LESSONS)
    trainings = {
        one: prepare_sft(
            sft_settings(prepared, lessons, one.teacher, one.seed), run.folder / one.folder
        )
        for one in plan.students
    }
    left = _show_cost(plan, exam, {one: own for one, (own, *_) in trainings.items()}, run.folder)
    for number, (one, training) in enumerate(trainings.items(), 1):
        shown = f"pilot: student {number} of {len(trainings)} learns from {one.teacher}"
        say(f"{shown} (seed {one.seed})" if pilot.seeds > 1 else shown)
        course.run_courses(*training, run.folder / one.folder, f"{command} (pilot)")
        if left.pop(one, None) is not None and len(left) == len(trainings) - 1:
            _show_time(run.folder / one.folder, left.values())
    graded = {BASE: {exam.seed: sit(exam, run, BASE, prepared.base.reference)}}
    for one in plan.students:
        name = Path(one.folder).name
        reward_N = sit(exam, run, name, str(run.folder / one.folder / MODEL))
        graded.setdefault(one.label, {})[one.seed] = reward_N
    artifacts.write_table(folder / artifacts.GRADES, grades_table(exam, graded))
    return _result(plan, exam, graded, ranking, run.folder)


def make_plan(pilot: Pilot, answers: Paired, ranking: Mapping[str, Any], seed: int) -> Plan:
    """The finalists, their students, and a draw of instructions; of equal texts one is kept."""
    finalists = choose_finalists(ranking, pilot.finalists)
    students = []
    for number, teacher in enumerate(finalists, 1):
        label = f"{number}-{_safe(teacher)}"
        for place in range(pilot.seeds):
            more = f"-seed-{seed + place}" if pilot.seeds > 1 else ""
            students.append(Student(teacher, label, seed + place, f"{FOLDER}/{label}{more}"))
    texts = answers.answers.coded("instruction").codes[: answers.shape[1]]
    _, distinct = np.unique(texts, return_index=True)
    n_learned, n_held = pilot.shares(len(distinct))
    if n_learned + n_held < pilot.instructions + pilot.held_out:
        say(
            f"warning: the pilot has {len(distinct):,} instructions: {n_learned:,} to learn from "
            f"instead of {pilot.instructions:,}, {n_held:,} held out instead of {pilot.held_out:,}"
        )
    drawn = np.random.default_rng([seed, 1]).permutation(np.sort(distinct))
    held, learned = drawn[:n_held], drawn[n_held : n_held + n_learned]
    return Plan(finalists, tuple(students), np.sort(learned), np.sort(held))


def choose_finalists(ranking: Mapping[str, Any], n: int) -> tuple[str, ...]:
    """Up to n teachers: those that some criterion puts first, then the next by the deciding one.

    In the order of the deciding criterion, which also says who is left out of too many.
    """
    deciding = ranking["criteria"][ranking["recommended_by"]]["teachers"]
    order = [row["teacher"] for row in deciding]
    first = {
        row["teacher"]
        for criterion in ranking["criteria"].values()
        for row in criterion["teachers"]
        if row["rank"] == 1
    }
    wanted = sorted(order, key=lambda teacher: teacher not in first)[:n]  # stable: in their order
    return tuple(sorted(wanted, key=order.index))


def _safe(teacher: str) -> str:
    """A part of a file name, whatever the teacher is called."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", teacher)[:40].strip("-.") or "teacher"


def _write_lessons(folder: Path, answers: Paired, plan: Plan) -> None:
    """The finalists' answers to learn from; the same plan gives the same bytes."""
    n = answers.shape[1]
    places = [answers.teachers.index(teacher) * n + plan.learned for teacher in plan.finalists]
    lessons = answers.answers.pick(np.concatenate(places))
    artifacts.write_tables(folder / LESSONS, artifacts.ANSWERS_SCHEMA, lessons.tables())


def sft_settings(prepared: Prepared, lessons: str, teacher: str, seed: int) -> Sft:
    """The settings of a student's run, which could as well stand in a file."""
    settings = prepared.settings
    assert settings.pilot is not None
    return Sft.model_validate(
        {
            "base": settings.base,
            "data": {
                "answers": lessons,
                "teacher": teacher,
                "max_truncated_share": 1.0,  # long-windedness is a teacher's own
            },
            "training": settings.pilot.training.model_dump(),
            "seed": seed,
            "device": settings.device,
            "dtype": "auto" if settings.dtype == "float16" else settings.dtype,
            "trust_remote_code": settings.trust_remote_code,
        }
    )


def _exam(prepared: Prepared, folder: Path, answers: Paired, plan: Plan) -> Exam:
    """What is held out, and the run's first reward that can score new answers, without its map."""
    own = {key: row for key, _, row in prepared.questions}
    rows = []
    for answer in answers.answers.pick(plan.held_out):
        known = dict(own.get(answer.instruction_id, answer.row))
        rows.append(known | {KEY: answer.instruction_id, TEXT: answer.instruction})
    artifacts.write_table(folder / HELD_OUT, rows_table(rows))
    questions = Source(
        path=str(folder.resolve() / HELD_OUT),
        columns=Columns(instruction_id=KEY, instruction=TEXT),
    )
    reward = _reward(grading_reward(prepared.settings.rewards), folder, answers, plan)
    quality = quality_settings(prepared, questions, reward)
    runtime = replace(prepared.runtime, fleet=run_here)
    return read_exam(quality, runtime, prepared.settings.seed, {})


def quality_settings(prepared: Prepared, questions: Source, reward: Reward) -> Quality:
    """How base and students answer, and what grades them."""
    pilot = prepared.settings.pilot
    assert pilot is not None
    return Quality.model_validate(
        {
            "instructions": questions,
            "reward": reward,
            "max_new_tokens": pilot.max_new_tokens,
            "batch_size": pilot.batch_size,
            "confidence": prepared.settings.confidence,
        }
    )


def _reward(reward: Reward, folder: Path, answers: Paired, plan: Plan) -> Reward:
    """The reward as it scores new answers: a baseline of the pool becomes a table."""
    rival = getattr(getattr(reward, "baseline", None), "teacher", "")
    if not rival:
        return reward
    places = answers.teachers.index(rival) * answers.shape[1] + plan.held_out
    table = folder / RIVALS
    rivals = answers.answers.pick(places)
    artifacts.write_tables(table, artifacts.ANSWERS_SCHEMA, rivals.tables())
    baseline = Baseline(table=Source(path=str(table.resolve())))
    return reward.model_copy(update={"baseline": baseline})


def rows_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows with columns of any kind; values that do not go together are written as JSON."""
    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values)
        except pa.ArrowException:
            columns[name] = pa.array(
                [None if value is None else json.dumps(value, default=str) for value in values]
            )
    return pa.table(columns)


def _show_cost(
    plan: Plan, exam: Exam, trainings: Mapping[Student, course.Prepared], out: Path
) -> dict[Student, int]:
    """Say what the pilot takes; tokens of each training that is still to be done."""
    steps, tokens = 0, {}
    for one, own in trainings.items():
        found = sequences(own.pupil.renderer(), [recorded_as_asked(own.lessons.answers)])
        more, tokens[one] = steps_of(own.pupil.training, found)
        steps += more
    n_held, most = len(exam.questions), exam.quality.max_new_tokens
    say(f"pilot: finalists {', '.join(plan.finalists)}")
    say(
        f"pilot: {len(trainings)} trainings on {len(plan.learned):,} answers each, "
        f"{steps:,} steps, {sum(tokens.values()):,} tokens in all"
    )
    say(
        f"pilot: base and students answer {n_held:,} other instructions, at most "
        f"{(1 + len(trainings)) * n_held * most:,} tokens, scored by {exam.quality.reward.name}"
    )
    done = [one for one in trainings if (out / one.folder / MODEL).exists()]
    left = {one: n for one, n in tokens.items() if one not in done}
    for one in done[:1]:
        _show_time(out / one.folder, left.values())
    return left


def _show_time(folder: Path, tokens: Collection[int]) -> None:
    """What is left to train takes so long, at the rate that one training had."""
    if not tokens or not (folder / artifacts.PROVENANCE).exists():
        return
    if artifacts.read_json(folder / artifacts.PROVENANCE)["status"] != "finished":
        return
    rates = Rates()
    rates_of_run(folder, rates)
    rate = rates.find("train")
    if rate is not None:
        seconds = sum(tokens) / rate[0]
        say(f"pilot: at {rate[0]:,.0f} tokens/s the other trainings take about {clock(seconds)}")


def _result(
    plan: Plan,
    exam: Exam,
    graded: Mapping[str, Mapping[int, np.ndarray]],
    ranking: Mapping[str, Any],
    out: Path,
) -> dict[str, Any]:
    label = {one.teacher: one.label for one in plan.students}
    pairs = list(itertools.combinations(plan.finalists, 2))
    against = [(label[one], label[other]) for one, other in pairs]
    against += [(label[teacher], BASE) for teacher in plan.finalists]
    table = quality_table(exam, graded, against)
    (group,) = table["groups"]
    own = {row["model"]: row for row in table["rows"]}
    gaps = [{k: gap[k] for k in ("difference", "low", "high")} for gap in table["differences"]]
    rows = []
    for teacher, over_base in zip(plan.finalists, gaps[len(pairs) :], strict=True):
        mine = [one for one in plan.students if one.teacher == teacher]
        facts = [artifacts.read_json(out / one.folder / artifacts.PROVENANCE) for one in mine]
        rows.append(
            {
                "teacher": teacher,
                **own[label[teacher]][group],
                "seeds": [one.seed for one in mine],
                "over_base": over_base,
                "n_tokens": facts[0]["tokens"],
                "runs": [one.folder for one in mine],
            }
        )
    rows.sort(key=lambda row: -row["score"])
    differences = [
        {"teacher": one, "against": other, **gap, "separable": not gap["low"] <= 0 <= gap["high"]}
        for (one, other), gap in zip(pairs, gaps, strict=False)
    ]
    best, chosen = rows[0]["teacher"], ranking["recommended"]
    return {
        "pilot": {
            "finalists": list(plan.finalists),
            "n_train": len(plan.learned),
            "n_held_out": table["n"][group],
            "reward": exam.quality.reward.name,
            "confidence": table["confidence"],
            "rows": rows,
            "base": own[BASE][group],
            "differences": differences,
            "verdict": verdict(best, chosen, differences),
        },
        "pilot_recommended": best,
    }


def verdict(best: str, chosen: str, differences: Sequence[Mapping[str, Any]]) -> str:
    """What the pilot says of the criterion's choice.

    `confirmed`: its student is the best, and separable from every other. `overturned`: another one
    is, and separable from it. `open`: the pilot cannot separate them.
    """
    separable = {
        frozenset((gap["teacher"], gap["against"])): gap["separable"] for gap in differences
    }
    if best != chosen:
        return "overturned" if separable.get(frozenset((best, chosen))) else "open"
    return "confirmed" if all(yes for pair, yes in separable.items() if best in pair) else "open"
