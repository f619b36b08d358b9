"""The router: its loss, its gradient, known answers, planted preferences, and held-out worth."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from preceptor.core.errors import DataError, RunFolderError
from preceptor.data.ngrams import DIM, ngram_features
from preceptor.selection import routing
from preceptor.selection.router import (
    Router,
    choose,
    fit,
    largest_gap,
    objective,
    pair_loss,
    wins,
)
from preceptor.selection.routing import FOLDS, LEAST, SPLITS, accuracy, train, worth

TEACHERS = ("ash", "beech", "cherry")


def prompts(n: int, seed: int = 0) -> list[str]:
    """Half of them ask to sort, half to translate, each about other things."""
    rng = np.random.default_rng(seed)
    things = "apples pears stones roads birds lamps rivers books clouds chairs".split()
    found = []
    for number in range(n):
        picked = " ".join(rng.choice(things, 4))
        verb = "Sort these words" if number % 2 else "Translate into French"
        found.append(f"{verb}: {picked} {number}")
    return found


def planted(texts: list[str], seed: int = 1, noise: float = 0.1) -> np.ndarray:
    """Ash is best at sorting, beech at translating, cherry is always a little behind."""
    rng = np.random.default_rng(seed)
    sorts = np.array([text.startswith("Sort") for text in texts])
    score_MN = np.stack([np.where(sorts, 0.8, 0.4), np.where(sorts, 0.4, 0.8), 0.5 + 0 * sorts])
    return score_MN + noise * rng.standard_normal(score_MN.shape)


def test_labels_by_hand() -> None:
    score_MN = np.array([[1.0, 0.5], [0.0, 0.5], [2.0, 0.5]])
    np.testing.assert_array_equal(wins(score_MN, 0), [[1, 0, 2], [1, 1, 1]])
    sigmoid = 1 / (1 + np.exp(-np.array([1.0, -1.0, 2.0])))  # gaps 1-0, 1-2, 2-0 at scale 1
    soft = wins(score_MN, 1.0)
    np.testing.assert_allclose(soft[0, 0], sigmoid[0] + sigmoid[1])
    np.testing.assert_allclose(soft[0, 2], sigmoid[0] + sigmoid[2])
    np.testing.assert_allclose(soft.sum(axis=1), 3.0)
    np.testing.assert_allclose(wins(score_MN, 1e-3)[0], wins(score_MN, 0)[0], atol=1e-12)
    assert largest_gap(score_MN) == 2.0


def test_the_loss_is_the_mean_over_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    u_NM, score_MN = rng.standard_normal((7, 4)), rng.standard_normal((4, 7))
    total = 0.0
    for n in range(7):
        for k, j in itertools.combinations(range(4), 2):
            p = 1 / (1 + math.exp(-(u_NM[n, k] - u_NM[n, j])))
            y = 1 / (1 + math.exp(-(score_MN[k, n] - score_MN[j, n]) / 0.7))
            total -= y * math.log(p) + (1 - y) * math.log(1 - p)
    wins_NM = torch.from_numpy(wins(score_MN, 0.7))
    loss, slope = pair_loss(torch.from_numpy(u_NM), wins_NM)
    assert float(loss) == pytest.approx(total / (7 * 3))
    monkeypatch.setattr("preceptor.selection.router.CHUNK", 32)  # two prompts at a time
    again, slopes = pair_loss(torch.from_numpy(u_NM), wins_NM)
    assert float(again) == pytest.approx(float(loss))
    torch.testing.assert_close(slopes, slope)


@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_the_gradient_is_that_of_finite_differences(l2: float) -> None:
    rng = np.random.default_rng(3)
    theta = torch.from_numpy(rng.standard_normal((3, 5)))
    phi = torch.from_numpy(rng.standard_normal((6, 4)))
    wins_NM = torch.from_numpy(wins(rng.standard_normal((3, 6)), 0.5))
    _, gradient = objective(theta, phi, wins_NM, l2, 0.2)
    step = 1e-6
    for m, p in itertools.product(range(3), range(5)):
        ends = []
        for sign in (1, -1):
            moved = theta.clone()
            moved[m, p] += sign * step
            ends.append(float(objective(moved, phi, wins_NM, l2, 0.2)[0]))
        assert float(gradient[m, p]) == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-8)


@pytest.mark.parametrize("scale", [0.0, 0.5])
def test_two_teachers_without_prompts_have_the_log_odds(scale: float) -> None:
    """The closed form of Bradley-Terry for two: log p / (1 - p), p the mean label."""
    score_MN = np.stack([np.array([1.0] * 7 + [0.0] * 3), np.array([0.0] * 7 + [1.0] * 3)])
    wins_NM = wins(score_MN, scale)
    p = wins_NM[:, 0].mean()
    assert scale > 0 or p == 0.7
    theta = fit(np.empty((10, 0)), wins_NM, 0.0, bias_l2=0.0)
    assert theta[0, 0] - theta[1, 0] == pytest.approx(math.log(p / (1 - p)), abs=1e-6)
    also = fit(np.ones((10, 2)), wins_NM, math.inf, bias_l2=0.0)
    np.testing.assert_allclose(also[:, :2], 0.0)
    np.testing.assert_allclose(also[:, 2], theta[:, 0])


def test_a_teacher_that_always_wins_stays_finite() -> None:
    theta = fit(np.empty((50, 0)), wins(np.stack([np.ones(50), np.zeros(50)]), 0), 0.0)
    assert 3 < theta[0, 0] - theta[1, 0] < 30


def test_the_minimum_is_one() -> None:
    """The problem is convex: the start matters for time alone, and the gradient is zero there."""
    texts = prompts(60)
    phi, wins_NM = ngram_features(texts), wins(planted(texts), 0.2)
    zero = fit(phi, wins_NM, 0.01)
    start = np.random.default_rng(0).standard_normal(zero.shape)
    np.testing.assert_allclose(fit(phi, wins_NM, 0.01, start), zero, atol=1e-4)
    arrays = [torch.from_numpy(array) for array in (zero, phi, wins_NM)]
    _, gradient = objective(arrays[0], arrays[1], arrays[2], 0.01)
    assert float(gradient.abs().max()) < 1e-6


@pytest.fixture
def one_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folds of one split, where what several bring is not looked at."""
    monkeypatch.setattr(routing, "SPLITS", 1)


