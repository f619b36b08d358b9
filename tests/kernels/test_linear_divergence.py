"""The fused losses against their twin, by hand, and their cost. N positions, D width, V tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from preceptor.core.errors import ModelError, SettingsError
from preceptor.core.loss import loss
from preceptor.core.plugs import plug
from preceptor.kernels.head_products import naive_logits
from preceptor.kernels.linear_divergence import (
    DenseRows,
    LinearLosses,
    MixtureRows,
    SampledRows,
    SparseRows,
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
    #   ln(2 (1 - p)) = 0.433676 - 0.182497 = 0.251179
    ones = torch.ones(1, 1)
    parts = [
        DenseRows(ones, Head(torch.tensor([[0.9], [0.1]]).log())),
        DenseRows(ones, Head(torch.zeros(2, 1))),
    ]
    inputs = (ones, Head(torch.zeros(2, 1)), torch.tensor([0]), torch.ones(1))
    for kind, wanted in (("probability", 0.192745), ("geometric", 0.251179)):
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
    assert found.loss.item() == pytest.approx(1.007169, abs=1e-6)
    assert float(found.next_token_N) == pytest.approx(2.302585, abs=1e-6)
    assert float(found.divergence_N) == pytest.approx(0.143841, abs=1e-6)
    assert hidden_ND.grad is not None and weight_VD.grad is not None and bias_V.grad is not None
    assert float(hidden_ND.grad) == pytest.approx(1.318335, abs=1e-6)
    torch.testing.assert_close(weight_VD.grad, torch.tensor([[0.6], [-0.6]]))
    torch.testing.assert_close(bias_V.grad, torch.tensor([0.6, -0.6]))


def listed(
    normal: Maker, j: int, v: int = V, temperature: float = 1.0, index_K: torch.Tensor | None = None
) -> tuple[SparseRows, DenseRows]:
    """The likeliest `j` tokens of a dense teacher, and that teacher."""
    rows = dense(normal, N if index_K is None else len(index_K), v=v, index_K=index_K)
    log_p_KV, ids_KV = rows.naive_log_p(v, temperature).sort(descending=True)
    log_tail_K = log_p_KV[:, j:].logsumexp(1)  # -inf where all are listed
    return SparseRows(ids_KV[:, :j], log_p_KV[:, :j], log_tail_K, v, temperature, index_K), rows


@EVERY
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("j", [1, 5, V - 1, V])
def test_listed_tokens_with_a_tail(normal: Maker, name: str, temperature: float, j: int):
    rows, whole = listed(normal, j, temperature=temperature)
    inputs = student(normal, softcap=20.0)
    options: dict[str, Any] = {"divergence": divergence(name), "temperature": temperature}
    found = assert_twins(inputs, teacher=[rows], tile_bytes=5 * V * 4, **options)
    wanted = run(linear_divergence, inputs, teacher=[whole], **options)
    if j >= V - 1:  # one bucket a token: nothing is lost
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=2e-4, atol=2e-5)
    else:  # merging tokens can only bring distributions closer
        assert (found[2] < wanted[2]).all()


def test_listed_tokens_by_hand():
    # student (0.5, 0.3, 0.2); listed token 0 at 0.6, the rest 0.4: buckets (0.5, 0.5).
    # KL = 0.6 ln 1.2 + 0.4 ln 0.8 = 0.020136; slope of buckets (-0.1, 0.1), of tokens
    # (-0.1, 0.1 * 0.3 / 0.5, 0.1 * 0.2 / 0.5); hidden = identity, so its gradient is the slope
    logits_ND = torch.tensor([[0.5, 0.3, 0.2]]).log().requires_grad_()
    rows = SparseRows(
        torch.tensor([[0, -1]]),
        torch.tensor([[0.6, 1.0]]).log(),
        torch.tensor([0.4]).log(),
        vocabulary=3,
        temperature=1.0,
    )
    found = linear_divergence(
        logits_ND,
        Head(torch.eye(3)),
        torch.tensor([0]),
        torch.ones(1),
        teacher=[rows],
        divergence=divergence(),
        next_token_weight=0.0,
        divergence_weight=1.0,
    )
    (slope,) = torch.autograd.grad(found.loss, logits_ND)
    assert float(found.divergence_N) == pytest.approx(0.020136, abs=1e-6)
    torch.testing.assert_close(slope, torch.tensor([[-0.1, 0.06, 0.04]]))


@EVERY
def test_padding_and_tokens_unknown_to_the_student_are_left_out(normal: Maker, name: str):
    rows, _ = listed(normal, 6)
    inputs, options = student(normal), {"divergence": divergence(name)}
    wanted = assert_twins(inputs, teacher=[rows], **options)
    pad_KJ = torch.full((N, 2), -1)
    padded = SparseRows(
        torch.cat([pad_KJ, rows.ids_KJ, pad_KJ * 0 + V + 3], 1),  # V + 3: beyond the student
        torch.cat([torch.zeros(N, 2), rows.log_p_KJ, torch.zeros(N, 2) - 1.0], 1),
        rows.log_tail_K,
        vocabulary=V + 10,
        temperature=1.0,
    )
    found = assert_twins(inputs, teacher=[padded], **options)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@EVERY
def test_a_student_that_is_sure_keeps_finite_slopes(name: str):
    # the student puts e^-800 on all that is not listed, the teacher a tenth; and the other way
    logits_ND = torch.tensor([[800.0, 0.0, 0.0], [0.0, 800.0, 0.0]], requires_grad=True)
    rows = SparseRows(
        torch.tensor([[0], [0]]),
        torch.tensor([[0.9], [1.0]]).log(),
        torch.tensor([0.1, 0.0]).log(),
        vocabulary=3,
        temperature=1.0,
    )
    found = run(
        linear_divergence,
        (logits_ND, Head(torch.eye(3)), torch.tensor([0, 1]), torch.ones(2)),
        teacher=[rows],
        divergence=divergence(name),
    )
    assert all(tensor.isfinite().all() for tensor in found)
    if name == "forward_kl":  # 0.9 ln 0.9 + 0.1 (ln 0.1 + 800 - ln 2)
        assert float(found[2][0]) == pytest.approx(79.605602, rel=1e-6)
        torch.testing.assert_close(found[3][0], torch.tensor([0.06, -0.03, -0.03]))


DRAWS = 4000


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_sampled_tokens_estimate_forward_kl_without_bias(normal: Maker, temperature: float):
    """Thousands of draws at one position: value and slope approach the exact ones."""
    v, j = 12, 6
    teacher = DenseRows(normal(1, D), Head(normal(v, D)))
    log_p_V = teacher.naive_log_p(v, temperature)[0]
    p_V, proposal_V = log_p_V.exp(), (0.5 * log_p_V).softmax(0)  # drawn from a flatter one
    ids_KJ = torch.multinomial(
        proposal_V, DRAWS * j, True, generator=torch.Generator().manual_seed(1)
    ).view(DRAWS, j)
    rows = SampledRows(
        ids_KJ,
        (p_V / proposal_V)[ids_KJ] / j,
        -(p_V * log_p_V).sum().expand(DRAWS),
        vocabulary=v,
        temperature=temperature,
    )
    logits_1V = normal(1, v)  # the head is the identity: gradients of hidden are slopes of logits
    options: dict[str, Any] = {
        "divergence": divergence(),
        "temperature": temperature,
        "next_token_weight": 0.0,
        "divergence_weight": 1.0,
    }

    def at(hidden_ND: torch.Tensor, part: Any) -> list[torch.Tensor]:
        n = len(hidden_ND)
        inputs = (
            hidden_ND.requires_grad_(),
            Head(torch.eye(v)),
            torch.zeros(n).long(),
            torch.ones(n),
        )
        return assert_twins(inputs, teacher=[part], **options)

    drawn, exact = at(logits_1V.repeat(DRAWS, 1), rows), at(logits_1V.clone(), teacher)
    for found, wanted in ((drawn[2][:, None], exact[2][:, None]), (drawn[3], exact[3])):
        error = found.std(0) / math.sqrt(DRAWS)
        assert (error > 0).all()
        assert ((found.mean(0) - wanted[0]).abs() < 4 * error).all()


def test_a_divergence_of_the_user_brings_its_own_estimate(normal: Maker):
    """Not that of forward KL: here a weighted cross-entropy, whose estimate has no entropy."""

    def estimate(ids_NJ: Any, weights_NJ: Any, entropy_N: Any, log_q_NV: Any, weight: float) -> Any:
        value_N = -weight * (weights_NJ * log_q_NV.gather(1, ids_NJ)).sum(1)
        slope_NV = log_q_NV.exp() * weights_NJ.sum(1, keepdim=True)
        return value_N, weight * slope_NV.scatter_add(1, ids_NJ, -weights_NJ)

    @loss(needs=("logits",), parameters=("weight",), from_samples=estimate)
    def cross_entropy(log_p_NV: Any, log_q_NV: Any, weight: float) -> Any:
        raise AssertionError("the draws do not hold the teacher's distribution")

    hidden_ND, head, targets_N, weights_N = student(normal)
    ids_NJ = torch.arange(2 * N).view(N, 2) % V
    sampled = SampledRows(ids_NJ, torch.full((N, 2), 0.5), torch.ones(N), V, 1.0)
    found = linear_divergence(
        hidden_ND,
        head,
        targets_N,
        weights_N,
        teacher=[sampled],
        divergence=partial(cross_entropy, weight=3.0),
        temperature=1.0,
        next_token_weight=0.0,
        divergence_weight=1.0,
    )
    log_q_NV = naive_logits(hidden_ND, head).float().log_softmax(1)
    wanted_N = -3.0 * log_q_NV.gather(1, ids_NJ).mean(1)
    torch.testing.assert_close(found.divergence_N, wanted_N, rtol=1e-5, atol=1e-6)


def test_all_kinds_share_one_batch(normal: Maker):
    order = torch.arange(N)
    sparse, _ = listed(normal, 5, index_K=order[3:6])
    ids_KJ = torch.tensor([[0, 4, -1], [9, 9, 4]])
    sampled = SampledRows(ids_KJ, torch.full((2, 3), 0.4), torch.ones(2), V, 1.0, order[6:8])
    teacher = [dense(normal, 3, index_K=order[:3]), sparse, sampled]
    teacher.append(dense(normal, N - 8, v=V - 7, index_K=order[8:].flip(0)))
    assert_twins(student(normal), teacher=teacher, divergence=divergence(), tile_bytes=8 * V)


def test_next_token_loss_alone(normal: Maker):
    inputs = student(normal, softcap=9.0)
    found = assert_twins(inputs, next_token_weight=1.0, divergence_weight=0.0)
    assert (found[2] == 0.0).all()


def products(inputs: Any, count: bool, **options: Any) -> float:
    """Multiplications of a call, in vocabulary-sized products."""
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(count):
        losses = linear_divergence(
            *inputs, next_token_weight=0.5, divergence_weight=0.5, tile_bytes=5 * V * 4, **options
        )
        if count:
            losses.loss.backward()
    return counter.get_total_flops() / (2 * N * D * V)


def test_how_many_products_a_call_takes(normal: Maker):
    hidden_ND, head, *rest = student(normal)
    learnt, frozen = Head(head.weight_VD), Head(head.weight_VD.detach())
    options: Any = {"teacher": [dense(normal, d=D)], "divergence": divergence()}
    assert products((hidden_ND, learnt, *rest), True, **options) == 4
    assert products((hidden_ND, frozen, *rest), True, **options) == 3
    assert products((hidden_ND.detach(), learnt, *rest), True, **options) == 3
    assert products((hidden_ND, learnt, *rest), False, **options) == 2
    assert products((hidden_ND, learnt, *rest), True) == 3


def test_a_frozen_head_gets_no_gradient(normal: Maker):
    hidden_ND, head, *rest = student(normal)
    frozen = Head(head.weight_VD.detach(), head.bias_V.detach())
    options: Any = {"teacher": [dense(normal)], "divergence": divergence()}
    found = assert_twins((hidden_ND, frozen, *rest), **options)
    assert len(found) == 4
    whole = run(linear_divergence, (hidden_ND, head, *rest), **options)
    assert torch.equal(found[3], whole[3])


def test_without_gradients_the_values_are_the_same(normal: Maker):
    inputs = student(normal)
    options: Any = {"teacher": [dense(normal)], "divergence": divergence("jsd")}
    wanted = run(linear_divergence, inputs, **options)
    with torch.no_grad():
        found = linear_divergence(*inputs, next_token_weight=0.4, divergence_weight=0.6, **options)
    assert not found.loss.requires_grad
    for one, other in zip(found, wanted, strict=False):
        assert torch.equal(one, other)


def test_backward_twice_and_a_factor(normal: Maker):
    hidden_ND, head, *rest = student(normal)
    learnt = (hidden_ND, head.weight_VD, head.bias_V)
    losses = linear_divergence(
        hidden_ND,
        head,
        *rest,
        teacher=[dense(normal)],
        divergence=divergence(),
        next_token_weight=0.5,
        divergence_weight=0.5,
    )
    once = torch.autograd.grad(losses.loss, learnt, retain_graph=True)
    thrice = torch.autograd.grad(3.0 * losses.loss, learnt, retain_graph=True)
    for one, three in zip(once, thrice, strict=True):
        torch.testing.assert_close(three, 3.0 * one)
    losses.loss.backward(retain_graph=True)
    (2.0 * losses.loss).backward()
    for tensor, one in zip(learnt, once, strict=True):
        torch.testing.assert_close(tensor.grad, 3.0 * one)
    with pytest.raises(RuntimeError, match="second time"):
        losses.loss.backward()


def test_the_same_inputs_give_the_same_bits(normal: Maker):
    inputs, teacher = parts_of_three(normal)
    first, second = (
        run(linear_divergence, inputs, teacher=teacher, divergence=divergence("reverse_kl"))
        for _ in range(2)
    )
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_weights_of_zero_and_below(normal: Maker):
    hidden_ND, head, targets_N, _ = student(normal)
    options: Any = {"teacher": [dense(normal)], "divergence": divergence()}
    weights_N = torch.linspace(-1.0, 1.0, N).round(decimals=1)
    assert_twins((hidden_ND, head, targets_N, weights_N), **options)
    found = run(linear_divergence, (hidden_ND, head, targets_N, torch.zeros(N)), **options)
    assert found[0] == 0.0 and all((t == 0.0).all() for t in found[3:])


def test_no_positions_give_a_differentiable_zero(normal: Maker):
    hidden_ND, head, targets_N, weights_N = student(normal)
    inputs = (hidden_ND[:0], head, targets_N[:0], weights_N[:0])
    for options in ({}, {"teacher": [dense(normal, 0)], "divergence": divergence()}):
        losses = linear_divergence(*inputs, next_token_weight=0.5, divergence_weight=0.5, **options)
        assert losses.loss == 0.0 and len(losses.next_token_N) == 0
        found = torch.autograd.grad(losses.loss, (hidden_ND, head.weight_VD, head.bias_V))
        assert all((tensor == 0.0).all() for tensor in found)


def test_autocast_on_a_cpu_keeps_fp32(normal: Maker):
    inputs = student(normal)
    options: Any = {"teacher": [dense(normal)], "divergence": divergence()}
    wanted = run(linear_divergence, inputs, **options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run(linear_divergence, inputs, **options)
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


def call(inputs: Any, **options: Any) -> LinearLosses:
    return linear_divergence(*inputs, next_token_weight=0.5, divergence_weight=0.5, **options)


def test_positions_must_be_covered_once(normal: Maker):
    inputs, half = student(normal), torch.arange(6)
    for teacher in (
        [dense(normal, N - 1)],
        [dense(normal, 6, index_K=half)],
        [dense(normal), dense(normal, 6, index_K=half)],
        [dense(normal, 5, index_K=half), dense(normal, N - 6, index_K=torch.arange(6, N))],
    ):
        with pytest.raises(ModelError, match="do not cover every scored position once"):
            call(inputs, teacher=teacher, divergence=divergence())


def test_stored_rows_must_fit_the_call(normal: Maker):
    inputs, (sparse, _) = student(normal), listed(normal, 3)
    with pytest.raises(ModelError, match="another temperature"):
        call(inputs, teacher=[sparse], divergence=divergence(), temperature=2.0)
    ids_KJ = torch.zeros(N, 1).long()
    sampled = SampledRows(ids_KJ, torch.ones(N, 1), torch.zeros(N), V, 1.0)
    with pytest.raises(ModelError, match="another temperature"):
        call(inputs, teacher=[sampled], divergence=divergence(), temperature=2.0)
    with pytest.raises(ModelError, match="cannot be estimated from sampled tokens") as caught:
        call(inputs, teacher=[sampled], divergence=divergence("jsd"))
    assert "'jsd'" in caught.value.where


def test_what_does_not_go_together_is_refused(normal: Maker):
    inputs, rows = student(normal), dense(normal)
    with pytest.raises(SettingsError, match="go together"):
        call(inputs, teacher=[rows])
    with pytest.raises(SettingsError, match="go together"):
        call(inputs, divergence=divergence())
    with pytest.raises(SettingsError, match="temperature must be positive"):
        call(inputs, teacher=[rows], divergence=divergence(), temperature=0.0)
    with pytest.raises(ModelError, match="not a distribution of a teacher"):
        call(inputs, teacher=[rows.head], divergence=divergence())
    for weights, kind, error in (
        ((0.5, 0.6), "geometric", "do not sum to 1"),
        ((1.0,), "geometric", "one positive weight for each"),
        ((1.5, -0.5), "probability", "one positive weight for each"),
        ((0.5, 0.5), "geometrical", "unknown kind of mixture"),
    ):
        with pytest.raises(SettingsError, match=error):
            MixtureRows([rows, rows], weights, kind)
    with pytest.raises(ModelError, match="at different positions"):
        MixtureRows([rows, dense(normal, 3)], (0.5, 0.5), "geometric")
