"""The fused losses against their twin, by hand, and their cost. N positions, D width, V tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch

from preceptor.core.plugs import plug
from preceptor.kernels.linear_divergence import (
    DenseRows,
    LinearLosses,
    MixtureRows,
    linear_divergence,
    naive_linear_divergence,
)
from preceptor.losses import LOSSES
from preceptor.models.head import Head

N, D, V = 13, 8, 50
DIVERGENCES: dict[str, dict[str, float]] = {
    "forward_kl": {},
    "reverse_kl": {},
    "jsd": {"beta": 0.3},
    "skew_forward_kl": {"alpha": 0.1},
    "skew_reverse_kl": {"alpha": 0.1},
}
EVERY = pytest.mark.parametrize("name", list(DIVERGENCES))
Maker = Callable[..., torch.Tensor]


@pytest.fixture
def normal() -> Maker:
    """Random normal tensors, the same in every test."""
    return partial(torch.randn, generator=torch.Generator().manual_seed(0))


def divergence(name: str = "forward_kl") -> Any:
    return partial(plug("loss", LOSSES, name), **DIVERGENCES[name])


def student(normal: Maker, dtype: torch.dtype = torch.float32, v: int = V, **head: Any) -> Any:
    """Arguments of a call: hidden states, head with bias, targets, uneven weights."""
    built = Head(normal(v, D).to(dtype).requires_grad_(), normal(v).to(dtype), **head)
    assert built.bias_V is not None
    built.bias_V.requires_grad_()
    targets_N = torch.arange(N) * 7 % v
    return normal(N, D).to(dtype).requires_grad_(), built, targets_N, 0.1 + torch.arange(N) / N


def dense(normal: Maker, n: int = N, d: int = D + 3, v: int = V, **head: Any) -> DenseRows:
    index_K = head.pop("index_K", None)
    dtype = head.pop("dtype", torch.float32)
    hidden_KD, weight_VD = normal(n, d).to(dtype), normal(v, d).to(dtype)
    return DenseRows(hidden_KD, Head(weight_VD, normal(v).to(dtype), **head), index_K)


def run(function: Callable[..., LinearLosses], inputs: Any, **options: Any) -> list[torch.Tensor]:
    """Loss, both parts and all gradients, by either implementation."""
    defaults = {"next_token_weight": 0.4, "divergence_weight": 0.6}
    losses = function(*inputs, **(defaults | options))
    hidden_ND, head = inputs[:2]
    wanted = [
        t for t in (hidden_ND, head.weight_VD, head.bias_V) if t is not None and t.requires_grad
    ]
    return [*losses, *torch.autograd.grad(losses.loss, wanted)]


def assert_twins(inputs: Any, tolerance: float = 3e-6, **options: Any) -> list[torch.Tensor]:
    """Both implementations agree, relative to the largest entry of each result."""
    fast, slow = (
        run(linear_divergence, inputs, **options),
        run(naive_linear_divergence, inputs, **options),
    )
    for found, wanted in zip(fast, slow, strict=True):
        assert found.dtype == wanted.dtype and found.shape == wanted.shape
        error = (found.float() - wanted.float()).abs().max()
        assert error <= tolerance * wanted.float().abs().max(), (float(error), found.shape)
    return fast


@EVERY
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_every_divergence_in_fp32(normal: Maker, name: str, temperature: float):
    assert_twins(
        student(normal),
        teacher=[dense(normal)],
        divergence=divergence(name),
        temperature=temperature,
        tile_bytes=5 * V * 4,
    )


@EVERY
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_divergence_in_half_precision(
    normal: Maker, name: str, temperature: float, dtype: torch.dtype
):
    # gradients are rounded to bf16 (2^-8) or fp16 at the end; all before is fp32 on a CPU
    inputs = student(normal, dtype)
    found = assert_twins(
        inputs,
        tolerance=2**-8,
        teacher=[dense(normal, dtype=dtype)],
        divergence=divergence(name),
        temperature=temperature,
        tile_bytes=5 * V * 4,
    )
    assert [t.dtype for t in found] == [torch.float32] * 3 + [dtype] * 3


@pytest.mark.parametrize(
    "head", [{"scale": 0.25}, {"softcap": 3.0}, {"scale": 2.0, "softcap": 5.0}]
)
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_scale_and_soft_cap_of_either_head(normal: Maker, head: Any, temperature: float):
    options = {"divergence": divergence("jsd"), "temperature": temperature}
    plain = assert_twins(student(normal), teacher=[dense(normal)], **options)
    found = assert_twins(student(normal, **head), teacher=[dense(normal)], **options)
    assert not torch.allclose(plain[0], found[0])
    assert_twins(student(normal), teacher=[dense(normal, **head)], **options)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize(("own", "theirs"), [(50, 43), (43, 50), (50, 1)])
def test_heads_of_unequal_width(normal: Maker, own: int, theirs: int, temperature: float):
    """The divergence sees the shared tokens alone; the next-token loss sees all of the student."""
    inputs, teacher = student(normal, v=own), dense(normal, v=theirs)
    options: dict[str, Any] = {"divergence": divergence(), "temperature": temperature}
    found = assert_twins(inputs, teacher=[teacher], **options)
    hidden_ND, head, targets_N, weights_N = inputs
    alone = linear_divergence(*inputs, next_token_weight=1.0, divergence_weight=0.0)
    torch.testing.assert_close(found[1], alone.next_token_N)
    assert head.bias_V is not None and teacher.head.bias_V is not None
    low = min(own, theirs)  # the same as cutting both heads
    cut = Head(head.weight_VD[:low], head.bias_V[:low])
    rows = DenseRows(
        teacher.hidden_KD, Head(teacher.head.weight_VD[:low], teacher.head.bias_V[:low])
    )
    wanted = linear_divergence(
        hidden_ND,
        cut,
        targets_N % low,
        weights_N,
        teacher=[rows],
        next_token_weight=0.0,
        divergence_weight=1.0,
        **options,
    )
    torch.testing.assert_close(found[2], wanted.divergence_N, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tile_rows", [1, 2, 4, 7, N, 10 * N])
def test_the_size_of_a_tile_changes_nothing(normal: Maker, tile_rows: int):
    inputs, teacher = student(normal), [dense(normal)]
    options = {"teacher": teacher, "divergence": divergence(), "temperature": 2.0}
    found = run(linear_divergence, inputs, tile_bytes=tile_rows * V * 4, **options)
    for one, other in zip(found, run(linear_divergence, inputs, **options), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_blocks_within_a_tile_change_nothing(normal: Maker, monkeypatch: pytest.MonkeyPatch):
    inputs, teacher = student(normal), [dense(normal)]
    whole = run(linear_divergence, inputs, teacher=teacher, divergence=divergence())
    monkeypatch.setitem(
        linear_divergence.__globals__["blocks"].__globals__["BLOCK_BYTES"], "cpu", 3 * V * 4
    )
    found = assert_twins(inputs, teacher=teacher, divergence=divergence())
    for one, other in zip(found, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def parts_of_three(normal: Maker) -> tuple[Any, Sequence[Any]]:
    """A student, and a teacher of three models that share the positions unevenly."""
    order = torch.tensor([4, 0, 11, 2, 9, 7, 1, 3, 12, 5, 10, 6, 8])
    first, second, third = order[:6], order[6:12], order[12:]
    return student(normal), [
        dense(normal, 6, index_K=first),
        dense(normal, 6, d=3, v=V + 5, softcap=4.0, index_K=second),
        MixtureRows(
            [dense(normal, 1), dense(normal, 1, d=5)], (0.25, 0.75), "geometric", index_K=third
        ),
    ]


@EVERY
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_several_teachers_each_at_its_positions(normal: Maker, name: str, temperature: float):
    inputs, teacher = parts_of_three(normal)
    options = {"divergence": divergence(name), "temperature": temperature}
    found = assert_twins(inputs, teacher=teacher, tile_bytes=4 * V * 4, **options)
    hidden_ND, head, targets_N, weights_N = inputs
    index = teacher[1].index_K  # one part alone gives the same at its positions
    alone = linear_divergence(
        hidden_ND[index],
        head,
        targets_N[index],
        weights_N[index],
        teacher=[DenseRows(teacher[1].hidden_KD, teacher[1].head)],
        next_token_weight=0.0,
        divergence_weight=1.0,
        **options,
    )
    torch.testing.assert_close(found[2][index], alone.divergence_N, rtol=1e-5, atol=1e-6)


@EVERY
@pytest.mark.parametrize("kind", ["probability", "geometric"])
def test_mixtures(normal: Maker, name: str, kind: str):
    parts = [dense(normal), dense(normal, d=5, softcap=4.0), dense(normal, v=V - 4)]
    assert_twins(
        student(normal),
        teacher=[MixtureRows(parts, (0.5, 0.2, 0.3), kind)],
        divergence=divergence(name),
        temperature=1.5,
        tile_bytes=5 * V * 4,
    )


def test_mixtures_by_hand():
    # two teachers (0.9, 0.1) and (0.5, 0.5), weights 3/4 and 1/4, student (1/2, 1/2)
    # sum: (0.8, 0.2); KL = 0.8 ln 1.6 + 0.2 ln 0.4 = 0.192745
    # product: odds (0.9 / 0.1)^(3/4) = 5.196152, p = 0.838609; KL = 0.838609 ln(2 p) + 0.161391
    #   ln(2 (1 - p)) = 0.433676 - 0.182495 = 0.251180
    ones = torch.ones(1, 1)
    parts = [
        DenseRows(ones, Head(torch.tensor([[0.9], [0.1]]).log())),
        DenseRows(ones, Head(torch.zeros(2, 1))),
    ]
    inputs = (ones, Head(torch.zeros(2, 1)), torch.tensor([0]), torch.ones(1))
    for kind, wanted in (("probability", 0.192745), ("geometric", 0.251180)):
        found = linear_divergence(
            *inputs,
            teacher=[MixtureRows(parts, (0.75, 0.25), kind)],
            divergence=divergence(),
            next_token_weight=0.0,
            divergence_weight=1.0,
        )
        assert float(found.divergence_N) == pytest.approx(wanted, abs=1e-6)


def test_the_loss_and_its_gradients_by_hand():
    # T = 2, hidden 1. Student logits (2 ln 3, 0): q = (0.9, 0.1) at T 1 and (0.75, 0.25) at T 2;
    # teacher (0.5, 0.5). nll of token 1 = ln 10 = 2.302585.
    # KL(p||q) = 0.5 ln(0.5 / 0.75) + 0.5 ln(0.5 / 0.25) = 0.143841.
    # loss = 0.25 * 2.302585 + 0.75 * 4 * 0.143841 = 1.007169.
    # slope of the logits: 0.25 (0.9, -0.9) + 0.75 * 4 / 2 * (0.25, -0.25) = (0.6, -0.6)
    # hidden: 0.6 * 2 ln 3 = 1.318335
    hidden_ND = torch.ones(1, 1, requires_grad=True)
    weight_VD = torch.tensor([[2 * math.log(3)], [0.0]], requires_grad=True)
    bias_V = torch.zeros(2, requires_grad=True)
    found = linear_divergence(
        hidden_ND,
        Head(weight_VD, bias_V),
        torch.tensor([1]),
        torch.ones(1),
        teacher=[DenseRows(torch.ones(1, 4), Head(torch.zeros(2, 4)))],
        divergence=divergence(),
        temperature=2.0,
        next_token_weight=0.25,
        divergence_weight=0.75,
    )
    found.loss.backward()
    assert float(found.loss) == pytest.approx(1.007169, abs=1e-6)
    assert float(found.next_token_N) == pytest.approx(2.302585, abs=1e-6)
    assert float(found.divergence_N) == pytest.approx(0.143841, abs=1e-6)
    assert hidden_ND.grad is not None and weight_VD.grad is not None and bias_V.grad is not None
    assert float(hidden_ND.grad) == pytest.approx(1.318335, abs=1e-6)
    torch.testing.assert_close(weight_VD.grad, torch.tensor([[0.6], [-0.6]]))
    torch.testing.assert_close(bias_V.grad, torch.tensor([0.6, -0.6]))
