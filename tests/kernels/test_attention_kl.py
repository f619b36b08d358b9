"""The tiled divergence of attention maps against its naive twin, in value and gradient.

B samples, T tokens, N rows, S and U query heads of student and teacher, G key heads, C width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from preceptor.core.errors import ModelError
from preceptor.kernels import attention_kl as kernel
from preceptor.kernels.attention_kl import attention_kl, naive_attention_kl
from preceptor.kernels.attention_rows import FEWEST_ROWS, Rows, plan
from preceptor.models.signals import LayerAttention


@pytest.fixture(autouse=True)
def tiles_however_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches are done at once by the twin; here the tiles are what is tested."""
    monkeypatch.setattr(kernel, "WHOLE", 0)


@dataclass(frozen=True)
class Case:
    """(query heads, key heads, width) of both models, and what they see."""

    student: tuple[int, int, int] = (2, 2, 8)
    teacher: tuple[int, int, int] = (2, 2, 8)
    shape: tuple[int, int] = (2, 33)  # B, T
    windows: tuple[int | None, int | None] = (None, None)
    softcaps: tuple[float | None, float | None] = (None, None)
    segments: str = "whole"
    rows: float = 1.0  # share of the tokens that are scored
    sharp: float = 1.0  # factor of the queries
    dtype: torch.dtype = torch.float32