def learn(texts: list[str], score_MN: np.ndarray, **more: Any) -> Any:
    return train(TEACHERS, texts, score_MN, **{"prompts": 2500, "seed": 0, **more})


def test_planted_preferences_are_found() -> None:
    texts = prompts(120)
    trained = learn(texts, planted(texts))
    sorts = np.array([text.startswith("Sort") for text in texts])
    wanted = np.where(sorts, 0, 1)
    for u_NM in trained.held_out_SNM:
        assert (choose(u_NM, TEACHERS) == wanted).mean() > 0.97
    new = ["Sort these words: violet saffron", "Translate into French: violet saffron"]
    assert list(choose(trained.router.utilities(new), TEACHERS)) == [0, 1]
    assert len(trained.l2) == SPLITS * FOLDS and max(trained.l2) < math.inf


def test_where_prompts_do_not_matter_one_teacher_gets_them() -> None:
    texts = prompts(120)
    rng = np.random.default_rng(5)
    score_MN = np.array([[0.5], [0.6], [0.4]]) + 0.1 * rng.standard_normal((3, 120))
    trained = learn(texts, score_MN)
    found = worth(trained, score_MN, {}, confidence=0.95, resamples=200, seed=0)
    assert found["shares"]["beech"] > 0.9 and found["single"] == "beech"
    gap = found["means"]["score"]["routed_minus"]["single"]
    assert gap["low"] <= 0 <= gap["high"]
    told = found["pair_accuracy"]
    assert told["without_prompt"]["mean"] > 0.6, "better teachers win, whatever is asked"
    assert abs(told["difference"]["mean"]) < 0.03


