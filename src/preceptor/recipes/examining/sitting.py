"""Who sits what: all that `preceptor evaluate` can read and check before it loads a weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from preceptor.core.benchmark import Benchmark, Examinee
from preceptor.core.errors import DataError, SettingsError, nearest
from preceptor.core.types import Answer, Runtime
from preceptor.data.answers import read_recorded, refuse_repeated
from preceptor.data.asking import Asker
from preceptor.evaluation.conversing import recorded_exchanges
from preceptor.recipes.examining.examinees import Candidate, open_benchmark, open_candidate
from preceptor.recipes.examining.gate import Gate, read_gates
from preceptor.recipes.inputs.reading import read_table, refuse_both
from preceptor.recipes.inputs.respondents import open_runtime
from preceptor.recipes.settings.benchmarks import benchmark_name
from preceptor.recipes.settings.evaluation import Evaluate


@dataclass(frozen=True)
class Prepared:
    """Everything that can be read and checked before a weight is loaded.

    Attributes:
        benchmarks, candidates: by name, in the order of the settings; recorded answers come last.
        pairs: (benchmark, model) that are examined, model by model.
        warnings: what will be missing.
    """

    settings: Evaluate
    runtime: Runtime
    asker: Asker
    benchmarks: dict[str, Benchmark]
    candidates: dict[str, Candidate]
    pairs: list[tuple[str, str]]
    reference: str
    gates: list[Gate]
    warnings: list[str]
    identity: dict[str, Any]


def prepare(settings: Evaluate, out: Path) -> Prepared:
    """Read and check all that is not a weight; `out` is the run folder, not touched yet."""
    inputs: dict[str, str] = {}
    recorded = _recorded(settings, inputs)
    runtime, asker = open_runtime(settings, out)
    live = [open_candidate(model, runtime) for model in settings.models]
    refuse_both([own.examinee.name for own in live], list(recorded), "model")
    candidates = {own.examinee.name: own for own in live}
    candidates |= {name: Candidate(Examinee(name), answers=own) for name, own in recorded.items()}
    reference = settings.reference or next(iter(candidates))
    if reference not in candidates:
        raise SettingsError(
            "the reference is not examined",
            where="reference",
            found=nearest(reference, candidates),
            next_step="name one of the models, or of those whose answers are recorded",
        )
    benchmarks = {
        benchmark_name(own): replace(open_benchmark(own, runtime), name=benchmark_name(own))
        for own in settings.benchmarks
    }
    gates = read_gates(settings.fail_if, benchmarks, list(candidates), reference)
    pairs, warnings = _pairs(benchmarks, candidates)
    models = {f"model {n}": own.fingerprint for n, own in candidates.items() if own.fingerprint}
    models |= {f"benchmark {n}": own.fingerprint for n, own in benchmarks.items()}
    kept = settings.model_dump(mode="json", exclude={"fail_if"})  # asked of what is there
    identity = {"settings": kept, "inputs": inputs, "models": models}
    return Prepared(
        settings,
        runtime,
        asker,
        benchmarks,
        candidates,
        pairs,
        reference,
        gates,
        warnings,
        identity,
    )


def _recorded(settings: Evaluate, inputs: dict[str, str]) -> dict[str, dict[str, Answer]]:
    """Who answered -> instruction id -> answer; hashes of the tables go to `inputs`."""
    found: dict[str, dict[str, Answer]] = {}
    for source in settings.answers:
        table = read_table(source, inputs)
        for answer in read_recorded(table, source.columns.model_dump(), source.path):
            own = found.setdefault(answer.teacher, {})
            if answer.instruction_id in own:
                refuse_repeated(1, answer.instruction_id, f"answer of {answer.teacher}")
            own[answer.instruction_id] = answer
    return found


def _pairs(
    benchmarks: Mapping[str, Benchmark], candidates: Mapping[str, Candidate]
) -> tuple[list[tuple[str, str]], list[str]]:
    """Who sits what, model by model, and what is left out (raises DataError if all of one is)."""
    pairs, warnings = [], []
    faults: dict[str, DataError] = {}
    for name, candidate in candidates.items():
        for benchmark in benchmarks.values():
            try:
                _refuse_unfit(candidate, benchmark)
                pairs.append((benchmark.name, name))
            except DataError as error:
                warnings.append(f"{name} does not sit {benchmark.name}: {error.what}")
                for unfit in (name, f"benchmark {benchmark.name}"):
                    faults.setdefault(unfit, error)
    sat = {name for pair in pairs for name in (f"benchmark {pair[0]}", pair[1])}
    for unfit, error in faults.items():
        if unfit not in sat:
            raise error
    return pairs, warnings


def _refuse_unfit(candidate: Candidate, benchmark: Benchmark) -> None:
    name = candidate.examinee.name
    if benchmark.recorded and candidate.answers is None:
        raise DataError(
            "the benchmark reads its marks from recorded answers, and a live model has none",
            where=f"benchmark {benchmark.name}, {name}",
            found=f"marks in the column {benchmark.recorded!r}",
            next_step="give the model's answers as `answers`, or the benchmark a judge",
        )
    if benchmark.questions and candidate.answers is not None:
        recorded_exchanges(name, benchmark.questions, candidate.answers)
    elif not benchmark.questions and not candidate.examinee.location:
        raise DataError(
            "the benchmark asks by itself, and there is no checkpoint that it could load",
            where=f"benchmark {benchmark.name}, {name}",
            next_step="examine a checkpoint on it, or leave it out",
        )
