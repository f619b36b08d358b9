"""Tiled token signals against their naive twin. N positions, D width, V vocabulary."""

import itertools
import math

import pytest
import torch

from preceptor.kernels.linear_nll import Head, linear_nll
from preceptor.kernels.linear_signals import TOKEN_SIGNALS, linear_signals, naive_linear_signals

Inputs = tuple[torch.Tensor, Head, torch.Tensor]
SHAPES = [(1, 4, 7), (5, 8, 33), (64, 16, 300), (3, 8, 1)]
TILES = [(2, 5), (64, 64), (1, 1000), None]


def _inputs(n: int, d: int, v: int, dtype: torch.dtype = torch.float32, **head: float) -> Inputs:
    generator = torch.Generator().manual_seed(n * v)
    hidden_ND = torch.randn(n, d, generator=generator).to(dtype)
    weight_VD = torch.randn(v, d, generator=generator).to(dtype)
    bias_V = torch.randn(v, generator=generator).to(dtype)
    targets_N = torch.randint(0, v, (n,), generator=generator)
    return hidden_ND, Head(weight_VD, bias_V, **head), targets_N


def _assert_equal(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        torch.testing.assert_close(found[name], values, rtol=1e-5, atol=2e-5, msg=name)


@pytest.mark.parametrize(("shape", "tile"), list(itertools.product(SHAPES, TILES)))
def test_tiles_give_the_naive_values(shape, tile):
    inputs = _inputs(*shape)
    _assert_equal(linear_signals(*inputs, TOKEN_SIGNALS, tile), naive_linear_signals(*inputs))


@pytest.mark.parametrize(
    "head", [{"scale": 0.25}, {"softcap": 3.0}, {"scale": 2.0, "softcap": 5.0}]
)
def test_scale_and_soft_capping(head):
    inputs = _inputs(20, 8, 50, **head)
    _assert_equal(linear_signals(*inputs, TOKEN_SIGNALS, (7, 11)), naive_linear_signals(*inputs))


@pytest.mark.parametrize("wanted", [("nll",), ("rank",), ("entropy", "nll"), ("brier",), ()])
def test_only_what_is_wanted_is_formed_and_the_rest_stays_the_same(wanted):
    inputs = _inputs(20, 8, 50)
    found = linear_signals(*inputs, wanted, (7, 11))
    every = naive_linear_signals(*inputs)
    _assert_equal(found, {name: every[name] for name in wanted})


def test_the_loss_is_that_of_the_loss_alone():
    inputs = _inputs(64, 16, 300)
    found = linear_signals(*inputs, TOKEN_SIGNALS, (16, 64))["nll"]
    torch.testing.assert_close(found, linear_nll(*inputs, (16, 64)), rtol=1e-6, atol=1e-6)


def test_a_uniform_model_by_hand():
    # all logits equal: p = 1/4, so nll = entropy = ln 4, nothing is likelier than the token,
    # and Brier = 4 / 16 - 2 / 4 + 1 = .75
    head = Head(torch.zeros(4, 3))
    found = linear_signals(torch.randn(2, 3), head, torch.tensor([0, 3]), TOKEN_SIGNALS, (1, 3))
    assert found["rank"].tolist() == [1, 1]
    for name, value in {"nll": math.log(4), "entropy": math.log(4), "brier": 0.75}.items():
        assert found[name].tolist() == pytest.approx([value, value])


def test_one_token_by_hand():
    # logits ln 6, ln 3, ln 1: p = .6, .3, .1; the token is the third one
    head = Head(torch.tensor([[math.log(6.0)], [math.log(3.0)], [0.0]]))
    found = linear_signals(torch.ones(1, 1), head, torch.tensor([2]), TOKEN_SIGNALS, (1, 2))
    assert found["rank"].tolist() == [3]
    assert found["nll"].item() == pytest.approx(math.log(10))
    entropy = -(0.6 * math.log(0.6) + 0.3 * math.log(0.3) + 0.1 * math.log(0.1))
    assert found["entropy"].item() == pytest.approx(entropy)
    # .36 + .09 + .01 - 2 * .1 + 1
    assert found["brier"].item() == pytest.approx(1.26)


def test_huge_logits_neither_overflow_nor_vanish():
    hidden_ND = torch.tensor([[1.0], [1.0]])
    head = Head(torch.tensor([[1e4], [0.0], [-1e4]]))
    found = linear_signals(hidden_ND, head, torch.tensor([0, 1]), TOKEN_SIGNALS, (2, 1))
    assert found["nll"].tolist() == [0.0, 1e4]
    assert found["rank"].tolist() == [1, 2]
    assert found["entropy"].tolist() == [0.0, 0.0]
    assert found["brier"].tolist() == [0.0, 2.0]


def test_bfloat16_products_with_fp32_sums():
    inputs = _inputs(64, 16, 300, torch.bfloat16)
    found, wanted = linear_signals(*inputs, TOKEN_SIGNALS, (16, 64)), naive_linear_signals(*inputs)
    for name in ("nll", "entropy", "brier"):
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-2, atol=1e-2)
    # a product in bfloat16 rounds by its shape: tokens as likely as this one may change sides
    assert ((found["rank"] - wanted["rank"]).abs() <= 3).all()


def test_no_positions_give_nothing():
    hidden_ND, head, targets_N = _inputs(5, 8, 33)
    found = linear_signals(hidden_ND[:0], head, targets_N[:0], TOKEN_SIGNALS)
    assert [len(values) for values in found.values()] == [0] * len(found)