def test_neither_the_order_of_prompts_nor_of_teachers_matters(one_split: None) -> None:
    texts = prompts(60)
    score_MN = planted(texts)
    first = learn(texts, score_MN)
    rng = np.random.default_rng(2)
    rows, order = rng.permutation(60), [2, 0, 1]
    other = train(
        [TEACHERS[m] for m in order],
        [texts[n] for n in rows],
        score_MN[order][:, rows],
        prompts=2500,
        seed=0,
    )
    assert (other.l2, other.router.l2) == (first.l2, first.router.l2)
    wanted = first.held_out_SNM[:, rows][:, :, order]
    np.testing.assert_allclose(other.held_out_SNM, wanted, atol=1e-4)
    new = prompts(20, seed=9)
    u_NM = first.router.utilities(new)
    np.testing.assert_allclose(other.router.utilities(new), u_NM[:, order], atol=1e-4)
    names = [TEACHERS[m] for m in choose(u_NM, TEACHERS)]
    again = [other.router.teachers[m] for m in choose(u_NM[:, order], other.router.teachers)]
    assert again == names


def test_it_is_the_same_again_and_another_with_another_seed(one_split: None) -> None:
    texts = prompts(40)
    score_MN = planted(texts)
    first, second = learn(texts, score_MN), learn(texts, score_MN)
    np.testing.assert_array_equal(first.held_out_SNM, second.held_out_SNM)
    np.testing.assert_array_equal(first.router.weight_MD, second.router.weight_MD)
    other = learn(texts, score_MN, seed=1)
    assert not np.array_equal(other.held_out_SNM, first.held_out_SNM)


def test_equal_texts_share_a_fold(one_split: None) -> None:
    """Preferences that hang on each text alone can be learned by heart, but not held out."""
    rng = np.random.default_rng(0)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    texts = [" ".join("".join(rng.choice(letters, 6)) for _ in range(5)) for _ in range(60)] * 2
    score_MN = np.tile(rng.standard_normal((3, 60)), 2)
    for u_NM in learn(texts, score_MN).held_out_SNM:
        right_N, pairs_N = accuracy(u_NM, score_MN)
        assert right_N.sum() / pairs_N.sum() < 0.65
    phi = ngram_features(texts)
    theta = fit(phi, wins(score_MN, 0.5), 1e-3)
    right_N, pairs_N = accuracy(phi @ theta[:, :-1].T + theta[:, -1], score_MN)
    assert right_N.sum() / pairs_N.sum() > 0.95, "the task can be learned by heart"


def test_prompts_beyond_those_fitted_on_count_too(one_split: None) -> None:
    texts = prompts(100)
    score_MN = planted(texts)
    trained = learn(texts, score_MN, prompts=40)
    assert trained.trained_N.sum() == 40
    assert np.isfinite(trained.held_out_SNM).all() and np.isfinite(trained.constant_SNM).all()
    others = np.flatnonzero(~trained.trained_N)
    wanted = trained.router.utilities([texts[n] for n in others])
    for u_NM in trained.held_out_SNM:
        np.testing.assert_allclose(u_NM[others], wanted, atol=1e-12)
    with pytest.raises(DataError, match="more prompts") as caught:
        learn(texts, score_MN, prompts=LEAST - 1)
    assert caught.value.where == "prompts"
    with pytest.raises(DataError, match="more prompts"):
        learn(texts[: LEAST - 1] * 3, np.tile(score_MN[:, : LEAST - 1], 3))


