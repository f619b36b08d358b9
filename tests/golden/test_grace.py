"""GRACE against a number that is worked out by hand, and what must not change it.

Source of the formula: arXiv 2511.02833 and the code that comes with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from preceptor.core.criterion import Signals, as_criterion
from preceptor.core.errors import DataError, SettingsError
from preceptor.criteria import CRITERIA
from preceptor.criteria.grace import grace, leverages
from preceptor.selection.ranking import score


def direct(
    gradient_ND: np.ndarray, nu: float = 1e-3, splits: int = 10, share: float = 0.1
) -> float:
    """The definition: a mean of traces."""
    n = len(gradient_ND)
    n_test = int(n * share)
    found = []
    for number in range(splits):
        order = np.random.default_rng(number).permutation(n)
        train, test = gradient_ND[order[: n - n_test]], gradient_ND[order[n - n_test :]]
        train = train / np.linalg.norm(train, axis=1, keepdims=True)
        w, v = np.linalg.eigh(train.T @ train / len(train))
        inverse = v @ np.diag(1 / ((1 - nu) * w + nu * w.mean())) @ v.T
        found.append(np.trace(inverse @ (test.T @ test / n_test)))
    return float(np.mean(found))


def mean_leverage(gradient_ND: np.ndarray, **options: Any) -> float:
    return float(leverages(gradient_ND, **options)["leverage"].mean())


@pytest.fixture
def gradient_ND() -> np.ndarray:
    rng = np.random.default_rng(0)
    scales = rng.lognormal(size=(200, 1))
    return (scales * (rng.standard_normal((200, 6)) @ rng.standard_normal((6, 6)))).astype("f4")


def test_by_hand():
    """Five answers pull one way and five another, all with length 3.

    Of ten instructions one is held out; whichever it is, four of the other nine pull its way and
    five the other: Sigma_train = diag(4/9, 5/9) with its way first, and a mean eigenvalue of 1/2.
    With nu = 1/10 its own eigenvalue becomes 9/10 * 4/9 + 1/10 * 1/2 = 9/20, and the score is
    3^2 / (9/20) = 20, in every split.
    """
    gradient_ND = np.zeros((10, 2), dtype=np.float32)
    gradient_ND[:5, 0] = 3.0
    gradient_ND[5:, 1] = -3.0
    found = leverages(gradient_ND, nu=0.1)["leverage"]
    assert found.mean() == pytest.approx(20.0, rel=1e-12)
    # an answer that k of the ten splits hold out has N k / (n splits) of it: 10 k / 10
    held_out = [np.random.default_rng(number).permutation(10)[-1] for number in range(10)]
    times = np.bincount(held_out, minlength=10)
    np.testing.assert_allclose(found, 20.0 * times)


def test_lengths_count_where_held_out_and_not_where_trained_on():
    """The same directions, but the second way twice as long: 9/(9/20) = 20 or 36/(9/20) = 80."""
    gradient_ND = np.zeros((10, 2), dtype=np.float32)
    gradient_ND[:5, 0] = 3.0
    gradient_ND[5:, 1] = 6.0
    first = sum(np.random.default_rng(number).permutation(10)[-1] < 5 for number in range(10))
    wanted = (20.0 * first + 80.0 * (10 - first)) / 10
    assert 0 < first < 10
    assert mean_leverage(gradient_ND, nu=0.1) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    "options", [{}, {"nu": 0.05}, {"splits": 3}, {"share": 0.25}, {"splits": 7, "nu": 1.0}]
)
def test_the_mean_of_leverages_is_the_direct_formula(gradient_ND, options):
    own = {"test_share" if name == "share" else name: value for name, value in options.items()}
    found = mean_leverage(gradient_ND, **own)
    assert found == pytest.approx(direct(gradient_ND.astype(np.float64), **options), rel=1e-9)


def test_more_answers_than_a_block_and_fewer_than_numbers(monkeypatch):
    from preceptor.criteria import grace as module

    rng = np.random.default_rng(1)
    flat_ND = rng.standard_normal((30, 64)).astype("f4")  # Sigma_train has no full rank
    assert mean_leverage(flat_ND) == pytest.approx(direct(flat_ND.astype(np.float64)), rel=1e-6)
    whole = mean_leverage(flat_ND)
    monkeypatch.setattr(module, "BLOCK", 7)
    assert mean_leverage(flat_ND) == pytest.approx(whole, rel=1e-9)


def test_turning_all_gradients_changes_nothing_and_stretching_them_its_square(gradient_ND):
    gradient_ND = gradient_ND.astype(np.float64)
    own = mean_leverage(gradient_ND)
    turn_DD = np.linalg.qr(np.random.default_rng(2).standard_normal((6, 6)))[0]
    assert mean_leverage(gradient_ND @ turn_DD) == pytest.approx(own, rel=1e-9)
    assert mean_leverage(gradient_ND[:, ::-1]) == pytest.approx(own, rel=1e-9)
    assert mean_leverage(gradient_ND * [[-1, 1, 1, -1, 1, 1]]) == pytest.approx(own, rel=1e-9)
    assert mean_leverage(3 * gradient_ND) == pytest.approx(9 * own, rel=1e-9)


def test_a_gradient_where_no_other_lies_is_worse():
    """Lower is better: one held-out answer of the same length, at a right angle to all others."""
    narrow_ND = np.zeros((20, 3))
    narrow_ND[:, 0] = 1.0
    lonely_ND = narrow_ND.copy()
    held_out = np.random.default_rng(0).permutation(20)[-1]
    lonely_ND[held_out] = 0.0, 1.0, 0.0
    # w of the others' way: .999 + .001 / 3; of the other ways .001 / 3
    assert mean_leverage(narrow_ND) == pytest.approx(1 / (0.999 + 0.001 / 3))
    assert mean_leverage(lonely_ND) > 3000 / 20


def test_an_answer_without_a_gradient_is_no_fault():
    gradient_ND = np.ones((10, 2))
    gradient_ND[4] = 0.0
    assert np.isfinite(leverages(gradient_ND)["leverage"]).all()
    assert mean_leverage(np.zeros((10, 3))) == 0.0


def test_the_criterion_is_the_mean_with_the_users_options(gradient_ND):
    """As a run does it: the options bound, a teacher at a time, the ordinary bootstrap."""
    name = CRITERIA["grace"]
    assert name == "preceptor.criteria.grace:grace"
    criterion = as_criterion("grace", grace, {"splits": 4, "nu": 0.2})
    assert criterion.features is not None and criterion.gradients
    assert criterion.direction == "lower"
    features = [criterion.features(g)["leverage"] for g in (gradient_ND, 2 * gradient_ND)]
    signals = Signals(
        teachers=("a", "b"),
        n_tokens_MN=np.ones((2, 200)),
        nll_MN=np.ones((2, 200)),
        features={"grace.leverage": np.stack(features)},
    )
    found = score(signals, criterion.score, resamples=200, seed=0)
    one = direct(gradient_ND.astype(np.float64), nu=0.2, splits=4)
    assert found.score_M == pytest.approx([one, 4 * one], rel=1e-9)
    # both teachers have the same splits: what is drawn anew is the same for both
    np.testing.assert_allclose(found.resampled_MS[1], 4 * found.resampled_MS[0])
    assert found.resampled_MS[0].std() > 0
    with pytest.raises(SettingsError, match="no option of this name"):
        as_criterion("grace", grace, {"folds": 4})


def test_what_it_refuses(gradient_ND):
    with pytest.raises(DataError, match="too few") as refused:
        leverages(gradient_ND[:9])
    assert "9 instructions" in str(refused.value)
    for options in ({"splits": 0}, {"splits": 2.5}, {"test_share": 1.0}, {"nu": 0.0}, {"nu": 2.0}):
        with pytest.raises(SettingsError, match="out of its range"):
            mean_leverage(gradient_ND, **options)
