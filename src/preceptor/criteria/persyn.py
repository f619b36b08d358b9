"""PerSyn's reward: quality and learnability on a common scale."""

from __future__ import annotations

from typing import Literal

import numpy as np

from preceptor.core.criterion import Mean, Signals, criterion
from preceptor.core.options import Share


@criterion(direction="higher", unit="normalised", needs=("reward", "nll"))
def persyn(
    signals: Signals,
    mean: Mean,
    alpha: Share = 0.4,
    normalise: Literal["minmax", "zscore", "rank"] = "minmax",
) -> np.ndarray:
    """mean of (1 - alpha) quality + alpha learnability, both normalised.

    Quality is the reward, learnability the mean log p per token; each is normalised over all
    answers of all teachers, and the mean is over answers. Range [0, 1] with `minmax` and `rank`
    (share of answers below, ties half), the reals with `zscore`; a column without spread is 0;
    higher is better. Source: arXiv 2510.10925, where alpha is 0.4; it chooses a teacher for each
    prompt, and does not say how the two come to one scale, so the option `normalise` does. Scale
    and shift of the reward do not matter. Intervals are given the normalisation, which is made once
    on the whole table; the score depends on which teachers stand in it.
    """
    return mean(persyn_MN(signals, alpha, normalise))


def persyn_MN(signals: Signals, alpha: float, normalise: str) -> np.ndarray:
    """The score of every answer, as the criterion and the router of prompts use it."""
    assert signals.reward_MN is not None
    quality_MN = NORMALISE[normalise](signals.reward_MN)
    learnable_MN = NORMALISE[normalise](-signals.nll_MN / signals.n_tokens_MN)
    return (1.0 - alpha) * quality_MN + alpha * learnable_MN


def _minmax(values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros(values.shape)


def _zscore(values: np.ndarray) -> np.ndarray:
    if values.max() == values.min():
        return np.zeros(values.shape)
    return (values - values.mean()) / values.std()


def _rank(values: np.ndarray) -> np.ndarray:
    """Share of all values that are smaller, and half of those that are equal."""
    distinct, place, count = np.unique(values, return_inverse=True, return_counts=True)
    if len(distinct) == 1:
        return np.zeros(values.shape)
    return ((np.cumsum(count) - 0.5 * count) / values.size)[place.reshape(values.shape)]


NORMALISE = {"minmax": _minmax, "zscore": _zscore, "rank": _rank}
