"""Settings of the recipes that train: distill, align, sft, cache, upcycle. Reaches no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from preceptor.core.errors import SettingsError, nearest
from preceptor.recipes.settings.loading import Settings
from preceptor.recipes.settings.rewards import Reward
from preceptor.recipes.settings.shared import (
    ModelRef,
    Source,
    SourceRef,
    StoreRef,
    Teacher,
    shorthand,
)

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Mean = Literal["tokens", "samples"]
Layers = str | tuple[tuple[int, int], ...]


class Data(Settings):
    """What the student reads: recorded answers, or instructions that a teacher answers now."""

    answers: Annotated[Source, shorthand("path")] | None = None
    """Recorded answers: a row an answer; a run folder's `answers.parquet` fits."""
    teacher: str = ""
    """Keep only the answers of this teacher (of `answers`)."""
    instructions: Annotated[Source, shorthand("path")] | None = None
    """What is asked when the run starts, where no answers are recorded."""
    ask: Teacher | None = None
    """Who answers `instructions`; in `align` each row's own teacher where not set."""
    store: StoreRef | None = None
    """Folder of the answer store, shared with other runs; `store` in the run folder if not set."""
    max_new_tokens: int = Field(512, ge=1)
    """Longest answer where each row's own teacher is asked; `ask` has its own."""
    where: dict[str, str | int | bool] = Field(default_factory=dict)
    """Keep rows whose column has this value, as in `{domain: shop}`."""
    max_rows: int | None = Field(None, ge=1)
    """Read only so many rows, the first ones; before `where` and `teacher` choose."""
    max_truncated_share: float = Field(0.1, ge=0, le=1)
    """Refuse when a larger share of the responses does not fit into `max_length`."""

    @model_validator(mode="after")
    def _one_source(self) -> Data:
        if (self.answers is None) == (self.instructions is None):
            raise SettingsError(
                "data needs answers or instructions, one of them",
                where="data",
                found="both" if self.answers else "neither",
                next_step="set `answers` to a table of answers, or `instructions` to be asked",
            )
        return self


class Lora(Settings):
    """Low-rank adapters instead of full training (PEFT); the paper's: r 256, alpha 128."""

    r: int = Field(ge=1)
    """Rank."""
    alpha: int = Field(ge=1)
    """Scale: the adapters count alpha / r times."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of their inputs that is dropped while training."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Layers that get one: `all-linear` (all but the head), or names."""


PRESETS: dict[str, dict[str, Any]] = {
    "car_paper": {  # arXiv 2411.07133, supervised fine-tuning of every base
        "learning_rate": 2e-5,
        "epochs": 2.0,
        "batch_size": 4,
        "accumulation": 8,
        "max_length": 4096,
        "schedule": "cosine",
        "warmup_steps": 100,
    },
    "kd_paper": {  # arXiv 2406.19112, distillation on 8 GPUs
        "learning_rate": 2e-5,
        "epochs": 2.0,
        "batch_size": 8,
        "accumulation": 64,
        "max_length": 2048,
        "schedule": "cosine",
        "weight_decay": 0.1,
    },
}


class Training(Settings):
    """How the student is trained. Rate, epochs and schedule are those of arXiv 2406.19112.

    A name stands for a published recipe: `car_paper` (batch 32 on one device), `kd_paper`; with
    changes, `{preset: car_paper, epochs: 1}`.
    """

    learning_rate: float = Field(2e-5, gt=0)
    """Highest learning rate."""
    epochs: float = Field(2.0, gt=0)
    """Passes over the data."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after so many optimiser steps, whatever `epochs` says."""
    batch_size: int = Field(8, ge=1)
    """Samples in a forward pass, on each device."""
    accumulation: int = Field(1, ge=1)
    """Forward passes in a step."""
    max_length: int = Field(2048, ge=2)
    """Longest sequence in tokens; the limit of the base where that is shorter."""
    packing: bool = False
    """Join samples into rows of `max_length`; attention and losses stay within each sample."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Of the learning rate."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which it rises."""
    weight_decay: float = Field(0.0, ge=0)
    """Of the optimiser, on all trained weights but biases and norms."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""
    optimizer: str = "adamw_torch"
    """A name that `transformers.TrainingArguments(optim=...)` knows."""
    gradient_checkpointing: bool = False
    """Compute activations twice, to keep fewer."""
    lora: Lora | None = None
    """Adapters instead of full training; merged at the end."""
    save_steps: int = Field(500, ge=1)
    """A checkpoint every so many steps; the last two are kept. Best a multiple of `log_steps`:
    after a resumption the first logged means start at the checkpoint."""
    log_steps: int = Field(10, ge=1)
    """A line of `metrics.jsonl` every so many steps."""
    gradient_norms: bool = True
    """Also log the norm of each loss's own gradient, at logged steps."""
    report_to: tuple[str, ...] = ()
    """Trackers as in `transformers.TrainingArguments` (tensorboard, wandb ...)."""

    @model_validator(mode="before")
    @classmethod
    def _from_a_preset(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"preset": value}
        if not isinstance(value, dict) or "preset" not in value:
            return value
        own = {name: given for name, given in value.items() if name != "preset"}
        if value["preset"] not in PRESETS:
            raise SettingsError(
                f"no training preset {value['preset']!r}",
                where="training: preset",
                found=nearest(str(value["preset"]), PRESETS),
                next_step=f"use one of {', '.join(PRESETS)}, or write the settings out",
            )
        return PRESETS[value["preset"]] | own


