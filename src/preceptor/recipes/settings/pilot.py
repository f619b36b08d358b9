"""Settings of a pilot: short trainings on the finalists' answers. Reaches no torch."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from preceptor.core.errors import DataError, SettingsError
from preceptor.recipes.settings.loading import Settings
from preceptor.recipes.settings.rewards import Reward
from preceptor.recipes.settings.training import Training

LEAST = 10  # instructions of a pilot


class PilotTraining(Training):
    """How each student of a pilot is trained: as `training` of `sft`, with closer checkpoints."""

    save_steps: int = Field(25, ge=1)
    """A checkpoint every so many steps; the last two are kept."""


class Pilot(Settings):
    """A short training on each finalist's answers, graded on instructions that were held out."""

    finalists: int = Field(3, ge=2)
    """Teachers that are tried: those that some criterion puts first, then the next by the deciding
    one."""
    seeds: int = Field(1, ge=1)
    """Students of each finalist, trained from so many seeds."""
    instructions: int = Field(300, ge=1)
    """Instructions whose answers each student learns from, the same for all."""
    held_out: int = Field(100, ge=2)
    """Other instructions, which base and students answer greedily."""
    max_new_tokens: int = Field(256, ge=1)
    """Longest answer of base and students."""
    batch_size: int = Field(64, ge=1)
    """Instructions that they answer together."""
    training: PilotTraining = Field(default_factory=lambda: PilotTraining.model_validate({}))
    """How each student is trained."""

    def shares(self, n: int) -> tuple[int, int]:
        """(instructions to learn from, instructions held out) of n; both shrink where n is small.

        Raises:
            DataError: too few.
        """
        wanted = self.instructions + self.held_out
        if n >= wanted:
            return self.instructions, self.held_out
        if n < LEAST:
            raise DataError(
                "there are too few instructions for a pilot",
                where="pilot",
                found=f"{n}, at least {LEAST} are needed",
                next_step="give more instructions, or leave the pilot out",
            )
        held = min(max(2, round(n * self.held_out / wanted)), n - 1)
        return n - held, held


def grading_reward(rewards: Sequence[Reward]) -> Reward:
    """The first reward that can score new answers, without its map (raises SettingsError)."""
    for reward in rewards:
        if reward.kind != "column":
            return reward.model_copy(update={"map": "none", "scale": 1.0, "shift": 0.0})
    raise SettingsError(
        "no reward of this run can score a pilot's new answers",
        where="pilot, rewards",
        found=f"recorded columns only: {', '.join(reward.name for reward in rewards)}",
        next_step="add a reward of kind verifier, reward_model, judge, pairwise, "
        "pairwise_logprob or module:function (it need not be the first)",
    )


def refuse_unfit_pilot(pilot: Pilot, teachers: Sequence[str], n: int) -> None:
    """What the answers alone show that a pilot cannot do (raises DataError)."""
    if len(teachers) < 2:
        raise DataError(
            "a pilot compares teachers, and there is one",
            where="pilot",
            found=", ".join(teachers),
            next_step="add teachers, or leave the pilot out",
        )
    pilot.shares(n)
