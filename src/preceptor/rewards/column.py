"""Rewards that were recorded with the answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from preceptor.core.errors import DataError, nearest
from preceptor.core.types import Answer, RewardSource, Runtime, even_batches
from preceptor.data.answer_table import Answers


def open_reward(setting: Any, runtime: Runtime) -> RewardSource:
    """The numeric column `setting.column` (or `setting.name`) of recorded answers.

    Its range is `setting.low` to `setting.high`, unbounded where they are not set.
    """
    column = setting.column or setting.name

    def score(answers: Sequence[Answer]) -> list[float]:
        numbers = answers.numbers(column) if isinstance(answers, Answers) else None
        if numbers is not None:
            return numbers.tolist()
        return [_number(answer, column) for answer in answers]

    return RewardSource(
        lambda answers: even_batches(len(answers), 65536),
        lambda: score,
        low=-math.inf if setting.low is None else setting.low,
        high=math.inf if setting.high is None else setting.high,
    )


def _number(answer: Answer, column: str) -> float:
    value = answer.row.get(column)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if column not in answer.row:
        fault, found = "an answer has no such reward column", nearest(column, answer.row)
    else:
        fault, found = "a reward is not a number", repr(value)
    raise DataError(
        fault,
        where=f"column {column!r}, teacher {answer.teacher}, instruction {answer.instruction_id}",
        found=found,
        next_step="every answer needs a number there; or use another kind of reward",
    )