def test_accuracy_by_hand() -> None:
    u_NM = np.array([[3.0, 2.0, 1.0], [0.0, 0.0, 1.0], [1.0, 2.0, 3.0]])
    score_MN = np.array([[3.0, 2.0, 1.0], [2.0, 1.0, 1.0], [1.0, 3.0, 1.0]])
    right_N, pairs_N = accuracy(u_NM, score_MN)
    np.testing.assert_array_equal(pairs_N, [3, 3, 0])
    np.testing.assert_array_equal(right_N, [3, 2.5, 0])


def test_worth_by_hand() -> None:
    texts = prompts(40)
    score_MN = planted(texts, noise=0.02)
    trained = learn(texts, score_MN)
    reward_MN = 10 * score_MN + 1
    found = worth(trained, score_MN, {"reward": reward_MN}, confidence=0.9, resamples=400, seed=3)
    score = found["means"]["score"]
    assert score["oracle"]["mean"] == pytest.approx(score_MN.max(axis=0).mean())
    assert score["random"]["mean"] == pytest.approx(score_MN.mean())
    assert score["single"]["mean"] == pytest.approx(score_MN.mean(axis=1).max())
    own = [score_MN[choose(u_NM, TEACHERS), np.arange(40)] for u_NM in trained.held_out_SNM]
    assert score["routed"]["mean"] == pytest.approx(np.mean(own))
    for way in ("single", "oracle", "random"):
        gap = score["routed_minus"][way]
        assert gap["mean"] == pytest.approx(score["routed"]["mean"] - score[way]["mean"])
        assert gap["low"] <= gap["mean"] <= gap["high"]
        reward = found["means"]["reward"]
        assert reward["routed_minus"][way]["mean"] == pytest.approx(10 * gap["mean"])
        assert reward["routed_minus"][way]["low"] == pytest.approx(10 * gap["low"])
    assert score["routed_minus"]["single"]["low"] > 0.1
    assert score["routed_minus"]["oracle"]["high"] < 1e-12
    assert sum(found["shares"].values()) == pytest.approx(1)


def test_ties_go_to_the_first_name() -> None:
    u_NM = np.array([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    assert list(choose(u_NM, ("c", "b", "a"))) == [2, 2]
    assert list(choose(u_NM, ("a", "b", "c"))) == [1, 0]


def test_a_file_holds_the_whole_router(one_split: None, tmp_path: Path) -> None:
    texts = prompts(40)
    router = learn(texts, planted(texts)).router
    path = tmp_path / "router.safetensors"
    router.save(path)
    found = Router.load(path)
    assert (found.teachers, found.l2) == (router.teachers, router.l2)
    np.testing.assert_array_equal(found.utilities(texts), router.utilities(texts))
    first = path.read_bytes()
    router.save(path)
    assert path.read_bytes() == first
    Router(TEACHERS, router.weight_MD * 0, router.bias_M, math.inf).save(path)
    assert Router.load(path).l2 == math.inf


def test_another_file_is_no_router(one_split: None, tmp_path: Path) -> None:
    path = tmp_path / "router.safetensors"
    texts = prompts(40)
    learn(texts, planted(texts)).router.save(path)
    tensors = load_file(path)
    save_file(tensors, path)
    with pytest.raises(RunFolderError, match="no router"):
        Router.load(path)
    facts = '{"teachers": ["a", "b", "c"], "features": "ngrams-0", "l2": "1.0"}'
    save_file(tensors, path, {"router": facts})
    with pytest.raises(RunFolderError, match="ngrams-0"):
        Router.load(path)
    save_file({**tensors, "weight": np.zeros((2, DIM), np.float32)}, path,
              {"router": facts.replace("ngrams-0", "ngrams-1")})  # fmt: skip
    with pytest.raises(RunFolderError, match="weights"):
        Router.load(path)
    path.write_bytes(b"not a file of tensors")
    with pytest.raises(RunFolderError):
        Router.load(path)
    with pytest.raises(RunFolderError):
        Router.load(tmp_path / "nothing")
