"""Size of the teacher, a control."""

from __future__ import annotations

import numpy as np

from preceptor.core.criterion import Mean, Signals, criterion


@criterion(direction="higher", unit="billions of parameters", needs=("size",))
def size(signals: Signals, mean: Mean) -> np.ndarray:
    """parameters of the teacher, in billions, whatever it answers.

    Read from names, or set in `teacher_facts`; all parameters, the inactive ones of a mixture of
    experts too. Range (0, inf); higher is better. Source: none, it is a control: the common belief
    that the larger teacher is the better one.
    """
    assert signals.size_M is not None
    return mean(np.broadcast_to(signals.size_M[:, None], signals.n_tokens_MN.shape))
