"""Criteria on trial: their scores of teachers against what students of those teachers became.

Every figure comes on three kinds of resamples: of teachers, of instructions (and of an outcome's
own repeats), and of all at once. A resample of teachers is the same for all bases and criteria,
one of instructions for all criteria, so differences are paired.

Shapes: M teachers of a base, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from preceptor.core.comparison import Difference, Measured, Trial, Tried
from preceptor.selection.agreement import (
    Bounds,
    bounds,
    coefficient_bounds,
    kendall,
    p_value,
    regret,
    spearman,
    teacher_counts,
    too_few,
)
from preceptor.selection.ranking import ranks

MEASURES: dict[str, Callable[..., np.ndarray]] = {
    "spearman": spearman,
    "kendall": kendall,
    "regret": regret,
}
CONTROL = "control"


@dataclass(frozen=True)
class Contender:
    """A criterion, or a control, on one base.

    Attributes:
        kind: `reward`, `likelihood`, `reference`, `other` or `control`.
        good_M: score; higher is better.
        good_MR: the same on resampled instructions; None where it cannot be resampled. A control
            that no instruction enters has `fixed` instead.
    """

    kind: str
    good_M: np.ndarray
    good_MR: np.ndarray | None = None
    fixed: bool = False


@dataclass(frozen=True)
class Bench:
    """One base whose outcomes are known.

    Attributes:
        outcome_M: higher is better; the mean of its repeats.
        outcome_MR: means of resampled repeats; None where no teacher has several.
    """

    base: str
    teachers: tuple[str, ...]
    outcome_M: np.ndarray
    outcome_MR: np.ndarray | None
    contenders: Mapping[str, Contender]


@dataclass
class _Resampled:
    """The resamples of one measure of one contender: over all, over teachers, over instructions."""

    both_R: np.ndarray
    teachers_R: np.ndarray
    instructions_R: np.ndarray | None


@dataclass
class _Figures:
    """Points and resamples of one contender, by measure."""

    kind: str
    first: list[str]
    p_value: float
    n_teachers: int
    spread: float  # of the outcomes: the largest regret there can be
    point: dict[str, float] = field(default_factory=dict)
    resampled: dict[str, _Resampled] = field(default_factory=dict)


def firsts(teachers: Sequence[str], good_M: np.ndarray) -> list[str]:
    """Who is first; several where they tie."""
    rank_M = ranks(good_M[:, None], higher_is_better=True)[:, 0]
    return [teachers[m] for m in np.flatnonzero(rank_M == 1).tolist()]


def try_all(
    benches: Sequence[Bench], confidence: float, resamples: int, seed: int
) -> tuple[list[dict[str, Trial]], list[list[Difference]], dict[str, Trial], list[Difference]]:
    """Every contender against the outcomes of every base.

    Returns:
        For each base its trials and the paired differences of rho between contenders; then both
        for the means over bases, of those contenders that every base has.
    """
    pool = list(dict.fromkeys(name for bench in benches for name in bench.teachers))
    counts_RU = teacher_counts(len(pool), resamples, seed)
    figures = [
        _figures_of(bench, counts_RU[:, [pool.index(name) for name in bench.teachers]], seed)
        for bench in benches
    ]
    trials = [{n: _trial(own, confidence) for n, own in found.items()} for found in figures]
    differences = [_differences(found, confidence) for found in figures]
    shared = [name for name in figures[0] if all(name in found for found in figures)]
    mean = {name: _mean([found[name] for found in figures]) for name in shared}
    mean_trials = {name: _trial(own, confidence) for name, own in mean.items()}
    return trials, differences, mean_trials, _differences(mean, confidence)


def _figures_of(bench: Bench, counts_RM: np.ndarray, seed: int) -> dict[str, _Figures]:
    outcome_M = bench.outcome_M
    outcome_RM = outcome_M if bench.outcome_MR is None else bench.outcome_MR.T
    found = {}
    for name, own in bench.contenders.items():
        good_RM = own.good_M if own.good_MR is None else own.good_MR.T
        figures = _Figures(
            own.kind,
            firsts(bench.teachers, own.good_M),
            p_value(own.good_M, outcome_M, seed),
            len(bench.teachers),
            float(np.ptp(outcome_M)),
        )
        moves = own.good_MR is not None or own.fixed
        for measure, formula in MEASURES.items():
            figures.point[measure] = float(formula(own.good_M, outcome_M))
            still_R = np.full(len(counts_RM), figures.point[measure])
            alone = formula(good_RM, outcome_RM) if good_RM.ndim + outcome_RM.ndim > 2 else still_R
            figures.resampled[measure] = _Resampled(
                formula(good_RM, outcome_RM, counts_RM),
                formula(own.good_M, outcome_M, counts_RM),
                alone if moves else None,
            )
        found[name] = figures
    return found


def _mean(parts: Sequence[_Figures]) -> _Figures:
    """Means over bases, resample by resample; a base without a value stays out."""
    first = parts[0]
    shared = [name for name in first.first if all(name in part.first for part in parts)]
    fewest = min(part.n_teachers for part in parts)
    spread = float(np.mean([part.spread for part in parts]))
    mean = _Figures(first.kind, shared, math.nan, fewest, spread)
    for measure in MEASURES:
        mean.point[measure] = float(_nan_mean(np.array([p.point[measure] for p in parts])))
        own = [part.resampled[measure] for part in parts]
        alone = [each.instructions_R for each in own]
        mean.resampled[measure] = _Resampled(
            _nan_mean(np.stack([each.both_R for each in own])),
            _nan_mean(np.stack([each.teachers_R for each in own])),
            None
            if any(each is None for each in alone)
            else _nan_mean(np.stack([each for each in alone if each is not None])),
        )
    return mean


def _nan_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is known; NaN where nothing is."""
    known = np.isfinite(values)
    n = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)


