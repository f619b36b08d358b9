"""From settings to benchmarks and examinees, and an examinee through a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from preceptor.benchmarks import BENCHMARKS
from preceptor.core.benchmark import Benchmark, Examinee, Exchange, Graded
from preceptor.core.plugs import plug
from preceptor.core.types import Answer, Decoding, Runtime, TeacherSource
from preceptor.data.conversing import converse
from preceptor.evaluation.conversing import recorded_exchanges
from preceptor.recipes.inputs.respondents import locate, open_teacher
from preceptor.recipes.settings.benchmarks import BenchmarkSetting, benchmark_name
from preceptor.recipes.settings.shared import Teacher, teacher_name


@dataclass(frozen=True)
class Candidate:
    """Who is examined: a live model, or recorded answers.

    Attributes:
        setting: of a live model; None for recorded answers.
        source: where a live model is asked.
        answers: of recorded ones: instruction id -> answer.
    """

    examinee: Examinee
    setting: Teacher | None = None
    source: TeacherSource | None = None
    answers: Mapping[str, Answer] | None = None

    @property
    def fingerprint(self) -> str:
        """Of a live model; recorded answers are among the inputs."""
        return "" if self.source is None else self.source.fingerprint


def open_candidate(setting: Teacher, runtime: Runtime) -> Candidate:
    """A live model, ready to be asked; no weights are loaded (raises ModelError)."""
    located, _ = locate(setting, runtime)
    whole = setting.kind in ("transformers", "vllm") and not getattr(located, "adapter", None)
    place = getattr(located, "model", "") if whole else ""  # a base without its adapter is another
    return Candidate(
        Examinee(teacher_name(setting), place), setting, open_teacher(setting, runtime)
    )


def open_benchmark(setting: BenchmarkSetting, runtime: Runtime) -> Benchmark:
    """The benchmark a setting names: reads questions, opens judges; no weights.

    Raises:
        PreceptorError: questions, a judge or a prompt that cannot be used.
    """
    located: Any = setting.model_copy(update={"name": benchmark_name(setting)})
    judge = getattr(setting, "judge", None)
    if judge is not None:
        place, runtime = locate(judge, runtime)
        located = located.model_copy(update={"judge": place})
    baseline = getattr(setting, "baseline", None)
    if getattr(baseline, "model", None) is not None:
        assert baseline is not None
        rival, _ = locate(baseline.model, runtime)
        located = located.model_copy(
            update={"baseline": baseline.model_copy(update={"model": rival})}
        )
    return plug("benchmark", BENCHMARKS, setting.kind)(located, runtime)


def examine(
    benchmark: Benchmark, candidate: Candidate, runtime: Runtime
) -> tuple[list[Exchange], Graded]:
    """One examinee through one benchmark: its exchanges, and their marks.

    Answers and verdicts come through the run's answer store, so that a killed run asks only what is
    missing.

    Raises:
        PreceptorError: who answers or judges gave up; what was said before is kept.
    """
    exchanges = _exchanges(benchmark, candidate, runtime)
    return exchanges, benchmark.grade(candidate.examinee, exchanges)


def _exchanges(benchmark: Benchmark, candidate: Candidate, runtime: Runtime) -> list[Exchange]:
    if not benchmark.questions:
        return []
    name = f"{candidate.examinee.name} ({benchmark.name})"
    if candidate.answers is not None:
        return recorded_exchanges(name, benchmark.questions, candidate.answers)
    setting, source = candidate.setting, candidate.source
    assert setting is not None and source is not None
    decoding = Decoding(
        setting.temperature,
        1.0 if setting.temperature == 0 else setting.top_p,
        benchmark.max_new_tokens,
    )
    return converse(name, source, benchmark.questions, decoding, runtime.ask, runtime.seed)
