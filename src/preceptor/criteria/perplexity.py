"""Perplexity of the answers, and the mean loss that CAR shares with it."""

from __future__ import annotations

import numpy as np

from preceptor.core.criterion import Mean, Signals, criterion


def mean_loss(signals: Signals, mean: Mean, loss_reduction: str) -> np.ndarray:
    """L(D): loss of a teacher's answers, in nats per response token, >= 0.

    `answers` is the mean over answers of nll / n_tokens; `tokens` the mean over all tokens.
    arXiv 2411.07133 does not say which it uses.
    """
    if loss_reduction == "tokens":
        return mean(signals.nll_MN) / mean(signals.n_tokens_MN)
    return mean(signals.nll_MN / signals.n_tokens_MN)


@criterion(
    direction="lower",
    unit="perplexity",
    needs=("nll",),
    parameters=("loss_reduction",),
)
def perplexity(signals: Signals, mean: Mean, loss_reduction: str = "answers") -> np.ndarray:
    """exp(L): how surprised the model is by the answers.

    Range [1, inf); lower is better (more compatible). Source: baseline of arXiv 2411.07133,
    table 6, under the base itself (PPL-self) and under a reference model (PPL-GPT2 there).
    """
    return np.exp(mean_loss(signals, mean, loss_reduction))
