"""Settings of benchmarks, a class a kind. Reaches no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from preceptor.benchmarks import BENCHMARKS
from preceptor.core.errors import SettingsError, nearest
from preceptor.recipes.settings.loading import Settings
from preceptor.recipes.settings.rewards import PromptRef
from preceptor.recipes.settings.shared import (
    Answers,
    SourceRef,
    Teacher,
    shorthand,
    with_settings,
)


class _Benchmark(Settings):
    name: str = Field("", pattern=r"^[A-Za-z0-9_.:\-]*$")
    """Name in tables; the kind when empty."""
    max_questions: int | None = Field(None, ge=2)
    """Use only so many questions, the first ones."""
    max_new_tokens: int = Field(2048, ge=1)
    """Longest answer of an examinee."""


class _Asking(_Benchmark):
    questions: Answers
    """What examinees are asked: a table, a row a question."""


class Opponent(Settings):
    """The answers that others are compared with; one of the three."""

    table: Answers | None = None
    """A table with an answer to each question."""
    column: str = ""
    """A column of the questions."""
    model: Teacher | None = None
    """A model that is asked."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.table is not None) + bool(self.column) + (self.model is not None) != 1:
            raise ValueError("give one of `table`, `column` and `model`")
        return self


class _Judged(_Asking):
    prompt: PromptRef | None = None
    """File with the question that the judge is asked; the benchmark's own if not set."""
    labels: Answers | None = None
    """Comparisons whose outcome is known, to calibrate the judge: a table with the instruction, the
    columns `response_a` and `response_b`, and `preferred` (A, B or tie)."""


class AlpacaEval(_Judged):
    """AlpacaEval 2: pairwise against a baseline, raw and length-controlled win rate."""

    kind: Literal["alpaca_eval"]
    judge: Teacher | None = None
    """Who judges; not needed where preferences are `recorded`."""
    baseline: Annotated[Opponent, shorthand("column")]
    """Whose answers are compared with."""
    recorded: str = ""
    """A column of recorded answers with the preference in [0, 1], instead of a judge."""
    swap: bool = False
    """Judge every pair in both orders; a draw decides which answer stands first if not."""
    difficulty: str = "joint"
    """Difficulty of each question for length control: `joint` fits it to all examinees of the run;
    else a column of the questions."""


class ArenaHard(_Judged):
    """Arena-Hard: two games with swapped sides against a baseline, strong verdicts weighted."""

    kind: Literal["arena_hard"]
    judge: Teacher
    """Who judges."""
    baseline: Annotated[Opponent, shorthand("column")]
    """Whose answers are compared with."""
    version: Literal["v0.1", "v2.0"] = "v2.0"
    """v0.1: score of a logistic model; v2.0: mean of bootstrapped scores."""
    style_control: bool = False
    """Also a score with length, headers, lists and bold text controlled for."""


class MTBench(_Judged):
    """MT-Bench: two turns, graded from 1 to 10, or compared with a baseline."""

    kind: Literal["mt_bench"]
    judge: Teacher
    """Who judges."""
    protocol: Literal["single", "pairwise"] = "single"
    """Grades, or comparisons with a baseline."""
    baseline: Annotated[Opponent, shorthand("column")] | None = None
    """Of `pairwise`: whose answers are compared with."""


class Verifiable(_Asking):
    """Constraints that a program checks (IFEval), and answers that it compares (MathIF)."""

    kind: Literal["verifiable"]
    answer: str = ""
    """A column with the right answer; answers are not compared where not set."""
    equality: str = "math"
    """How answers are compared: a verifier (`math`, `exact_match`, `module:function`)."""
    unconstrained: str = ""
    """A column with the question without its constraints, which is asked too."""


class LmEval(_Benchmark):
    """A task of EleutherAI's harness (extra `lm-eval`); `lm_eval:TASK` for short."""

    kind: Literal["lm_eval"]
    task: str
    """Name of a task or a group."""
    max_new_tokens: int = Field(0, ge=0)
    """Longest answer; 0 leaves it to the task."""
    include: SourceRef | None = None
    """Folder with tasks of your own."""
    fewshot: int | None = Field(None, ge=0)
    """Examples before each question; the task's own number if not set."""
    batch_size: int = Field(8, ge=1)
    """Requests answered together."""
    chat_template: bool = False
    """Put the model's chat template around every question."""


class LabTest(_Benchmark):
    """The lab's own test: general and domain instructions, graded by its verifier."""

    kind: Literal["lab"]
    max_questions: int | None = Field(300, ge=2)
    """Use only so many of the lab's test split, the first ones."""
    max_new_tokens: int = Field(96, ge=1)
    """Longest answer of an examinee."""


class OwnBenchmark(_Benchmark):
    """A benchmark of the user's own code: `kind: module:function`, or a shelf's name for it."""

    kind: str = Field(pattern=r"^[\w.]+(:\w+)?$")
    """The function: `open_benchmark(setting, runtime)`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """For the function to read."""


_BENCHMARKS = with_settings(AlpacaEval, ArenaHard, MTBench, Verifiable, LmEval, LabTest)


def _as_benchmark(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value.startswith("lm_eval:"):
        return {"kind": "lm_eval", "task": value.removeprefix("lm_eval:")}
    return {"kind": str(value)}


def _kind_of_benchmark(value: Any) -> str:
    kind = str(value.get("kind") if isinstance(value, dict) else getattr(value, "kind", value))
    if kind not in BENCHMARKS and ":" not in kind:
        raise SettingsError(
            f"unknown benchmark {kind!r}",
            where="benchmarks: kind",
            found=nearest(kind, BENCHMARKS),
            next_step="use a known kind, `lm_eval:TASK`, or your own as `module:function`",
        )
    return kind if kind in _BENCHMARKS else "own"


BenchmarkSetting = Annotated[
    Annotated[AlpacaEval, Tag("alpaca_eval")]
    | Annotated[ArenaHard, Tag("arena_hard")]
    | Annotated[MTBench, Tag("mt_bench")]
    | Annotated[Verifiable, Tag("verifiable")]
    | Annotated[LmEval, Tag("lm_eval")]
    | Annotated[LabTest, Tag("lab")]
    | Annotated[OwnBenchmark, Tag("own")],
    Discriminator(_kind_of_benchmark),
    BeforeValidator(_as_benchmark),
]


def benchmark_name(setting: Any) -> str:
    """Name of a benchmark in tables: its own, its task's, or its kind."""
    if setting.name:
        return setting.name
    return f"lm_eval:{setting.task}" if setting.kind == "lm_eval" else setting.kind
