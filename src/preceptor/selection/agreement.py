"""How well two orders of teachers agree, and how sure that is.

Rank correlation, regret, and their bootstrap. A resample of teachers is a column of counts: the
coefficients are computed with weights, so a teacher that is drawn twice counts twice, and one that
is not drawn does not count. With S_ij = sign(x_i - x_j), a = S_x w and b = S_y w are the centred
mid-ranks (times two), so that

    rho = sum_i w_i a_i b_i / sqrt(sum_i w_i a_i^2 * sum_i w_i b_i^2)                  Spearman
    tau = w' (S_x * S_y) w / sqrt(w' S_x^2 w * w' S_y^2 w)                       Kendall's tau-b

Both in [-1, 1], NaN where one side is constant.

Shapes: M teachers, R resamples. Leading axes broadcast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations
from statistics import NormalDist

import numpy as np

from preceptor.selection.ranking import TIE

CHUNK_BYTES = 16 << 20  # of signs held at once, at most (one resample at least)
EXACT = 7  # up to so many teachers, the permutation test counts every order
PERMUTATIONS = 10_000  # drawn where there are more

Coefficient = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""`coefficient(x, y, weight)` of shapes (..., M) -> (...,)."""


def signs(x: np.ndarray) -> np.ndarray:
    """sign(x_i - x_j) of shape (..., M, M); relative differences below `TIE` are ties.

    The first axis of each pair is i. -inf and NaN are not scores.
    """
    gap = x[..., :, None] - x[..., None, :]
    margin = TIE * np.maximum(np.abs(x)[..., :, None], np.abs(x)[..., None, :])
    return np.where(np.abs(gap) <= margin, 0.0, np.sign(gap))


def _of_signs_spearman(x_ij: np.ndarray, y_ij: np.ndarray, w: np.ndarray) -> np.ndarray:
    a = (x_ij @ w[..., None])[..., 0]
    b = (y_ij @ w[..., None])[..., 0]
    return _ratio((w * a * b).sum(-1), (w * a * a).sum(-1), (w * b * b).sum(-1))


def _of_signs_kendall(x_ij: np.ndarray, y_ij: np.ndarray, w: np.ndarray) -> np.ndarray:
    def total(z_ij: np.ndarray) -> np.ndarray:
        return (w * (z_ij @ w[..., None])[..., 0]).sum(-1)

    return _ratio(total(x_ij * y_ij), total(x_ij * x_ij), total(y_ij * y_ij))


