"""`preceptor align`: add a domain from an expert without losing the rest (arXiv 2406.19112)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from preceptor.core.errors import DataError, SettingsError
from preceptor.core.types import Answer
from preceptor.recipes.settings.shared import Teacher, TransformersTeacher, teacher_name
from preceptor.recipes.settings.training import Align, InProcess, Routed
from preceptor.recipes.teaching.course import Course, Prepared, open_pupil, prepare, run_courses
from preceptor.recipes.teaching.lessons import Lessons
from preceptor.recipes.teaching.signal_teachers import plan_teacher
from preceptor.training.objective import build_objective

ALIGNED = "DAE"


def align(settings: Align, out: Path, command: str = "preceptor align") -> dict[str, Any]:
    """Train the student from the expert on domain rows, from the reference on all others.

    With `controls`, three more students read the same rows: plain SFT, the expert alone and the
    reference alone. As `distill` otherwise.
    """
    return run_courses(*prepare_align(settings, out), out, command)


def prepare_align(
    settings: Align, out: Path
) -> tuple[Prepared, list[Course], list[tuple[str, str]]]:
    """Read and check all that is not a weight; what `run_courses` takes."""
    divergence = settings.divergence
    if divergence.temperature is None:
        raise SettingsError(
            "the divergence needs a temperature",
            where="divergence",
            found=f"{divergence.name!r}",
            next_step="name a divergence over tokens (forward_kl ...) and set its temperature",
        )
    objective = build_objective(settings.mix, [divergence.model_dump()], settings.mean)
    pupil = open_pupil(settings, out)
    routed = Routed(
        kind="routed",
        column=settings.route_by,
        teachers=settings.experts,
        otherwise=settings.reference,
    )
    plan = plan_teacher(routed, pupil.card, pupil.runtime, objective)
    teachers = {**settings.experts, plan.otherwise: settings.reference}
    asked, choose = _respondents(settings, teachers, plan.otherwise)
    prepared = prepare(settings, pupil, asked, choose, plan, _at_share(settings))
    courses = [Course(ALIGNED, "", objective)]
    if settings.controls:
        plain = build_objective(0.0, [], settings.mean)
        courses.append(Course("SFT on the same rows", "controls/sft", plain))
        for name in (*settings.experts, plan.otherwise):
            title = "reference only" if name == plan.otherwise else f"expert only ({name})"
            folder = "reference_only" if name == plan.otherwise else f"expert_only_{name}"
            courses.append(Course(title, f"controls/{folder}", objective, _always(name)))
    against = [(ALIGNED, "base")]
    against += [(ALIGNED, course.name) for course in courses[1:]]
    return prepared, courses, against


def _always(name: str) -> Callable[[Answer], str]:
    return lambda answer: name


def _respondents(
    settings: Align, teachers: Mapping[str, InProcess], otherwise: str
) -> tuple[dict[str, Teacher], Callable[[Mapping[str, Any]], str]]:
    """Who answers which row: the one that `ask` names, or each row's own teacher."""
    if settings.data.ask is not None:
        name = teacher_name(settings.data.ask)
        return {name: settings.data.ask}, lambda row: name
    longest = {"max_new_tokens": settings.data.max_new_tokens}
    asked: dict[str, Teacher] = {
        name: TransformersTeacher.model_validate({"model": teacher.model, "name": name} | longest)
        for name, teacher in teachers.items()
    }

    def choose(row: Mapping[str, Any]) -> str:
        value = str(row.get(settings.route_by))
        return value if value in settings.experts else otherwise

    return asked, choose


def _at_share(settings: Align) -> Callable[[Lessons], Lessons]:
    """Keep rows such that `domain_share` of them belong to an expert, in their order."""

    def keep(lessons: Lessons) -> Lessons:
        rows = [answer.row for answer in lessons.answers] or [q[2] for q in lessons.questions]
        if settings.route_by not in rows[0]:
            raise DataError(
                f"the data has no column {settings.route_by!r}",
                where="route_by",
                found=f"columns {', '.join(map(str, rows[0]))}",
                next_step="name the column that says which domain a row belongs to",
            )
        inside = np.array([str(row[settings.route_by]) in settings.experts for row in rows])
        kept = at_share(inside, settings.domain_share, settings.seed)
        return Lessons(
            [lessons.answers[place] for place in kept if lessons.answers],
            [lessons.questions[place] for place in kept if lessons.questions],
        )

    return keep


def at_share(inside_N: np.ndarray, share: float, seed: int) -> list[int]:
    """The largest choice of rows, in their order, in which `share` of them are inside.

    Args:
        inside_N: whether a row belongs to the domain.

    Raises:
        DataError: no row inside, or none outside.
    """
    within, outside = np.flatnonzero(inside_N), np.flatnonzero(~inside_N)
    if not within.size or not outside.size:
        raise DataError(
            "the data lacks rows of the domain"
            if not within.size
            else "all rows are of the domain",
            where="data, route_by",
            found=f"{within.size} inside, {outside.size} outside",
            next_step="correct `route_by` and `experts`, or read more rows",
        )
    whole = min(within.size / share, outside.size / (1 - share))
    n_within = max(1, round(whole * share))
    n_outside = max(1, round(whole * (1 - share)))
    rng = np.random.default_rng(seed)
    kept = [
        *rng.permutation(within)[:n_within].tolist(),
        *rng.permutation(outside)[:n_outside].tolist(),
    ]
    return sorted(kept)
