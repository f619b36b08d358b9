"""`preceptor sft`: supervised fine-tuning on answers, as a domain expert is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from preceptor.recipes.course import Course, open_pupil, prepare, run_courses
from preceptor.recipes.lessons import respondent
from preceptor.recipes.training_settings import Sft
from preceptor.training.objective import build_objective


def sft(settings: Sft, out: Path, command: str = "preceptor sft") -> dict[str, Any]:
    """Train the student on answers alone; everything else is as in `distill`."""
    objective = build_objective(0.0, [], "tokens")
    asked = respondent(settings.data)
    prepared = prepare(settings, open_pupil(settings), asked, lambda row: next(iter(asked)), None)
    return run_courses(prepared, [Course("SFT", "", objective)], [("SFT", "base")], out, command)
