"""Next-token loss and divergence to a teacher from hidden states, without ever holding all logits.

Both losses and their gradients come from one pass over tiles of positions: four vocabulary-sized
products a tile (the student's logits, the teacher's, and two of the slope), three where the head is
frozen, two without gradients.

Shapes: N scored positions, K of them with one teacher, n in a tile, b in a block of a tile, D
hidden width, V vocabulary of the student.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from preceptor.core.errors import ModelError, SettingsError
from preceptor.kernels.head_products import (
    Buffers,
    blocks,
    finish,
    head_slices,
    multiply,
    naive_logits,
    product_dtype,
    project,
)
from preceptor.kernels.teacher_rows import (
    DenseRows,
    Divergence,
    MixtureRows,
    Rows,
    SampledRows,
    SparseRows,
)
from preceptor.models.head import Head
from preceptor.models.signals import TeacherRows

__all__ = (
    "DenseRows",
    "LinearLosses",
    "MixtureRows",
    "SampledRows",
    "SparseRows",
    "linear_divergence",
    "naive_linear_divergence",
)

TILE_BYTES = {"cpu": 256 << 20}  # a tile of logits in fp32; the student's and the teacher's live
BIG_TILE = 1 << 30  # on an accelerator


class LinearLosses(NamedTuple):
    """The weighted loss, and its parts at each position without weights and without T^2.

    Attributes:
        loss: scalar, fp32, differentiable.
        next_token_N: -log q(target) at temperature 1, in nats, >= 0; detached.
        divergence_N: in nats at the call's temperature; 0 without a teacher; detached.
    """

    loss: torch.Tensor
    next_token_N: torch.Tensor
    divergence_N: torch.Tensor


@dataclass(frozen=True)
class _Call:
    """The arguments of a call."""

    hidden_ND: torch.Tensor
    head: Head
    targets_N: torch.Tensor
    weights_N: torch.Tensor
    teacher: Sequence[Any]
    divergence: Any
    temperature: float
    next_token_weight: float
    divergence_weight: float
    tile_bytes: int | None

    @property
    def inputs(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """What gradients go to."""
        return self.hidden_ND, self.head.weight_VD, self.head.bias_V

    def total(self, next_token_N: torch.Tensor, divergence_N: torch.Tensor) -> torch.Tensor:
        """The weighted loss, from its parts."""
        soft = self.divergence_weight * self.temperature**2
        each_N = self.next_token_weight * next_token_N + soft * divergence_N
        return (self.weights_N.detach().float() * each_N).sum()


def linear_divergence(
    hidden_ND: torch.Tensor,
    head: Head,
    targets_N: torch.Tensor,
    weights_N: torch.Tensor,
    *,
    teacher: Sequence[TeacherRows | Rows] = (),
    divergence: Divergence | None = None,
    temperature: float = 1.0,
    next_token_weight: float,
    divergence_weight: float,
    tile_bytes: int | None = None,
) -> LinearLosses:
    """sum over N of weights_N (next_token_weight nll + divergence_weight T^2 divergence).

    The next-token part is at temperature 1 over the student's whole vocabulary. The divergence is
    between distributions at `temperature` (T); where the heads differ in width, over the first
    min(student, teacher) tokens, both normalised over these. Differentiable once, with respect to
    `hidden_ND`, `head.weight_VD` and `head.bias_V`. Source: arXiv 2406.19112, L_pred and the
    next-token loss.

    Args:
        hidden_ND: the student's final hidden states. Products of half-precision inputs (or under
            autocast) run in that dtype on CUDA and in fp32 on a CPU; all else is fp32.
        head: the student's output layer.
        targets_N: next tokens, in [0, V).
        weights_N: weight of each position.
        teacher: parts that together cover every position once; none for next-token loss alone.
        divergence: `divergence(log_p_NV, log_q_NV) -> (value_N, slope_NV)`, parameters bound.
        tile_bytes: size of a tile of logits in fp32; by device if None.

    Raises:
        ModelError: parts that do not cover the positions, rows of another temperature, or sampled
            tokens under a divergence that cannot be estimated from them.
        SettingsError: a temperature that is not positive, or a teacher without a divergence.
    """
    call = _Call(
        hidden_ND=hidden_ND,
        head=head,
        targets_N=targets_N,
        weights_N=weights_N,
        teacher=teacher,
        divergence=divergence,
        temperature=temperature,
        next_token_weight=next_token_weight,
        divergence_weight=divergence_weight,
        tile_bytes=tile_bytes,
    )
    _check(call)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in call.inputs):
        found: Any = _LinearDivergence.apply(*call.inputs, call)
        return LinearLosses(*found)
    with torch.no_grad():
        next_token_N, divergence_N = _run(call, None)
        return LinearLosses(call.total(next_token_N, divergence_N), next_token_N, divergence_N)


def naive_linear_divergence(
    hidden_ND: torch.Tensor,
    head: Head,
    targets_N: torch.Tensor,
    weights_N: torch.Tensor,
    **options: Any,
) -> LinearLosses:
    """The twin: all logits at once, gradients by autograd. Same arguments, values and errors."""
    defaults = {"teacher": (), "divergence": None, "temperature": 1.0, "tile_bytes": None}
    call = _Call(hidden_ND, head, targets_N, weights_N, **(defaults | options))
    _check(call)
    logits_NV = naive_logits(hidden_ND, head)
    next_token_N = torch.nn.functional.cross_entropy(logits_NV, targets_N, reduction="none")
    divergence_N = torch.zeros_like(next_token_N)
    order_N = torch.arange(len(targets_N), device=targets_N.device)
    for part in call.teacher:
        index = slice(None) if part.index_K is None else part.index_K
        logits_KV = logits_NV[index][:, : part.n_tokens]
        log_q_KV = torch.log_softmax(logits_KV / call.temperature, 1)
        value_K = part.naive_compare(log_q_KV, call.temperature, call.divergence)
        divergence_N = divergence_N.index_add(0, order_N[index], value_K)
    loss = call.total(next_token_N, divergence_N)
    return LinearLosses(loss, next_token_N.detach(), divergence_N.detach())


def _check(call: _Call) -> None:
    if call.temperature <= 0:
        raise SettingsError(
            "the temperature must be positive",
            where="the divergence",
            found=str(call.temperature),
            next_step="1 leaves the distributions as they are; higher is softer",
        )
    if (call.divergence is None) == bool(call.teacher):
        raise SettingsError(
            "a teacher and a divergence go together",
            found=f"{len(call.teacher)} parts of a teacher, divergence {call.divergence}",
            next_step="give both, or neither for next-token loss alone",
        )
    for part in call.teacher:
        if not isinstance(part, Rows):
            raise ModelError(
                "not a distribution of a teacher",
                found=type(part).__name__,
                next_step="give the kinds of preceptor.kernels.linear_divergence",
            )
        part.check(call.divergence, call.temperature)
    if call.teacher:
        _check_cover(call.teacher, len(call.targets_N), call.targets_N.device)


def _check_cover(teacher: Sequence[Rows], n: int, device: torch.device) -> None:
    every_N = torch.arange(n, device=device)
    parts = [every_N if part.index_K is None else part.index_K for part in teacher]
    sizes = [part.n_positions for part in teacher]
    covered = torch.cat(parts)
    if [len(part) for part in parts] != sizes or not torch.equal(covered.sort().values, every_N):
        raise ModelError(
            "the parts of the teacher do not cover every scored position once",
            found=f"{n} positions; parts of {sizes}, placed at {[len(part) for part in parts]}",
            next_step="give each position to exactly one part",
        )


class _LinearDivergence(torch.autograd.Function):
    """Gradients are formed in the forward pass; backward multiplies them by the loss's own."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[torch.Tensor, ...]:
        call: _Call = arguments[-1]
        gradients = _Gradients(call, ctx.needs_input_grad)
        next_token_N, divergence_N = _run(call, gradients)
        ctx.save_for_backward(gradients.peak, *gradients.sums)
        ctx.dtypes = [None if t is None else t.dtype for t in call.inputs]
        ctx.mark_non_differentiable(next_token_N, divergence_N)
        return call.total(next_token_N, divergence_N), next_token_N, divergence_N

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Any
    ) -> tuple[torch.Tensor | None, ...]:
        peak, *sums = ctx.saved_tensors
        factor, kept = grad_outputs[0] * peak, _graph_is_kept()
        if factor.device.type == "cpu" and factor == 1.0 and not kept:
            found = sums  # a pass over a gradient as large as the head is spared
        else:
            found = [None if s is None else s * factor if kept else s.mul_(factor) for s in sums]
        found = [None if s is None else s.to(d) for s, d in zip(found, ctx.dtypes, strict=True)]
        return (*found, None)


