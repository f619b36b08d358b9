"""Answer length, the control."""

from __future__ import annotations

import numpy as np

from preceptor.core.criterion import Mean, Signals, criterion


@criterion(direction="higher", unit="tokens")
def length(signals: Signals, mean: Mean) -> np.ndarray:
    """mean number of response tokens, counted with the base model's tokenizer.

    Range [1, inf); higher is better by its source. Source: baseline of arXiv 2411.07133, table 6.
    """
    return mean(signals.n_tokens_MN)
