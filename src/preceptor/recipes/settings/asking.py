"""Settings of `preceptor ask` and `preceptor export`. Reaches no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from preceptor.core.artifacts import ANSWERS_SCHEMA
from preceptor.core.errors import SettingsError
from preceptor.recipes.settings.loading import Settings
from preceptor.recipes.settings.select import Pool
from preceptor.recipes.settings.shared import StoreRef

OTHER_FORM = "-prompt-completion"  # ends a set's name where both forms are written


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


Temperature = Annotated[float, Field(ge=0)]
TopP = Annotated[float, Field(gt=0, le=1)]


class Decodings(Settings):
    """The decoding points that every live teacher is asked at: temperatures x top-p."""

    temperature: Annotated[tuple[Temperature, ...], BeforeValidator(_listed)] = ()
    """Grid of temperatures, 0 for greedy; each teacher's own if empty."""
    top_p: Annotated[tuple[TopP, ...], BeforeValidator(_listed)] = ()
    """Grid of top-p; each teacher's own if empty. A greedy point has none: it is asked once."""
    samples: int = Field(default=1, ge=1)
    """Answers to each instruction at each point; one where it is greedy."""


class Ask(Pool):
    """Settings of `preceptor ask`; rewards are kept as they are given (`map` is for `select`)."""

    max_instructions: int | None = Field(None, ge=1)
    """Use only so many instructions, the first ones of the source."""
    decodings: Decodings = Decodings()
    """How live teachers decode."""
    route_by: str | None = Field(None, min_length=1)
    """Column of the instructions that names the one who answers each; all do if not set."""

    @model_validator(mode="after")
    def _can_be_asked(self) -> Ask:
        self._refuse_idle_samples()
        if self.route_by is not None and self.instructions is None:
            raise SettingsError(
                "a column of the instructions is to route, and there are none",
                where="route_by",
                found=repr(self.route_by),
                next_step="set `instructions`, or leave `route_by` out",
            )
        for reward in self.rewards:
            _refuse_unfit(reward)
        return self

    def _refuse_idle_samples(self) -> None:
        own = [teacher.temperature for teacher in self.teachers]
        asked = self.decodings.temperature or own
        if self.decodings.samples > 1 and not any(asked):
            raise SettingsError(
                "several samples are asked for, but every point is greedy",
                where="decodings: samples",
                found=f"samples {self.decodings.samples}, temperatures {sorted(set(asked))}",
                next_step="add a temperature above 0 to `decodings`, or leave `samples` out",
            )


def _refuse_unfit(reward: Any) -> None:
    if reward.map != "none":
        raise SettingsError(
            "rewards are kept as they are given",
            where=f"rewards: {reward.name}",
            found=f"map {reward.map}",
            next_step="leave `map` out here; `select` maps the column when it ranks",
        )
    if reward.name in ANSWERS_SCHEMA.names:
        raise SettingsError(
            "a reward has the name of a column of every answer",
            where="rewards",
            found=reward.name,
            next_step="give it another `name`",
        )


class ExportSet(Settings):
    """One training set: which of the samples of each instruction it holds."""

    pick: Literal["best", "worst", "one", "greedy", "all"]
    """`best`, `worst`: by `reward`, the first of equals. `one`: drawn uniformly. `greedy`: the
    answer at temperature 0. `all`: every sample."""
    reward: str = ""
    """Name of a reward of the run; required for best and worst, and with `min_reward`."""
    teacher: str = ""
    """Only this teacher's samples; those of all teachers together if empty."""
    temperature: float | None = Field(None, ge=0)
    """Only samples at this temperature; required where there are several."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Only samples at this top-p; required where there are several."""
    samples: int | None = Field(None, ge=1)
    """Choose among the first so many samples of each teacher; all of them if not set."""
    min_reward: float | None = None
    """Only picks with at least this `reward`."""

    @model_validator(mode="after")
    def _names_its_reward(self) -> ExportSet:
        if not self.reward and (self.pick in ("best", "worst") or self.min_reward is not None):
            raise SettingsError(
                "a set is picked by a reward that it does not name",
                where="sets: reward",
                found=f"pick {self.pick}",
                next_step="add `reward: NAME`, one of the rewards of the run",
            )
        if self.pick == "greedy" and (self.temperature or self.top_p is not None):
            raise SettingsError(
                "greedy answers have temperature 0 and no top_p",
                where="sets: temperature, top_p",
                found=f"pick greedy, temperature {self.temperature}, top_p {self.top_p}",
                next_step="leave both out, or pick `one`",
            )
        return self


SetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$")]


class Export(Settings):
    """Settings of `preceptor export`."""

    run: StoreRef
    """Folder of a finished `preceptor ask`."""
    sets: dict[SetName, ExportSet] = Field(min_length=1)
    """Training sets by name. They hold the same instructions: one that some set has no row for is
    left out of all."""
    form: Literal["messages", "prompt_completion", "both"] = "both"
    """Conversations (`messages`), or `prompt` and `completion` apart; of both, the second one is
    named NAME-prompt-completion."""
    system: str = ""
    """System message before every conversation."""
    seed: int = Field(0, ge=0)
    """Which sample `one` draws of each instruction."""

    @model_validator(mode="after")
    def _names_are_apart(self) -> Export:
        for name in self.sets:
            if name.endswith(OTHER_FORM) and name.removesuffix(OTHER_FORM) in self.sets:
                raise SettingsError(
                    "two sets would be written under one name",
                    where="sets",
                    found=name,
                    next_step="rename one of them",
                )
        return self