class InProcess(Settings):
    """A teacher that runs beside the student."""

    kind: Literal["in_process"] = "in_process"
    model: ModelRef
    """Runs beside the student."""
    dtype: Precision = "auto"
    """Of its weights; `auto` is bfloat16 on an accelerator, float32 on a CPU."""
    load_in: Literal["4bit", "8bit"] | None = None
    """Quantised by bitsandbytes, where it is installed."""
    offload: bool = False
    """Keep the weights on the CPU between uses; not with `load_in`."""


class Ensemble(Settings):
    """Several teachers over one vocabulary, mixed into one distribution."""

    kind: Literal["ensemble"]
    teachers: tuple[Annotated[InProcess, shorthand("model")], ...] = Field(min_length=2)
    """All with the tokenizer of the student."""
    weights: tuple[Annotated[float, Field(ge=0)], ...]
    """Of each teacher; they sum to 1."""
    mixture: Literal["probability", "geometric"]
    """Mean of probabilities, or normalised geometric mean."""

    @model_validator(mode="after")
    def _weights_fit(self) -> Ensemble:
        if len(self.weights) != len(self.teachers) or abs(sum(self.weights) - 1) > 1e-6:
            raise SettingsError(
                "an ensemble needs a weight for each teacher, and they sum to 1",
                where="teacher: weights",
                found=f"{len(self.teachers)} teachers, weights {list(self.weights)}",
                next_step="correct `weights`",
            )
        return self


class Routed(Settings):
    """A teacher for each row, chosen by a column of the data."""

    kind: Literal["routed"]
    column: str
    """The column whose value names the teacher."""
    teachers: dict[str, Annotated[InProcess, shorthand("model")]] = Field(min_length=1)
    """Teacher of each value."""
    otherwise: Annotated[InProcess, shorthand("model")] | None = None
    """Teacher of every other value; a value without a teacher is an error where not set."""


class Cached(Settings):
    """Signals that `preceptor cache` has stored."""

    kind: Literal["cached"]
    path: SourceRef
    """The folder `signals` of a run of `preceptor cache`."""


def _as_teacher(value: Any) -> Any:
    if isinstance(value, str):
        return {"kind": "in_process", "model": value}
    if isinstance(value, dict) and "kind" not in value:
        return {"kind": "in_process", **value}
    return value


TeacherOfSignals = Annotated[
    InProcess | Ensemble | Routed | Cached,
    Field(discriminator="kind"),
    BeforeValidator(_as_teacher),
]


class Loss(Settings):
    """One loss from the teacher. Nothing of it has a silent default."""

    name: str
    """`forward_kl`, `reverse_kl`, `jsd`, `skew_forward_kl`, `skew_reverse_kl`, `attention`,
    `hidden_mse`, `hidden_cosine` or `module:function`."""
    weight: float = Field(gt=0)
    """Of the loss in the sum."""
    temperature: float | None = Field(None, gt=0)
    """Of a divergence, and required there: both distributions are softened by it; the loss carries
    its square."""
    layers: Layers | None = None
    """Of attention and hidden states, and required there: `one_to_one`, `uniform`, `last_k:K`, or
    pairs (layer of the student, layer of the teacher)."""
    parameters: dict[str, float] = Field(default_factory=dict)
    """Exactly those that the loss names: `beta` of `jsd`, `alpha` of the skewed ones."""


class Quality(Settings):
    """How good a model is: it answers instructions, and a reward grades the answers."""

    instructions: Annotated[Source, shorthand("path")]
    """What the models answer, greedily."""
    max_instructions: int | None = Field(None, ge=2)
    """Only so many, the first ones."""
    reward: Reward
    """What grades the answers: any kind but `column`, without a `map`."""
    group_by: str = ""
    """A column of the instructions; scores are also given for each of its values."""
    max_new_tokens: int = Field(256, ge=1)
    """Longest answer."""
    batch_size: int = Field(64, ge=1)
    """Conversations answered together."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Level of the intervals."""

    @model_validator(mode="after")
    def _grades_new_answers(self) -> Quality:
        if self.reward.kind == "column" or self.reward.map != "none":
            raise SettingsError(
                "this reward cannot grade a student's new answers",
                where="quality: reward",
                found=f"kind {self.reward.kind}, map {self.reward.map}",
                next_step="use another kind of reward, without `map`",
            )
        return self


