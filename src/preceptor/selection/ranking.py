"""Scores, order, ties and intervals of teachers under every criterion.

Shapes: M teachers, N instructions, S bootstrap resamples. The bootstrap is paired: a resample
draws instructions, and every teacher is scored on the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from preceptor.core.criterion import Criterion, Signals
from preceptor.core.errors import DataError

CHUNK = 100  # resamples weighed at once, at most
CHUNK_BYTES = 64 << 20  # of their weights, at most (one resample at least)
TIE = 1e-12  # relative difference below which two scores are the same


@dataclass(frozen=True)
class Scored:
    """Scores under one criterion, with their resampled twins: `score_M`, `resampled_MS`."""

    score_M: np.ndarray
    resampled_MS: np.ndarray


def resample_weights(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Bootstrap weights in chunks of shape (N, <= CHUNK): share of each draw, columns sum to 1.

    The draws depend on n and seed alone, not on how they are cut into chunks.
    """
    rng = np.random.default_rng(seed)
    share_N = np.full(n, 1.0 / n)
    chunk = min(CHUNK, max(1, CHUNK_BYTES // (8 * n)))
    for low in range(0, resamples, chunk):
        yield (rng.multinomial(n, share_N, size=min(chunk, resamples - low)) / n).T


def score(
    signals: Signals, formula: Callable[..., np.ndarray], resamples: int, seed: int
) -> Scored:
    """Score every teacher, and every teacher on each of `resamples` resamples.

    Args:
        formula: `formula(signals, mean) -> scores`, parameters bound.
    """
    return score_all([(signals, formula)], resamples, seed)[0]


def score_all(
    tables: Sequence[tuple[Signals, Callable[..., np.ndarray]]], resamples: int, seed: int
) -> list[Scored]:
    """`score` for several formulas on the same resamples, which are drawn once for all."""
    if not tables:
        return []
    point = [formula(signals, lambda grid_MN: grid_MN.mean(axis=1)) for signals, formula in tables]
    n = tables[0][0].n_tokens_MN.shape[1]
    parts: list[list[np.ndarray]] = [[] for _ in tables]
    for w_NS in resample_weights(n, resamples, seed):
        for own, (signals, formula) in zip(parts, tables, strict=True):
            own.append(formula(signals, lambda grid_MN, w_NS=w_NS: grid_MN @ w_NS))
    return [
        Scored(np.asarray(point_M, dtype=np.float64), np.concatenate(own, axis=1))
        for point_M, own in zip(point, parts, strict=True)
    ]


def ranks(score_MS: np.ndarray, higher_is_better: bool) -> np.ndarray:
    """Rank of each teacher in each column: 1 + number of strictly better ones (ties share)."""
    good_MS = score_MS if higher_is_better else -score_MS
    margin_MS = TIE * np.abs(good_MS)
    better_MS = np.zeros(good_MS.shape, dtype=np.int64)
    for rival_S in good_MS:
        better_MS += rival_S[None] > good_MS + margin_MS
    return better_MS + 1


def interval(values: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval over the last axis."""
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(values, [tail, 1.0 - tail], axis=-1)
    return low, high


def paired_difference(
    scored: Scored, first: int, second: int, confidence: float
) -> tuple[float, float, float]:
    """(difference first - second, low, high), both teachers on the same resamples."""
    low, high = interval(scored.resampled_MS[first] - scored.resampled_MS[second], confidence)
    return float(scored.score_M[first] - scored.score_M[second]), float(low), float(high)


def rank_teachers(
    teachers: Sequence[str], scored: Scored, higher_is_better: bool, confidence: float
) -> tuple[list[dict[str, Any]], list[str]]:
    """Leaderboard rows, best first, and the teachers that cannot be told from the first.

    A row: teacher, score, low, high, rank, rank_low, rank_high, p_best (the share of resamples in
    which it is best; ties split it).
    """
    if not np.isfinite(scored.score_M).all():
        worst = teachers[int(np.flatnonzero(~np.isfinite(scored.score_M))[0])]
        raise DataError(
            "a score is not finite",
            where=f"teacher {worst}",
            next_step="look for rewards or lengths that are no numbers, or leave out the criterion",
        )
    rank_M = ranks(scored.score_M[:, None], higher_is_better)[:, 0]
    rank_MS = ranks(scored.resampled_MS, higher_is_better)
    low_M, high_M = interval(scored.resampled_MS, confidence)
    tail = (1.0 - confidence) / 2.0
    rank_low_M = np.quantile(rank_MS, tail, axis=1, method="lower")
    rank_high_M = np.quantile(rank_MS, 1.0 - tail, axis=1, method="higher")
    best_MS = rank_MS == 1
    p_best_M = (best_MS / best_MS.sum(axis=0)).mean(axis=1)
    order = sorted(range(len(teachers)), key=lambda m: (rank_M[m], teachers[m]))
    rows = [
        {
            "teacher": teachers[m],
            "score": float(scored.score_M[m]),
            "low": float(low_M[m]),
            "high": float(high_M[m]),
            "rank": int(rank_M[m]),
            "rank_low": int(rank_low_M[m]),
            "rank_high": int(rank_high_M[m]),
            "p_best": float(p_best_M[m]),
        }
        for m in order
    ]
    tied = []
    for m in order[1:]:
        _, low, high = paired_difference(scored, order[0], m, confidence)
        if low <= 0.0 <= high:
            tied.append(teachers[m])
    return rows, tied


def guard_sign(name: str, values: np.ndarray, which: str = "range") -> None:
    """CAR's precondition: no negative reward (raises DataError that names reward and range).

    Args:
        values: mapped; NaN (no score) is passed over.
        which: what the range is called in the error.
    """
    low, high = np.fmin.reduce(values), np.fmax.reduce(values)
    if low < 0:
        raise DataError(
            "CAR needs rewards that are not negative",
            where=f"reward {name!r}",
            found=f"{which} [{low:.4g}, {high:.4g}]: a negative reward would turn "
            "the penalty for high loss into a bonus",
            next_step="set `map: sigmoid`, `minmax` or `affine` on this reward, or drop `car`",
        )


def guard_declared(
    name: str, low: float, high: float, kind: str, scale: float, shift: float
) -> None:
    """The sign guard on the range that a reward declares, before anything is scored.

    An undeclared lower end (-inf) passes: what was scored is guarded later. So do maps that
    give no negative value.
    """
    if np.isfinite(low) and kind not in ("sigmoid", "minmax"):
        mapped = apply_map(np.array([low, high]), kind, scale, shift)
        guard_sign(name, mapped, "declared range")


def apply_map(values: np.ndarray, kind: str, scale: float, shift: float) -> np.ndarray:
    """The named map of a reward: none, sigmoid, minmax (over the pooled answers) or affine.

    No score (NaN) stays none.
    """
    if kind == "sigmoid":
        return 1.0 / (1.0 + np.exp(-values))
    if kind == "minmax":
        low, high = np.fmin.reduce(values), np.fmax.reduce(values)
        return (values - low) / (high - low) if high > low else np.zeros_like(values)
    if kind == "affine":
        return scale * values + shift
    return values


def views(
    criterion: Criterion, signals: Signals, with_reference: bool
) -> list[tuple[str, str | None, Signals]]:
    """Every (name, reward, table) that a criterion is computed on.

    The first reward has the criterion's plain name, others `name.reward`; the reference model's
    version of a criterion that needs no reward is `name_reference`.
    """
    if "reward" in criterion.needs:
        names = list(signals.rewards)
        return [
            (criterion.name if place == 0 else f"{criterion.name}.{name}", name, table)
            for place, name in enumerate(names)
            for table in [signals.with_reward(name)]
        ]
    own: list[tuple[str, str | None, Signals]] = [(criterion.name, None, signals)]
    if with_reference and criterion.of_any_model:
        own.append((f"{criterion.name}_reference", None, signals.of_reference()))
    return own


def rank_all(
    signals: Signals,
    criteria: Sequence[Criterion],
    parameters: dict[str, Any],
    *,
    with_reference: bool,
    confidence: float,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """The `criteria` part of `ranking.json`."""
    chosen = [
        (criterion, name, reward, table)
        for criterion in criteria
        for name, reward, table in views(criterion, signals, with_reference)
    ]
    formulas = [(table, criterion.formula(parameters)) for criterion, _, _, table in chosen]
    result: dict[str, Any] = {}
    for (criterion, name, reward, _), scored in zip(
        chosen, score_all(formulas, resamples, seed), strict=True
    ):
        rows, tied = rank_teachers(
            signals.teachers, scored, criterion.direction == "higher", confidence
        )
        result[name] = {
            "direction": criterion.direction,
            "unit": criterion.unit,
            "reward": reward,
            "description": criterion.description,
            "tied_with_first": tied,
            "teachers": rows,
        }
    return result


def beta_sensitivity(
    signals: Signals, criterion: Criterion, parameters: dict[str, Any], betas: Sequence[float]
) -> dict[str, Any]:
    """Point scores and ranks over a grid of beta, for every reward.

    Args:
        criterion: one that takes `beta` and reads a reward (CAR).
    """
    result: dict[str, Any] = {}
    for _, reward, table in views(criterion, signals, with_reference=False):
        rows = []
        for beta in sorted(set(betas)):
            formula = criterion.formula({**parameters, "beta": beta})
            score_M = formula(table, lambda values: values.mean(axis=1))
            rank_M = ranks(score_M[:, None], criterion.direction == "higher")[:, 0]
            order = sorted(range(len(rank_M)), key=lambda m: (rank_M[m], signals.teachers[m]))
            rows.append(
                {
                    "beta": beta,
                    "teachers": [
                        {
                            "teacher": signals.teachers[m],
                            "score": float(score_M[m]),
                            "rank": int(rank_M[m]),
                        }
                        for m in order
                    ],
                }
            )
        result[str(reward)] = rows
    return result
