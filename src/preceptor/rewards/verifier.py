"""Rewards given by a program."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from preceptor.core.errors import DataError, SettingsError
from preceptor.core.plugs import plug
from preceptor.core.types import Answer, RewardSource, Runtime, even_batches
from preceptor.rewards import VERIFIERS

BATCH = 256


def open_reward(setting: Any, runtime: Runtime) -> RewardSource:
    """`setting.function(instruction, response, row, **setting.options) -> float`.

    The function is a name on the shelf, whose values lie in [0, 1], or `module:function`, whose
    range is `setting.low` to `setting.high` (unbounded where they are not set).

    Raises:
        SettingsError: no such function, or options that it does not take.
        DataError: while scoring, if the function raises.
    """
    function = plug("verifier", VERIFIERS, setting.function)
    options = dict(setting.options)
    _refuse_unknown(function, options, setting.function)

    def score(answers: Sequence[Answer]) -> list[float]:
        values = []
        for answer in answers:
            try:
                graded = function(answer.instruction, answer.response, answer.row, **options)
                values.append(float(graded))
            except Exception as error:  # a user's verifier may raise anything
                raise DataError(
                    "the verifier cannot grade an answer",
                    where=f"verifier {setting.function!r}, teacher {answer.teacher}, "
                    f"instruction {answer.instruction_id}",
                    found=f"{type(error).__name__}: {error}",
                    next_step="check that the instructions carry the columns the verifier reads",
                ) from error
        return values

    low, high = (0.0, 1.0) if setting.function in VERIFIERS else (-math.inf, math.inf)
    return RewardSource(
        lambda answers: even_batches(len(answers), BATCH),
        lambda: score,
        low=low if setting.low is None else setting.low,
        high=high if setting.high is None else setting.high,
    )


def _refuse_unknown(function: Callable[..., Any], options: dict[str, Any], name: str) -> None:
    """Options that the function has no parameter for, or lacks (raises SettingsError)."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions of C show none
        return
    try:
        signature.bind("", "", {}, **options)
    except TypeError as error:
        own = [
            parameter.name
            for place, parameter in enumerate(signature.parameters.values())
            if place > 2 and parameter.kind is not parameter.VAR_KEYWORD
        ]
        raise SettingsError(
            "the verifier cannot be called with these options",
            where=f"verifier {name!r}",
            found=f"{error}; its options: {', '.join(own) or 'none'}",
            next_step="it is called as function(instruction, response, row, **options)",
        ) from error
