"""Every recipe's settings. This file reaches no torch: reading settings is instant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from preceptor.core.errors import SettingsError, nearest
from preceptor.lab.place import PREFIX, model_folder, split_name
from preceptor.recipes.loading import Located, Settings

DEFAULT_BETAS = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)


def _model(value: Any) -> Any:
    """A model: `lab:NAME`, a folder (made absolute), or a hub id (left as it is)."""
    if not isinstance(value, str):
        return value
    if value.startswith(PREFIX):
        model_folder(value)
        return str(value)
    return _existing_path(value, "model") or str(value)


def _source(value: Any) -> Any:
    """A table of rows: `lab:SPLIT`, a file or folder (made absolute), or a `datasets` name."""
    if not isinstance(value, str):
        return value
    if value.startswith(PREFIX):
        return PREFIX + split_name(value)
    return _existing_path(value, "file") or str(value)


def _existing_path(value: str, kind: str) -> str | None:
    folder = value.folder if isinstance(value, Located) else Path.cwd()
    path = (folder / Path(value).expanduser()).resolve()
    if path.exists():
        return str(path)
    beside = "/" in value and path.parent.is_dir()  # a typo, rather than a hub id
    looks_like_path = beside or value.startswith((".", "/", "~")) or value.count("/") > 1
    looks_like_file = kind == "file" and Path(value).suffix in (".parquet", ".jsonl", ".json")
    if looks_like_path or looks_like_file:
        raise SettingsError(
            f"no such {kind}",
            where=str(value),
            found=f"nothing at {path}" + (f"; {_neighbour(path)}" if beside else ""),
            next_step="paths in a settings file are relative to that file",
        )
    return None


def _neighbour(path: Path) -> str:
    return nearest(path.name, sorted(entry.name for entry in path.parent.iterdir())[:50])


def _shorthand(name: str) -> BeforeValidator:
    """Accept a bare string for a mapping that needs only `name`."""
    return BeforeValidator(lambda value: {name: value} if isinstance(value, str) else value)


ModelRef = Annotated[str, BeforeValidator(_model)]
SourceRef = Annotated[str, BeforeValidator(_source)]


class Columns(Settings):
    """Names of columns; each default is a list of usual names, tried in turn."""

    instruction_id: str | None = None
    """Key of an instruction (usual: instruction_id, uuid, prompt_id, id); else the text's hash."""
    instruction: str | None = None
    """Text of the instruction (usual: instruction, prompt, question, input)."""
    teacher: str | None = None
    """Who answered (usual: teacher, generator, model, source_model)."""
    response: str | None = None
    """The answer (usual: response, output, answer, content, completion)."""


class Source(Settings):
    """Recorded answers, or instructions, from a file, a folder or a dataset."""

    path: SourceRef
    """Parquet or JSONL file, folder, `datasets` name, or `lab:SPLIT`."""
    split: str = "train"
    """Split of a dataset with several."""
    columns: Columns = Columns()


class Teacher(Settings):
    """A live teacher and how it decodes."""

    model: ModelRef
    """`lab:NAME`, a checkpoint folder, or a hub id."""
    name: str = ""
    """Name in the ranking; the model's own name when empty."""
    kind: str = "transformers"
    """The teacher plug: a name on the shelf, or `module:function`."""
    temperature: float = Field(0.0, ge=0)
    """0 is greedy."""
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(512, ge=1)
    batch_size: int = Field(64, ge=1)
    """Conversations answered together."""


class _Reward(Settings):
    name: str = Field("", pattern=r"^[A-Za-z0-9_.\-]*$")
    """Name of the column `reward.<name>` and in the ranking."""
    map: Literal["none", "sigmoid", "minmax", "affine"] = "none"
    """Recorded map to a range that is fit for CAR; `minmax` is over the pooled answers."""
    scale: float = Field(1.0, gt=0)
    """Of `affine`: scale * reward + shift."""
    shift: float = 0.0
    """Of `affine`."""


