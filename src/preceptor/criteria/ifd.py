"""Instruction-Following Difficulty."""

from __future__ import annotations

import numpy as np

from preceptor.core.criterion import Mean, Signals, criterion


@criterion(direction="higher", unit="ratio", needs=("nll", "nll_unconditional"))
def ifd(signals: Signals, mean: Mean) -> np.ndarray:
    """mean of L(answer | instruction) / L(answer): how little the instruction helps the model.

    Ratio of mean token losses, per answer, then the mean over answers. Range [0, inf), about 1
    where the instruction does not help; higher is better by its source. An answer that the model
    predicts with certainty without its instruction (loss 0) counts as 1. Source: arXiv
    2308.12032, equation 4; baseline of arXiv 2411.07133, table 6.
    """
    assert signals.nll_unconditional_MN is not None
    known = signals.nll_unconditional_MN > 0
    ratio_MN = np.ones_like(signals.nll_MN)
    np.divide(signals.nll_MN, signals.nll_unconditional_MN, out=ratio_MN, where=known)
    return mean(ratio_MN)
