"""Beta fitted on known outcomes. M teachers, G points of the grid."""

import numpy as np
import pytest

from preceptor.selection.fitting import GRID, PER_DECADE, Known, fit_beta, plateau, rho_over_grid

STEP = 10 ** (1 / PER_DECADE)


def car_GM(reward_M, loss_M):
    return np.array(reward_M) / (1 + GRID[:, None] * np.array(loss_M))


@pytest.fixture
def three() -> Known:
    """Rewards 1 2 3, losses 0 1 3: they cross at 1/3 (b c), 2/3 (a c) and 1 (a b).

    Best first: c b a below 1/3, then b c a, then b a c from 2/3 to 1, then a b c. The outcomes say
    b a c.
    """
    return Known(("a", "b", "c"), car_GM([1, 2, 3], [0, 1, 3]), np.array([2.0, 3.0, 1.0]))


def test_three_teachers_by_hand(three):
    found = fit_beta([three])
    assert found is not None
    assert found.rho == 1.0
    assert found.plateau == pytest.approx((2 / 3, 1), rel=STEP - 1)
    assert found.beta == pytest.approx(np.sqrt(2 / 3), rel=STEP - 1)
    # without a: b over c above 1/3, so the middle of 1/3 .. 1000; without b: a over c above 2/3;
    # without c: b over a below 1, half of the points 0 and .001 .. 1
    assert found.left_out["a"] == pytest.approx(np.sqrt(1000 / 3), rel=2 * (STEP - 1))
    assert found.left_out["b"] == pytest.approx(np.sqrt(2000 / 3), rel=2 * (STEP - 1))
    assert found.left_out["c"] == pytest.approx(np.sqrt(0.001), rel=2 * (STEP - 1))
    # there a is first, b in the middle, c first: mid-ranks 2.5 1 2.5 against 2 3 1
    assert found.rho_left_out == pytest.approx(-1.5 / np.sqrt(3))


def test_the_curve_is_rho_of_the_orders(three):
    rho_G = rho_over_grid([three])
    # c b a against b a c: ranks 3 2 1 against 2 1 3 -> -.5; b c a: 3 1 2 -> .5; a b c: 1 2 3 -> .5
    for beta, rho in [(0.0, -0.5), (0.1, -0.5), (0.5, 0.5), (0.8, 1.0), (5.0, 0.5)]:
        assert rho_G[np.abs(GRID - beta).argmin()] == pytest.approx(rho)


def test_grid():
    assert GRID[0] == 0 and GRID[1] == pytest.approx(1e-3) and GRID[-1] == pytest.approx(1e3)
    np.testing.assert_allclose(GRID[2:] / GRID[1:-1], STEP)


def test_a_planted_beta_is_found_and_serves_unseen_teachers():
    rng = np.random.default_rng(0)
    reward_M, loss_M = rng.uniform(0.2, 1, 16), rng.uniform(0.2, 2, 16)
    outcome_M = np.log(reward_M / (1 + 2.0 * loss_M))  # only the order of the outcomes counts
    teachers = tuple(f"t{m}" for m in range(16))
    found = fit_beta([Known(teachers, car_GM(reward_M, loss_M), outcome_M)])
    assert found is not None
    assert found.rho == 1.0 and found.plateau[0] <= 2.0 <= found.plateau[1]
    assert set(found.left_out) == set(teachers)
    assert found.rho_left_out is not None and found.rho_left_out > 0.97
    again = fit_beta([Known(teachers, car_GM(reward_M, loss_M), 5 + np.exp(outcome_M))])
    assert again is not None and again.beta == found.beta


def test_left_out_is_worth_less_than_seen_where_there_is_nothing_to_find():
    """Outcomes that have nothing to do with the teachers: the fit flatters itself."""
    seen, unseen = [], []
    for study in range(20):
        rng = np.random.default_rng(study)
        score_GM = car_GM(rng.uniform(0.2, 1, 8), rng.uniform(0.1, 3, 8))
        found = fit_beta([Known(tuple("abcdefgh"), score_GM, rng.normal(size=8))])
        assert found is not None and found.rho_left_out is not None
        seen.append(found.rho)
        unseen.append(found.rho_left_out)
    assert np.mean(seen) > 0.1 and np.mean(unseen) < np.mean(seen) - 0.15


def test_several_bases_share_one_beta(three):
    # on a second base the same teachers became c b a
    other = Known(three.teachers, three.score_GM, np.array([1.0, 2.0, 3.0]))
    found = fit_beta([three, other])
    assert found is not None
    # means over the four orders, by rising beta:
    # (-.5 + 1) / 2, (.5 + .5) / 2, (1 - .5) / 2, (.5 - 1) / 2
    assert found.rho == pytest.approx(0.5)
    assert found.plateau == pytest.approx((1 / 3, 2 / 3), rel=STEP - 1)


def test_bases_with_different_teachers(three):
    other = Known(("b", "c", "d"), car_GM([2, 3, 1], [1, 3, 0]), np.array([3.0, 1.0, 2.0]))
    found = fit_beta([three, other])
    assert found is not None
    assert found.rho == 1.0 and set(found.left_out) == {"a", "b", "c", "d"}


def test_equal_outcomes_fit_nothing(three):
    assert fit_beta([Known(three.teachers, three.score_GM, np.ones(3))]) is None
    assert plateau(np.full(4, np.nan), np.arange(4.0)) is None


def test_a_curve_without_change_gives_the_middle():
    found = plateau(np.full(5, 0.3), np.arange(5.0))
    assert found is not None
    assert (found.place, found.low, found.high, found.rho) == (2, 0.0, 4.0, 0.3)
