"""GRACE: how the gradients of a teacher's held-out answers lie to those of its other answers.

Shapes: N instructions (an answer each), n of them held out in a split, D numbers of a projected
gradient.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from preceptor.core.criterion import Mean, Signals, criterion
from preceptor.core.errors import DataError, SettingsError

LEAST = 10  # instructions
BLOCK = 8192  # answers whose gradients are in fp64 at once
TINY = 1e-12  # the least eigenvalue, and the least norm, that is told from zero


def leverages(
    gradient_ND: np.ndarray, splits: int = 10, test_share: float = 0.1, nu: float = 1e-3
) -> Mapping[str, np.ndarray]:
    """Each answer's part of GRACE, so that their mean is the score.

    leverage_i = N / (splits n) * the sum over splits that hold i out of g_i^T Sigma~^-1 g_i;
    0 for an answer that no split holds out. Splits depend on N and their number alone, and are the
    same for all teachers (and those of the paper's code).

    Args:
        splits: random splits of the instructions.
        test_share: of the instructions, how many a split holds out.
        nu: weight of the mean eigenvalue in each eigenvalue.

    Raises:
        DataError: fewer than 10 instructions.
        SettingsError: options out of their ranges.
    """
    n = len(gradient_ND)
    _refuse(n, splits, test_share, nu)
    n_test = max(1, int(n * test_share))
    every_DD = _second_moment(gradient_ND)
    leverage_N = np.zeros(n)
    for number in range(splits):
        test = np.random.default_rng(number).permutation(n)[n - n_test :]
        test_nD = gradient_ND[test].astype(np.float64)
        train_DD = (every_DD - _second_moment(test_nD)) / (n - n_test)
        w_D, v_DD = np.linalg.eigh(train_DD)
        w_D = np.maximum(w_D, TINY)
        w_D = (1.0 - nu) * w_D + nu * w_D.mean()
        leverage_N[test] += (np.square(test_nD @ v_DD) / w_D).sum(axis=1)
    return {"leverage": leverage_N * n / (n_test * splits)}


def _second_moment(gradient_ND: np.ndarray) -> np.ndarray:
    """Sum of u u^T over the gradients brought to length 1, in fp64: (D, D)."""
    moment_DD = np.zeros((gradient_ND.shape[1],) * 2)
    for low in range(0, len(gradient_ND), BLOCK):
        unit = gradient_ND[low : low + BLOCK].astype(np.float64)
        unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), TINY)
        moment_DD += unit.T @ unit
    return moment_DD


def _refuse(n: int, splits: int, test_share: float, nu: float) -> None:
    if n < LEAST:
        raise DataError(
            "GRACE compares held-out answers with others, and there are too few",
            where="criterion grace",
            found=f"{n:,} instructions",
            next_step=f"use at least {LEAST} instructions (hundreds are better), or another "
            "criterion",
        )
    for option, value, fits, want in (
        ("splits", splits, isinstance(splits, int) and splits >= 1, "a whole number from 1 on"),
        ("test_share", test_share, 0 < test_share < 1, "between 0 and 1"),
        ("nu", nu, 0 < nu <= 1, "above 0 and at most 1"),
    ):
        if not fits:
            raise SettingsError(
                "an option of GRACE is out of its range",
                where=f"criterion_options: grace: {option}",
                found=repr(value),
                next_step=f"give a number, {want}",
            )


@criterion(direction="lower", unit="nats^2", gradients=True, features=leverages)
def grace(signals: Signals, mean: Mean) -> np.ndarray:
    """Mean over random splits of Tr(Sigma~_train^-1 Sigma_test), of the base's gradients.

    A gradient is that of an answer's mean loss, projected to D numbers. In each of 10 splits a
    tenth of the instructions is held out; Sigma_test is the second moment of its gradients, and
    Sigma_train that of the others, each brought to length 1; of Sigma_train every eigenvalue w
    becomes (1 - nu) w + nu mean(w). Range [0, inf), times the square of the gradients' length;
    lower is better: gradients are small, and lie where the other answers' gradients lie. Source:
    arXiv 2511.02833, with one answer an instruction, and its code
    (github.com/abhishekpanigrahi1996/GRACE).

    The intervals hold the splits and their spectra fixed, and draw the answers anew: what another
    sample would change about Sigma_train is not in them.
    """
    return mean(signals.features["grace.leverage"])