def _trial(figures: _Figures, confidence: float) -> Trial:
    found: dict[str, Tried] = {}
    for measure in MEASURES:
        value, own = figures.point[measure], figures.resampled[measure]

        def interval(
            resampled_R: np.ndarray, measure: str = measure, value: float = value
        ) -> Bounds:
            if measure != "regret":
                return coefficient_bounds(
                    measure, value, resampled_R, figures.n_teachers, confidence
                )
            if too_few(figures.n_teachers, confidence):
                return Bounds(value, 0.0, figures.spread)
            return bounds(value, resampled_R, confidence)

        both, teachers = interval(own.both_R), interval(own.teachers_R)
        alone = None
        if own.instructions_R is not None:
            inner = bounds(value, own.instructions_R, confidence)
            alone = [or_none(inner.low), or_none(inner.high)]
        found[measure] = {
            **measured(both),
            "teachers": [or_none(teachers.low), or_none(teachers.high)],
            "instructions": alone,
        }
    return {
        "kind": figures.kind,
        "first": figures.first,
        "spearman": found["spearman"],
        "kendall": found["kendall"],
        "regret": found["regret"],
        "p_value": or_none(figures.p_value),
    }


def _differences(found: Mapping[str, _Figures], confidence: float) -> list[Difference]:
    """Differences of rho of all pairs whose rho exists, over teachers and instructions."""
    rows: list[Difference] = []
    for first, second in combinations(found, 2):
        a, b = found[first], found[second]
        value = a.point["spearman"] - b.point["spearman"]
        if math.isnan(value):
            continue
        gap_R = a.resampled["spearman"].both_R - b.resampled["spearman"].both_R
        own = (
            Bounds(value, -2.0, 2.0)
            if too_few(a.n_teachers, confidence)
            else bounds(value, gap_R, confidence)
        )
        rows.append({"first": first, "second": second, **measured(own)})
    return rows


def measured(own: Bounds) -> Measured:
    """As JSON holds it."""
    return {"value": or_none(own.value), "low": or_none(own.low), "high": or_none(own.high)}


def or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
