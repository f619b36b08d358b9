"""The content of `evaluation.json`, from the tables of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow.parquet as pq

from preceptor.core import artifacts
from preceptor.core.evaluation import (
    EVALUATION_VERSION,
    Benchmarked,
    Condition,
    Evaluation,
    Score,
)
from preceptor.core.run import Run
from preceptor.evaluation.calibration import calibrate
from preceptor.evaluation.quality import answering
from preceptor.evaluation.scoring import Scores, measure_facts, pairs_of
from preceptor.evaluation.tables import games_of, marks_of, rows_of
from preceptor.recipes.examining.examined import Examined, plain
from preceptor.recipes.examining.gate import judge
from preceptor.recipes.examining.sitting import Prepared
from preceptor.recipes.settings.benchmarks import benchmark_name


def evaluation_of(prepared: Prepared, run: Run, examined: Examined) -> Evaluation:
    """The content of `evaluation.json`, from the tables of the run."""
    settings, models, reference = prepared.settings, [*prepared.candidates], prepared.reference
    drawn: dict[str, Any] = {
        "confidence": settings.confidence,
        "resamples": settings.resamples,
        "seed": settings.seed,
    }
    scores = scores_of(prepared, run)
    exchanges = pq.read_table(run.path(artifacts.EXCHANGES))
    return {
        "version": EVALUATION_VERSION,
        "confidence": settings.confidence,
        "n_resamples": settings.resamples,
        "seed": settings.seed,
        "reference": reference,
        "models": models,
        "benchmarks": [
            _benchmarked(prepared, run, examined, setting.kind, scores[benchmark_name(setting)])
            for setting in settings.benchmarks
        ],
        "quality": [
            row
            for name in prepared.benchmarks
            for row in answering(exchanges, name, models, reference, **drawn)
        ],
        "gate": gate_of(prepared, scores),
        "warnings": [*prepared.warnings, *_missing(prepared, scores)],
    }


def scores_of(prepared: Prepared, run: Run) -> dict[str, Scores]:
    """Of each benchmark, from `marks.parquet`."""
    settings = prepared.settings
    table = pq.read_table(run.path(artifacts.MARKS))
    return {
        name: Scores(
            benchmark,
            {m: marks_of(table, name, m) for b, m in prepared.pairs if b == name},
            settings.confidence,
            settings.resamples,
            settings.seed,
        )
        for name, benchmark in prepared.benchmarks.items()
    }


def _benchmarked(
    prepared: Prepared, run: Run, examined: Examined, kind: str, scores: Scores
) -> Benchmarked:
    name, models, settings = scores.benchmark.name, [*prepared.candidates], prepared.settings
    table = pq.read_table(run.path(artifacts.JUDGEMENTS))
    games = {model: games_of(rows_of(table, name, model)) for model in models}
    labels = examined.benchmark_facts(name).get("labels")
    return {
        "name": name,
        "kind": kind,
        "n": scores.n,
        "measures": [measure_facts(measure) for measure in scores.benchmark.measures],
        "categories": scores.categories,
        "scores": [_score(scores, model, examined.facts(name, model)) for model in models],
        "differences": scores.differences(pairs_of(models, prepared.reference)),
        "retention": scores.retention(models, prepared.reference),
        "judge": plain(
            calibrate(games, labels, settings.confidence, settings.resamples, settings.seed)
        ),
    }


def _score(scores: Scores, model: str, facts: dict[str, Any]) -> Score:
    def measures(category: str = "") -> dict[str, Any]:
        return {name: scores.measured(model, name, category) for name in scores.measures}

    return {
        "model": model,
        "n_marked": scores.n_marked(model),
        "measures": measures(),
        "categories": {category: measures(category) for category in scores.categories},
        "facts": facts,
    }


def _missing(prepared: Prepared, scores: Mapping[str, Scores]) -> list[str]:
    return [
        f"{model} has no mark on {own.n - own.n_marked(model):,} of {own.n:,} items of {name}: "
        "they are left out of its score, and of both sides where it is compared"
        for name, own in scores.items()
        for model in own.marks
        if own.n_marked(model) < own.n
    ]


def gate_of(prepared: Prepared, scores: Mapping[str, Scores]) -> list[Condition]:
    """The conditions of `fail_if`, judged."""
    return judge(
        prepared.gates,
        lambda gate, model: scores[gate.benchmark].measured(
            model, gate.measure, gate.category, gate.against
        ),
    )
