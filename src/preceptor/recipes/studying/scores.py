"""What became of the students: scores of all marks of a base together, outcomes, and intervals.

Every interval is a percentile interval of one bootstrap. A resample draws the items of each
benchmark with replacement, the same ones for all students of the study; and of the S seeds of a
base, source and arm it draws S - 1 with replacement, for each by itself (Rao and Wu 1988, JASA 83:
the variance is then that of a mean of S). Of one seed the interval is over items alone.

Shapes: N items of a benchmark, R resamples, S seeds, M sources of a base and arm.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from preceptor.core import artifacts
from preceptor.core.benchmark import Benchmark, Marks, Scorer
from preceptor.core.comparison import Measured
from preceptor.core.study import StudyBase, StudyRow
from preceptor.evaluation.tables import marks_of
from preceptor.recipes.studying.budget import Standing
from preceptor.recipes.studying.cells import Cell, is_done
from preceptor.recipes.studying.preparing import Prepared
from preceptor.selection.ranking import ranks

CHUNK = 100  # resamples weighed at once
FEW = 200  # resamples where only a spread is wanted


@dataclass(frozen=True)
class Scored:
    """A cell that is done.

    Attributes:
        scores: BENCHMARK.MEASURE -> score; NaN where it does not exist.
        outcome: mean of the study's measures.
        outcome_R: the same on resampled items.
        n: items that the measures of the outcome were marked on.
    """

    cell: Cell
    scores: dict[str, float]
    outcome: float
    outcome_R: np.ndarray
    n: int


@dataclass(frozen=True)
class Row:
    """The students of one base, source and arm: the mean over their seeds."""

    base: str
    source: str
    arm: str
    outcome: float
    outcome_R: np.ndarray
    n_seeds: int


def score_cells(prepared: Prepared, resamples: int) -> dict[str, Scored]:
    """Every cell that is done, by its folder; cells of one base are scored together."""
    done = [c for c in (*prepared.untrained, *prepared.cells) if is_done(prepared.out, c)]
    marks = {cell.folder: _read_marks(prepared.out, cell, prepared.benchmarks) for cell in done}
    draws = {
        benchmark.name: _Draws(
            [marks[cell.folder][benchmark.name] for cell in done],
            resamples,
            [prepared.settings.seed, 5, zlib.crc32(benchmark.name.encode())],
        )
        for benchmark in prepared.benchmarks
    }
    found: dict[str, Scored] = {}
    for base in prepared.bases:
        own = [cell for cell in done if cell.base == base]
        scorers = {
            benchmark.name: benchmark.score(
                {cell.name: marks[cell.folder][benchmark.name] for cell in own}
            )
            for benchmark in prepared.benchmarks
            if own
        }
        for cell in own:
            found[cell.folder] = _scored(prepared, cell, marks[cell.folder], scorers, draws)
    return found


def _read_marks(out: Path, cell: Cell, benchmarks: Sequence[Benchmark]) -> dict[str, Marks]:
    table = pq.read_table(out / cell.folder / artifacts.MARKS)
    return {own.name: marks_of(table, own.name, cell.name) for own in benchmarks}


class _Draws:
    """How often each resample draws each item of a benchmark."""

    def __init__(self, marks: Sequence[Marks], resamples: int, seed: list[int]) -> None:
        self.places = {
            key: place
            for place, key in enumerate(dict.fromkeys(k for own in marks for k in own.keys))
        }
        n = max(len(self.places), 1)
        rng = np.random.default_rng(seed)
        self.count_RN = rng.multinomial(n, np.full(n, 1.0 / n), size=resamples).astype(np.float64)

    def of(self, marks: Marks) -> np.ndarray:
        """(R, N) for the items of one examinee, in its order."""
        return self.count_RN[:, [self.places[key] for key in marks.keys]]


def _scored(
    prepared: Prepared,
    cell: Cell,
    marks: Mapping[str, Marks],
    scorers: Mapping[str, Scorer],
    draws: Mapping[str, _Draws],
) -> Scored:
    scores: dict[str, float] = {}
    resampled: dict[str, np.ndarray] = {}
    wanted = {f"{benchmark}.{measure}" for benchmark, measure in prepared.measures}
    for benchmark in prepared.benchmarks:
        name = benchmark.name
        own, scorer = marks[name], scorers[name]
        point = scorer(cell.name, np.ones((1, len(own.keys))))
        for measure in benchmark.measures:
            value_1 = point.get(measure.name)
            scores[f"{name}.{measure.name}"] = (
                float("nan") if value_1 is None else float(value_1[0])
            )
        needed = [m.name for m in benchmark.measures if f"{name}.{m.name}" in wanted]
        if needed:
            weight_RN = draws[name].of(own)
            parts = [
                scorer(cell.name, weight_RN[low : low + CHUNK])
                for low in range(0, len(weight_RN), CHUNK)
            ]
            for measure in needed:
                resampled[f"{name}.{measure}"] = np.concatenate([part[measure] for part in parts])
    names = [f"{benchmark}.{measure}" for benchmark, measure in prepared.measures]
    counted = {benchmark for benchmark, _ in prepared.measures}
    return Scored(
        cell,
        scores,
        float(np.mean([scores[name] for name in names])),
        np.mean([resampled[name] for name in names], axis=0),
        sum(_marked(marks[name]) for name in counted),
    )


def _marked(marks: Marks) -> int:
    """Items that have some mark."""
    if not marks.values:
        return 0
    return int(np.any([np.isfinite(value_N) for value_N in marks.values.values()], axis=0).sum())


def rows_of(prepared: Prepared, scored: Mapping[str, Scored]) -> list[Row]:
    """The mean over seeds of every base, source and arm with a student, in the study's order."""
    found = []
    for base in prepared.bases:
        for arm in prepared.settings.arms:
            for source in prepared.sources:
                own = [
                    scored[cell.folder]
                    for cell in prepared.cells
                    if (cell.base, cell.arm, cell.source) == (base, arm, source)
                    and cell.folder in scored
                    and np.isfinite(scored[cell.folder].outcome)
                ]
                if own:
                    value_SR = np.stack([one.outcome_R for one in own])
                    key = zlib.crc32(f"{base}\n{arm}\n{source}".encode())
                    seed = [prepared.settings.seed, 6, key]
                    share_RS = _seed_shares(value_SR.shape[0], value_SR.shape[1], seed)
                    found.append(
                        Row(
                            base,
                            source,
                            arm,
                            float(np.mean([one.outcome for one in own])),
                            np.einsum("rs,sr->r", share_RS, value_SR),
                            len(own),
                        )
                    )
    return found


