"""Settings of rewards. Reaches no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from preceptor.core.errors import SettingsError, nearest
from preceptor.recipes.settings.loading import Located, Settings
from preceptor.recipes.settings.shared import (
    Answers,
    ModelRef,
    Teacher,
    shorthand,
    with_settings,
)
from preceptor.rewards import REWARDS


def _prompt(value: Any) -> Any:
    """A file of text, made absolute."""
    if not isinstance(value, str):
        return value
    folder = value.folder if isinstance(value, Located) else Path.cwd()
    path = (folder / Path(value).expanduser()).resolve()
    if not path.is_file():
        raise SettingsError(
            "no such prompt file",
            where=str(value),
            found=f"nothing at {path}",
            next_step="paths in a settings file are relative to that file",
        )
    return str(path)


PromptRef = Annotated[str, BeforeValidator(_prompt)]


class _Reward(Settings):
    name: str = Field("", pattern=r"^[A-Za-z0-9_.\-]*$")
    """Name of the column `reward.<name>` and in the ranking."""
    map: Literal["none", "sigmoid", "minmax", "affine"] = "none"
    """Recorded map to a range that is fit for CAR; `minmax` is over the pooled answers. Only in
    `select`."""
    scale: float = Field(1.0, gt=0)
    """Of `affine`: scale * reward + shift."""
    shift: float = 0.0
    """Of `affine`."""

    @model_validator(mode="after")
    def _has_a_range(self) -> Any:
        low, high = getattr(self, "low", None), getattr(self, "high", None)
        if low is not None and high is not None and low >= high:
            raise ValueError(f"`low` ({low:g}) must be below `high` ({high:g})")
        return self

    @model_validator(mode="after")
    def _maps_as_it_says(self) -> Any:
        if self.map != "affine" and (self.scale, self.shift) != (1.0, 0.0):
            raise SettingsError(
                "`scale` and `shift` belong to the map `affine`",
                where=f"rewards: {self.name}",
                found=f"map {self.map}, scale {self.scale:g}, shift {self.shift:g}",
                next_step="add `map: affine`, or leave both out",
            )
        return self


class ColumnReward(_Reward):
    """A numeric column of recorded answers."""

    kind: Literal["column"] = "column"
    column: str = ""
    """Name of the column; `name` when empty."""
    low: float | None = None
    """The least a reward can be; another one is refused."""
    high: float | None = None
    """The most it can be."""

    @model_validator(mode="before")
    @classmethod
    def _either_name(cls, value: Any) -> Any:
        if isinstance(value, dict) and not value.get("name"):
            value = {**value, "name": value.get("column", "")}
        return value


class VerifierReward(_Reward):
    """A program that grades an answer: `function(instruction, response, row) -> float`."""

    kind: Literal["verifier"]
    function: str
    """`math`, `exact_match`, `constraints`, `lab`, or `module:function`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the function."""
    low: float | None = None
    """The least a reward can be, 0 for the named ones; another one is refused."""
    high: float | None = None
    """The most it can be, 1 for the named ones."""


class ModelReward(_Reward):
    """A sequence-classification reward model, asked with its own chat template."""

    kind: Literal["reward_model"]
    model: ModelRef
    """The sequence-classification model: `lab:NAME`, a checkpoint folder, or a hub id."""
    output: int | str | dict[str, float] = 0
    """Which output is the reward: number, label or field (`score`, `rewards.4`), or weights."""
    low: float | None = None
    """The least a reward can be, if that is known; another one is refused."""
    high: float | None = None
    """The most it can be."""


class Baseline(Settings):
    """The answers that others are compared with; one of the three."""

    column: str = ""
    """A column that came with the instructions or with the answers."""
    teacher: str = ""
    """A teacher whose answers are scored too."""
    table: Answers | None = None
    """A table with an answer to each instruction."""

    @model_validator(mode="after")
    def _is_one(self) -> Baseline:
        if bool(self.column) + bool(self.teacher) + (self.table is not None) != 1:
            raise ValueError("give one of `column`, `teacher` and `table`")
        return self


class JudgeReward(_Reward):
    """A language model that grades each answer by itself."""

    kind: Literal["judge"]
    teacher: Teacher
    """Who grades."""
    prompt: PromptRef | None = None
    """File with the question that the judge is asked; a general one if not set."""
    low: float = 1.0
    """The worst grade."""
    high: float = 10.0
    """The best grade."""
    reference: str = ""
    """A column with a right answer, for the judge to see."""


class _Compared(_Reward):
    teacher: Teacher
    """Who compares."""
    baseline: Annotated[Baseline, shorthand("column")]
    """The answers that others are compared with."""
    prompt: PromptRef | None = None
    """File with the question that the judge is asked; a general one if not set."""
    reference: str = ""
    """A column with a right answer, for the judge to see."""


class PairwiseReward(_Compared):
    """A language model that compares each answer with a baseline, in both orders."""

    kind: Literal["pairwise"]


class PairwiseLogprobReward(_Compared):
    """The same, read from the probabilities of the labels A and B, without a written verdict."""

    kind: Literal["pairwise_logprob"]


class OwnReward(_Reward):
    """A reward of the user's own code: `kind: module:function`, or a shelf's name for it."""

    kind: str = Field(pattern=r"^[\w.]+(:\w+)?$")
    """The function: `open_reward(setting, runtime)`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """For the function to read."""


_REWARDS = with_settings(
    ColumnReward, VerifierReward, ModelReward, JudgeReward, PairwiseReward, PairwiseLogprobReward
)


def _as_reward(value: Any) -> Any:
    if isinstance(value, str):
        return {"kind": "column", "name": str(value)}
    if isinstance(value, dict) and "kind" not in value:
        return {"kind": "column", **value}
    return value


def _kind_of_reward(value: Any) -> str:
    kind = str(value.get("kind") if isinstance(value, dict) else getattr(value, "kind", value))
    if kind not in REWARDS and ":" not in kind:
        raise SettingsError(
            f"unknown reward {kind!r}",
            where="rewards: kind",
            found=nearest(kind, REWARDS),
            next_step="use a known kind or your own as `module:function`",
        )
    return kind if kind in _REWARDS else "own"


Reward = Annotated[
    Annotated[ColumnReward, Tag("column")]
    | Annotated[VerifierReward, Tag("verifier")]
    | Annotated[ModelReward, Tag("reward_model")]
    | Annotated[JudgeReward, Tag("judge")]
    | Annotated[PairwiseReward, Tag("pairwise")]
    | Annotated[PairwiseLogprobReward, Tag("pairwise_logprob")]
    | Annotated[OwnReward, Tag("own")],
    Discriminator(_kind_of_reward),
    BeforeValidator(_as_reward),
]
