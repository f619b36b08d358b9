"""Mean log-probability, with the effect of the steps' lengths regressed out."""

from __future__ import annotations

import numpy as np

from preceptor.core.criterion import Mean, Signals, TokenBlock, criterion

CONSTANT = 1e-9  # spread, relative to a column's largest value, below which it is a constant


def features(block: TokenBlock) -> dict[str, np.ndarray]:
    """What an answer's mean log p is made of.

    `first`: mean log p of the tokens that begin a step; `rest`: of the others, or of all where
    there are none; `share`: steps / tokens.
    """
    assert block.nll_T is not None
    first_T = block.first_of_step_T()
    n_A, n_first_A = block.n_tokens_A, block.sum(first_T)
    nll_A, nll_first_A = block.sum(block.nll_T), block.sum(block.nll_T * first_T)
    n_rest_A = n_A - n_first_A
    none_A = n_rest_A == 0
    return {
        "first": -nll_first_A / n_first_A,
        "rest": -np.where(none_A, nll_A, nll_A - nll_first_A) / np.where(none_A, n_A, n_rest_A),
        "share": n_first_A / n_A,
    }


@criterion(direction="higher", unit="nats/token", tokens=("nll", "step"), features=features)
def aslec_casl(signals: Signals, mean: Mean) -> np.ndarray:
    """mean of s - c r: mean log p s, less what the share r of tokens that begin a step explains.

    Per answer, s is the mean log p per token, f that of the first tokens of steps, o that of the
    others (of all where there are none), r = steps / tokens. c is the coefficient of r in the
    least-squares fit s ~ a + b f + d o + c r over all answers of all teachers. Steps are parted at
    the setting `step_separator`. Range: the reals, as a rule below 0; higher is better. Source:
    arXiv 2604.06834 (ASLEC-casl). What it leaves open, and what is done: the fit is made once, on
    the whole table, so intervals are given the fit; a column without spread is left out (one step
    everywhere: c = 0 where answers are equally long), and among several best fits the one of
    smallest standardised coefficients is taken. Known scope: reasoning in steps. The score depends
    on which teachers stand in the table.
    """
    found = signals.features
    first_MN, rest_MN = found["aslec_casl.first"], found["aslec_casl.rest"]
    share_MN = found["aslec_casl.share"]
    log_p_MN = share_MN * first_MN + (1.0 - share_MN) * rest_MN
    columns = np.stack([first_MN.ravel(), rest_MN.ravel(), share_MN.ravel()], axis=1)
    return mean(log_p_MN - _last_coefficient(columns, log_p_MN.ravel()) * share_MN)


def _last_coefficient(columns: np.ndarray, values: np.ndarray) -> float:
    """Least-squares coefficient of the last column, beside an intercept; 0 of a constant."""
    centred = columns - columns.mean(axis=0)
    spread = centred.std(axis=0)
    varies = spread > CONSTANT * np.abs(columns).max(axis=0)
    if not varies[-1]:
        return 0.0
    scaled = centred[:, varies] / spread[varies]
    fitted = np.linalg.lstsq(scaled, values - values.mean(), rcond=CONSTANT)[0]
    return float(fitted[-1] / spread[-1])
