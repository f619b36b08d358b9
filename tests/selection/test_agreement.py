"""Rank correlation, regret and their intervals. M teachers, R resamples."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from preceptor.selection import agreement
from preceptor.selection.agreement import (
    bounds,
    coefficient_bounds,
    consistent_n,
    kendall,
    p_value,
    regret,
    spearman,
    teacher_counts,
    too_few,
)

spearmanr: Any = stats.spearmanr
kendalltau: Any = stats.kendalltau


def test_four_teachers_by_hand():
    x, y = np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 4])
    # squared rank differences 0 + 1 + 1 + 0 = 2: 1 - 6 * 2 / (4 * 15) = .8
    assert spearman(x, y) == pytest.approx(0.8)
    # 6 pairs, 5 concordant and 1 discordant
    assert kendall(x, y) == pytest.approx(4 / 6)


def test_five_teachers_with_a_tie_by_hand():
    x, y = np.array([1.0, 2, 2, 4, 5]), np.array([2.0, 1, 3, 5, 4])
    # mid-ranks 1 2.5 2.5 4 5 and 2 1 3 5 4, less 3: products 2 + 1 + 0 + 2 + 2 = 7,
    # squares 4 + .25 + .25 + 1 + 4 = 9.5 and 1 + 4 + 0 + 4 + 1 = 10
    assert spearman(x, y) == pytest.approx(7 / math.sqrt(95))
    # of 10 pairs one is tied in x; 7 concordant, 2 discordant: 5 / sqrt(9 * 10)
    assert kendall(x, y) == pytest.approx(5 / math.sqrt(90))


@pytest.mark.parametrize("seed", range(5))
def test_as_scipy_with_many_ties(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 5, 20).astype(float), rng.integers(0, 4, 20).astype(float)
    assert spearman(x, y) == pytest.approx(float(spearmanr(x, y)[0]))
    assert kendall(x, y) == pytest.approx(float(kendalltau(x, y)[0]))


def test_counts_are_repetitions():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=8), rng.normal(size=8)
    count = np.array([2, 0, 1, 3, 1, 0, 1, 1])
    again = np.repeat(np.arange(8), count)
    for formula in (spearman, kendall, regret):
        assert formula(x, y, count) == pytest.approx(formula(x[again], y[again]))


def test_only_the_order_counts():
    rng = np.random.default_rng(1)
    x, y, turn = rng.normal(size=9), rng.normal(size=9), rng.permutation(9)
    for formula in (spearman, kendall):
        found = formula(x, y)
        assert formula(np.exp(3 * x), y**3) == pytest.approx(found)
        assert formula(x[turn], y[turn]) == pytest.approx(found)
        assert formula(-x, y) == pytest.approx(-found)
        assert formula(y, x) == pytest.approx(found)
        assert formula(x, x) == 1.0


def test_rounding_noise_is_a_tie():
    noisy, exact = np.array([0.1 + 0.2, 0.3, 1.0]), np.array([0.3, 0.3, 1.0])
    y = np.array([1.0, 2.0, 3.0])
    assert spearman(noisy, y) == spearman(exact, y)


def test_a_constant_side_has_no_correlation():
    for formula in (spearman, kendall):
        assert math.isnan(formula(np.ones(4), np.arange(4.0)))
        assert math.isnan(formula(np.arange(4.0), np.ones(4)))
    assert math.isnan(p_value(np.ones(4), np.arange(4.0)))


def test_rows_broadcast_and_chunks_change_nothing(monkeypatch):
    rng = np.random.default_rng(2)
    x_RM, y, count_RM = rng.normal(size=(7, 6)), rng.normal(size=6), teacher_counts(6, 7, 0)
    whole = spearman(x_RM, y, count_RM)
    assert whole.shape == (7,)
    rows = [spearman(x, y, count) for x, count in zip(x_RM, count_RM, strict=True)]
    np.testing.assert_allclose(whole, rows)
    np.testing.assert_allclose(spearman(x_RM[0], y, count_RM)[3], spearman(x_RM[0], y, count_RM[3]))
    monkeypatch.setattr(agreement, "CHUNK_BYTES", 8 * 36 * 2)
    np.testing.assert_array_equal(spearman(x_RM, y, count_RM), whole)


def test_regret_by_hand():
    x, y = np.array([1.0, 5, 5, 0]), np.array([2.0, 1, 4, 9])
    # the best outcome is 9; two teachers are first, with 1 and 4
    assert regret(x, y) == pytest.approx(9 - 2.5)
    assert regret(y, y) == 0.0
    # without the last: the best is 4; of the first two, one is drawn twice
    assert regret(x, y, np.array([1, 2, 1, 0])) == pytest.approx(4 - (2 * 1 + 4) / 3)
    # a blind choice loses the best less the mean
    assert regret(np.zeros(4), y) == pytest.approx(9 - 4)
    # negative scores and outcomes
    assert regret(-np.array([1.0, 2, 3]), -np.array([5.0, 1, 2])) == pytest.approx(4.0)


def test_counts_of_drawn_teachers():
    count_RM = teacher_counts(6, 500, seed=3)
    np.testing.assert_array_equal(count_RM.sum(axis=1), 6)
    assert abs(count_RM.mean(axis=0) - 1).max() < 0.2
    np.testing.assert_array_equal(count_RM, teacher_counts(6, 500, seed=3))
    assert (count_RM != teacher_counts(6, 500, seed=4)).any()


def test_permutation_test_by_hand():
    up = np.arange(4.0)
    assert p_value(np.arange(3.0), np.arange(3.0)) == pytest.approx(2 / 6)
    assert p_value(up, -up) == pytest.approx(2 / 24)
    # of 24 orders 1 has rho 1 and 3 have .8 (one swap of neighbours); as many are turned round
    assert p_value(np.array([0.0, 2, 1, 3]), up) == pytest.approx(8 / 24)


def test_permutation_test_of_many():
    rng = np.random.default_rng(5)
    x = rng.normal(size=12)
    y = 0.6 * x + rng.normal(size=12)
    assert p_value(x, y) == pytest.approx(float(spearmanr(x, y)[1]), abs=0.02)
    assert p_value(x, x) <= 1e-3


def test_too_few():
    assert [m for m in range(3, 8) if too_few(m, 0.95)] == [3, 4]
    assert [m for m in range(3, 8) if too_few(m, 0.9)] == [3]
    assert [m for m in range(3, 8) if too_few(m, 0.99)] == [3, 4, 5]


def test_the_interval_of_too_few_is_everything():
    own = coefficient_bounds("spearman", 1.0, np.ones(100), 4, 0.95)
    assert (own.value, own.low, own.high) == (1.0, -1.0, 1.0)


@pytest.mark.parametrize(("kind", "sign"), [("spearman", 1), ("kendall", 1), ("spearman", -1)])
def test_a_perfect_order_is_not_certain(kind, sign):
    own = coefficient_bounds(kind, float(sign), np.full(100, float(sign)), 6, 0.95)
    inner, outer = sorted((own.low, own.high), key=abs)
    assert outer == sign and 0 < sign * inner < 1
    if kind == "spearman":
        # half a step below 1 is 1 - 6 / 210; variance of z (1 + .97143^2 / 2) / 3 = .49061;
        # atanh(.97143) = 2.1171, less 1.95996 * .70043 = .7443, tanh of it .6317
        assert sign * inner == pytest.approx(0.6317, abs=2e-4)
    more = coefficient_bounds(kind, float(sign), np.full(100, float(sign)), 12, 0.95)
    assert min(abs(more.low), abs(more.high)) > abs(inner)


def test_a_value_that_does_not_exist_has_no_interval():
    own = coefficient_bounds("spearman", math.nan, np.full(9, np.nan), 8, 0.95)
    assert all(math.isnan(end) for end in (own.value, own.low, own.high))
    own = bounds(0.5, np.array([0.0, np.nan, 1.0]), 0.5)
    assert (own.low, own.high) == (0.25, 0.75)  # of the resamples where it exists


@pytest.mark.parametrize(("m", "rho"), [(20, 0.0), (20, 0.7), (40, 0.7)])
def test_bootstrap_over_teachers_covers_a_planted_rho(m, rho):
    """400 made-up sets of teachers from a normal distribution whose Spearman's rho is known."""
    pearson = 2 * math.sin(math.pi * rho / 6)
    rng = np.random.default_rng(m)
    covered = 0
    for study in range(400):
        x, e = rng.normal(size=(2, m))
        y = pearson * x + math.sqrt(1 - pearson**2) * e
        resampled_R = spearman(x, y, teacher_counts(m, 200, study))
        own = coefficient_bounds("spearman", float(spearman(x, y)), resampled_R, m, 0.9)
        covered += own.low <= rho <= own.high
    assert 0.84 <= covered / 400 <= 0.95