class Trained(Settings):
    """What every recipe that trains a student has."""

    base: ModelRef
    """The student: `lab:NAME`, a checkpoint folder, or a hub id."""
    data: Data
    """What it reads."""
    training: Training = Field(default_factory=lambda: Training.model_validate({}))
    """How it is trained; the name of a preset, or single settings."""
    quality: Quality | None = None
    """Grade the student before and after."""
    seed: int = Field(0, ge=0)
    """Of training, of the teachers' sampled answers, and of the bootstrap of `quality`."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1` ...; `auto` is CUDA where there is one."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the student's weights; `auto` keeps them in float32 and, on an accelerator, runs the
    products in bfloat16."""
    trust_remote_code: bool = False
    """Run code that comes with a model."""


class Sft(Trained):
    """Settings of `preceptor sft`: supervised fine-tuning, as for a domain expert."""


class Distill(Trained):
    """Settings of `preceptor distill`."""

    teacher: TeacherOfSignals
    """Whose signals the student learns from."""
    mix: float = Field(ge=0, le=1)
    """lambda: (1 - mix) * next-token loss + mix * the losses below."""
    losses: tuple[Loss, ...] = Field(min_length=1)
    """At most one divergence, one loss of attention, one of hidden states."""
    mean: Mean = "tokens"
    """Weigh all scored tokens alike, or all samples."""
    ablate: bool = False
    """Also train a student on the attention loss alone, and one on the divergence alone."""


class Align(Trained):
    """Settings of `preceptor align`: Domain Alignment from Expert."""

    route_by: str
    """The column of the data that says which domain a row belongs to."""
    experts: dict[str, Annotated[InProcess, shorthand("model")]] = Field(min_length=1)
    """Expert of each domain: value of the column -> model."""
    reference: Annotated[InProcess, shorthand("model")]
    """Teacher of every other row; usually the teacher that `select` picked."""
    domain_share: float = Field(0.1, gt=0, lt=1)
    """Share of the rows that belong to an expert; rows are dropped to reach it."""
    mix: float = Field(ge=0, le=1)
    """lambda: (1 - mix) * next-token loss + mix * divergence from each row's teacher."""
    divergence: Loss
    """From each row's teacher."""
    mean: Mean
    """`tokens` weighs a domain by its tokens, as the paper does; `samples` by its rows."""
    controls: bool = False
    """Also train the controls: plain SFT on the same rows, each expert only, reference only."""


class Cache(Settings):
    """Settings of `preceptor cache`: a teacher's signals on the student's data, stored once."""

    base: ModelRef
    """The student, whose rendering of the data is stored."""
    teacher: Annotated[InProcess, shorthand("model")]
    """Whose distributions are stored."""
    data: Data
    """Recorded answers, or instructions and who answers them."""
    max_length: int = Field(2048, ge=2)
    """Longest sequence in tokens; must be that of the training."""
    form: Literal["top_k", "sampled"]
    """The k likeliest tokens and the mass of the rest, or k draws that are unbiased in the mean."""
    k: int = Field(ge=1)
    """Likeliest tokens, or draws, of a position; at most 65,535."""
    temperature: float = Field(gt=0)
    """The losses that use the store must have the same."""
    proposal: float = Field(1.0, gt=0)
    """Of `sampled`: tokens are drawn from the teacher's distribution to this power."""
    batch_tokens: int = Field(4096, ge=1)
    """Padded tokens in a forward pass."""
    seed: int = Field(0, ge=0)
    """Of the draws, and of sampled answers."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1` ...; `auto` is CUDA where there is one."""
    trust_remote_code: bool = False
    """Run code that comes with a model."""


class Upcycle(Settings):
    """Settings of `preceptor upcycle`: dense checkpoints become one mixture of experts."""

    models: tuple[ModelRef, ...] = Field(min_length=1)
    """Of one architecture; expert e comes from model e modulo their number."""
    experts: int = Field(ge=2)
    """Experts in a layer, at least as many as models."""
    per_token: int = Field(ge=1)
    """Experts that each token visits."""
    router: Literal["zeros", "random"] = "random"
    """`random` draws small weights from the seed, so that experts part; `zeros` ties them all: the
    first `per_token` experts see every token, with equal weight."""
    merge: Literal["first", "mean"] = "first"
    """What is no expert (attention, norms, embeddings): of the first model, or the mean."""
    router_aux_loss_coef: float = Field(0.01, ge=0)
    """Weight of the load-balancing loss; kept in the config, and used by training."""
    seed: int = Field(0, ge=0)
    """Of a random router."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the saved weights."""