def _graph_is_kept() -> bool:
    """Whether this backward pass may be run again; if not, its sums can be given away."""
    internals: Any = getattr(torch._C, "_autograd", None)
    asked = getattr(internals, "_get_current_graph_task_keep_graph", None)
    return True if asked is None else asked()


class _Gradients:
    """fp32 sums of the slope products, for those inputs that need them.

    In half precision a common factor, the largest weight `peak`, is left out until the backward
    pass: so the factors of products keep their range.
    """

    def __init__(self, call: _Call, needs: Sequence[bool]) -> None:
        weights_N = call.weights_N.detach().float()
        self.peak = weights_N.new_ones(())
        if len(weights_N) and product_dtype(call.hidden_ND) != torch.float32:
            peak = weights_N.abs().amax()
            self.peak = torch.where(peak > 0, peak, self.peak)
        self._share_N1 = (weights_N / self.peak)[:, None]
        self._head_VD = call.head.weight_VD
        self._begun = False
        make = torch.empty if len(weights_N) else torch.zeros
        self.sums = [
            make(t.shape, dtype=torch.float32, device=t.device)
            if t is not None and needed
            else None
            for t, needed in zip(call.inputs, needs[:3], strict=True)
        ]

    def add(self, index: Any, hidden_nD: torch.Tensor, slope_nV: torch.Tensor) -> None:
        """Add a tile: the slope of its unweighted loss; `index` says where its positions stand."""
        of_hidden_ND, of_weight_VD, of_bias_V = self.sums
        share_n1, dtype = self._share_N1[index], product_dtype(hidden_nD)
        if of_bias_V is not None:
            of_bias_V.addmv_(slope_nV.T, share_n1[:, 0], beta=float(self._begun))
        slope_nV = slope_nV.to(dtype)
        if of_weight_VD is not None:
            scaled_nD = (hidden_nD * share_n1).to(dtype)
            multiply(of_weight_VD, slope_nV.T, scaled_nD, add=self._begun)
        if of_hidden_ND is not None:
            sum_nD = of_hidden_ND.new_empty(hidden_nD.shape)
            for part, weight in head_slices(self._head_VD, slope_nV.shape[1], dtype):
                multiply(sum_nD, slope_nV[:, part], weight, add=part.start > 0)
            of_hidden_ND[index] = sum_nD.mul_(share_n1)
        self._begun = True


