"""Mean log-probability of the answers: GRAPE, as a score of teachers."""

from __future__ import annotations

import numpy as np

from preceptor.core.criterion import Mean, Signals, criterion


@criterion(direction="higher", unit="nats/token", needs=("nll",))
def grape(signals: Signals, mean: Mean) -> np.ndarray:
    """mean of log p(answer | instruction) per token: how natural the answers are to the model.

    Mean over an answer's response tokens, then over answers. Range (-inf, 0]; higher is better.
    It orders teachers as `perplexity` with `loss_reduction: answers` does. Source: arXiv
    2502.04194, which picks the likeliest answer to each instruction by this number; the mean over
    a teacher's answers is the same number as a score of teachers ("global naturalness" of arXiv
    2510.03988). Known scope: there it loses its hold on long reasoning traces of several teachers.
    """
    return mean(-signals.nll_MN / signals.n_tokens_MN)
