"""Yield: how many of a teacher's answers are right."""

from __future__ import annotations

import numpy as np

from preceptor.core.criterion import Mean, Signals, criterion
from preceptor.core.options import Count


@criterion(direction="higher", unit="share", needs=("reward",))
def yield_(
    signals: Signals,
    mean: Mean,
    threshold: float = 0.5,
    samples: Count = 1,
) -> np.ndarray:
    """1 - (1 - p)^samples: share p of right answers, or the coverage that some samples reach.

    An answer is right where its reward is at least the option `threshold` (0.5: right for a
    verifier's 0 and 1). With `samples` = 1 (the default) the score is p, the share of answers that
    rejection sampling keeps; with more, the share of instructions that at least one of so many
    independent answers would solve, if all instructions were equally hard: an upper bound, since
    they are not. The order of teachers is the same. Range [0, 1]; higher is better. Source: yield
    of rejection sampling, arXiv 2308.01825; coverage, arXiv 2407.21787.
    """
    assert signals.reward_MN is not None
    right = mean((signals.reward_MN >= threshold).astype(np.float64))
    return 1.0 - (1.0 - right) ** samples
