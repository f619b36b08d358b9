"""Local naturalness."""

from __future__ import annotations

import numpy as np

from preceptor.core.criterion import Mean, Signals, criterion


@criterion(direction="higher", unit="nats/token", needs=("local",))
def local_naturalness(signals: Signals, mean: Mean) -> np.ndarray:
    """mean log p per token of each step, given only a few of the steps before it.

    Mean over a step's tokens, then over an answer's steps, then over answers. Steps are parted at
    the setting `step_separator`; the window before a step holds `local_window` of the answer's
    steps (at least one), and the instruction counts as the step before the first one. Range
    (-inf, 0]; higher is better. Source: arXiv 2510.03988; what parts steps and how wide the window
    is are settings, since the source varies them. Known scope: long reasoning traces of several
    teachers; an answer of one step has its plain mean log p given the instruction.
    """
    assert signals.local_MN is not None
    return mean(signals.local_MN)
