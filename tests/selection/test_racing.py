"""Influence values, the confidence sequence, and who is dropped. M teachers, N instructions."""

import math
from functools import partial

import numpy as np
import pytest

from preceptor.core.criterion import Signals
from preceptor.criteria.car import car
from preceptor.criteria.ifd import ifd
from preceptor.criteria.mean_reward import mean_reward
from preceptor.criteria.perplexity import perplexity
from preceptor.selection import racing
from preceptor.selection.racing import (
    MINIMUM,
    alpha_of,
    bound,
    influence,
    instructions_needed,
    look,
    race_order,
    round_sizes,
    tuned_rho2,
)
from preceptor.selection.ranking import score


def table(m: int = 3, n: int = 40, seed: int = 0, **arrays: np.ndarray) -> Signals:
    rng = np.random.default_rng(seed)
    grids = {
        "n_tokens_MN": rng.integers(5, 50, (m, n)).astype(float),
        "nll_MN": rng.gamma(3.0, 20.0, (m, n)),
        "nll_unconditional_MN": rng.gamma(4.0, 20.0, (m, n)),
        "reward_MN": rng.random((m, n)),
        **arrays,
    }
    return Signals(tuple(f"t{k}" for k in range(len(grids["reward_MN"]))), **grids)


def rewards(reward_MN: np.ndarray) -> Signals:
    return table(reward_MN=reward_MN, n_tokens_MN=np.ones_like(reward_MN))


def test_influence_of_a_mean_is_the_distance_from_it():
    signals = table()
    assert signals.reward_MN is not None
    wanted = signals.reward_MN - signals.reward_MN.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(influence(signals, mean_reward), wanted, atol=1e-9)


@pytest.mark.parametrize("beta", [0.0, 0.7, 3.0])
@pytest.mark.parametrize("reduction", ["answers", "tokens"])
def test_influence_of_car_by_the_delta_method(beta, reduction):
    """CAR = r / (1 + beta L), so dCAR = dr / (1 + beta L) - r beta dL / (1 + beta L)^2."""
    signals = table(n=60, seed=1)
    r_MN, nll_MN, n_MN = signals.reward_MN, signals.nll_MN, signals.n_tokens_MN
    assert r_MN is not None
    r = r_MN.mean(axis=1, keepdims=True)
    if reduction == "answers":
        loss = (nll_MN / n_MN).mean(axis=1, keepdims=True)
        of_loss = nll_MN / n_MN - loss
    else:  # a ratio of means: d(a / b) = (da - (a / b) db) / b
        loss = (nll_MN.mean(axis=1) / n_MN.mean(axis=1))[:, None]
        of_loss = (nll_MN - loss * n_MN) / n_MN.mean(axis=1, keepdims=True)
    price = 1 + beta * loss
    wanted = (r_MN - r) / price - r * beta * of_loss / price**2
    found = influence(signals, partial(car, beta=beta, loss_reduction=reduction))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(found.sum(axis=1), 0.0, atol=1e-6)


@pytest.mark.parametrize(
    "formula", [partial(car, beta=3.0), partial(perplexity, loss_reduction="tokens"), ifd]
)
def test_spread_of_the_influence_is_that_of_the_bootstrap(formula):
    signals = table(n=400, seed=2)
    spread_M = influence(signals, formula).std(axis=1) / math.sqrt(400)
    resampled_MS = score(signals, formula, 2000, seed=0).resampled_MS
    np.testing.assert_allclose(spread_M, resampled_MS.std(axis=1), rtol=0.1)


def test_influence_is_the_same_in_chunks(monkeypatch):
    signals, formula = table(n=23), partial(car, beta=3.0)
    whole = influence(signals, formula)
    monkeypatch.setattr(racing, "CHUNK", 5)
    assert influence(signals, formula).tobytes() == whole.tobytes()


