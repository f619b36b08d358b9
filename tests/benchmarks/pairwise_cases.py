"""What tests of pairwise benchmarks share: tables, settings, a run's runtime, examinees."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from preceptor.core.benchmark import Benchmark, Examinee, Exchange, Graded
from preceptor.core.types import Reply, Runtime
from preceptor.data.answer_store import AnswerStore
from preceptor.data.asking import Asker
from preceptor.recipes.examining.examinees import open_benchmark
from preceptor.recipes.settings.benchmarks import AlpacaEval, ArenaHard

KINDS = {"alpaca_eval": AlpacaEval, "arena_hard": ArenaHard}


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def runtime_at(folder: Path, seed: int = 0) -> Runtime:
    """As a run has it: judges are asked through an answer store."""
    return Runtime("cpu", "float32", ask=Asker(AnswerStore(folder / "store")), seed=seed)


def opened(kind: str, runtime: Runtime, **setting: Any) -> Benchmark:
    """A benchmark from settings, as a recipe opens it."""
    return open_benchmark(KINDS[kind].model_validate({"kind": kind, **setting}), runtime)


def grade(benchmark: Benchmark, name: str, responses: Mapping[str, str], **row: Any) -> Graded:
    """Grade the answers that an examinee gave, by the text of the question."""
    exchanges = [
        Exchange(own, (Reply(responses[own.turns[0]], "stop", 1),), row)
        for own in benchmark.questions
        if own.turns[0] in responses
    ]
    return benchmark.grade(Examinee(name), exchanges)


def points(benchmark: Benchmark, graded: Mapping[str, Graded]) -> dict[str, dict[str, float]]:
    """Every measure of every examinee, each question once."""
    scorer = benchmark.score({name: own.marks for name, own in graded.items()})
    ones = np.ones((1, len(benchmark.questions)))
    return {
        name: {measure: float(value_R[0]) for measure, value_R in scorer(name, ones).items()}
        for name in graded
    }