@pytest.mark.parametrize(("m", "rho"), [(5, 0.5), (8, 0.9)])
def test_intervals_of_few_teachers_are_not_too_narrow(m, rho):
    """Where resamples are often perfect orders: 95% intervals hold the truth so often, or more."""
    pearson = 2 * math.sin(math.pi * rho / 6)
    rng = np.random.default_rng(m)
    covered = 0
    for study in range(300):
        x, e = rng.normal(size=(2, m))
        y = pearson * x + math.sqrt(1 - pearson**2) * e
        resampled_R = spearman(x, y, teacher_counts(m, 200, study))
        own = coefficient_bounds("spearman", float(spearman(x, y)), resampled_R, m, 0.95)
        covered += own.low <= rho <= own.high
    assert covered / 300 >= 0.94


def test_consistent_n_by_hand():
    # 4 items: rho is 1 - D / 10 with D = 0, 2, 4 ... 20; 5 items: 1 - D / 20, D = 0, 2 ... 40
    assert consistent_n([0.8, -0.4], [4, 5], 4) == {4: [], 5: []}
    assert consistent_n([0.9, 0.7], [4, 5], 4) == {4: [0.9, 0.7], 5: []}
    assert consistent_n([1.2, -1.1], [4], 1) == {4: [1.2, -1.1]}
    # two decimals: of 5 items .75 is between .7 and .8
    assert consistent_n([0.75], [5], 2) == {5: [0.75]}


@pytest.mark.parametrize("n", [6, 13, 19])
def test_consistent_n_finds_the_number_of_items(n):
    rng = np.random.default_rng(n)
    order = np.arange(n, dtype=float)
    rhos = [round(float(spearman(order, rng.permutation(n).astype(float))), 4) for _ in range(40)]
    left = consistent_n(rhos, range(4, 31), 4)
    assert left[n] == []
    # in the orders of 19 some rho tells it from every other number; smaller ones nest (5 in 10 ..)
    assert all(found for other, found in left.items() if other < n)
