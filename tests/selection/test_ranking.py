"""Order, ties, intervals and the sign guard. M teachers, N instructions, S resamples."""

import json

import numpy as np
import pytest

from preceptor.core.criterion import Signals, as_criterion
from preceptor.core.errors import DataError
from preceptor.criteria.car import car
from preceptor.criteria.mean_reward import mean_reward
from preceptor.criteria.perplexity import perplexity
from preceptor.selection import ranking
from preceptor.selection.ranking import (
    Scored,
    apply_map,
    beta_sensitivity,
    guard_declared,
    guard_sign,
    paired_difference,
    rank_all,
    rank_teachers,
    ranks,
    resample_weights,
    score,
)


def table(reward_MN: np.ndarray, loss_MN: np.ndarray | None = None) -> Signals:
    loss_MN = np.ones_like(reward_MN) if loss_MN is None else loss_MN
    teachers = tuple(f"t{m}" for m in range(len(reward_MN)))
    return Signals(
        teachers,
        np.ones_like(reward_MN),
        loss_MN,
        reward_MN=reward_MN,
        rewards={"reward": reward_MN},
    )


def test_weights_are_shares_of_whole_draws():
    chunks = list(resample_weights(7, 250, seed=0))
    assert [chunk.shape for chunk in chunks] == [(7, 100), (7, 100), (7, 50)]
    for chunk in chunks:
        np.testing.assert_allclose(chunk.sum(axis=0), 1.0)
        np.testing.assert_allclose(chunk * 7, np.round(chunk * 7), atol=1e-12)


