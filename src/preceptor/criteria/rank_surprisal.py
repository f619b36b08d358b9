"""Rank-Surprisal Ratio."""

from __future__ import annotations

import numpy as np

from preceptor.core.criterion import Mean, Signals, TokenBlock, criterion
from preceptor.core.options import Count

LEAST = 1e-12  # nats/token; the source's own floor of the denominator


def features(block: TokenBlock, limit: Count = 100) -> dict[str, np.ndarray]:
    """`rank`: mean over tokens of the rank, cut at `limit`."""
    assert block.rank_T is not None
    return {"rank": block.sum(np.minimum(block.rank_T.astype(np.int64), limit)) / block.n_tokens_A}


@criterion(direction="lower", unit="ranks/nat", needs=("nll",), tokens=("rank",), features=features)
def rank_surprisal(signals: Signals, mean: Mean) -> np.ndarray:
    """mean token rank / mean token loss: surprising answers whose tokens still rank high.

    Rank 1 is the likeliest token, ties sharing the better rank; it is cut at the option `limit`
    (100, as in the source). Both are means over an answer's tokens, then over answers; the ratio is
    taken last. Range (0, inf); lower is better. A mean loss of 0 counts as 1e-12. Source: arXiv
    2601.14249; its data-set form is the ratio of means (its appendix, and its public code). Known
    scope: long reasoning traces. A uniform base gives 1 / ln V.
    """
    rank = mean(signals.features["rank_surprisal.rank"])
    return rank / np.maximum(mean(signals.nll_MN / signals.n_tokens_MN), LEAST)
