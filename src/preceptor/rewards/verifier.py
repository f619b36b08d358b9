"""Rewards given by a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from preceptor.core.errors import DataError
from preceptor.core.plugs import plug
from preceptor.core.types import Answer, RewardSource, Runtime, even_batches
from preceptor.rewards import VERIFIERS


def open_reward(setting: Any, runtime: Runtime) -> RewardSource:
    """`setting.function(instruction, response, row) -> float`, by name or `module:function`."""
    function = plug("verifier", VERIFIERS, setting.function)

    def score(answers: Sequence[Answer]) -> list[float]:
        values = []
        for answer in answers:
            try:
                values.append(float(function(answer.instruction, answer.response, answer.row)))
            except Exception as error:  # a user's verifier may raise anything
                raise DataError(
                    "the verifier cannot grade an answer",
                    where=f"verifier {setting.function!r}, teacher {answer.teacher}, "
                    f"instruction {answer.instruction_id}",
                    found=f"{type(error).__name__}: {error}",
                    next_step="check that the instructions carry the columns the verifier reads",
                ) from error
        return values

    return RewardSource(lambda answers: even_batches(len(answers), 4096), lambda: score)