def _ratio(product: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    scale = np.sqrt(first * second)
    found = np.full(np.shape(scale), np.nan)
    np.divide(product, scale, out=found, where=scale > 0)
    return np.clip(found, -1.0, 1.0)


def _in_chunks(
    formula: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    x: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray | None,
) -> np.ndarray:
    """The formula of signs, some rows at a time; x, y and weight broadcast over leading axes."""
    weight = np.ones(x.shape[-1]) if weight is None else np.asarray(weight, dtype=np.float64)
    shape = np.broadcast_shapes(x.shape, y.shape, weight.shape)
    lead, m = shape[:-1], shape[-1]
    if not lead:
        return formula(signs(x), signs(y), weight)

    def rows(values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values, shape).reshape(-1, m) if values.ndim > 1 else values

    own = [rows(values) for values in (x, y, weight)]
    still = [signs(values) if values.ndim == 1 else None for values in own[:2]]
    step = max(1, CHUNK_BYTES // (8 * m * m))
    parts = []
    for low in range(0, math.prod(lead), step):
        x_ij, y_ij = (
            signs(values[low : low + step]) if fixed is None else fixed
            for values, fixed in zip(own[:2], still, strict=True)
        )
        w = own[2][low : low + step] if own[2].ndim > 1 else own[2]
        parts.append(formula(x_ij, y_ij, w))
    return np.concatenate(parts).reshape(lead)


def spearman(x: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Spearman's rho: the correlation of mid-ranks.

    Args:
        x, y: of shape (..., M), finite; the same teachers in the same order.
        weight: how often each teacher counts, >= 0; once if None.

    Returns:
        Array of shape (...,) in [-1, 1]; NaN where x or y is constant.
    """
    return _in_chunks(_of_signs_spearman, np.asarray(x, float), np.asarray(y, float), weight)


def kendall(x: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Kendall's tau-b: concordant less discordant pairs, over pairs that are not tied.

    Arguments and result as of `spearman`.
    """
    return _in_chunks(_of_signs_kendall, np.asarray(x, float), np.asarray(y, float), weight)


def regret(x: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """What is lost by taking the first teacher by x: max y less the y of that teacher.

    In the unit of y, >= 0; lower is better. Where several teachers are first, the mean over them:
    the expectation of a blind choice among them.

    Args:
        x, y: scores and outcomes of shape (..., M), higher is better in both.
        weight: how often each teacher counts; those with 0 are not there. NaN where nobody is.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    weight = np.ones(x.shape[-1]) if weight is None else np.asarray(weight, float)
    x, y, weight = np.broadcast_arrays(x, y, weight)
    there = weight > 0
    top = np.where(there, x, -np.inf).max(-1, keepdims=True)
    share = np.where(there & (x >= top - TIE * np.abs(top)), weight, 0.0)
    total = np.asarray(share.sum(-1))
    lost = np.full(total.shape, np.nan)
    best = np.where(there, y, -np.inf).max(-1)
    np.subtract(best, (share * y).sum(-1) / np.maximum(total, 1e-300), out=lost, where=total > 0)
    return lost


def teacher_counts(m: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of m teachers is drawn: shape (resamples, m), rows sum to m.

    Another stream than that of the instructions, which `ranking.resample_weights` draws.
    """
    rng = np.random.default_rng([seed, 1])
    return rng.multinomial(m, np.full(m, 1.0 / m), size=resamples).astype(np.float64)


def p_value(x: np.ndarray, y: np.ndarray, seed: int = 0) -> float:
    """Two-sided permutation test of Spearman's rho against "no order at all".

    The share of the orders of x whose |rho| is at least that found; every order is counted for up
    to `EXACT` teachers, else `PERMUTATIONS` are drawn, and the order found counts as one of them.
    At least 2 / M! without ties: of three teachers no order is unlikely. NaN where rho is.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    found = abs(float(spearman(x, y)))
    if math.isnan(found):
        return math.nan
    a, b = (signs(values).sum(-1) for values in (x, y))  # centred mid-ranks, times two
    if len(x) <= EXACT:
        order = np.array(list(permutations(range(len(x)))))
    else:
        rng = np.random.default_rng([seed, 2])
        order = rng.permuted(np.tile(np.arange(len(x)), (PERMUTATIONS, 1)), axis=1)
        order[0] = np.arange(len(x))
    rho = (a[order] @ b) / math.sqrt(float((a * a).sum() * (b * b).sum()))
    return float((np.abs(rho) >= found - 1e-9).mean())


@dataclass(frozen=True)
class Bounds:
    """A value with its interval; NaN ends where there is none."""

    value: float
    low: float
    high: float


def bounds(value: float, resampled_R: np.ndarray, confidence: float) -> Bounds:
    """Percentile interval of the resamples in which the value exists (all NaN: no interval)."""
    known = resampled_R[np.isfinite(resampled_R)]
    if not len(known):
        return Bounds(float(value), math.nan, math.nan)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(known, [tail, 1.0 - tail])
    return Bounds(float(value), float(low), float(high))


def too_few(m: int, confidence: float) -> bool:
    """Whether so few teachers that even a perfect order may be chance: 2 / m! > 1 - confidence.

    Three and four teachers at 95%. Resampled teachers then tell nothing of other teachers.
    """
    return 2.0 / math.factorial(m) > 1.0 - confidence


def coefficient_bounds(
    kind: str, value: float, resampled_R: np.ndarray, m: int, confidence: float
) -> Bounds:
    """Interval of a rank correlation over resampled teachers; where that fails, a wider one.

    Of too few teachers the interval is [-1, 1]. A perfect order stays perfect however often it is
    resampled; the interval is then Fisher's, for a coefficient half a step below 1 (the distance
    to its next value), with the variances of z of Bonett and Wright (2000, Psychometrika 65) for
    rho, (1 + rho^2 / 2) / (m - 3), and of Fieller, Hartley and Pearson (1957, Biometrika 44) for
    tau, 0.437 / (m - 4).

    Args:
        kind: `spearman` or `kendall`.
        m: number of teachers.
    """
    if math.isnan(value):
        return Bounds(value, math.nan, math.nan)
    if too_few(m, confidence):
        return Bounds(value, -1.0, 1.0)
    found = bounds(value, resampled_R, confidence)
    if found.high - found.low > 0 or abs(value) < 1.0 - 1e-9 or m < 5:
        return found
    if kind == "spearman":
        inner = 1.0 - 6.0 / (m * (m * m - 1))
        variance = (1.0 + inner * inner / 2.0) / (m - 3)
    else:
        inner = 1.0 - 2.0 / (m * (m - 1))
        variance = 0.437 / (m - 4)
    reach = NormalDist().inv_cdf(0.5 + confidence / 2.0) * math.sqrt(variance)
    low = math.tanh(math.atanh(inner) - reach)
    return Bounds(value, low, value) if value > 0 else Bounds(value, value, -low)


def consistent_n(
    rhos: Iterable[float], candidates: Sequence[int], decimals: int
) -> dict[int, list[float]]:
    """For each n, the published rhos that no order of n untied items gives; none: n is possible.

    Without ties Spearman's rho is 1 - 6 D / (n (n^2 - 1)), where D, the sum of squared rank
    differences, is an even integer from 0 to n (n^2 - 1) / 3. So a rho that was published with
    several decimals tells how many items were ranked, as long as n is small: the values of rho lie
    12 / (n (n^2 - 1)) apart, and where that is below the rounding every n is possible.

    Args:
        rhos: as published.
        candidates: numbers of items to try, each >= 2.
        decimals: to which they were rounded.
    """
    found: dict[int, list[float]] = {n: [] for n in candidates}
    half = 0.5 * 10.0**-decimals + 1e-9
    for rho in rhos:
        for n, left in found.items():
            scale = n * (n * n - 1) / 6.0
            # the even D nearest to what this rho needs
            squares = 2.0 * round((1.0 - rho) * scale / 2.0)
            squares = min(max(squares, 0.0), 2.0 * scale)
            if abs(1.0 - squares / scale - rho) > half:
                left.append(rho)
    return found
