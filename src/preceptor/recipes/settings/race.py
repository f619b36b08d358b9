"""Settings of a race of teachers. Reaches no torch."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from preceptor.core.errors import SettingsError
from preceptor.recipes.settings.loading import Settings
from preceptor.recipes.settings.rewards import Reward
from preceptor.recipes.settings.shared import OpenAITeacher, OwnTeacher, Teacher


class Race(Settings):
    """Rounds of instructions; teachers that are surely not the best are not asked again."""

    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """That the best teacher is not dropped, at whatever round the race ends."""
    first: int = Field(default=20, ge=20)
    """Instructions of the first round."""
    growth: float = Field(default=1.5, ge=1, le=10)
    """Each round is so many times as large as the one before."""
    budget: float | None = Field(default=None, gt=0)
    """End before answers and judges cost more money than this, by the teachers' `price`."""
    tokens: int | None = Field(default=None, ge=1)
    """End before the answers hold more tokens of the base than this."""


def refuse_unfit_race(
    race: Race, teachers: Sequence[Teacher], rewards: Sequence[Reward], others: Sequence[str] = ()
) -> None:
    """What the settings alone show that a race cannot do (raises SettingsError).

    Args:
        others: settings that are set, and that want the answers of all teachers.
    """
    for name in others:
        raise SettingsError(
            f"`race` and `{name}` exclude each other",
            where=f"race, {name}",
            found="a race drops teachers, and those of a group or a pilot may be among them",
            next_step=f"run the race first, then `{name}` on the teachers that it left",
        )
    judges = [judge for reward in rewards if (judge := getattr(reward, "teacher", None))]
    if race.budget is not None and not any(map(_has_price, [*teachers, *judges])):
        raise SettingsError(
            "a budget needs prices",
            where="race: budget",
            found="no teacher or judge that costs money",
            next_step="set `price` of the teachers behind an API, or limit `tokens` instead",
        )
    for reward in rewards:
        rival = getattr(getattr(reward, "baseline", None), "teacher", "")
        if rival:
            raise SettingsError(
                "the baseline of a reward takes part in the race",
                where=f"reward {reward.name!r}: baseline",
                found=f"teacher {rival!r}, which may be dropped",
                next_step="give its answers as a column or a table",
            )


def _has_price(teacher: Teacher) -> bool:
    if isinstance(teacher, OpenAITeacher):
        return teacher.price.input > 0 or teacher.price.output > 0
    return isinstance(teacher, OwnTeacher)
