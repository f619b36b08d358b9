"""The plan of a pilot (`select --pilot`): of the finalists only the number is known yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from preceptor.core.fleet import run_here
from preceptor.recipes.planning.asking import Asked
from preceptor.recipes.planning.draft import Draft
from preceptor.recipes.planning.scoring import sequences
from preceptor.recipes.planning.training import plan_training
from preceptor.recipes.selecting import pilot, preparing
from preceptor.recipes.settings.pilot import grading_reward
from preceptor.recipes.settings.shared import Source
from preceptor.recipes.teaching import course
from preceptor.recipes.teaching.grading import Exam
from preceptor.recipes.teaching.lessons import Lessons
from preceptor.recipes.teaching.student import Pupil
from preceptor.training.objective import build_objective


def plan_pilot(
    draft: Draft, own: preparing.Prepared, asked: Sequence[Asked], n: int, out: Path
) -> None:
    """Add every student's training and its exam, as if each learned from the longest answers.

    Args:
        asked: what is known of each teacher's answers.
        n: instructions that all answer.
        out: the run folder.
    """
    setting = own.settings.pilot
    assert setting is not None
    n_learned, n_held = setting.shares(n)
    # no data is read: the source is only a name
    settings = pilot.sft_settings(own, pilot.FOLDER, "", own.settings.seed)
    runtime = replace(own.runtime, fleet=run_here)
    pupil = Pupil(own.base, settings.training, runtime, own.settings.seed)
    renderer = pupil.renderer()
    longest = max(asked, key=lambda one: sequences(renderer, [one]).tokens)
    reward = grading_reward(own.settings.rewards)
    exam = Exam(
        pilot.quality_settings(own, Source(path=pilot.FOLDER), reward),
        [("", text, {}) for text in islice(cycle(longest.instructions), n_held)],
        np.full(n_held, "all"),
        own.rewards[reward.name],
        runtime,
        own.settings.seed,
    )
    n_students = min(setting.finalists, len(asked)) * setting.seeds
    objective = build_objective(0.0, [], "tokens")
    plan_training(
        draft,
        course.Prepared(settings, pupil, Lessons([], []), {}, lambda row: "", None, exam, {}),
        [course.Course(f"pilot {number}", "", objective) for number in range(1, n_students + 1)],
        [longest.limited(n_learned)],
        out / pilot.FOLDER,
    )