def test_a_criterion_that_no_instruction_moves():
    def size(signals, mean):
        return mean(np.broadcast_to(np.array([[7.0], [70.0]]), signals.n_tokens_MN.shape))

    signals = table(m=2)
    for formula in (size, lambda signals, mean: np.array([7.0, 70.0])):
        found = influence(signals, formula)
        assert found.shape == (2, 40)
        np.testing.assert_allclose(found, 0.0, atol=1e-9)


def asymptotic(n: int, alpha: float, rho2: float) -> float:
    """The boundary of arXiv 2103.06476, theorem 2.2."""
    return math.sqrt(
        (2 * (n * rho2 + 1) / (n**2 * rho2)) * math.log(math.sqrt(n * rho2 + 1) / alpha)
    )


@pytest.mark.parametrize("n", [5, 20, 100, 3000])
@pytest.mark.parametrize("alpha", [0.2, 0.05 / 19])
def test_the_bound_is_where_the_t_test_martingale_reaches_one_over_alpha(n, alpha):
    """Effects of prior N(0, rho^2), the right Haar prior on the spread: the Bayes factor."""
    rho2 = tuned_rho2(alpha, 50)
    t2 = n * bound(n, alpha, 50) ** 2  # squared t statistic on the boundary
    factor = (1 + t2 / (n - 1)) / (1 + t2 / ((n - 1) * (1 + n * rho2)))
    if math.isfinite(t2):
        assert (1 + n * rho2) ** -0.5 * factor ** (n / 2) == pytest.approx(1 / alpha)
    else:
        assert n == 5  # not even t = inf reaches it
        assert (1 + n * rho2) ** -0.5 * (1 + n * rho2) ** (n / 2) < 1 / alpha


def test_the_bayes_factor_is_a_martingale_by_simulation():
    """Its mean stays 1 under the null: what makes the bound hold at all looks."""
    rng, rho2 = np.random.default_rng(0), 0.2
    for n in (2, 5, 12):
        values_RN = rng.normal(0, 3.0, (400_000, n))
        t2_R = n * values_RN.mean(axis=1) ** 2 / values_RN.var(axis=1, ddof=1)
        factor_R = (1 + t2_R / (n - 1)) / (1 + t2_R / ((n - 1) * (1 + n * rho2)))
        martingale_R = (1 + n * rho2) ** -0.5 * factor_R ** (n / 2)
        assert martingale_R.mean() == pytest.approx(1, abs=0.02)


def test_for_large_numbers_the_bound_is_the_asymptotic_one():
    for alpha in (0.2, 0.05, 0.05 / 19):
        rho2 = tuned_rho2(alpha, 100)
        assert bound(100_000, alpha, 100) == pytest.approx(
            asymptotic(100_000, alpha, rho2), rel=1e-3
        )
        assert all(bound(n, alpha, 100) > asymptotic(n, alpha, rho2) for n in (20, 50, 200))
        # the paper's closed form of rho, which is an approximation
        closed = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / 100
        assert rho2 == pytest.approx(closed, rel=0.1)


@pytest.mark.parametrize("n", [20, 100, 1000])
@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.05 / 19, 1e-6])
def test_rho_makes_the_bound_tightest_where_it_is_tuned(n, alpha):
    best = asymptotic(n, alpha, tuned_rho2(alpha, n))
    for other in (0.5, 0.9, 1.1, 2.0):
        assert best < asymptotic(n, alpha, tuned_rho2(alpha, other * n))


def test_the_bound_shrinks_and_is_wider_than_that_of_one_look():
    widths = [bound(n, 0.05) for n in (20, 50, 100, 1000, 10_000, 10**7)]
    assert widths == sorted(widths, reverse=True) and widths[-1] < 0.002
    assert all(bound(n, 0.05) > 1.96 / math.sqrt(n) for n in (20, 100, 10_000))
    assert bound(100, 0.05 / 19) > bound(100, 0.05)


DRAWS = {
    "gaussian": lambda rng, shape: rng.normal(0.0, 1.0, shape),
    "heavy tails": lambda rng, shape: rng.laplace(0.0, 1.0, shape),
    "right or wrong": lambda rng, shape: rng.binomial(1, 0.6, shape) - rng.binomial(1, 0.6, shape),
}


