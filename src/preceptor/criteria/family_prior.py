"""Family of the teacher, a control."""

from __future__ import annotations

import numpy as np

from preceptor.core.criterion import Mean, Signals, criterion


@criterion(direction="higher", unit="1 if of the base's family", needs=("family",))
def family_prior(signals: Signals, mean: Mean) -> np.ndarray:
    """1 if the teacher is of the base's family, else 0, whatever it answers.

    Families are guessed from names, or set in `teacher_facts` and `base_family`. Range {0, 1};
    higher is better. Source: none, it is a control: a criterion that orders the teachers as this
    one does may only have found out who was trained alike.
    """
    assert signals.family_M is not None
    return mean(np.broadcast_to(signals.family_M[:, None], signals.n_tokens_MN.shape))