class ColumnReward(_Reward):
    """A numeric column of recorded answers."""

    kind: Literal["column"] = "column"
    column: str = ""
    """Name of the column; `name` when empty."""

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
    """`lab`, or `module:function`."""


class ModelReward(_Reward):
    """A sequence-classification reward model, asked with its own chat template."""

    kind: Literal["reward_model"]
    model: ModelRef
    output: int = Field(0, ge=0)
    """Which of the head's outputs is the reward."""


def _as_reward(value: Any) -> Any:
    if isinstance(value, str):
        return {"kind": "column", "name": str(value)}
    if isinstance(value, dict) and "kind" not in value:
        return {"kind": "column", **value}
    return value


Reward = Annotated[
    ColumnReward | VerifierReward | ModelReward,
    Field(discriminator="kind"),
    BeforeValidator(_as_reward),
]
Answers = Annotated[Source, _shorthand("path")]


class Select(Settings):
    """Settings of `preceptor select`."""

    base: ModelRef
    """The model that will be trained: `lab:NAME`, a checkpoint folder, or a hub id."""
    answers: Annotated[
        tuple[Answers, ...],
        BeforeValidator(lambda v: v if isinstance(v, list | tuple) else [v]),
    ] = ()
    """Recorded answers."""
    instructions: Annotated[Source, _shorthand("path")] | None = None
    """What live teachers are asked."""
    teachers: tuple[Annotated[Teacher, _shorthand("model")], ...] = ()
    """Live teachers."""
    rewards: tuple[Reward, ...] = Field(min_length=1)
    """Rewards of the answers; the first one decides."""
    reference: ModelRef | None = None
    """A second model under which perplexity and IFD are computed too."""
    criteria: tuple[str, ...] = Field(("car", "mean_reward", "perplexity", "length"), min_length=1)
    """Criteria to rank by; the first one decides."""
    beta: float = Field(3.0, ge=0)
    """CAR's weight of the loss, in 1/nat; not stated by the paper."""
    betas: tuple[Annotated[float, Field(ge=0)], ...] = DEFAULT_BETAS
    """Grid for the sensitivity of the ranking to beta."""
    loss_reduction: Literal["answers", "tokens"] = "answers"
    """Mean loss over answers (of their token means), or over all tokens."""
    max_instructions: int | None = Field(None, ge=2)
    """Use only so many instructions, the first ones of the source."""
    min_paired_share: float = Field(0.5, gt=0, le=1)
    """Refuse when less than this share of the instructions was answered by all teachers."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Level of all intervals."""
    resamples: int = Field(2000, ge=100)
    """Bootstrap resamples of the instructions."""
    seed: int = Field(0, ge=0)
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1` ..."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of weights and products; `auto` is bfloat16 on an accelerator, float32 on a CPU."""
    batch_tokens: int | None = Field(None, ge=1)
    """Padded tokens in a batch of the base and reward models; by device if not set."""
    trust_remote_code: bool = False
    """Run code that comes with a model."""

    @model_validator(mode="after")
    def _has_answers(self) -> Select:
        if not self.answers and not self.teachers:
            raise SettingsError(
                "there is nothing to rank",
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
        _refuse_repeats("teachers", [model_name(t.name or t.model) for t in self.teachers])
        _refuse_repeats("rewards", [reward.name for reward in self.rewards])
        _refuse_repeats("criteria", list(self.criteria))
        return self


def _refuse_repeats(setting: str, names: list[str]) -> None:
    for name in names:
        if not name:
            raise SettingsError("a name is missing", where=setting, next_step="add `name: ...`")
        if names.count(name) > 1:
            raise SettingsError(
                "a name stands twice", where=setting, found=name, next_step="rename one of them"
            )


def model_name(reference: str) -> str:
    """Short name of a model: the folder's name, the lab's name, or the hub id."""
    if reference.startswith(PREFIX):
        return reference.removeprefix(PREFIX)
    path = Path(reference)
    return path.name if path.is_absolute() else reference


def model_location(reference: str) -> str:
    """What the loader opens: a folder, or a hub id."""
    return str(model_folder(reference)) if reference.startswith(PREFIX) else reference
