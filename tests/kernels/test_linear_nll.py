"""The tiled head against its naive twin. N positions, D width, V vocabulary."""

import itertools

import pytest
import torch

from preceptor.kernels.linear_nll import Head, linear_nll, naive_linear_nll

Inputs = tuple[torch.Tensor, Head, torch.Tensor]
SHAPES = [(1, 4, 7), (5, 8, 33), (64, 16, 300), (3, 8, 1)]
TILES = [(2, 5), (64, 64), (1, 1000), None]


def _inputs(n: int, d: int, v: int, dtype: torch.dtype, **head: float) -> Inputs:
    generator = torch.Generator().manual_seed(n * v)
    hidden_ND = torch.randn(n, d, generator=generator).to(dtype)
    weight_VD = torch.randn(v, d, generator=generator).to(dtype)
    bias_V = torch.randn(v, generator=generator).to(dtype)
    targets_N = torch.randint(0, v, (n,), generator=generator)
    return hidden_ND, Head(weight_VD, bias_V, **head), targets_N


@pytest.mark.parametrize(("shape", "tile"), list(itertools.product(SHAPES, TILES)))
def test_tiles_give_the_naive_value(shape, tile):
    n, d, v = shape
    hidden_ND, head, targets_N = _inputs(n, d, v, torch.float32)
    found = linear_nll(hidden_ND, head, targets_N, tile)
    torch.testing.assert_close(
        found, naive_linear_nll(hidden_ND, head, targets_N), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    "head", [{"scale": 0.25}, {"softcap": 3.0}, {"scale": 2.0, "softcap": 5.0}]
)
def test_scale_and_soft_capping(head):
    hidden_ND, built, targets_N = _inputs(20, 8, 50, torch.float32, **head)
    found = linear_nll(hidden_ND, built, targets_N, (7, 11))
    torch.testing.assert_close(
        found, naive_linear_nll(hidden_ND, built, targets_N), rtol=1e-5, atol=1e-5
    )
    plain = linear_nll(hidden_ND, Head(built.weight_VD, built.bias_V), targets_N)
    assert not torch.allclose(found, plain)


def test_bfloat16_products_with_fp32_sums():
    hidden_ND, head, targets_N = _inputs(64, 16, 300, torch.bfloat16)
    found = linear_nll(hidden_ND, head, targets_N, (16, 64))
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        found, naive_linear_nll(hidden_ND, head, targets_N), rtol=1e-4, atol=1e-4
    )


def test_huge_logits_neither_overflow_nor_vanish():
    hidden_ND = torch.tensor([[1.0], [1.0]])
    head = Head(torch.tensor([[1e4], [0.0], [-1e4]]))
    found = linear_nll(hidden_ND, head, torch.tensor([0, 1]), (2, 1))
    assert found.tolist() == [0.0, 1e4]


def test_uniform_head_gives_log_vocabulary():
    # logits all 0: p = 1/V for every token, so nll = ln V
    found = linear_nll(torch.ones(3, 4), Head(torch.zeros(10, 4)), torch.tensor([0, 5, 9]), (2, 3))
    torch.testing.assert_close(found, torch.full((3,), 2.302585))
