"""Racing: which teachers need not be asked again, at a confidence that holds at every look.

Shapes: M teachers, N instructions seen so far, K of them.

A criterion is smooth in weighted means over instructions, so to first order it is itself a mean:
of its influence values. The difference of two teachers is then the mean of paired differences, and
a confidence sequence bounds it at all numbers of instructions at once: one may look after every
round, and stop whenever one likes.

Who is best is asked under a union bound over M - 1 pairs. The best teacher is lost only if the
bound of the pair (best, m) fails at some time for one of the M - 1 others m. Which m led at that
time does not matter, since all of them are counted: the leader may be read off the data. A pair of
two others may fail as it likes; the best stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from preceptor.core.criterion import Signals
from preceptor.selection.ranking import TIE

MINIMUM = 20  # instructions before the first elimination: differences are not Gaussian
TUNED_FOR = 50  # instructions at which the bound is about tightest
STEP = 1e-3  # of the numerical derivative, in weights of an instruction (1 / N)
CHUNK = 16_384  # instructions whose influence is computed at once
NEVER = 10**9  # more instructions than this are none that anybody has

Formula = Callable[..., np.ndarray]
"""`formula(signals, mean) -> scores`, parameters bound."""


def influence(signals: Signals, formula: Formula) -> np.ndarray:
    """Influence value of each instruction on each teacher's score: float64 of shape (M, N).

    The derivative of the score as the weight of one instruction grows at the cost of all others
    (the infinitesimal jackknife). In the unit of the score; each row sums to 0, and its variance
    over N is that of the score. A central difference: exact for means, with a relative error of
    about 1e-6 for ratios of means.

    `mean` is called as in the bootstrap, with one column of weights for each instruction: all at
    1 / N but for one that has a little more (or less). Such a mean needs no matrix, and all of
    them cost as much as one pass over the table.

    Source: Jaeckel, "The infinitesimal jackknife", 1972; Efron, "The jackknife, the bootstrap and
    other resampling plans", 1982, chapter 6.
    """
    n = signals.n_tokens_MN.shape[1]
    step = STEP / n
    parts = []
    for low in range(0, n, CHUNK):
        own = slice(low, low + CHUNK)
        more, less = (
            np.asarray(formula(signals, partial(_leaning_mean, own=own, step=by)), np.float64)
            for by in (step, -step)
        )
        slope = (more - less) / (2 * step)
        if slope.ndim == 1:  # of the teachers alone: no instruction moves it
            slope = slope[:, None]
        parts.append(np.broadcast_to(slope, (len(slope), min(CHUNK, n - low))))
    return np.concatenate(parts, axis=1)


def _leaning_mean(values_MN: np.ndarray, own: slice, step: float) -> np.ndarray:
    """Means of shape (M, K): (1 - step) times that of all instructions, plus step times each."""
    mean_M1 = values_MN.mean(axis=1, keepdims=True)
    return mean_M1 + step * (values_MN[:, own] - mean_M1)


def bound(n: int, alpha: float, tuned_for: float = TUNED_FOR) -> float:
    """Half-width of the confidence sequence after n observations whose standard deviation is 1.

    In units of the standard deviation (of n - 1 degrees of freedom) of the observations so far;
    infinite where n is too small for any. With r = rho^2 and k = (sqrt(n r + 1) / alpha)^(2 / n)
    it is sqrt((n - 1) / n * (k - 1) / (1 - k / (n r + 1))): where the sequential t-test with a
    Gaussian mixture over the effect, a test martingale, reaches 1 / alpha. So the mean of Gaussian
    observations is inside at all n >= 2 at once, but for a probability of alpha, although their
    spread is estimated.

    For large n it is the Gaussian mixture boundary sqrt(2 (n r + 1) / (n^2 r) *
    log(sqrt(n r + 1) / alpha)), an asymptotic confidence sequence whatever the distribution, and
    falls as sqrt(log n / n). Strongly skewed observations miss more often than alpha at small n.

    Two-sided, though an elimination needs one side only: the other one is slack.

    Source: Wang and Ramdas, arXiv 2310.03722 (after Lai, 1976), the Gaussian mixture of the scale
    invariant likelihood; Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, arXiv 2103.06476, theorem
    2.2, for large n.
    """
    room = n * tuned_rho2(alpha, tuned_for) + 1
    grown = math.exp(2 / n * (0.5 * math.log(room) - math.log(alpha)))
    if n < 2 or grown >= room:
        return math.inf
    return math.sqrt((n - 1) / n * (grown - 1) / (1 - grown / room))


def tuned_rho2(alpha: float, tuned_for: float) -> float:
    """rho^2 that makes the large-n form of `bound` tightest at `tuned_for` (0 < alpha < 1).

    With u = tuned_for * rho^2 + 1 the least half-width has u = 1 - 2 log alpha + log u; the closed
    form in the appendix of arXiv 2103.06476 is one step of the iteration towards it.
    """
    start = 1 - 2 * math.log(alpha)
    u = start
    for _ in range(100):  # each step shrinks the error by a factor u
        u = start + math.log(u)
    return (u - 1) / tuned_for


def alpha_of(confidence: float, n_teachers: int) -> float:
    """The probability of error that each pair of teachers may take (see the module's text)."""
    return (1 - confidence) / max(n_teachers - 1, 1)


@dataclass(frozen=True, eq=False)
class Look:
    """The state of a race after a round; differences are positive where the leader is better.

    Attributes:
        n: instructions that all M teachers were compared on.
        leader: position of the best teacher; of equals, the first one.
        score_M: the criterion.
        difference_M: leader's score minus each teacher's, turned so that it is >= 0.
        spread_M: standard deviation of the paired influence values behind each difference.
        bound_M: half-width of each difference's confidence sequence at n.
        alpha: error of each pair.
    """

    n: int
    leader: int
    score_M: np.ndarray
    difference_M: np.ndarray
    spread_M: np.ndarray
    bound_M: np.ndarray
    alpha: float

    @property
    def out(self) -> list[int]:
        """Positions of the teachers that are worse than the leader, the best of them first."""
        if self.n < MINIMUM:
            return []
        tied_M = self.difference_M <= TIE * abs(self.score_M[self.leader])
        found = np.flatnonzero((self.difference_M > self.bound_M) & ~tied_M)
        return found[np.argsort(self.difference_M[found], kind="stable")].tolist()

    def needed(self, rival: int) -> int | None:
        """How many more instructions would separate this teacher from the leader.

        If difference and spread stay as they are now; None where the two are equal.
        """
        difference, spread = float(self.difference_M[rival]), float(self.spread_M[rival])
        if difference <= TIE * abs(self.score_M[self.leader]):
            return None
        enough = instructions_needed(difference, spread, self.alpha)
        return None if enough is None else max(enough - self.n, 0)


def look(signals: Signals, formula: Formula, *, higher_is_better: bool, alpha: float) -> Look:
    """Compare every teacher with the leader on the instructions of the table.

    Args:
        signals: of the teachers that are still in the race.
        formula: the criterion that decides.
        alpha: error of each pair (`alpha_of`, of all teachers that the race began with).
    """
    n = signals.n_tokens_MN.shape[1]
    turn = 1.0 if higher_is_better else -1.0
    score_M = np.asarray(formula(signals, lambda grid_MN: grid_MN.mean(axis=1)), np.float64)
    leader = int(np.argmax(turn * score_M))
    value_MN = influence(signals, formula)
    width = bound(n, alpha)
    spread_M = (value_MN[leader] - value_MN).std(axis=1, ddof=1 if n > 1 else 0)
    return Look(
        n=n,
        leader=leader,
        score_M=score_M,
        difference_M=turn * (score_M[leader] - score_M),
        spread_M=spread_M,
        bound_M=spread_M * width if math.isfinite(width) else np.full(len(score_M), np.inf),
        alpha=alpha,
    )


def instructions_needed(difference: float, spread: float, alpha: float) -> int | None:
    """The least number of instructions at which the bound falls below a difference > 0.

    At least `MINIMUM`; None where it is more than `NEVER`.
    """
    high = MINIMUM
    while spread * bound(high, alpha) >= difference:
        high *= 2
        if high > NEVER:
            return None
    low = MINIMUM - 1
    while high - low > 1:
        middle = (low + high) // 2
        if middle >= MINIMUM and spread * bound(middle, alpha) < difference:
            high = middle
        else:
            low = middle
    return high


def round_sizes(first: int, growth: float) -> Iterator[int]:
    """Instructions of each round: `first`, and then each `growth` times the one before."""
    size = float(first)
    while True:
        yield math.ceil(size)
        size *= growth


def race_order(n: int, seed: int) -> np.ndarray:
    """The order in which n instructions are taken: a random one, fixed by the seed."""
    return np.random.default_rng([seed, n]).permutation(n)