@pytest.mark.parametrize("bytes_", [1, 8 * 7 * 3, 8 * 7 * 64])
def test_smaller_chunks_draw_the_same_weights(monkeypatch, bytes_):
    whole = np.concatenate(list(resample_weights(7, 250, seed=4)), axis=1)
    monkeypatch.setattr(ranking, "CHUNK_BYTES", bytes_)
    chunks = list(resample_weights(7, 250, seed=4))
    assert max(chunk.shape[1] for chunk in chunks) == max(1, bytes_ // 56)
    assert np.concatenate(chunks, axis=1).tobytes() == whole.tobytes()


def test_matrix_bootstrap_equals_resampling_by_hand():
    rng = np.random.default_rng(0)
    signals = table(rng.random((3, 20)), rng.random((3, 20)) + 0.5)
    scored = score(signals, lambda s, mean: car(s, mean, beta=3.0), 100, seed=5)
    (w_NS,) = resample_weights(20, 100, seed=5)
    for s in (0, 57):
        picked = np.repeat(np.arange(20), np.round(w_NS[:, s] * 20).astype(int))
        assert signals.reward_MN is not None
        by_hand = signals.reward_MN[:, picked].mean(1) / (
            1 + 3.0 * signals.nll_MN[:, picked].mean(1)
        )
        np.testing.assert_allclose(scored.resampled_MS[:, s], by_hand)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_bootstrap_covers_a_planted_difference_at_its_nominal_rate(confidence):
    """400 made-up studies of 200 instructions with a true difference of .05 and shared noise."""
    covered = 0
    for study in range(400):
        rng = np.random.default_rng(study)
        difficulty_N = rng.normal(0, 0.3, 200)
        reward_MN = np.stack(
            [
                0.55 + difficulty_N + rng.normal(0, 0.2, 200),
                0.5 + difficulty_N + rng.normal(0, 0.2, 200),
            ]
        )
        scored = score(table(reward_MN), mean_reward, 400, seed=study)
        _, low, high = paired_difference(scored, 0, 1, confidence)
        covered += low <= 0.05 <= high
    spread = np.sqrt(confidence * (1 - confidence) / 400)
    assert abs(covered / 400 - confidence) < 3 * spread + 0.01


def test_pairing_narrows_the_interval_of_a_difference():
    rng = np.random.default_rng(1)
    difficulty_N = rng.normal(0, 1, 300)
    reward_MN = np.stack([difficulty_N + 0.1, difficulty_N + rng.normal(0, 0.05, 300)])
    scored = score(table(reward_MN), mean_reward, 500, seed=0)
    _, low, high = paired_difference(scored, 0, 1, 0.95)
    assert 0.08 < low < high < 0.12
    own_low, own_high = np.quantile(scored.resampled_MS[0], [0.025, 0.975])
    assert own_high - own_low > 5 * (high - low)


def test_ranks_share_ties_and_follow_the_direction():
    score_MS = np.array([[3.0, 1.0], [3.0, 2.0], [1.0, 3.0], [5.0, 3.0]])
    assert ranks(score_MS, higher_is_better=True).T.tolist() == [[2, 2, 4, 1], [4, 3, 1, 1]]
    assert ranks(score_MS, higher_is_better=False).T.tolist() == [[2, 2, 1, 4], [1, 2, 3, 3]]


def test_rounding_noise_is_a_tie():
    score_MS = np.array([[0.1 + 0.2], [0.3]])
    assert ranks(score_MS, higher_is_better=True).T.tolist() == [[1, 1]]


def test_leaderboard_rows():
    # four resamples: t0 best in two, tied with t1 in one, t1 best in one -> p_best .625 / .375
    scored = Scored(
        np.array([0.6, 0.5, 0.1]),
        np.array([[0.6, 0.7, 0.5, 0.4], [0.5, 0.5, 0.5, 0.6], [0.1, 0.1, 0.1, 0.1]]),
    )
    rows, tied = rank_teachers(("t0", "t1", "t2"), scored, True, 0.95)
    assert [row["teacher"] for row in rows] == ["t0", "t1", "t2"]
    assert [row["p_best"] for row in rows] == [0.625, 0.375, 0.0]
    assert [(r["rank"], r["rank_low"], r["rank_high"]) for r in rows] == [
        (1, 1, 2),
        (2, 1, 2),
        (3, 3, 3),
    ]
    assert tied == ["t1"]


def test_identical_teachers_are_tied_and_share_p_best():
    reward_MN = np.tile(np.random.default_rng(0).random(50), (2, 1))
    result = rank_all(
        table(reward_MN),
        [as_criterion("mean_reward", mean_reward)],
        {},
        with_reference=False,
        confidence=0.95,
        resamples=200,
        seed=0,
    )["mean_reward"]
    assert [row["rank"] for row in result["teachers"]] == [1, 1]
    assert [row["p_best"] for row in result["teachers"]] == [0.5, 0.5]
    assert result["tied_with_first"] == ["t1"]


def test_lower_is_better_for_perplexity():
    loss_MN = np.array([[2.0, 2.1], [1.0, 1.1]])
    result = rank_all(
        table(np.ones((2, 2)), loss_MN),
        [as_criterion("perplexity", perplexity)],
        {"loss_reduction": "answers"},
        with_reference=False,
        confidence=0.9,
        resamples=100,
        seed=0,
    )["perplexity"]
    assert [row["teacher"] for row in result["teachers"]] == ["t1", "t0"]
    assert result["direction"] == "lower"
    assert result["teachers"][0]["score"] == pytest.approx(np.exp(1.05))


def test_same_seed_same_bytes_other_seed_other_intervals():
    rng = np.random.default_rng(0)
    signals = table(rng.random((4, 30)))

    def ranking(seed: int) -> str:
        return json.dumps(
            rank_all(
                signals,
                [as_criterion("mean_reward", mean_reward)],
                {},
                with_reference=False,
                confidence=0.95,
                resamples=150,
                seed=seed,
            )
        )

    assert ranking(1) == ranking(1)
    assert ranking(1) != ranking(2)


def test_beta_grid_turns_the_order_where_it_should():
    # t0: r .8, L 2; t1: r .4, L .5. Equal where .8 (1 + .5 b) = .4 (1 + 2 b): .4 = .4 b, b = 1
    reward_MN, loss_MN = np.array([[0.8] * 3, [0.4] * 3]), np.array([[2.0] * 3, [0.5] * 3])
    grid = beta_sensitivity(
        table(reward_MN, loss_MN),
        as_criterion("car", car),
        {"beta": 3.0, "loss_reduction": "answers"},
        [2.0, 0.5, 1.0],
    )["reward"]
    assert [row["beta"] for row in grid] == [0.5, 1.0, 2.0]
    assert [row["teachers"][0]["teacher"] for row in grid] == ["t0", "t0", "t1"]
    assert [teacher["rank"] for teacher in grid[1]["teachers"]] == [1, 1]


def test_sign_guard_names_reward_and_range():
    guard_sign("fine", np.array([0.0, 2.0]))
    with pytest.raises(DataError, match=r"skywork.*\n.*\[-3.5, 2\]"):
        guard_sign("skywork", np.array([2.0, -3.5]))


def test_sign_guard_on_a_declared_range():
    guard_declared("open", -np.inf, np.inf, "none", 1, 0)  # what is scored is looked at later
    guard_declared("fine", 0.0, 10.0, "none", 1, 0)
    for kind in ("sigmoid", "minmax"):
        guard_declared("mapped", -1.0, 1.0, kind, 1, 0)
    guard_declared("lifted", -1.0, 1.0, "affine", 0.5, 0.5)
    with pytest.raises(DataError, match=r"declared range \[-1, inf\]"):
        guard_declared("judge", -1.0, np.inf, "none", 1, 0)
    with pytest.raises(DataError, match=r"declared range \[-0.25, 0.75\]"):
        guard_declared("judge", -1.0, 1.0, "affine", 0.5, 0.25)


def test_a_missing_score_passes_maps_and_guard():
    values = np.array([np.nan, 2.0, 4.0])
    guard_sign("judge", values)
    assert apply_map(values, "minmax", 1, 0)[1:].tolist() == [0.0, 1.0]
    with pytest.raises(DataError, match=r"range \[-4, -2\]"):
        guard_sign("judge", -values)


def test_maps_of_a_reward():
    values = np.array([-1.0, 0.0, 3.0])
    assert apply_map(values, "none", 1, 0).tolist() == [-1.0, 0.0, 3.0]
    assert apply_map(values, "sigmoid", 1, 0)[1] == 0.5
    assert apply_map(values, "minmax", 1, 0).tolist() == [0.0, 0.25, 1.0]
    assert apply_map(values, "affine", 2.0, 5.0).tolist() == [3.0, 5.0, 11.0]
    assert apply_map(np.ones(3), "minmax", 1, 0).tolist() == [0.0, 0.0, 0.0]


def test_several_rewards_and_a_reference_are_named():
    rng = np.random.default_rng(0)
    grid = rng.random((2, 5)) + 0.5
    signals = Signals(
        ("a", "b"),
        np.ones((2, 5)),
        grid,
        n_tokens_reference_MN=np.full((2, 5), 2.0),
        nll_reference_MN=grid * 4,
        rewards={"first": grid, "second": 1 - grid / 2},
    )
    result = rank_all(
        signals,
        [as_criterion("car", car), as_criterion("perplexity", perplexity)],
        {"beta": 1.0, "loss_reduction": "answers"},
        with_reference=True,
        confidence=0.95,
        resamples=100,
        seed=0,
    )
    assert list(result) == ["car", "car.second", "perplexity", "perplexity_reference"]
    assert [result[name]["reward"] for name in result] == ["first", "second", None, None]
    own, other = (
        {row["teacher"]: row["score"] for row in result[name]["teachers"]}
        for name in ("perplexity", "perplexity_reference")
    )
    # four times the nll over twice the tokens: the loss doubles, so the perplexity is squared
    assert other["a"] == pytest.approx(own["a"] ** 2)
