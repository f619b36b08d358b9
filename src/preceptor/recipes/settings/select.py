"""Settings of `preceptor select`. This file reaches no torch: reading settings is instant."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from preceptor.core.errors import SettingsError
from preceptor.recipes.settings.loading import Settings
from preceptor.recipes.settings.pilot import Pilot, grading_reward
from preceptor.recipes.settings.race import Race, refuse_unfit_race
from preceptor.recipes.settings.rewards import Reward
from preceptor.recipes.settings.shared import (
    Answers,
    Fleet,
    ModelRef,
    Source,
    StoreRef,
    Teacher,
    shorthand,
    teacher_name,
)

DEFAULT_BETAS = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)


class Pool(Settings):
    """Whose answers a run takes, and where its models run."""

    answers: Annotated[
        tuple[Answers, ...],
        BeforeValidator(lambda v: v if isinstance(v, list | tuple) else [v]),
    ] = ()
    """Recorded answers, which may stand beside those of live teachers."""
    instructions: Annotated[Source, shorthand("path")] | None = None
    """What live teachers are asked; required with `teachers`."""
    teachers: tuple[Teacher, ...] = ()
    """Live teachers."""
    rewards: tuple[Reward, ...] = ()
    """Rewards of the answers."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Level of all intervals."""
    resamples: int = Field(2000, ge=100)
    """Bootstrap resamples of the instructions."""
    seed: int = Field(0, ge=0)
    """Of sampled answers and of the bootstrap."""
    store: StoreRef | None = None
    """Folder of the answer store, shared with other runs; `store` in the run folder if not set."""
    fleet: Fleet = Fleet()
    """Workers that answer, score and measure."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1` ...; `auto` is CUDA where there is one."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of weights and products; `auto` is bfloat16 on an accelerator, float32 on a CPU."""
    batch_tokens: int | None = Field(None, ge=1)
    """Padded tokens in a batch. If not set, 2,048 on a CPU and 32,768 elsewhere when models are
    measured, 4,096 and 32,768 in a reward model."""
    trust_remote_code: bool = False
    """Run code that comes with a model."""

    @model_validator(mode="after")
    def _has_answers(self) -> Self:
        if not self.answers and not self.teachers:
            raise SettingsError(
                "there are no answers",
                where="answers, teachers",
                found="neither recorded answers nor live teachers",
                next_step="set `answers`, or `teachers` with `instructions`",
            )
        if self.teachers and self.instructions is None:
            raise SettingsError(
                "live teachers have nothing to answer",
                where="instructions",
                found="not set",
                next_step="set `instructions` to a file, a dataset or lab:selection",
            )
        refuse_repeats("teachers", [teacher_name(t) for t in self.teachers])
        refuse_repeats("rewards", [reward.name for reward in self.rewards])
        return self


class TeacherFacts(Settings):
    """What is known of a teacher beside its answers."""

    family: str | None = None
    """Of models trained alike (`qwen`); guessed from the name if not set."""
    size: float | None = Field(None, gt=0)
    """Billions of parameters; read from the name (`-7B`) if not set."""
    price: float | None = Field(None, ge=0)
    """Money for a million tokens of answers; that of its own settings if not set."""


class Select(Pool):
    """Settings of `preceptor select`."""

    base: ModelRef
    """The model that will be trained: `lab:NAME`, a checkpoint folder, or a hub id."""
    rewards: tuple[Reward, ...] = Field(min_length=1)
    """Rewards of the answers; the first one decides."""
    reference: ModelRef | None = None
    """A second model under which perplexity and IFD are computed too."""
    criteria: tuple[str, ...] = Field(("car", "mean_reward", "perplexity", "length"), min_length=1)
    """Criteria to rank by; the first one decides."""
    beta: float = Field(3.0, ge=0)
    """CAR's weight of the loss, in 1/nat; not stated by the paper."""
    betas: tuple[Annotated[float, Field(ge=0)], ...] = DEFAULT_BETAS
    """Grid for the sensitivity of the ranking to beta; `beta` itself is always added."""
    loss_reduction: Literal["answers", "tokens"] = "answers"
    """Mean loss over answers (of their token means), or over all tokens."""
    criterion_options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Options of criteria, by name: `rank_surprisal: {limit: 100}`."""
    step_separator: str = Field("\n", min_length=1)
    """What parts the steps of an answer, for criteria that look at steps."""
    local_window: float = Field(0.25, gt=0, le=1)
    """Share of an answer's steps that `local_naturalness` shows before each step, at least one."""
    gradient_dim: int = Field(512, ge=1)
    """Numbers that each answer's gradient is projected to, for `grace`."""
    teacher_facts: dict[str, TeacherFacts] = Field(default_factory=dict)
    """What is known of teachers, by name, for `family_prior`, `size` and `cost`."""
    base_family: str | None = None
    """Family of the base, for `family_prior`; guessed from its name if not set."""
    max_instructions: int | None = Field(None, ge=2)
    """Use only so many instructions, the first ones of the source."""
    min_paired_share: float = Field(0.5, gt=0, le=1)
    """Refuse when less than this share of the instructions was answered by all teachers, or has a
    score for every answer."""
    race: Race | None = None
    """Ask in rounds, and drop teachers that are surely not the best; off if not set."""
    by: str | None = Field(None, min_length=1)
    """A column of the instructions: also rank on the instructions of each of its values."""
    pilot: Pilot | None = None
    """Also train shortly on the answers of the finalists, and grade the students."""

    @model_validator(mode="after")
    def _names_are_apart(self) -> Select:
        refuse_repeats("criteria", list(self.criteria))
        if self.race is not None:
            others = [name for name in ("by", "pilot") if getattr(self, name) is not None]
            refuse_unfit_race(self.race, self.teachers, self.rewards, others)
        if self.pilot is not None:
            grading_reward(self.rewards)
        return self

    @property
    def parameters(self) -> dict[str, Any]:
        """The settings that a criterion may take as arguments, by their names."""
        return {"beta": self.beta, "loss_reduction": self.loss_reduction}


def refuse_repeats(setting: str, names: list[str]) -> None:
    """Each of `names` stands there, and stands once (raises SettingsError)."""
    for name in names:
        if not name:
            raise SettingsError("a name is missing", where=setting, next_step="add `name: ...`")
        if names.count(name) > 1:
            raise SettingsError(
                "a name stands twice", where=setting, found=name, next_step="rename one of them"
            )