@dataclass(frozen=True)
class _Tile:
    """Some positions of one part of the teacher.

    Attributes:
        rows: which rows of the part these are.
        index: where they stand among the scored positions.
        targets_n: their next tokens.
        logits_nV: the student's products; their slope in the end.
        teacher_nV: the teacher's products, where it has any.
        next_token_n, divergence_n: the losses, to be filled.
    """

    part: Rows | None
    rows: slice
    index: Any
    targets_n: torch.Tensor
    logits_nV: torch.Tensor
    teacher_nV: torch.Tensor | None
    next_token_n: torch.Tensor
    divergence_n: torch.Tensor


def _run(call: _Call, gradients: _Gradients | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Both losses at every position; fills `gradients`, if there are any to fill."""
    next_token_N = torch.zeros(call.targets_N.shape, device=call.hidden_ND.device)
    divergence_N = torch.zeros_like(next_token_N)
    for tile in _tiles(call):
        for block in blocks(tile.logits_nV):
            _block(call, tile, block, gradients is not None)
        next_token_N[tile.index] = tile.next_token_n
        divergence_N[tile.index] = tile.divergence_n
        if gradients is not None:
            gradients.add(tile.index, call.hidden_ND[tile.index], tile.logits_nV)
    return next_token_N, divergence_N


def _tiles(call: _Call) -> Iterator[_Tile]:
    """Tiles with their products; each uses the memory of the one before."""
    width, device = call.head.weight_VD.shape[0], call.hidden_ND.device
    buffers = Buffers(device)
    most = max(1, (call.tile_bytes or TILE_BYTES.get(device.type, BIG_TILE)) // (4 * width))
    for part in call.teacher or (None,):
        n = len(call.targets_N) if part is None else part.n_positions
        n_tiles = -(-n // most)
        step = -(-n // max(1, n_tiles))  # tiles of even size
        for low in range(0, n, max(1, step)):
            rows = slice(low, min(low + step, n))
            index = rows if part is None or part.index_K is None else part.index_K[rows]
            logits_nV = buffers.get("student", rows.stop - low, width)
            project(logits_nV, call.hidden_ND[index], call.head)
            teacher_nV = None
            if part is not None:
                shared = min(width, part.n_tokens)
                teacher_nV = part.project(rows, shared, call.temperature, buffers)
            targets_n, losses_2n = call.targets_N[index], logits_nV.new_zeros(2, rows.stop - low)
            yield _Tile(part, rows, index, targets_n, logits_nV, teacher_nV, *losses_2n)


def _block(call: _Call, tile: _Tile, block: slice, slopes: bool) -> None:
    """Fill in both losses of a few rows; turn their products into the slope of the unweighted loss.

    Everything here is elementwise or a sum over a row, on tensors that fit the caches.
    """
    head, part, temperature = call.head, tile.part, call.temperature
    targets_b, logits_bV = tile.targets_n[block], finish(tile.logits_nV[block], head)
    log_q_bV = torch.log_softmax(logits_bV, 1)
    tile.next_token_n[block] = log_q_bV.gather(1, targets_b[:, None])[:, 0].neg()
    soft_bV = log_q_bV
    if part is not None and (part.n_tokens < log_q_bV.shape[1] or temperature != 1.0):
        soft_bV = torch.log_softmax(logits_bV[:, : part.n_tokens] / temperature, 1)
    fade_bV = None
    if slopes:
        if head.softcap:
            fade_bV = 1.0 - (logits_bV / head.softcap).square_()
        _next_token_slope(logits_bV, log_q_bV, targets_b, call.next_token_weight * head.scale)
    if part is not None:
        rows = slice(tile.rows.start + block.start, tile.rows.start + block.stop)
        teacher_bV = None if tile.teacher_nV is None else tile.teacher_nV[block]
        value_b, slope_bV = part.compare(rows, teacher_bV, soft_bV, temperature, call.divergence)
        tile.divergence_n[block] = value_b
        if slopes:  # T^2 of the loss, 1 / T of the softened logits
            factor = call.divergence_weight * temperature * head.scale
            logits_bV[:, : slope_bV.shape[1]].add_(slope_bV, alpha=factor)
    if fade_bV is not None:
        logits_bV *= fade_bV


def _next_token_slope(
    out_bV: torch.Tensor, log_q_bV: torch.Tensor, targets_b: torch.Tensor, factor: float
) -> None:
    """out = factor (q - 1 at the target)."""
    if factor == 0.0:
        out_bV.zero_()
        return
    torch.exp(log_q_bV, out=out_bV).mul_(factor)
    at_target = out_bV.gather(1, targets_b[:, None]).sub_(factor)
    out_bV.scatter_(1, targets_b[:, None], at_target)
