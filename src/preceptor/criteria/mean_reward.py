"""Mean reward, the student-agnostic criterion."""

from __future__ import annotations

import numpy as np

from preceptor.core.criterion import Mean, Signals, criterion


@criterion(direction="higher", unit="reward", needs=("reward",))
def mean_reward(signals: Signals, mean: Mean) -> np.ndarray:
    """r: mean reward of the answers, whatever the base model.

    In the unit and range of the reward; higher is better. Source: baseline of arXiv 2411.07133,
    table 6.
    """
    assert signals.reward_MN is not None
    return mean(signals.reward_MN)
