"""Every criterion on the shelf: a number worked out by hand, and what must not change it.

Shapes: M teachers, N instructions, S resamples.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preceptor.core.criterion import Criterion, Signals, TokenBlock, as_criterion
from preceptor.core.errors import SettingsError
from preceptor.core.plugs import plug
from preceptor.criteria import CRITERIA

CONTROLS = ("cost", "family_prior", "size")
POOLED = (
    "aslec_casl",
    "persyn",
)  # they read the whole table once, before the mean over instructions
PARAMETERS = {"beta": 3.0, "loss_reduction": "answers"}


def opened(name: str, **options: Any) -> Criterion:
    return as_criterion(name, plug("criterion", CRITERIA, name), options)


TABLE = [
    name for name in CRITERIA if not opened(name).gradients
]  # those of one table, no gradients


def over_instructions(values_MN: np.ndarray) -> np.ndarray:
    return values_MN.mean(axis=1)


def scored(
    name: str,
    signals: Signals,
    mean: Callable[[np.ndarray], np.ndarray] = over_instructions,
    **options: Any,
) -> np.ndarray:
    """The score; what the criterion makes of tokens is made under the same options."""
    criterion = opened(name, **options)
    return criterion.score(signals, mean, **{p: PARAMETERS[p] for p in criterion.parameters})


# --- a table by hand: two teachers, two instructions, eleven tokens ---------------------------

ANSWERS = [  # nll, rank and step of each token; a row a teacher
    [([2.0, 1.0], [3, 1], [0, 0]), ([5.0, 1.0, 1.0, 1.0], [200, 1, 2, 1], [0, 0, 0, 0])],
    [([3.0], [150], [0]), ([1.5, 2.5, 0.5, 3.5], [1, 8, 4, 7], [0, 0, 1, 1])],
]


def block_of(answers: Sequence[tuple[Sequence[float], Sequence[int], Sequence[int]]]) -> TokenBlock:
    """Tokens as the token store gives them back."""
    nll, rank, step = ([x for answer in answers for x in answer[part]] for part in range(3))
    starts = np.concatenate(([0], np.cumsum([len(answer[0]) for answer in answers])))
    return TokenBlock(
        starts,
        nll_T=np.array(nll, dtype=np.float32),
        rank_T=np.array(rank, dtype=np.uint16),
        step_T=np.array(step, dtype=np.int32),
    )


def features_of(
    block: TokenBlock, shape: tuple[int, int], options: dict[str, dict[str, Any]] | None = None
) -> dict[str, np.ndarray]:
    """All features of tokens that criteria of the shelf make."""
    found = {}
    for name in TABLE:
        criterion = opened(name, **(options or {}).get(name, {}))
        if criterion.features is not None:
            for feature, values in criterion.features(block).items():
                found[f"{name}.{feature}"] = values.reshape(shape)
    return found


@pytest.fixture
def signals() -> Signals:
    """Losses a token: teacher a 1.5 and 2, teacher b 3 and 2; of the questions 2 and 1."""
    block = block_of([answer for row in ANSWERS for answer in row])
    return Signals(
        teachers=("a", "b"),
        n_tokens_MN=np.array([[2.0, 4.0], [1.0, 4.0]]),
        nll_MN=np.array([[3.0, 8.0], [3.0, 8.0]]),
        nll_unconditional_MN=np.array([[6.0, 10.0], [3.0, 16.0]]),
        n_question_MN=np.array([[2.0, 4.0], [2.0, 4.0]]),
        nll_question_MN=np.array([[4.0, 4.0], [4.0, 4.0]]),
        brier_MN=np.array([[1.2, 2.4], [0.9, 3.2]]),
        similarity_answer_MN=np.array([[0.5, 0.25], [1.0, 0.5]]),
        similarity_question_MN=np.array([[0.2, 0.4], [0.1, 0.3]]),
        local_MN=np.array([[-1.0, -1.5], [-2.0, -1.0]]),
        family_M=np.array([1.0, 0.0]),
        size_M=np.array([7.0, 72.0]),
        price_M=np.array([2.0, 3.0]),
        reward_MN=np.array([[0.2, 0.6], [1.0, 0.8]]),
        features=features_of(block, (2, 2)),
    )


GOLDEN: dict[str, list[float]] = {
    # r: (.2 + .6) / 2 = .4 and .9; L: (1.5 + 2) / 2 = 1.75 and (3 + 2) / 2 = 2.5; beta = 3
    "mean_reward": [0.4, 0.9],
    "car": [0.4 / 6.25, 0.9 / 8.5],
    "perplexity": [math.exp(1.75), math.exp(2.5)],
    "grape": [-1.75, -2.5],
    "length": [3.0, 2.5],
    # a: (3/6 + 8/10) / 2; b: (3/3 + 8/16) / 2
    "ifd": [0.65, 0.75],
    # the same ratios over L(Q) = 2 and 1. a: (.25 + .8) / 2; b: (.5 + .5) / 2
    "ic_ifd": [0.525, 0.5],
    "local_naturalness": [-1.25, -1.5],
    # without first tokens. a: [1] and [1, 1, 1]; b: nothing else, so [3], and [2.5, 3.5]
    "aslec_drop": [-1.0, -3.0],
    # (f, o, r, s). a: (-2, -1, 1/2, -1.5), (-5, -1, 1/4, -2); b: (-3, -3, 1, -3) and
    # (-1, -3, 1/2, -2). Four answers are met exactly by s = A + B f + D o + C r:
    #   a1 - b2: -B + 2 D = .5;  a1 - a2: 3 B + C/4 = .5;  b2 - b1: 2 B - C/2 = 1
    #   => B = .25, C = -1, D = .375. s + r: a: -1, -1.75; b: -2, -1.5
    "aslec_casl": [-1.375, -1.75],
    # ranks, cut at 100. a: 4/2 = 2 and (100 + 1 + 2 + 1)/4 = 26: mean 14; b: 100 and 20/4 = 5: 52.5
    "rank_surprisal": [14 / 1.75, 52.5 / 2.5],
    # .5 dA^2 simAA + .5 dA dQ simAQ
    # a: .5*2.25*.5 + .5*1.5*2*.2 = .5625 + .3;  .5*4*.25 + .5*2*1*.4 = .5 + .4
    # b: .5*9*1 + .5*3*2*.1 = 4.5 + .3;          .5*4*.5 + .5*2*1*.3 = 1 + .3
    "scas": [0.88125, 3.05],
    # first question: l = 1.5, 3, w = 1/3, 2/3; b = .6, .9, rho = .4, .3; sum w rho = 1/3
    #   a: 1/3 (.8 - 1/3) = 7/45; b: 2/3 (.6 - 1/3) = 8/45
    # second: l = 2, 2, w = 1/2; b = .6, .8, rho = .3, .4; sum w rho = .35
    #   a: .5 (.6 - .35) = 1/8; b: .5 (.8 - .35) = 9/40
    "lark": [(7 / 45 + 1 / 8) / 2, (8 / 45 + 9 / 40) / 2],
    # quality: a 0, .5; b 1, .75. log p: a 1, 2/3; b 0, 2/3. With .6 and .4
    # a: .4 and .3 + .8/3; b: .6 and .45 + .8/3
    "persyn": [(0.4 + 0.3 + 0.8 / 3) / 2, (0.6 + 0.45 + 0.8 / 3) / 2],
    # at least .5: a one of two, b both
    "yield": [0.5, 1.0],
    "family_prior": [1.0, 0.0],
    "size": [7.0, 72.0],
    # 2 * 3 tokens and 3 * 2.5 tokens, of a million
    "cost": [6e-6, 7.5e-6],
}


def test_every_criterion_of_the_table_has_its_number() -> None:
    assert sorted(GOLDEN) == sorted(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_a_number_by_hand(name: str, signals: Signals) -> None:
    found = scored(name, signals)
    assert found.shape == (2,)
    assert found == pytest.approx(GOLDEN[name], rel=1e-6)


def test_options_by_hand(signals: Signals) -> None:
    # p = .5 and 1 => 1 - .5^3; from .7 on: none and both
    assert scored("yield", signals, samples=3).tolist() == [0.875, 1.0]
    assert scored("yield", signals, threshold=0.7).tolist() == [0.0, 1.0]
    assert scored("yield", signals, threshold=0.6).tolist() == [0.5, 1.0]  # .6 itself is enough
    # dA^2 simAA alone: a (1.125 + 1) / 2, b (9 + 2) / 2
    assert scored("scas", signals, lam=0.0) == pytest.approx([1.0625, 5.5])
    # rewards .2 < .6 < .8 < 1 are .125, .375, .625, .875; log p -3 < -2 = -2 < -1.5 are .125, .5,
    # .5, .875. a: .6 * .25 + .4 * .6875, b: .6 * .75 + .4 * .3125
    assert scored("persyn", signals, normalise="rank") == pytest.approx([0.425, 0.575])
    # mean reward .65, variance (.2025 + .0025 + .1225 + .0225) / 4 = .0875
    wanted = 0.25 / math.sqrt(0.0875)
    found = scored("persyn", signals, normalise="zscore", alpha=0.0)
    assert found == pytest.approx([-wanted, wanted])
    # ranks cut at 10: a (2 + 3.5) / 2, b (10 + 5) / 2
    block = block_of([answer for row in ANSWERS for answer in row])
    features = features_of(block, (2, 2), {"rank_surprisal": {"limit": 10}})
    found = scored("rank_surprisal", dataclasses.replace(signals, features=features))
    assert found == pytest.approx([2.75 / 1.75, 7.5 / 2.5])


# --- edges -----------------------------------------------------------------------------------


def flat(signals: Signals, **changes: Any) -> Signals:
    return dataclasses.replace(signals, **changes)


def test_answers_that_the_base_knows_by_heart(signals: Signals) -> None:
    """A loss of 0 divides nothing: every score stays finite."""
    zero_MN = np.zeros((2, 2))
    certain = flat(
        signals,
        nll_MN=zero_MN,
        nll_unconditional_MN=zero_MN,
        nll_question_MN=zero_MN,
        brier_MN=zero_MN,
        features=features_of(
            block_of([([0.0] * len(nll), [1] * len(nll), step) for row in ANSWERS
                      for nll, _, step in row]),
            (2, 2),
        ),
    )  # fmt: skip
    for name in TABLE:
        assert np.isfinite(scored(name, certain)).all(), name
    assert scored("ifd", certain).tolist() == scored("ic_ifd", certain).tolist() == [1.0, 1.0]
    assert scored("lark", certain).tolist() == [0.0, 0.0]
    # only the answer is certain: L(Q) = 2 and 1 still divide
    known = flat(certain, nll_question_MN=np.full((2, 2), 4.0))
    assert scored("ic_ifd", known).tolist() == [0.75, 0.75]
    # one teacher's answers are certain: it has no weight, the other one all of it
    nll_MN, brier_MN = np.array([[0.0, 0.0], [3.0, 8.0]]), np.array([[0.0, 0.0], [0.9, 3.2]])
    found = scored("lark", flat(signals, nll_MN=nll_MN, brier_MN=brier_MN))
    assert found == pytest.approx([0.0, (0.3 + 0.4) / 2])  # w = 1: 2 rho - rho


@pytest.mark.parametrize("normalise", ["minmax", "zscore", "rank"])
def test_persyn_without_spread_is_zero(signals: Signals, normalise: str) -> None:
    even = flat(signals, reward_MN=np.full((2, 2), 0.1), nll_MN=signals.n_tokens_MN * 0.3)
    assert scored("persyn", even, normalise=normalise).tolist() == [0.0, 0.0]


def casl(parts: Sequence[Sequence[tuple[list[float], list[int]]]]) -> tuple[np.ndarray, np.ndarray]:
    """ASLEC-casl and plain mean log p, of (nll, step) of each answer."""
    rows = [[(nll, [1] * len(nll), step) for nll, step in row] for row in parts]
    shape = (len(rows), len(rows[0]))
    block = block_of([answer for row in rows for answer in row])
    n_MN = block.n_tokens_A.reshape(shape).astype(np.float64)
    nll_MN = block.sum(block.nll_T).reshape(shape)  # type: ignore[arg-type]
    table = Signals(("a", "b"), n_MN, nll_MN, features=features_of(block, shape))
    return scored("aslec_casl", table), scored("grape", table)


def test_casl_where_the_fit_has_no_single_answer() -> None:
    """No spread of r, too few answers, or columns that say the same: finite, and as documented."""
    # one step and three tokens everywhere: r = 1/3, so nothing is subtracted
    found, plain = casl([[([1, 2, 4], [0] * 3), ([3, 1, 2], [0] * 3)],
                         [([2, 2, 2], [0] * 3), ([5, 1, 1], [0] * 3)]])  # fmt: skip
    assert found == pytest.approx(plain)
    # one token everywhere: r = 1, f = o = s
    found, plain = casl([[([1], [0]), ([3], [0])], [([2], [0]), ([5], [0])]])
    assert found == pytest.approx(plain)
    # two answers for four coefficients
    found, _ = casl([[([1, 2, 4], [0] * 3)], [([3, 1], [0, 1])]])
    assert np.isfinite(found).all()
    # the same answer everywhere: no column has any spread
    found, plain = casl([[([1, 2], [0, 1])], [([1, 2], [0, 1])]])
    assert found == pytest.approx(plain)


def test_casl_takes_away_what_the_share_of_first_tokens_adds() -> None:
    """Answers that differ in nothing but the lengths of their steps end up closer than before."""
    rng = np.random.default_rng(0)

    def answers(length: int) -> list[tuple[list[float], list[int]]]:
        """Forty answers of 24 tokens: first tokens of steps cost about 4 nats, others about 1."""
        step = np.arange(24) // length
        first = np.diff(step, prepend=-1) != 0
        return [
            ((np.where(first, 4.0, 1.0) + 0.3 * rng.random(24)).tolist(), step.tolist())
            for _ in range(40)
        ]

    found, plain = casl([answers(3), answers(8)])
    assert plain[1] - plain[0] > 0.5  # long steps look likelier: 3 * (1/3 - 1/8) = .625
    assert abs(found[1] - found[0]) < 0.1 * (plain[1] - plain[0])


def test_features_do_not_depend_on_how_answers_are_cut_into_blocks() -> None:
    table, block, _ = made(3, 5)
    whole = features_of(block, (15, 1))
    parts = []
    for low, high in ((0, 4), (4, 5), (5, 15)):
        own = slice(block.starts[low], block.starts[high])
        assert block.nll_T is not None and block.rank_T is not None and block.step_T is not None
        part = TokenBlock(
            block.starts[low : high + 1] - block.starts[low],
            nll_T=block.nll_T[own],
            rank_T=block.rank_T[own],
            step_T=block.step_T[own],
        )
        parts.append(features_of(part, (high - low, 1)))
    for name, values in whole.items():
        assert np.concatenate([part[name] for part in parts]) == pytest.approx(values)
    assert set(whole) == set(table.features)


# --- invariances, on a table that chance has made ---------------------------------------------


def made(m: int = 4, n: int = 9, scale: float = 1.0, shift: float = 0.0) -> Any:
    """A table of m teachers and n instructions, its tokens, and how to make signals of them.

    Args:
        scale, shift: of the loss of every token, of answers and questions.
    """
    rng = np.random.default_rng(7)
    lengths = rng.integers(1, 12, m * n)
    total = int(lengths.sum())
    nll_T = rng.gamma(2.0, 1.0, total) * scale + shift
    first_T = rng.random(total) < 0.3
    block = TokenBlock(
        np.concatenate(([0], np.cumsum(lengths))),
        nll_T=nll_T,
        rank_T=rng.integers(1, 300, total).astype(np.uint16),
        step_T=np.cumsum(first_T).astype(np.int32),
    )

    def grid(values: np.ndarray) -> np.ndarray:
        return np.asarray(values, dtype=np.float64).reshape(m, n)

    n_question_MN = np.tile(rng.integers(3, 20, n).astype(np.float64), (m, 1))
    question_N = rng.gamma(2.0, 1.0, n)
    table = Signals(
        teachers=tuple("abcdefgh"[:m]),
        n_tokens_MN=grid(lengths),
        nll_MN=grid(block.sum(nll_T)),
        nll_unconditional_MN=grid(lengths * (rng.gamma(3.0, 1.0, m * n) * scale + shift)),
        n_question_MN=n_question_MN,
        nll_question_MN=n_question_MN * (question_N * scale + shift),
        brier_MN=grid(lengths * rng.uniform(0.1, 1.5, m * n)),
        similarity_answer_MN=grid(rng.uniform(0.1, 1.0, m * n)),
        similarity_question_MN=grid(rng.uniform(-0.1, 0.9, m * n)),
        local_MN=grid(-(rng.gamma(2.0, 1.0, m * n) * scale + shift)),
        family_M=(rng.random(m) < 0.5).astype(np.float64),
        size_M=rng.uniform(1, 70, m),
        price_M=rng.uniform(0, 9, m),
        reward_MN=grid(rng.random(m * n)),
        features=features_of(block, (m, n)),
    )
    return table, block, grid


def picked(signals: Signals, rows: Sequence[int], columns: Sequence[int]) -> Signals:
    """Other teachers and instructions, or the same ones in another order."""
    place = np.ix_(list(rows), list(columns))
    changes: dict[str, Any] = {
        field.name: (value[list(rows)] if field.name.endswith("_M") else value[place])
        for field in dataclasses.fields(signals)
        if isinstance(value := getattr(signals, field.name), np.ndarray)
    }
    changes["features"] = {name: value[place] for name, value in signals.features.items()}
    changes["teachers"] = tuple(signals.teachers[row] for row in rows)
    return dataclasses.replace(signals, **changes)


@pytest.mark.parametrize("name", TABLE)
def test_order_and_duplication_do_not_matter(name: str) -> None:
    table, _, _ = made()
    wanted = scored(name, table)
    every = range(9)
    shuffled = [4, 0, 8, 2, 6, 1, 7, 3, 5]
    assert scored(name, picked(table, range(4), shuffled)) == pytest.approx(wanted)
    assert scored(name, picked(table, range(4), [*every, *every])) == pytest.approx(wanted)
    assert scored(name, picked(table, [2, 0, 3, 1], every)) == pytest.approx(wanted[[2, 0, 3, 1]])


@pytest.mark.parametrize("normalise", ["zscore", "rank"])
def test_other_normalisations_do_not_depend_on_order_or_duplication(normalise: str) -> None:
    table, _, _ = made()
    wanted = scored("persyn", table, normalise=normalise)
    twice = picked(table, [2, 0, 3, 1], [*range(9), *range(9)][::-1])
    found = scored("persyn", twice, normalise=normalise)
    assert found == pytest.approx(wanted[[2, 0, 3, 1]])


OF_LOSSES = {  # scores under losses k times as large are k ** power as large
    "grape": 1, "local_naturalness": 1, "aslec_drop": 1, "aslec_casl": 1, "scas": 2,
    "rank_surprisal": -1, "lark": -1, "ic_ifd": -1, "ifd": 0, "persyn": 0,
    "mean_reward": 0, "length": 0, "yield": 0, "family_prior": 0, "size": 0, "cost": 0,
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_scale_of_the_losses(name: str) -> None:
    """Nats to bits, say. Perplexity and CAR have their own laws."""
    table, wide = made()[0], made(scale=2.5)[0]
    before, after = scored(name, table), scored(name, wide)
    if name == "perplexity":
        assert after == pytest.approx(before**2.5)
    elif name == "car":  # 1/CAR = (1 + 3 L) / r is linear in L
        loss = (table.nll_MN / table.n_tokens_MN).mean(axis=1)
        wanted = (1 + 3 * 2.5 * loss) / (1 + 3 * loss)
        assert before / after == pytest.approx(wanted)
    else:
        assert after == pytest.approx(before * 2.5 ** OF_LOSSES[name])


@pytest.mark.parametrize(
    "name", ["grape", "local_naturalness", "aslec_drop", "aslec_casl", "perplexity", "persyn"]
)
def test_shift_of_the_losses(name: str) -> None:
    """Every token a third of a nat dearer: means of log p fall by just that."""
    before, after = scored(name, made()[0]), scored(name, made(shift=1 / 3)[0])
    if name == "perplexity":
        assert after == pytest.approx(before * math.exp(1 / 3))
    else:
        assert after == pytest.approx(before if name == "persyn" else before - 1 / 3)


@pytest.mark.parametrize("name", TABLE)
def test_scale_and_shift_of_the_reward(name: str) -> None:
    table, _, _ = made()
    assert table.reward_MN is not None
    larger = flat(table, reward_MN=4 * table.reward_MN)
    higher = flat(table, reward_MN=table.reward_MN + 0.2)
    before = scored(name, table)
    reads = "reward" in opened(name).needs
    same = not reads or name == "persyn"
    if name == "yield":  # the threshold is in the unit of the reward
        assert scored(name, larger, threshold=2.0) == pytest.approx(before)
        assert scored(name, higher, threshold=0.7) == pytest.approx(before)
        return
    assert scored(name, larger) == pytest.approx(before if same else 4 * before)
    if name == "mean_reward":
        assert scored(name, higher) == pytest.approx(before + 0.2)
    elif name == "car":  # the shift is discounted by each teacher's own loss
        assert not np.allclose(scored(name, higher) - before, 0.2)
    else:
        assert scored(name, higher) == pytest.approx(before)


# --- the bootstrap ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLE)
def test_weights_are_resampled_instructions(name: str) -> None:
    table, _, _ = made()
    rng = np.random.default_rng(3)
    draws_SN = [np.sort(rng.integers(0, 9, 9)) for _ in range(6)]
    w_NS = np.stack([np.bincount(draw, minlength=9) / 9 for draw in draws_SN], axis=1)
    found_MS = scored(name, table, lambda values_MN: values_MN @ w_NS)
    assert found_MS.shape == (4, 6)
    for column, draw in enumerate(draws_SN):
        if name in POOLED:  # given the fit on the whole table
            wanted = scored(name, table, lambda values_MN: values_MN)[:, draw].mean(axis=1)
        else:
            wanted = scored(name, picked(table, range(4), draw.tolist()))
        assert found_MS[:, column] == pytest.approx(wanted)
    spread = name not in ("family_prior", "size")  # which no instruction can change
    assert (np.ptp(found_MS, axis=1) > 1e-9).all() == spread


# --- the shelf --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(CRITERIA))
def test_what_a_criterion_says_of_itself(name: str) -> None:
    criterion = opened(name)
    text = inspect.getdoc(plug("criterion", CRITERIA, name)) or ""
    first = text.splitlines()[0]
    assert criterion.description == first and len(first) > 10 and first.endswith(".")
    assert criterion.direction in ("higher", "lower") and criterion.unit
    assert f"{criterion.direction} is better" in text
    assert "range" in text.lower()
    if name in CONTROLS:
        assert "a control" in text
    else:
        assert re.search(r"arXiv\s+\d{4}\.\d{5}", text)


@pytest.mark.parametrize(
    ("name", "options", "found"),
    [
        ("persyn", {"normalise": "softmax"}, "'softmax'"),
        ("persyn", {"alpha": 1.5}, "1.5"),
        ("scas", {"lam": float("nan")}, "nan"),
        ("rank_surprisal", {"limit": 0}, "0: input should be greater than or equal to 1"),
        ("yield", {"samples": 2.5}, "2.5"),
        ("yield", {"threshold": "high"}, "'high'"),
    ],
)
def test_a_value_of_an_option_that_does_not_fit(
    name: str, options: dict[str, Any], found: str
) -> None:
    with pytest.raises(SettingsError, match=f"an option of '{name}' cannot be used") as caught:
        opened(name, **options)
    assert caught.value.where == f"criterion_options: {name}.{next(iter(options))}"
    assert found in caught.value.found and caught.value.next_step


def test_an_option_that_a_criterion_does_not_have() -> None:
    with pytest.raises(SettingsError, match="no option of this name") as caught:
        opened("persyn", alhpa=0.1)
    assert caught.value.found == "'alhpa', did you mean 'alpha'?"
    with pytest.raises(SettingsError, match="no option of this name") as caught:
        opened("grape", limit=3)
    assert "it has none" in caught.value.found
    assert partial(opened, "rank_surprisal")(limit=10.0).features.keywords == {"limit": 10}  # type: ignore[union-attr]


# --- real models ------------------------------------------------------------------------------

SHOWN = {
    "ash": "It is {n} in the house.\n\nThe cat is there.\nAnd the dog.",
    "beech": "The answer is the number {n} and the cat.",
    "cherry": "{n}\n",
}
FACTS: dict[str, Any] = {
    "family_M": np.array([1.0, 0.0, 1.0]),
    "size_M": np.array([1.0, 2.0, 3.0]),
    "price_M": np.array([0.5, 1.0, 2.0]),
}


def measured(
    folder: Path, model_folder: Path, budget: int, questions: Sequence[str], blank: bool = False
) -> Signals:
    """All signals of one model, by the passes that `select` makes.

    Args:
        budget: padded tokens in a batch.
        blank: set the model's head to zero, so that every token is as likely.
    """
    from preceptor.core.stage import Stage
    from preceptor.core.types import Answer
    from preceptor.data.answer_table import Answers
    from preceptor.data.rendering import Renderer
    from preceptor.data.sequences import tokenize
    from preceptor.data.steps import Windows
    from preceptor.data.token_store import TokenStore
    from preceptor.models.load import open_card
    from preceptor.recipes.selecting.features import features_of_tokens
    from preceptor.selection.measure import LOSS, Scorer, Wanted, make_plan, measure

    transformers: Any = importlib.import_module("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(model_folder).eval()
    if blank:
        model.lm_head.weight.data.zero_()
    card = open_card(str(model_folder))
    renderer = Renderer(card.tokenizer, card.limit)
    answers = Answers.of(
        [
            Answer(str(n), question, who, form.format(n=n))
            for who, form in SHOWN.items()
            for n, question in enumerate(questions)
        ]
    )
    shape = (len(SHOWN), len(questions))
    tokens = tokenize(renderer, answers)

    def run(name: str, sequences: Any, wanted: Wanted, store: Any = None) -> dict[str, np.ndarray]:
        plan, scorer = make_plan(sequences, budget), Scorer(model, "", wanted)
        with Stage(folder / name, wanted.schema) as stage:
            found = measure(name, lambda: scorer.score, plan, stage, tokens=store)
        return {**found, "n": plan.n_response[plan.item_to_unique]}

    rows = ("nll", "entropy", "brier", "similarity_answer", "similarity_question")
    wanted = Wanted(rows, ("nll", "rank", "entropy", "brier"))
    plan = make_plan(tokens.sequences, budget)
    with TokenStore(folder / "tokens", plan.n_response, wanted.tokens) as store:
        found = run("nll", tokens.sequences, wanted, store)
        starts = store.starts[:-1][plan.item_to_unique]
    readers = [criterion for name in TABLE if (criterion := opened(name)).tokens]
    features = features_of_tokens(readers, folder / "tokens", starts, tokens, "\n")
    alone = run("alone", [renderer.unconditional(s) for s in tokens.sequences], LOSS)
    question = run("question", renderer.questions([a.instruction for a in answers]), LOSS)
    windows = Windows(renderer, tokens.sequences, "\n", 0.25)
    local = run("local", windows.sequences, LOSS)
    grids = {
        **{name: found[name] for name in rows},
        "n_tokens": tokens.n_response,
        "nll_unconditional": alone["nll"],
        "nll_question": question["nll"],
        "n_question": question["n"],
        "local": windows.mean_over_steps(-local["nll"] / local["n"]),
        "reward": np.linspace(0, 1, len(answers)),
    }
    named: dict[str, Any] = {
        f"{name}_MN": values.astype(float).reshape(shape) for name, values in grids.items()
    }
    own = {
        name.removeprefix("feature."): values.reshape(shape) for name, values in features.items()
    }
    return Signals(teachers=tuple(SHOWN), **named, **FACTS, features=own)


def test_batches_and_their_padding_change_no_score(
    tmp_path: Path, base: Path, instruction_texts: tuple[str, ...]
) -> None:
    alone = measured(tmp_path / "alone", base, 1, instruction_texts)
    together = measured(tmp_path / "together", base, 100_000, instruction_texts)
    for name in TABLE:
        wanted = scored(name, alone)
        assert scored(name, together) == pytest.approx(wanted, rel=1e-3), name
        assert len(set(wanted)) > 1, name


def test_a_uniform_model(tmp_path: Path, base: Path, instruction_texts: tuple[str, ...]) -> None:
    """Every token costs ln V: what many criteria come to can be said beforehand."""
    table = measured(tmp_path, base, 512, instruction_texts, blank=True)
    vocabulary = importlib.import_module("transformers").AutoConfig.from_pretrained(base).vocab_size
    loss = math.log(vocabulary)
    assert table.entropy_MN is not None and table.brier_MN is not None
    assert table.entropy_MN / table.n_tokens_MN == pytest.approx(np.full((3, 6), loss))
    brier = 1 - 1 / vocabulary
    assert table.brier_MN / table.n_tokens_MN == pytest.approx(np.full((3, 6), brier))
    wanted = {
        "grape": -loss,
        "local_naturalness": -loss,
        "aslec_drop": -loss,
        "aslec_casl": -loss,  # no first token is dearer than another: nothing to take away
        "perplexity": vocabulary,
        "ifd": 1.0,
        "ic_ifd": 1 / loss,
        "rank_surprisal": 1 / loss,  # no token is likelier than another: all are of rank 1
        "lark": brier / loss / 3,  # w = 1/3 each, 2 rho - rho
    }
    for name, value in wanted.items():
        assert scored(name, table) == pytest.approx([value] * 3, rel=1e-5), name
