"""Settings of `preceptor evaluate`. Reaches no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from preceptor.core.artifacts import PROVENANCE
from preceptor.core.errors import SettingsError, nearest
from preceptor.recipes.settings.benchmarks import BenchmarkSetting, benchmark_name
from preceptor.recipes.settings.loading import Located, Settings
from preceptor.recipes.settings.select import refuse_repeats
from preceptor.recipes.settings.shared import Answers, Fleet, StoreRef, Teacher, teacher_name

TRAINED = "model"  # folder of the finished checkpoint in the run of a training


def _student(value: Any) -> Any:
    """A run folder of sft, distill or align stands for the model that it trained."""
    setting = {"model": value} if isinstance(value, str) else value
    model = setting.get("model") if isinstance(setting, dict) else None
    if not isinstance(model, str):
        return value
    start = model.folder if isinstance(model, Located) else Path.cwd()
    folder = (start / Path(model).expanduser()).resolve()
    if folder.name == TRAINED and (folder.parent / PROVENANCE).exists():
        folder = folder.parent
    if not (folder / PROVENANCE).exists():
        return value
    if not (folder / TRAINED).is_dir():
        raise SettingsError(
            "the run folder holds no trained model",
            where=str(folder),
            found=f"no folder `{TRAINED}`",
            next_step="finish the training, or name a run of sft, distill or align",
        )
    return {"name": folder.name, **setting, "model": str(folder / TRAINED)}


class Evaluate(Settings):
    """Settings of `preceptor evaluate`."""

    models: tuple[Annotated[Teacher, BeforeValidator(_student)], ...] = ()
    """Who is examined; models of the command line are added. The folder of a training stands for
    the model that it trained."""
    answers: Annotated[
        tuple[Answers, ...],
        BeforeValidator(lambda v: v if isinstance(v, list | tuple) else [v]),
    ] = ()
    """Recorded answers to the questions, by whoever gave them: they are examined too."""
    benchmarks: tuple[BenchmarkSetting, ...] = Field(min_length=1)
    """What they sit."""
    reference: str = ""
    """Name of the model that the others are compared with (the base, say); the first if not set."""
    fail_if: tuple[str, ...] = ()
    """Conditions that end the command with status 1: `lab.reward < 0.5`."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Level of all intervals."""
    resamples: int = Field(1000, ge=100)
    """Bootstrap resamples of the questions."""
    seed: int = Field(0, ge=0)
    """Of sampled answers, of the order of answers before a judge, and of the bootstrap."""
    store: StoreRef | None = None
    """Folder of the answer store, shared with other runs; `store` in the run folder if not set."""
    fleet: Fleet = Fleet()
    """Workers that answer."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1` ...; `auto` is CUDA where there is one."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of weights and products; `auto` is bfloat16 on an accelerator, float32 on a CPU."""
    trust_remote_code: bool = False
    """Run code that comes with a model."""

    @model_validator(mode="after")
    def _names_are_apart(self) -> Self:
        names = [teacher_name(model) for model in self.models]
        refuse_repeats("models", names)
        refuse_repeats("benchmarks", [benchmark_name(own) for own in self.benchmarks])
        if not self.models and not self.answers:
            raise SettingsError(
                "there is nobody to examine",
                where="models, answers",
                found="neither models nor recorded answers",
                next_step="name models on the command line or in `models`, or give `answers`",
            )
        if self.reference and not self.answers and self.reference not in names:
            raise SettingsError(
                "the reference is not examined",
                where="reference",
                found=nearest(self.reference, names),
                next_step="name one of the models, or add it to `models`",
            )
        return self
