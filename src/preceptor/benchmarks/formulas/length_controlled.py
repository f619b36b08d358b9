"""AlpacaEval 2's length-controlled win rate: what the judge would say if both answers were as long.

For each examinee m and question i (Dubois et al., arXiv 2404.04475, section 3, with the baseline's
own coefficients set to 0)

    logit P(m beats the baseline on i) = theta_m tanh(dlen_mi / sd_m) + psi_m d_mi + gamma_m
    LC_m = 100 * mean_i sigmoid(psi_m d_mi + gamma_m)

dlen is the length of the examinee's answer minus that of the baseline's, in characters, sd_m its
standard deviation, d the difficulty of the question. A positive theta is a judge that likes length.
The fit minimises the mean cross-entropy of the preferences, as they are, plus half the squares of
theta and psi, times `RIDGE`, and of gamma, times `RIDGE_GAMMA`. The paper's own code penalises all
three by their absolute values, with a strength from cross-validation, and adds answers of the
baseline that were made long and short on purpose, so that theta does not follow what only looks
like an effect of length: where questions that ask for long answers are hard ones, say. A penalty
on theta does as much for any baseline and judge. It is cautious: where preferences tell little,
less is taken off the raw win rate.

Where the examinee and the baseline swap places, preferences turn to 1 - p and lengths change sign:
theta stays, psi and gamma change sign, and the two win rates add up to 100. The baseline against
itself has 50.

Difficulty. The paper fits d over its leaderboard. `fit` does so over the examinees of the run, with
one difference: the d of an examinee is fitted to all *others*. Were its own preferences among those
that d is fitted to, d would explain them, the few examinees of a usual run would leave nothing for
theta, and the length-controlled win rate would fall back on the raw one. An examinee without others
has d = 0. Each fit is of a Rasch model, which is convex,

    logit P = theta_m tanh(dlen_mi / sd_m) + gamma_m + d_i,        d_i ~ N(0, 1)

and d is then shifted and scaled to mean 0 and standard deviation 1. Its sign follows: a high d is a
question on which examinees do well against this baseline.

Shapes: M examinees, N questions, R weightings of the questions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preceptor.benchmarks.formulas.logistic import (
    CHUNK_BYTES,
    ITERATIONS,
    TOLERANCE,
    damping,
    fit_logistic,
    sigmoid,
    solve_arrow,
)
from preceptor.core.errors import DataError

RIDGE = 4e-3
"""Penalty of theta and psi, for a mean cross-entropy. It stands in for the published one: for the
twenty models of the published leaderboard whose answers and preferences are known, win rates are
.8 points from the published ones in the mean; 1.8 with a tenth of it, and 2.8 with ten times as
much."""
RIDGE_GAMMA = 1e-5
"""Penalty of gamma. It moves a win rate by .001 points for each logit of gamma, and keeps an
examinee that always wins at 99.99 instead of a logit without end."""
_RIDGE_3 = np.array([RIDGE, RIDGE, RIDGE_GAMMA])


@dataclass(frozen=True)
class LengthControl:
    """Length control of the examinees of a run, fitted.

    Attributes:
        preference_MN: of the examinee's answer, in [0, 1]; NaN where there is none.
        length_MN: tanh(dlen / sd), in [-1, 1]; 0 where there is no preference.
        difficulty_MN: as each examinee's fit reads it; mean 0, standard deviation 1, or all 0.
        theta_M: logits per unit of `length_MN`; > 0 where longer answers are preferred.
        psi_M: logits per standard deviation of the difficulty.
        gamma_M: logits; of winning at equal lengths on a question of mean difficulty.
    """

    preference_MN: np.ndarray
    length_MN: np.ndarray
    difficulty_MN: np.ndarray
    theta_M: np.ndarray
    psi_M: np.ndarray
    gamma_M: np.ndarray

    def scorer(self, m: int, weight_RN: np.ndarray) -> np.ndarray:
        """Length-controlled win rate of examinee m for each row of weights, in per cent.

        theta, psi and gamma are fitted again under each row; difficulties stay.

        Args:
            weight_RN: of the questions, >= 0 (draws of a bootstrap, say, or 0 outside of a
                category); only their proportions count.

        Returns:
            Array of shape (R,) in [0, 100], higher is better; NaN where no weight is on a question
            that has a preference.
        """
        known_N = np.isfinite(self.preference_MN[m])
        weight_RN = np.asarray(weight_RN, dtype=np.float64)[:, known_N]
        x_N3 = _features(self.length_MN[m], self.difficulty_MN[m])[known_N]
        point_3 = np.array([self.theta_M[m], self.psi_M[m], self.gamma_M[m]])
        beta_R3 = fit_logistic(
            x_N3, self.preference_MN[m, known_N], weight_RN, _RIDGE_3, start_P=point_3
        )
        return _win_rate(beta_R3, x_N3[:, 1], weight_RN)


def fit(
    preference_MN: np.ndarray, dlen_MN: np.ndarray, difficulty_N: np.ndarray | None = None
) -> LengthControl:
    """Fit length control to the preferences of a run.

    Args:
        preference_MN: of the examinee's answer over the baseline's, in [0, 1]; NaN where there is
            none.
        dlen_MN: characters of the examinee's answer minus those of the baseline's.
        difficulty_N: of the questions, in any unit; fitted to the run if None.

    Raises:
        DataError: a preference outside of [0, 1], a preference without a length, or a difficulty
            that is no number.
    """
    preference_MN = np.asarray(preference_MN, dtype=np.float64)
    dlen_MN = np.asarray(dlen_MN, dtype=np.float64)
    _check(preference_MN, dlen_MN, difficulty_N)
    length_MN = np.stack(
        [_length(own_N, seen_N) for own_N, seen_N in zip(dlen_MN, preference_MN, strict=True)]
    )
    if difficulty_N is None:
        others = ~np.eye(len(preference_MN), dtype=bool)
        difficulty_MN = np.stack(
            [_difficulty(preference_MN[own_M], length_MN[own_M]) for own_M in others]
        )
    else:
        given_N = _standardised(np.asarray(difficulty_N, dtype=np.float64))
        difficulty_MN = np.broadcast_to(given_N, preference_MN.shape)
    known_MN = np.isfinite(preference_MN)
    beta_M3 = np.concatenate(
        [
            fit_logistic(
                _features(length_MN[m], difficulty_MN[m]),
                np.where(known_MN[m], preference_MN[m], 0.0),
                known_MN[m : m + 1].astype(np.float64),
                _RIDGE_3,
            )
            for m in range(len(preference_MN))
        ]
    )
    theta_M, psi_M, gamma_M = beta_M3.T
    return LengthControl(preference_MN, length_MN, difficulty_MN, theta_M, psi_M, gamma_M)


def _check(preference_MN: np.ndarray, dlen_MN: np.ndarray, difficulty_N: np.ndarray | None) -> None:
    if preference_MN.shape != dlen_MN.shape:
        raise ValueError(f"shapes {preference_MN.shape} and {dlen_MN.shape} differ")
    known_MN = np.isfinite(preference_MN)
    outside = preference_MN[known_MN & ((preference_MN < 0) | (preference_MN > 1))]
    if len(outside):
        raise DataError(
            "a preference is outside of [0, 1]",
            where="length-controlled win rate",
            found=f"{outside[0]:g}",
            next_step="give preferences with 1 where the examinee wins, and 0 where the baseline",
        )
    if not np.isfinite(dlen_MN[known_MN]).all():
        raise DataError(
            "a comparison has a preference, but no length",
            where="length-controlled win rate",
            next_step="give both answers of each comparison a length",
        )
    if difficulty_N is not None and not np.isfinite(difficulty_N).all():
        raise DataError(
            "the difficulty of a question is no number",
            where="length-controlled win rate",
            next_step="give each question one, or `difficulty: joint`",
        )


def _length(dlen_N: np.ndarray, preference_N: np.ndarray) -> np.ndarray:
    """tanh(dlen / sd) of one examinee; 0 where there is no preference.

    All 0 where all differences are the same: what they do cannot be told from gamma.
    """
    known_N = np.isfinite(preference_N)
    sd = dlen_N[known_N].std(ddof=1) if known_N.sum() > 1 else 0.0
    return np.tanh(np.where(known_N, dlen_N, 0.0) / sd) if sd > 0 else np.zeros(len(dlen_N))


def _features(length_N: np.ndarray, difficulty_N: np.ndarray) -> np.ndarray:
    return np.stack([length_N, difficulty_N, np.ones(len(length_N))], axis=1)


def _win_rate(beta_R3: np.ndarray, difficulty_N: np.ndarray, weight_RN: np.ndarray) -> np.ndarray:
    """100 * mean sigmoid(psi d + gamma), in chunks of bounded size."""
    rate_R = np.full(len(weight_RN), np.nan)
    step = max(1, CHUNK_BYTES // (8 * max(len(difficulty_N), 1)))
    for low in range(0, len(weight_RN), step):
        rows = slice(low, low + step)
        chance_RN = sigmoid(beta_R3[rows, 1:2] * difficulty_N + beta_R3[rows, 2:3])
        total_R = weight_RN[rows].sum(axis=1)
        won_R = (weight_RN[rows] * chance_RN).sum(axis=1)
        np.divide(100.0 * won_R, total_R, out=rate_R[rows], where=total_R > 0)
    return rate_R


def _standardised(difficulty_N: np.ndarray) -> np.ndarray:
    centred_N = difficulty_N - difficulty_N.mean()
    sd = centred_N.std()
    return centred_N / sd if sd > 1e-9 else np.zeros(len(difficulty_N))


def _difficulty(preference_MN: np.ndarray, length_MN: np.ndarray) -> np.ndarray:
    """Difficulty of each question for these examinees, standardised.

    An examinee whose preferences are all the same (the baseline itself) says nothing about it.
    """
    known_MN = np.isfinite(preference_MN)
    y_MN = np.where(known_MN, preference_MN, 0.0)
    low_M = np.where(known_MN, y_MN, np.inf).min(axis=1, initial=np.inf)
    high_M = np.where(known_MN, y_MN, -np.inf).max(axis=1, initial=-np.inf)
    differ_M = low_M < high_M
    n = preference_MN.shape[1]
    if not differ_M.any():
        return np.zeros(n)
    return _standardised(_rasch(y_MN[differ_M], length_MN[differ_M], known_MN[differ_M]))


def _rasch(y_MN: np.ndarray, length_MN: np.ndarray, known_MN: np.ndarray) -> np.ndarray:
    """d_N of the Rasch model, with a standard normal prior; theta and gamma have penalties."""
    m, n = y_MN.shape
    ridge_M, ridge_gamma_M = (ridge * known_MN.sum(axis=1) for ridge in (RIDGE, RIDGE_GAMMA))
    theta_M, gamma_M, d_N = np.zeros(m), np.zeros(m), np.zeros(n)
    for _ in range(ITERATIONS):
        chance_MN = sigmoid(theta_M[:, None] * length_MN + gamma_M[:, None] + d_N)
        error_MN = known_MN * (chance_MN - y_MN)
        curve_MN = known_MN * chance_MN * (1.0 - chance_MN)
        long_MN = curve_MN * length_MN
        slope_K = np.concatenate(
            [
                (error_MN * length_MN).sum(axis=1) + ridge_M * theta_M,
                error_MN.sum(axis=1) + ridge_gamma_M * gamma_M,
            ]
        )
        cross_MM = np.diag(long_MN.sum(axis=1))
        shared_KK = np.block(
            [
                [np.diag((long_MN * length_MN).sum(axis=1) + ridge_M), cross_MM],
                [cross_MM, np.diag(curve_MN.sum(axis=1) + ridge_gamma_M)],
            ]
        )
        step_K, step_N = solve_arrow(
            shared_KK,
            np.concatenate([long_MN, curve_MN]),
            curve_MN.sum(axis=0) + 1.0,
            slope_K,
            error_MN.sum(axis=0) + d_N,
        )
        reach = np.abs(step_K[:m]).max() + np.abs(step_K[m:]).max() + np.abs(step_N).max()
        taken = float(damping(np.array(reach)))
        theta_M -= taken * step_K[:m]
        gamma_M -= taken * step_K[m:]
        d_N -= taken * step_N
        if reach < TOLERANCE:
            break
    return d_N