def segments(kind: str, b: int, t: int) -> torch.Tensor:
    """Documents of a batch: each sample is padded or packed a little differently."""
    found_BT = torch.zeros(b, t, dtype=torch.long)
    position_T = torch.arange(t)
    for sample in range(b):
        edge = 1 + t // 4 + sample
        if kind == "left":
            found_BT[sample, :edge] = -1
        elif kind == "right":
            found_BT[sample, -edge:] = -1
        elif kind == "packed":
            found_BT[sample] = (position_T + 2 * sample) // 7
        elif kind == "packed, padded":
            found_BT[sample] = torch.where(position_T < 3 * edge, position_T // edge, -1)
        elif kind == "gaps":  # a document that goes on after padding, and one after another
            found_BT[sample] = torch.where(position_T % 11 < 4, -1, position_T // 13 % 2)
    return found_BT


def build(case: Case) -> tuple[Any, ...]:
    """Student, teacher, segments, rows and weights."""
    b, t = case.shape
    generator = torch.Generator().manual_seed(b * t + case.student[0])
    layers = []
    for place, (heads, groups, width) in enumerate((case.student, case.teacher)):
        query_BTHC = torch.randn(b, t, heads, width, generator=generator) * case.sharp
        key_BGTC = torch.randn(b, groups, t, width, generator=generator)
        layers.append(
            LayerAttention(
                query_BTHC.to(case.dtype).transpose(1, 2),  # models give a view
                key_BGTC.to(case.dtype),
                scaling=(0.5 + place) / math.sqrt(width),
                window=case.windows[place],
                softcap=case.softcaps[place],
            )
        )
    segments_BT = segments(case.segments, b, t)
    scored = (segments_BT >= 0) & (torch.rand(b, t, generator=generator) < case.rows)
    rows_N = scored.flatten().nonzero()[:, 0]
    weights_N = torch.rand(len(rows_N), generator=generator) / len(rows_N)
    return *layers, segments_BT, rows_N, weights_N


def differentiate(function: Any, case: Case, **options: Any) -> list[torch.Tensor]:
    """Value, gradient of the queries, gradient of the keys."""
    student, *others = build(case)
    student = replace(
        student,
        query_BHTC=student.query_BHTC.detach().requires_grad_(),
        key_BGTC=student.key_BGTC.detach().requires_grad_(),
    )
    value = function(student, *others, **options)
    inputs = student.query_BHTC, student.key_BGTC
    return [value.detach(), *torch.autograd.grad(value, inputs)]


def check(case: Case, tolerance: float = 2e-6, **options: Any) -> None:
    """Errors relative to the largest entry of each: gradients hold entries near zero."""
    found, wanted = (
        differentiate(attention_kl, case, **options),
        differentiate(naive_attention_kl, case),
    )
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        assert torch.isfinite(ours).all()
        error = (ours.double() - theirs.double()).abs().max() / theirs.double().abs().max()
        assert error < tolerance


SHAPES = [(1, 1), (1, 2), (3, 17), (2, 64), (1, 150)]


@pytest.mark.parametrize("block", [1, 3, 16, None])
@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
def test_shapes_and_blocks(shape: tuple[int, int], block: int | None) -> None:
    check(Case(shape=shape), block=block)


@pytest.mark.parametrize("softcaps", [(None, None), (3.0, 2.0)], ids=str)
@pytest.mark.parametrize("windows", [(None, None), (5, 5), (5, 9), (9, 5), (None, 4), (4, None)])
@pytest.mark.parametrize(
    "kind", ["whole", "left", "right", "packed", "packed, padded", "gaps"], ids=str
)
def test_what_a_row_sees(kind: str, windows: Any, softcaps: Any) -> None:
    case = Case(segments=kind, windows=windows, softcaps=softcaps)
    check(case, block=8)
    check(replace(case, rows=0.4, student=(4, 2, 8)), block=5)
    check(replace(case, rows=0.1))


HEADS = [
    ((4, 2, 8), (4, 4, 8)),
    ((4, 4, 8), (4, 1, 16)),
    ((4, 1, 8), (4, 2, 4)),
    ((2, 1, 8), (6, 3, 8)),  # the teacher has more heads
    ((3, 3, 8), (12, 2, 8)),  # merged maps do not fill the teacher's groups
    ((8, 2, 4), (2, 2, 8)),  # the student has more heads
    ((12, 2, 4), (3, 1, 8)),
    ((1, 1, 8), (5, 5, 8)),
    ((6, 1, 8), (1, 1, 8)),
    ((14, 2, 4), (14, 7, 8)),
]


@pytest.mark.parametrize("elements", [1, 300, 1 << 19])
@pytest.mark.parametrize(("student", "teacher"), HEADS, ids=str)
def test_heads(student: Any, teacher: Any, elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the heads' ratio and grouping, and however few heads a tile holds."""
    monkeypatch.setitem(kernel.TILES, "cpu", (elements, 128))
    case = Case(student, teacher)
    check(case)
    check(replace(case, windows=(9, 5), softcaps=(4.0, None), segments="packed", rows=0.5))


def test_heads_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ModelError, match="4 heads in the student, 6 in the teacher"):
        differentiate(attention_kl, Case((4, 2, 8), (6, 2, 8)))


@pytest.mark.parametrize("rows_N", [[3, 2], [2, 2], [0]], ids=str)
def test_rows_out_of_order_or_in_padding_are_refused(rows_N: list[int]) -> None:
    student, teacher, segments_BT, _, _ = build(Case(segments="left"))
    with pytest.raises(ValueError, match="must rise and lie outside padding"):
        attention_kl(student, teacher, segments_BT, torch.tensor(rows_N), torch.ones(len(rows_N)))


@pytest.mark.parametrize(
    "case",
    [
        Case((4, 2, 8), (4, 4, 16), windows=(None, 20)),
        Case((2, 1, 8), (4, 2, 8), softcaps=(5.0, None)),
        Case((4, 4, 8), (2, 2, 8), segments="packed"),
    ],
    ids=["grouped", "teacher merged", "student merged"],
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_dtypes(case: Case, dtype: torch.dtype) -> None:
    """bf16 gradients may round to a neighbour: 2^-8 of an entry."""
    tolerance = 2**-8 if dtype == torch.bfloat16 else 1e-13
    check(replace(case, dtype=dtype, shape=(2, 90)), tolerance, block=16)


def test_bf16_sums_run_in_fp32() -> None:
    case = Case(shape=(1, 400), dtype=torch.bfloat16)
    found, wanted = differentiate(attention_kl, case)[0], differentiate(naive_attention_kl, case)[0]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)


def test_a_teacher_of_another_dtype() -> None:
    student, teacher, *others = build(Case())
    half = [x.bfloat16() for x in (teacher.query_BHTC, teacher.key_BGTC)]
    teachers = (
        replace(teacher, query_BHTC=query, key_BGTC=key)
        for query, key in (half, [x.float() for x in half])
    )
    found, wanted = (attention_kl(student, teacher, *others) for teacher in teachers)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("heads", [(2, 2), (2, 4), (4, 2)], ids=str)
def test_finite_differences(heads: tuple[int, int]) -> None:
    student, *others = build(
        Case((heads[0], 1, 3), (heads[1], 2, 3), (1, 6), (4, 3), (2.0, None), dtype=torch.float64)
    )

    def value(query_BHTC: torch.Tensor, key_BGTC: torch.Tensor) -> torch.Tensor:
        return attention_kl(replace(student, query_BHTC=query_BHTC, key_BGTC=key_BGTC), *others)

    inputs = [x.detach().requires_grad_() for x in (student.query_BHTC, student.key_BGTC)]
    assert torch.autograd.gradcheck(value, inputs)


def test_two_tokens_by_hand() -> None:
    """One head of width 1, scaling 1; the second row sees both keys.

    Teacher: logits 0 and ln 3, map (1/4, 3/4). Student: q = 1, keys 0 and 0, map (1/2, 1/2).
    KL = 1/4 ln(1/2) + 3/4 ln(3/2). With respect to the student's logits it is a - p =
    (1/4, -1/4): times key for the query (0), times query for the keys. The first row sees itself
    alone: both maps are 1, its KL is 0. Weights 5 and 2.
    """
    student_key = torch.zeros(1, 1, 2, 1, requires_grad=True)
    student = LayerAttention(torch.ones(1, 1, 2, 1, requires_grad=True), student_key, 1.0)
    teacher_key = torch.tensor([0.0, math.log(3)]).reshape(1, 1, 2, 1)
    teacher = LayerAttention(torch.ones(1, 1, 2, 1), teacher_key, 1.0)
    value = attention_kl(
        student, teacher, torch.zeros(1, 2).long(), torch.tensor([0, 1]), torch.tensor([5.0, 2.0])
    )
    value.backward()
    expected = 2 * (0.25 * math.log(0.5) + 0.75 * math.log(1.5))
    assert value.item() == pytest.approx(expected, rel=1e-6)  # 0.261624
    assert student.query_BHTC.grad is not None and student_key.grad is not None
    assert student.query_BHTC.grad.abs().max() == 0
    torch.testing.assert_close(student_key.grad.flatten(), torch.tensor([0.5, -0.5]))


def test_merged_and_restricted_maps_by_hand() -> None:
    """Two teacher heads to one of the student's; the student's window hides the first key.

    Row 2 of 3. Teacher logits (9, 0, ln 3) and (9, 0, 0): restricted to the last two keys
    (1/4, 3/4) and (1/2, 1/2), on average (3/8, 5/8). Student: all logits 0, (1/2, 1/2).
    """
    student = LayerAttention(torch.zeros(1, 1, 3, 1), torch.ones(1, 1, 3, 1), 1.0, window=2)
    key_BGTC = torch.tensor([[9.0, 0.0, math.log(3)], [9.0, 0.0, 0.0]]).reshape(1, 2, 3, 1)
    teacher = LayerAttention(torch.ones(1, 2, 3, 1), key_BGTC, 1.0)
    value = attention_kl(
        student, teacher, torch.zeros(1, 3).long(), torch.tensor([2]), torch.ones(1)
    )
    expected = 3 / 8 * math.log(3 / 4) + 5 / 8 * math.log(5 / 4)
    assert value.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("student", [(2, 2, 8), (4, 2, 8), (8, 8, 8)], ids=str)
def test_probabilities_that_vanish(student: tuple[int, int, int]) -> None:
    """Logits hundreds apart: most probabilities are exact zeros in fp32."""
    case = Case(student, (4, 4, 8), (1, 40), sharp=300.0)
    log_map = kernel._log_maps(build(case)[0], segments("whole", 1, 40), None, 1)
    assert (log_map[0, 0, -1].exp() == 0).sum() > 20
    check(case, 1e-5)


@pytest.mark.parametrize("sharp", [1.0, 300.0])
def test_a_student_that_equals_its_teacher(sharp: float) -> None:
    student, _, *others = build(Case((4, 2, 8), shape=(2, 300), sharp=sharp))
    query = student.query_BHTC.detach().requires_grad_()
    key = student.key_BGTC.detach().requires_grad_()
    value = attention_kl(replace(student, query_BHTC=query, key_BGTC=key), student, *others)
    value.backward()
    assert query.grad is not None and key.grad is not None
    assert value.item() == 0 and query.grad.abs().max() == 0 and key.grad.abs().max() == 0


def test_no_rows_give_a_differentiable_zero() -> None:
    case = Case(rows=0.0)
    assert len(build(case)[3]) == 0
    value, *grads = differentiate(attention_kl, case)
    assert value.item() == 0
    assert all(grad.abs().max() == 0 for grad in grads)


def test_a_graph_can_be_walked_twice_and_scaled() -> None:
    student, *others = build(Case())
    query = student.query_BHTC.detach().requires_grad_()
    value = attention_kl(replace(student, query_BHTC=query), *others)
    (once,) = torch.autograd.grad(value, query, retain_graph=True)
    (twice,) = torch.autograd.grad(3 * value, query)
    torch.testing.assert_close(twice, 3 * once)


def test_only_wanted_gradients() -> None:
    student, *others = build(Case())
    wanted = differentiate(attention_kl, Case())
    for place, name in enumerate(("query_BHTC", "key_BGTC"), 1):
        leaf = getattr(student, name).detach().requires_grad_()
        value = attention_kl(replace(student, **{name: leaf}), *others)
        (grad,) = torch.autograd.grad(value, leaf)
        torch.testing.assert_close(grad, wanted[place], rtol=0, atol=0)
    assert not attention_kl(student, *others).requires_grad
    with torch.no_grad():
        leaf = student.query_BHTC.detach().requires_grad_()
        value = attention_kl(replace(student, query_BHTC=leaf), *others)
    assert not value.requires_grad
    torch.testing.assert_close(value, wanted[0], rtol=0, atol=0)


def test_autocast_leaves_the_products_alone() -> None:
    wanted = differentiate(attention_kl, Case())
    with torch.autocast("cpu", torch.bfloat16):
        found = differentiate(attention_kl, Case())
    assert all(torch.equal(ours, plain) for ours, plain in zip(found, wanted, strict=True))


def test_same_inputs_same_bits() -> None:
    case = Case((4, 2, 8), (8, 2, 8), (2, 200), segments="packed", rows=0.5)
    first, second = differentiate(attention_kl, case), differentiate(attention_kl, case)
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


class Largest(TorchDispatchMode):
    """Number of elements of the largest tensor that any operation gives."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for x in found if isinstance(found, tuple | list) else (found,):
            if isinstance(x, torch.Tensor):
                self.elements = max(self.elements, x.numel())
        return found


def largest(function: Any, case: Case) -> int:
    with Largest() as watch:
        differentiate(function, case)
    return watch.elements


@pytest.mark.parametrize("heads", [(2, 2), (2, 4), (4, 2)], ids=str)
def test_memory_is_linear_in_length(heads: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor outgrows the tile, or the fewest rows of one: a constant, or T times a constant."""
    elements = 1 << 15
    monkeypatch.setitem(kernel.TILES, "cpu", (elements, 128))
    for t in (300, 600):
        case = Case((heads[0], 2, 4), (heads[1], 2, 4), (1, t), softcaps=(5.0, None))
        tile = max(elements, FEWEST_ROWS * t * max(heads))
        assert largest(attention_kl, case) <= tile
        assert largest(naive_attention_kl, case) >= 2 * t * t  # the watch sees whole maps
    assert tile < t * t


@pytest.mark.parametrize(
    ("size", "window", "span"), [(64, None, 64), (2048, 64, 63 + 128), (2048, None, 2048)], ids=str
)
def test_documents_and_windows_cost_what_they_need(
    size: int, window: int | None, span: int
) -> None:
    """2048 tokens in documents of a size: tiles of 128 rows, each of as many keys at most."""
    rows_N = torch.arange(2048)
    rows = Rows(rows_N[None] // size, rows_N)
    blocks = plan(rows, rows.starts(window), [1], 1 << 18, 128)
    assert [n for block in blocks for n in range(block.top, block.bottom)] == rows_N.tolist()
    assert max(block.bottom - block.top for block in blocks) <= 128
    assert max(block.high - block.low for block in blocks) <= span
    if span == 2048:  # causality: half of all pairs, and half a block's own
        assert sum(block.elements for block in blocks) <= 2048 * (2048 + 128) / 2


def test_short_documents_share_a_tile() -> None:
    rows_N = torch.arange(120)
    rows = Rows(rows_N[None] // 10, rows_N)
    blocks = plan(rows, rows.starts(None), [1], 1 << 19, 128)
    assert [(block.low, block.high) for block in blocks] == [(0, 120)]
