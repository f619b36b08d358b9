"""SCAS: losses of question and answer, weighted by how alike their activations are."""

from __future__ import annotations

import numpy as np

from preceptor.core.criterion import Mean, Signals, criterion
from preceptor.core.options import Share


@criterion(direction="lower", unit="nats^2/token^2", needs=("nll", "nll_question", "similarity"))
def scas(signals: Signals, mean: Mean, lam: Share = 0.5) -> np.ndarray:
    """mean of (1 - lam) dA^2 simAA + lam dA dQ simAQ: losses, weighed by alike activations.

    dA and dQ are the mean losses of the answer's and of the instruction's tokens, in nats; simAA is
    the mean cosine between the activations of the last layer's MLP (its up-projection) at two
    places of the answer, simAQ that of one in the answer and one in the prompt; then the mean over
    answers. Range: the reals, as a rule [0, inf); lower is better. Source: arXiv 2605.26872; the
    option `lam` (0.5) weighs the second term. What is open, and what is done: the instruction's
    loss is measured by itself after a bare start token, its activations in the prompt, template
    included; a place is one whose output predicts a response token, and a pair of a place with
    itself counts. Known scope: a base whose last layer has a single up-projection.
    """
    assert signals.nll_question_MN is not None and signals.n_question_MN is not None
    assert signals.similarity_answer_MN is not None and signals.similarity_question_MN is not None
    answer_MN = signals.nll_MN / signals.n_tokens_MN
    question_MN = signals.nll_question_MN / signals.n_question_MN
    own_MN = answer_MN**2 * signals.similarity_answer_MN
    cross_MN = answer_MN * question_MN * signals.similarity_question_MN
    return mean((1.0 - lam) * own_MN + lam * cross_MN)