def _seed_shares(s: int, resamples: int, seed: list[int]) -> np.ndarray:
    """Share of each seed in each resample, (R, S): S - 1 draws; 1 of a single seed."""
    if s == 1:
        return np.ones((resamples, 1))
    rng = np.random.default_rng(seed)
    return rng.multinomial(s - 1, np.full(s, 1.0 / s), size=resamples) / (s - 1)


def interval_of(value: float, resampled_R: np.ndarray, confidence: float) -> Measured:
    """A value with its interval; None where it does not exist."""
    known = resampled_R[np.isfinite(resampled_R)]
    if not np.isfinite(value) or not len(known):
        return {"value": or_none(value), "low": None, "high": None}
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(known, [tail, 1.0 - tail])
    return {"value": float(value), "low": float(low), "high": float(high)}


def or_none(value: float) -> float | None:
    """None for NaN."""
    return float(value) if np.isfinite(value) else None


def matrix_of(prepared: Prepared, rows: Sequence[Row]) -> list[StudyRow]:
    """Outcomes with intervals and ranks; ranks are among the sources of one base and arm."""
    confidence = prepared.settings.confidence
    tail = (1.0 - confidence) / 2.0
    found: list[StudyRow] = []
    for base, arm in dict.fromkeys((row.base, row.arm) for row in rows):
        own = [row for row in rows if (row.base, row.arm) == (base, arm)]
        rank_M = ranks(np.array([[row.outcome] for row in own]), higher_is_better=True)[:, 0]
        rank_MR = ranks(np.stack([row.outcome_R for row in own]), higher_is_better=True)
        low_M = np.quantile(rank_MR, tail, axis=1, method="lower")
        high_M = np.quantile(rank_MR, 1.0 - tail, axis=1, method="higher")
        for m, row in enumerate(own):
            found.append(
                {
                    "base": base,
                    "source": row.source,
                    "arm": arm,
                    "outcome": interval_of(row.outcome, row.outcome_R, confidence),
                    "seeds": row.n_seeds,
                    "rank": int(rank_M[m]),
                    "rank_low": int(low_M[m]),
                    "rank_high": int(high_M[m]),
                }
            )
    return found


def base_scores_of(prepared: Prepared, scored: Mapping[str, Scored]) -> list[StudyBase]:
    """The bases before any training, as far as they sat the benchmarks."""
    found: list[StudyBase] = []
    for cell in prepared.untrained:
        if (own := scored.get(cell.folder)) is not None:
            bounds = interval_of(own.outcome, own.outcome_R, prepared.settings.confidence)
            found.append(
                {
                    "base": cell.base,
                    "outcome": bounds["value"],
                    "low": bounds["low"],
                    "high": bounds["high"],
                    "scores": {name: or_none(value) for name, value in own.scores.items()},
                }
            )
    return found


def standings_of(prepared: Prepared) -> Callable[[], list[Standing]]:
    """What the budget asks: the students of every base and arm so far."""

    def standings() -> list[Standing]:
        scored = score_cells(prepared, FEW)
        rows = rows_of(prepared, scored)
        spread = _spreads(list(scored.values()))
        found = []
        for base, arm in dict.fromkeys((row.base, row.arm) for row in rows):
            own = [row for row in rows if (row.base, row.arm) == (base, arm)]
            found.append(
                Standing(
                    base,
                    arm,
                    [row.source for row in own],
                    np.array([row.outcome for row in own]),
                    np.array([row.n_seeds for row in own], dtype=np.float64),
                    spread(base, arm),
                )
            )
        return found

    return standings


def _spreads(scored: Sequence[Scored]) -> Callable[[str, str], float]:
    """Variance of the outcome of a single student: between the seeds of a source, pooled over the
    sources of the base and arm; over all bases where none has two; that over items where no source
    at all has two.
    """
    groups: dict[tuple[str, str, str], list[float]] = {}
    for own in scored:
        if own.cell.source and np.isfinite(own.outcome):
            key = (own.cell.base, own.cell.arm, own.cell.source)
            groups.setdefault(key, []).append(own.outcome)
    items = [float(np.nanvar(own.outcome_R)) for own in scored if own.cell.source]

    def pooled(chosen: Callable[[Any], bool]) -> float | None:
        own = [np.array(values) for key, values in groups.items() if chosen(key)]
        freedom = sum(len(values) - 1 for values in own)
        squares = sum(float(((values - values.mean()) ** 2).sum()) for values in own)
        return squares / freedom if freedom else None

    def spread(base: str, arm: str) -> float:
        for chosen in (lambda key: key[:2] == (base, arm), lambda key: True):
            found = pooled(chosen)
            if found is not None:
                return found
        return float(np.mean(items)) if items else 0.0

    return spread
