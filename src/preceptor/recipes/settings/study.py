"""Settings of `preceptor study`. Reaches no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from preceptor.core.errors import SettingsError
from preceptor.recipes.settings.asking import Decodings
from preceptor.recipes.settings.benchmarks import BenchmarkSetting, benchmark_name
from preceptor.recipes.settings.loading import Settings
from preceptor.recipes.settings.select import Pool, refuse_repeats
from preceptor.recipes.settings.shared import Fleet, ModelRef, model_name
from preceptor.recipes.settings.training import Training

Pick = Literal["one", "best", "worst", "greedy"]


OF_THE_STUDY = ("base", "data", "seed", "device", "dtype", "trust_remote_code")
OF_THE_SOURCES = (
    "base", "answers", "instructions", "teachers", "rewards", "max_instructions", "race", "pilot"
)  # fmt: skip


def _refuse_own(given: dict[str, Any], names: tuple[str, ...], where: str) -> None:
    """Settings that the study makes by itself (raises SettingsError)."""
    for name in names:
        if name in given:
            raise SettingsError(
                "the study sets this by itself", where=where, found=name, next_step="leave it out"
            )


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


class Arm(Settings):
    """How students learn: one recipe, and its settings beside those of the study."""

    recipe: Literal["sft", "distill", "align"] = "sft"
    """Which recipe trains."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of the recipe (`losses`, `mix` ...). Base, data and seed are the study's, and so is
    `training`, of which single values can be replaced here; `{teacher}` stands for the model of the
    teacher whose answers the student learns from."""

    @model_validator(mode="after")
    def _leaves_the_study_alone(self) -> Self:
        _refuse_own(self.settings, OF_THE_STUDY, "arms: settings")
        return self


class StudentSettings(Settings):
    """How students and bases answer benchmarks."""

    kind: Literal["transformers", "vllm"] = "transformers"
    """The engine that answers."""
    temperature: float = Field(0.0, ge=0)
    """0 is greedy."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus of sampling; unused when greedy."""
    batch_size: int = Field(64, ge=1)
    """Of `transformers`: conversations answered together."""


class Study(Pool):
    """Settings of `preceptor study`: bases x sources x arms x seeds.

    A source is a set of answers to the same instructions: a teacher's, at one point of `decodings`,
    by one of `picks`.
    """

    bases: Annotated[tuple[ModelRef, ...], BeforeValidator(_listed)] = Field(min_length=1)
    """The models that are trained."""
    seeds: int = Field(1, ge=1)
    """Students of each base, source and arm, trained from so many seeds."""
    max_instructions: int | None = Field(None, ge=2)
    """Use only so many instructions, the first ones."""
    decodings: Decodings = Decodings()
    """How live teachers decode; every point is a source of its own."""
    picks: Annotated[tuple[Pick, ...], BeforeValidator(_listed)] = ("one",)
    """Which of several samples students learn from; every pick is a source of its own. `best` and
    `worst` are by the first reward."""
    selection: dict[str, Any] = Field(default_factory=dict)
    """Settings of `select` by which criteria are computed, beside those of the study: `criteria`,
    `beta`, `reference` ..."""
    criteria_on: Annotated[int, Field(ge=2)] | None = None
    """Compute criteria on so many of the instructions, the first ones; on all if not set."""
    arms: dict[str, Arm] = Field(default_factory=lambda: {"sft": Arm()}, min_length=1)
    """Ways to learn, by name; each is trained from every source."""
    training: Training = Field(default_factory=lambda: Training.model_validate("car_paper"))
    """How every student is trained; `car_paper` is the recipe of arXiv 2411.07133."""
    benchmarks: tuple[BenchmarkSetting, ...] = Field(min_length=1)
    """What students and bases are graded on."""
    outcome: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    """Measures whose mean is the outcome AP: `alpaca_eval.length_controlled`; the first measure of
    each benchmark if empty."""
    student: StudentSettings = Field(default_factory=lambda: StudentSettings.model_validate({}))
    """How students and bases answer."""
    keep_models: bool = True
    """Keep the weights of every student after its exam."""
    runs: Fleet = Fleet()
    """Where trainings run beside each other: `here` (one after the other), `processes`, `ray`."""
    budget: float | None = Field(None, gt=0)
    """Hours that one invocation may take: the most informative trainings are run first, and what
    does not fit is left."""

    @model_validator(mode="after")
    def _can_be_studied(self) -> Self:
        refuse_repeats("bases", [model_name(base) for base in self.bases])
        refuse_repeats("benchmarks", [benchmark_name(own) for own in self.benchmarks])
        refuse_repeats("picks", list(self.picks))
        _refuse_own(self.selection, OF_THE_SOURCES, "selection")
        if not self.rewards:
            raise SettingsError(
                "a study needs a reward",
                where="rewards",
                found="none",
                next_step="add the reward that criteria read",
            )
        return self
