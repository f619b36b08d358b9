"""`preceptor sft`: supervised fine-tuning on answers, as a domain expert is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from preceptor.recipes.settings.training import Sft
from preceptor.recipes.teaching.course import Course, Prepared, open_pupil, prepare, run_courses
from preceptor.recipes.teaching.lessons import respondent
from preceptor.training.objective import build_objective


def sft(settings: Sft, out: Path, command: str = "preceptor sft") -> dict[str, Any]:
    """Train the student on answers alone; everything else is as in `distill`."""
    return run_courses(*prepare_sft(settings, out), out, command)


def prepare_sft(settings: Sft, out: Path) -> tuple[Prepared, list[Course], list[tuple[str, str]]]:
    """Read and check all that is not a weight; what `run_courses` takes."""
    objective = build_objective(0.0, [], "tokens")
    asked = respondent(settings.data)
    prepared = prepare(
        settings, open_pupil(settings, out), asked, lambda row: next(iter(asked)), None
    )
    return prepared, [Course("SFT", "", objective)], [("SFT", "base")]
