"""`preceptor distill`: train a student from a teacher's answers, distribution and attention."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from preceptor.core.errors import SettingsError
from preceptor.recipes.settings.training import Distill
from preceptor.recipes.teaching.course import Course, Prepared, open_pupil, prepare, run_courses
from preceptor.recipes.teaching.lessons import respondent
from preceptor.recipes.teaching.signal_teachers import plan_teacher
from preceptor.training.objective import Objective, build_objective

ABLATIONS = {"attention_only": ("attention",), "prediction_only": ("divergence",)}


def distill(settings: Distill, out: Path, command: str = "preceptor distill") -> dict[str, Any]:
    """Train the student from its teacher and write the run folder.

    Args:
        settings: of the run.
        out: the run folder; a folder that the same settings began is finished.
        command: what to type to make the run again, for the provenance.

    Returns:
        The content of `quality.json`, empty where no quality was asked for.

    Raises:
        PreceptorError: bad settings, data, model or folder; before a weight is loaded where
            that can be known.
    """
    return run_courses(*prepare_distill(settings, out), out, command)


def prepare_distill(
    settings: Distill, out: Path
) -> tuple[Prepared, list[Course], list[tuple[str, str]]]:
    """Read and check all that is not a weight; what `run_courses` takes."""
    objective = build_objective(
        settings.mix, [loss.model_dump() for loss in settings.losses], settings.mean
    )
    courses = [Course("KD", "", objective)]
    if settings.ablate:
        courses += _ablations(objective, settings)
    pupil = open_pupil(settings, out)
    plan = plan_teacher(settings.teacher, pupil.card, pupil.runtime, objective)
    asked = respondent(settings.data)
    prepared = prepare(settings, pupil, asked, lambda row: next(iter(asked)), plan)
    return prepared, courses, [(course.name, "base") for course in courses]


def _ablations(objective: Objective, settings: Distill) -> list[Course]:
    """The students of figure 4 of arXiv 2406.19112, which watch the losses they do not learn from;
    `both` is the run's own student.
    """
    if not {"logits", "attention"} <= objective.needs:
        raise SettingsError(
            "there is nothing to ablate",
            where="losses",
            found=", ".join(loss.name for loss in settings.losses),
            next_step="--ablate needs a divergence and an attention loss, and mix above 0",
        )
    courses = []
    for name, kept in ABLATIONS.items():
        watched = {
            part: replace(term, weight=0.0)
            for part in ("divergence", "attention", "hidden")
            if part not in kept and (term := getattr(objective, part)) is not None
        }
        alone = replace(objective, **watched)
        courses.append(Course(name.replace("_", " "), f"ablation/{name}", alone))
    return courses
