"""LARK: loss and Brier score of an answer, set against those of the other teachers."""

from __future__ import annotations

import numpy as np

from preceptor.core.criterion import Mean, Signals, criterion


@criterion(direction="higher", unit="1/nat", needs=("nll", "brier"))
def lark(signals: Signals, mean: Mean) -> np.ndarray:
    """mean of w (2 rho - sum w rho): share w of the teachers' losses, Brier score over loss rho.

    Among the teachers of one instruction, w = l / sum l with l the mean token loss of the answer
    in nats, and rho = b / l with b its mean Brier score (sum_v p_v^2 - 2 p_y + 1, in [0, 2]); then
    the mean over instructions. An answer of loss 0 has rho 0 and weight 0; where all answers to an
    instruction have, it counts 0. Range: the reals, as a rule near [0, 1]; higher is better.
    Source: arXiv 2605.30651, whose public code computes this with Brier scores of the 50 likeliest
    tokens, renormalised; here they are exact. Known scope: all teachers answer the same
    instructions; the score depends on which teachers stand in the table.
    """
    assert signals.brier_MN is not None
    loss_MN = signals.nll_MN / signals.n_tokens_MN
    brier_MN = signals.brier_MN / signals.n_tokens_MN
    share_MN = _ratio(loss_MN, np.broadcast_to(loss_MN.sum(axis=0), loss_MN.shape))
    rho_MN = _ratio(brier_MN, loss_MN)
    return mean(share_MN * (2.0 * rho_MN - (share_MN * rho_MN).sum(axis=0)))


def _ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    """over / under, and 0 where `under` is 0."""
    return np.divide(over, under, out=np.zeros_like(over), where=under > 0)
