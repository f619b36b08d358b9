"""Price of the answers, a control."""

from __future__ import annotations

import numpy as np

from preceptor.core.criterion import Mean, Signals, criterion


@criterion(direction="lower", unit="money/answer", needs=("price",))
def cost(signals: Signals, mean: Mean) -> np.ndarray:
    """price of an answer: price of a million tokens, times response tokens / 1e6.

    In the money that the price is given in (`teacher_facts`, or `price` of a teacher behind an
    API); prompts are not counted. Tokens are the base's, not those the teacher's own tokenizer
    makes, which its server bills. Range [0, inf); lower is better. Source: none, it is a control.
    """
    assert signals.price_M is not None
    return mean(signals.price_M[:, None] * signals.n_tokens_MN / 1e6)
