"""Every formula against a number that is worked out by hand in the test."""

import math

import numpy as np
import pytest

from preceptor.core.criterion import Signals
from preceptor.criteria.car import car
from preceptor.criteria.ifd import ifd
from preceptor.criteria.length import length
from preceptor.criteria.mean_reward import mean_reward
from preceptor.criteria.perplexity import mean_loss, perplexity


def over_instructions(values_MN: np.ndarray) -> np.ndarray:
    return values_MN.mean(axis=1)


@pytest.fixture
def signals() -> Signals:
    """Two teachers, two instructions.

    Teacher 0: 2 and 4 tokens, nll 2 and 2 -> per-token 1.0 and 0.5, rewards .2 and .6.
    Teacher 1: 1 and 1 tokens, nll 3 and 1 -> per-token 3.0 and 1.0, rewards .9 and .7.
    """
    return Signals(
        teachers=("a", "b"),
        n_tokens_MN=np.array([[2.0, 4.0], [1.0, 1.0]]),
        nll_MN=np.array([[2.0, 2.0], [3.0, 1.0]]),
        nll_unconditional_MN=np.array([[4.0, 2.5], [3.0, 4.0]]),
        reward_MN=np.array([[0.2, 0.6], [0.9, 0.7]]),
    )


def test_loss_is_the_mean_over_answers_of_token_means(signals):
    # a: (1.0 + 0.5) / 2 = 0.75; b: (3 + 1) / 2 = 2
    assert mean_loss(signals, over_instructions, "answers").tolist() == [0.75, 2.0]


def test_loss_over_tokens(signals):
    # a: (2 + 2) / (2 + 4) = 2/3; b: (3 + 1) / 2 = 2
    found = mean_loss(signals, over_instructions, "tokens")
    assert found == pytest.approx([2 / 3, 2.0])


def test_car(signals):
    # a: r = .4, L = .75 -> .4 / (1 + 3 * .75) = .4 / 3.25 = .123077
    # b: r = .8, L = 2   -> .8 / (1 + 3 * 2)   = .8 / 7    = .114286
    found = car(signals, over_instructions, beta=3.0)
    assert found == pytest.approx([0.4 / 3.25, 0.8 / 7.0])
    assert found[0] > found[1]  # the lower reward wins on compatibility ...
    free = car(signals, over_instructions, beta=0.0)
    assert free == pytest.approx([0.4, 0.8])  # ... which beta = 0 ignores


def test_car_keeps_its_order_under_scaling_of_the_reward_but_not_under_a_shift(signals):
    def order(reward_MN: np.ndarray) -> list[int]:
        table = Signals(signals.teachers, signals.n_tokens_MN, signals.nll_MN, reward_MN=reward_MN)
        return np.argsort(car(table, over_instructions, beta=3.0)).tolist()

    assert signals.reward_MN is not None
    assert order(signals.reward_MN * 7) == order(signals.reward_MN)
    # + 10: a 10.4 / 3.25 = 3.2, b 10.8 / 7 = 1.543; - .35: a .05 / 3.25 = .0154, b .45 / 7 = .0643
    assert order(signals.reward_MN + 10) != order(signals.reward_MN - 0.35)


def test_perplexity(signals):
    assert perplexity(signals, over_instructions) == pytest.approx([math.exp(0.75), math.exp(2)])


def test_ifd(signals):
    # a: (2/4 + 2/2.5) / 2 = (.5 + .8) / 2 = .65; b: (3/3 + 1/4) / 2 = .625
    assert ifd(signals, over_instructions) == pytest.approx([0.65, 0.625])


def test_ifd_of_a_uniform_model_is_one():
    # a uniform model pays ln V for every token, with the instruction and without
    n_tokens_MN = np.array([[3.0, 8.0]])
    nll_MN = n_tokens_MN * math.log(50)
    table = Signals(("a",), n_tokens_MN, nll_MN, nll_unconditional_MN=nll_MN.copy())
    assert ifd(table, over_instructions).tolist() == [1.0]
    assert perplexity(table, over_instructions) == pytest.approx([50.0])


def test_ifd_of_an_answer_that_is_certain_without_its_instruction_counts_as_one():
    table = Signals(
        ("a",),
        np.ones((1, 2)),
        np.array([[0.5, 1.0]]),
        nll_unconditional_MN=np.array([[0.0, 2.0]]),
    )
    assert ifd(table, over_instructions).tolist() == [0.75]  # (1 + 1/2) / 2


def test_reward_and_length(signals):
    assert mean_reward(signals, over_instructions) == pytest.approx([0.4, 0.8])
    assert length(signals, over_instructions).tolist() == [3.0, 1.0]


@pytest.mark.parametrize("formula", [mean_reward, length, perplexity, ifd])
def test_order_and_duplication_of_instructions_do_not_matter(signals, formula):
    def picked(index: list[int]) -> Signals:
        grids = {
            name: getattr(signals, name)[:, index]
            for name in ("n_tokens_MN", "nll_MN", "nll_unconditional_MN", "reward_MN")
        }
        return Signals(signals.teachers, **grids)

    wanted = formula(signals, over_instructions)
    assert formula(picked([1, 0]), over_instructions) == pytest.approx(wanted)
    assert formula(picked([0, 1, 0, 1]), over_instructions) == pytest.approx(wanted)