def running(values_RN: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and standard deviation after each observation from the `MINIMUM`-th on, and n."""
    n_N = np.arange(1, values_RN.shape[1] + 1)
    mean_RN = values_RN.cumsum(axis=1) / n_N
    square_RN = (values_RN**2).cumsum(axis=1) / n_N
    spread_RN = np.sqrt(np.maximum(square_RN - mean_RN**2, 0.0) * n_N / np.maximum(n_N - 1, 1))
    return mean_RN[:, MINIMUM - 1 :], spread_RN[:, MINIMUM - 1 :], n_N[MINIMUM - 1 :]


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("alpha", [0.2, 0.05])
def test_coverage_over_all_looks(kind, alpha):
    """2,000 studies, each looked at after every instruction from the 20th to the 1,000th."""
    values_RN = DRAWS[kind](np.random.default_rng(3), (2000, 1000))
    mean_RN, spread_RN, n_N = running(values_RN)
    width_N = np.array([bound(n, alpha) for n in n_N])
    missed = (np.abs(mean_RN) > spread_RN * width_N).any(axis=1).mean()
    assert missed <= alpha
    # the interval of a single look, looked at as often, misses far more: the test can tell
    quantile = {0.2: 1.2816, 0.05: 1.96}[alpha]
    single = (np.abs(mean_RN) > spread_RN * quantile / np.sqrt(n_N)).any(axis=1).mean()
    assert single > 2 * alpha


def lost_best(scores_MN: np.ndarray, confidence: float, best: int) -> bool:
    """Whether a race with looks at 20, 30, 45 ... drops the teacher `best`."""
    alpha, active = alpha_of(confidence, len(scores_MN)), list(range(len(scores_MN)))
    n = 0
    for size in round_sizes(20, 1.3):
        n = min(n + size, scores_MN.shape[1])
        found = look(
            rewards(scores_MN[active, :n]), mean_reward, higher_is_better=True, alpha=alpha
        )
        active = [name for m, name in enumerate(active) if m not in found.out]
        if best not in active:
            return True
        if len(active) == 1 or n == scores_MN.shape[1]:
            return False
    raise AssertionError


@pytest.mark.parametrize(("gap", "teachers"), [(0.0, 8), (0.02, 8), (0.0, 2)])
def test_the_best_is_lost_no_more_often_than_said(gap, teachers):
    """300 races of teachers that are equal, or behind by a hair, at 80 % confidence."""
    lost = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        scores_MN = rng.normal(0, 0.3, (1, 600)) + rng.normal(0, 1, (teachers, 600))
        scores_MN[0] += gap
        lost += lost_best(scores_MN, 0.8, best=0)
    assert lost / 300 <= 0.2


def test_an_interval_of_one_look_would_lose_the_best_far_more_often(monkeypatch):
    """The same races with the width of a single look at a single pair: the test above can tell."""
    monkeypatch.setattr(racing, "bound", lambda n, alpha: 1.2816 / math.sqrt(n))
    lost = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        scores_MN = rng.normal(0, 0.3, (1, 600)) + rng.normal(0, 1, (8, 600))
        lost += lost_best(scores_MN, 0.8, best=0)
    assert lost / 100 > 0.4


def test_the_union_is_over_the_rivals_of_the_best():
    assert alpha_of(0.95, 20) == pytest.approx(0.05 / 19)
    assert alpha_of(0.9, 2) == pytest.approx(0.1)
    assert alpha_of(0.9, 1) == pytest.approx(0.1)


def test_a_clear_race():
    rng = np.random.default_rng(0)
    scores_MN = rng.normal(0, 0.1, (4, 100)) + np.array([[0.5], [0.9], [0.1], [0.88]])
    found = look(rewards(scores_MN), mean_reward, higher_is_better=True, alpha=0.05 / 3)
    assert (found.leader, found.out) == (1, [0, 2])  # the best of the dropped first
    assert found.difference_M[1] == found.bound_M[1] == 0.0
    by_hand = (scores_MN[1] - scores_MN[3]).std(ddof=1)
    assert found.spread_M[3] == pytest.approx(by_hand)
    assert found.bound_M[3] == pytest.approx(by_hand * bound(100, 0.05 / 3))
    turned = look(rewards(-scores_MN), mean_reward, higher_is_better=False, alpha=0.05 / 3)
    assert (turned.leader, turned.out) == (1, [0, 2])
    np.testing.assert_allclose(turned.difference_M, found.difference_M)


def test_lower_is_better():
    loss_MN = np.stack([np.full(50, 2.0), np.full(50, 1.0)]) + np.linspace(0, 0.1, 50)
    signals = table(m=2, n=50, nll_MN=loss_MN, n_tokens_MN=np.ones((2, 50)))
    found = look(signals, perplexity, higher_is_better=False, alpha=0.05)
    assert (found.leader, found.out) == (1, [0])


def test_pairing_drops_what_is_clear_on_the_same_instructions():
    rng = np.random.default_rng(0)
    difficulty_N = rng.normal(0, 1, 60)
    scores_MN = np.stack([difficulty_N, difficulty_N - 0.1 + rng.normal(0, 0.05, 60)])
    assert look(rewards(scores_MN), mean_reward, higher_is_better=True, alpha=0.05).out == [1]
    unpaired = np.stack([scores_MN[0], rng.permutation(scores_MN[1])])
    assert look(rewards(unpaired), mean_reward, higher_is_better=True, alpha=0.05).out == []


def test_equal_teachers_stay_and_nobody_goes_early():
    same = np.tile(np.random.default_rng(0).random(500), (3, 1))
    assert look(rewards(same), mean_reward, higher_is_better=True, alpha=0.1).out == []
    rounding = same + np.array([[0.0], [1e-17], [-1e-16]])
    assert look(rewards(rounding), mean_reward, higher_is_better=True, alpha=0.1).out == []
    clear = np.array([[1.0], [0.0]]) * np.ones(MINIMUM)
    assert look(rewards(clear), mean_reward, higher_is_better=True, alpha=0.1).out == [1]
    few = clear[:, : MINIMUM - 1]
    assert look(rewards(few), mean_reward, higher_is_better=True, alpha=0.1).out == []


@pytest.mark.parametrize(("difference", "spread"), [(0.1, 1.0), (0.5, 0.3), (0.003, 0.2)])
def test_instructions_needed_solve_the_bound(difference, spread):
    n = instructions_needed(difference, spread, 0.01)
    assert n is not None and spread * bound(n, 0.01) < difference
    assert n == MINIMUM or spread * bound(n - 1, 0.01) >= difference


def test_how_many_more_are_needed():
    rng = np.random.default_rng(0)
    scores_MN = rng.normal(0, 1, (3, 50)) + np.array([[0.3], [0.0], [-9.0]])
    scores_MN = np.vstack([scores_MN, scores_MN[:1]])
    found = look(rewards(scores_MN), mean_reward, higher_is_better=True, alpha=0.01)
    assert found.leader == 0 and found.out == [2]
    wanted = instructions_needed(found.difference_M[1], found.spread_M[1], 0.01)
    assert wanted is not None and found.needed(1) == wanted - 50 > 0
    assert found.needed(2) == 0  # it is enough already
    assert found.needed(3) is None  # the same answers
    assert instructions_needed(1e-9, 1.0, 0.01) is None


def test_rounds_grow_and_the_order_is_the_seed_s():
    sizes = round_sizes(20, 1.5)
    assert [next(sizes) for _ in range(5)] == [20, 30, 45, 68, 102]
    even = round_sizes(20, 1.0)
    assert [next(even) for _ in range(3)] == [20, 20, 20]
    order = race_order(100, 3)
    assert sorted(order.tolist()) == list(range(100))
    assert order.tolist() == race_order(100, 3).tolist() != race_order(100, 4).tolist()
