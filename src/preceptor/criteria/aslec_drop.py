"""Mean log-probability without the first token of each step."""

from __future__ import annotations

import numpy as np

from preceptor.core.criterion import Mean, Signals, TokenBlock, criterion


def features(block: TokenBlock) -> dict[str, np.ndarray]:
    """`log_p`: mean log p of the tokens that do not begin a step; of all where there are none."""
    assert block.nll_T is not None
    rest_T = ~block.first_of_step_T()
    n_rest_A = block.sum(rest_T)
    none_A = n_rest_A == 0
    nll_A = np.where(none_A, block.sum(block.nll_T), block.sum(block.nll_T * rest_T))
    return {"log_p": -nll_A / np.where(none_A, block.n_tokens_A, n_rest_A)}


@criterion(direction="higher", unit="nats/token", tokens=("nll", "step"), features=features)
def aslec_drop(signals: Signals, mean: Mean) -> np.ndarray:
    """mean log p per token, the first token of each step left out.

    First tokens of steps are unlikely, and the longer the steps, the fewer they are; so plain mean
    log p favours long steps. Mean over an answer's other tokens, then over answers; an answer that
    has no others (every token begins a step) counts with its plain mean. Steps are parted at the
    setting `step_separator`. Range (-inf, 0]; higher is better. Source: arXiv 2604.06834
    (ASLEC-drop). Known scope: reasoning in steps; where answers are single lines, it only drops
    their first token.
    """
    return mean(signals.features["aslec_drop.log_p"])
