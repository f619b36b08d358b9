"""Instruction-Complex Instruction-Following Difficulty."""

from __future__ import annotations

import numpy as np

from preceptor.core.criterion import Mean, Signals, criterion


@criterion(direction="higher", unit="1/nat", needs=("nll", "nll_unconditional", "nll_question"))
def ic_ifd(signals: Signals, mean: Mean) -> np.ndarray:
    """mean of L(answer | instruction) / (L(instruction) L(answer)): IFD over L(instruction).

    L are mean token losses in nats; L(answer) is without the instruction, L(instruction) with
    nothing before it. Ratio per answer, then the mean over answers. Range [0, inf);
    higher is better by its source. An answer that the model predicts with certainty without its
    instruction counts as 1 / L(instruction), as in `ifd`; an L(instruction) of 0 is left out
    (counts as 1). Source: arXiv 2412.11231, which chooses instructions by it. Known scope: the
    instructions are the same for all teachers, so L(instruction) only weighs them.
    """
    assert signals.nll_unconditional_MN is not None
    assert signals.nll_question_MN is not None and signals.n_question_MN is not None
    ratio_MN = np.ones_like(signals.nll_MN)
    known_MN = signals.nll_unconditional_MN > 0
    np.divide(signals.nll_MN, signals.nll_unconditional_MN, out=ratio_MN, where=known_MN)
    question_MN = signals.nll_question_MN / signals.n_question_MN
    return mean(ratio_MN / np.where(question_MN > 0, question_MN, 1.0))
