"""Compatibility-Adjusted Reward."""

from __future__ import annotations

import numpy as np

from preceptor.core.criterion import Mean, Signals, criterion
from preceptor.criteria.perplexity import mean_loss


@criterion(
    direction="higher",
    unit="reward",
    needs=("reward", "nll"),
    parameters=("beta", "loss_reduction"),
    needs_positive_reward=True,
)
def car(signals: Signals, mean: Mean, beta: float, loss_reduction: str = "answers") -> np.ndarray:
    """r / (1 + beta * L): mean reward, discounted by the base model's loss on the answers.

    Range [0, max reward]; higher is better; beta >= 0 in 1/nat. Scaling the reward keeps the
    order, shifting it does not, and a negative reward would turn the discount into a bonus:
    rewards must be >= 0. Source: arXiv 2411.07133, equation of section 5; beta is not stated
    there.
    """
    assert signals.reward_MN is not None
    loss = mean_loss(signals, mean, loss_reduction)
    return mean(signals.reward_MN) / (1.0 + beta * loss)
