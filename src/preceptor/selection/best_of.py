"""What the best and the worst of k samples are worth, with intervals over instructions.

Shapes: N instructions, m samples of one instruction, K numbers of samples, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from preceptor.selection.ranking import interval, resample_weights


def _shares(m: int, k: int) -> np.ndarray:
    """Of the C(m, k) subsets, the share whose largest is the i-th of m ascending values."""
    subsets = math.comb(m, k)
    return np.array([math.comb(i, k - 1) / subsets for i in range(m)])


def steps_to(n: int) -> list[int]:
    """1, 2, 4 ... and n: the numbers of samples that a summary shows."""
    return sorted({2**power for power in range(n.bit_length()) if 2**power < n} | {n})


def extremes_KN(
    value: np.ndarray, instruction: np.ndarray, steps: Sequence[int], largest: bool
) -> np.ndarray:
    """Mean of the largest (or smallest) of k of an instruction's samples, for each k of `steps`.

    The unbiased estimate of its best-of-k (worst-of-k) reward from m >= k samples, drawn without
    replacement: k = m gives the extreme itself, k = 1 the mean.

    Args:
        value: of every sample, finite.
        instruction: number 0 .. N-1 of the instruction that each sample answers; each of them
            has at least max(steps) samples.

    Returns:
        Array of shape (K, N), in the unit of the reward.
    """
    order = np.lexsort((value if largest else -value, instruction))
    count_N = np.bincount(instruction)
    start_N = np.cumsum(count_N) - count_N
    found_KN = np.empty((len(steps), len(count_N)))
    for m in np.unique(count_N):
        own = np.flatnonzero(count_N == m)
        sorted_Nm = value[order[start_N[own][:, None] + np.arange(m)]]
        shares_mK = np.stack([_shares(int(m), k) for k in steps], axis=1)
        found_KN[:, own] = (sorted_Nm @ shares_mK).T
    return found_KN


def add_intervals(
    cells: Sequence[tuple[dict[str, Any], np.ndarray]], confidence: float, resamples: int, seed: int
) -> None:
    """Write mean, low and high of each cell's values_N into its dict.

    The ends are those of a percentile bootstrap over instructions. Cells of equally many
    instructions are drawn on the same resamples.
    """
    by_size: dict[int, list[tuple[dict[str, Any], np.ndarray]]] = {}
    for cell in cells:
        by_size.setdefault(len(cell[1]), []).append(cell)
    for n, own in by_size.items():
        values_KN = np.stack([values_N for _, values_N in own])
        parts = [values_KN @ weight_NR for weight_NR in resample_weights(n, resamples, seed)]
        low_K, high_K = interval(np.concatenate(parts, axis=1), confidence)
        for place, (target, values_N) in enumerate(own):
            target["mean"] = float(values_N.mean())
            target["low"], target["high"] = float(low_K[place]), float(high_K[place])
