"""Divergence between attention maps, from queries and keys, without ever holding a whole map.

Shapes: B samples, T tokens, N scored rows of the batch, C head width; S, U and H query heads of
the student, of the teacher and compared (H = min(S, U)); G key heads. A tile holds R rows x K keys
of some heads: M of one model, J of them to each compared head.
"""

from __future__ import annotations

import math
from itertools import groupby
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from preceptor.core.errors import ModelError
from preceptor.kernels.attention_rows import Block, Rows, Strips, plan
from preceptor.models.signals import LayerAttention

TILES = {"cpu": (1 << 19, 128)}  # elements of a tile and most rows: 2 MB in fp32 stays in cache
BIG_TILE = (1 << 24, 512)  # on an accelerator
WHOLE = 1 << 21  # elements of a batch's maps: so few are quicker at once than tile by tile
LN2 = math.log(2.0)
HIDDEN = -1e30  # logit of a key that is not seen: finite, and its exponential is 0


def attention_kl(
    student: LayerAttention,
    teacher: LayerAttention,
    segments_BT: torch.Tensor,
    rows_N: torch.Tensor,
    weights_N: torch.Tensor,
    *,
    block: int | None = None,
) -> torch.Tensor:
    """Sum over rows of weight * mean over heads of KL(teacher's map || student's map).

    A row's map is softmax(softcap(query key^T * scaling)) over the keys that it sees: those of its
    document, up to its own position, within the window. Where the teacher sees keys that the
    student does not (a narrower window), its map is restricted to the student's keys and
    normalised again; the student's map is always over all of the student's keys. Where one model
    has m times the heads of the other, the mean of each m neighbouring maps is compared.

    Gradients are formed in the forward pass, tile by tile, so memory is linear in T; batches of few
    short samples, whose maps together stay below `WHOLE`, are done at once. Products and sums run
    in fp32 (fp64 for fp64 inputs), also under autocast. Keys are never repeated.

    Args:
        student: receives gradients in query and key, of their dtype.
        teacher: a constant; may differ in heads, head width, scaling, window and soft cap.
        segments_BT: document of each token, -1 for padding.
        rows_N: query rows to compare, rising flat positions b * T + t, none in padding.
        weights_N: weight of each row, no gradient.
        block: most rows in one tile; by device if None.

    Returns:
        A scalar, fp32 or fp64, in nats; >= 0 (up to rounding) for weights >= 0, 0 for equal maps.

    Raises:
        ModelError: neither head count divides the other.
        ValueError: rows do not rise or lie in padding, or the models' B or T differ.

    Source: arXiv 2406.19112, the attention loss, which sums over layers and weighs each row 1/|M|.
    """
    samples, heads, tokens, _ = student.query_BHTC.shape
    if samples * max(heads, teacher.query_BHTC.shape[1]) * tokens**2 <= WHOLE:
        Rows(segments_BT, rows_N)  # refuses what the tiles refuse
        return naive_attention_kl(student, teacher, segments_BT, rows_N, weights_N)
    total = _Sum(student, teacher, segments_BT, rows_N, weights_N, block)
    found: Any = _AttentionKL.apply(
        student.query_BHTC, student.key_BGTC, total, torch.is_grad_enabled()
    )
    return found


def naive_attention_kl(
    student: LayerAttention,
    teacher: LayerAttention,
    segments_BT: torch.Tensor,
    rows_N: torch.Tensor,
    weights_N: torch.Tensor,
) -> torch.Tensor:
    """The twin: whole maps of both models, and autograd. Same arguments and value."""
    merge_student, merge_teacher = _merged_heads(student, teacher)
    window = _narrower(student.window, teacher.window)
    log_student_BHTT = _log_maps(student, segments_BT, student.window, merge_student)
    with torch.no_grad():
        log_teacher_BHTT = _log_maps(teacher, segments_BT, window, merge_teacher)
    map_BHTT = torch.exp2(log_teacher_BHTT / LN2)  # quick where it vanishes, which exp is not
    kl_BHTT = map_BHTT * (log_teacher_BHTT - log_student_BHTT)
    kl_N = kl_BHTT.sum(-1).mean(1).flatten()[rows_N]
    return (kl_N * weights_N).sum()


def _log_maps(
    layer: LayerAttention, segments_BT: torch.Tensor, window: int | None, merge: int
) -> torch.Tensor:
    dtype = _sum_dtype(layer)
    repeat = layer.query_BHTC.shape[1] // layer.key_BGTC.shape[1]
    key_BHTC = layer.key_BGTC.to(dtype).repeat_interleave(repeat, 1)
    logits_BHTT = layer.query_BHTC.to(dtype) @ key_BHTC.mT * layer.scaling
    if layer.softcap:
        logits_BHTT = layer.softcap * torch.tanh(logits_BHTT / layer.softcap)
    position_T = torch.arange(segments_BT.shape[1], device=segments_BT.device)
    back_TT = position_T[:, None] - position_T
    seen_BTT = (back_TT >= 0) & (segments_BT[:, :, None] == segments_BT[:, None])
    if window is not None:
        seen_BTT &= back_TT < window
    log_BHTT = logits_BHTT.masked_fill(~seen_BTT[:, None], HIDDEN).log_softmax(-1)
    heads = log_BHTT.shape[1] // merge
    return log_BHTT.unflatten(1, (heads, merge)).logsumexp(2) - math.log(merge)


def _merged_heads(student: LayerAttention, teacher: LayerAttention) -> tuple[int, int]:
    """How many maps of the student and of the teacher are averaged for each compared head."""
    if student.query_BHTC.shape[::2] != teacher.query_BHTC.shape[::2]:
        raise ValueError("student and teacher must hold the same samples and tokens")
    s, u = student.query_BHTC.shape[1], teacher.query_BHTC.shape[1]
    if s % u and u % s:
        raise ModelError(
            "the attention maps of teacher and student cannot be compared: neither number of "
            "query heads divides the other",
            found=f"{s} heads in the student, {u} in the teacher",
            next_step="leave the attention loss out, or take a teacher whose heads pair up",
        )
    return max(s // u, 1), max(u // s, 1)


def _sum_dtype(layer: LayerAttention) -> torch.dtype:
    return torch.float64 if layer.query_BHTC.dtype == torch.float64 else torch.float32


def _narrower(one: int | None, other: int | None) -> int | None:
    return min((window for window in (one, other) if window is not None), default=None)


def _stack(x_MRX: torch.Tensor, groups: int) -> torch.Tensor:
    """Query heads that share a key head on top of each other: one product serves them all."""
    return x_MRX.view(groups, -1, x_MRX.shape[2])


class _Side:
    """Queries and keys of one model in one sample; `merge` of its heads to each compared head.

    Tiles hold logits in bits: base-2 exponentials are quick even where they vanish. `unit` is what
    one unit of the scaled products amounts to in nats. `dtype` is that of products and sums.
    """

    def __init__(self, layer: LayerAttention, sample: int, merge: int, dtype: torch.dtype) -> None:
        self.query_HTC = layer.query_BHTC[sample]
        self.key_GTC = layer.key_BGTC[sample].to(dtype).contiguous()
        self.merge, self.softcap = merge, layer.softcap
        self.unit = layer.softcap or LN2
        self.scaling = layer.scaling / self.unit

    def rows(self, position_R: torch.Tensor) -> torch.Tensor:
        """query_HRC, scaled so that its products with keys are logits over `unit`."""
        return self.query_HTC.index_select(1, position_R).to(self.key_GTC.dtype) * self.scaling

    def heads(self, head: int, block: Block) -> tuple[slice, slice]:
        """Query heads and key heads behind a tile: whole groups, or a part of one."""
        low, high = head * self.merge, (head + block.heads) * self.merge
        repeat = len(self.query_HTC) // len(self.key_GTC)
        return slice(low, high), slice(low // repeat, (high - 1) // repeat + 1)

    def fill(
        self,
        tile_MRK: torch.Tensor,
        query_MRC: torch.Tensor,
        key_GKC: torch.Tensor,
        strips: Strips,
        slope_MRK: torch.Tensor | None = None,
    ) -> None:
        """Fill a tile with logits, and another one with the soft cap's derivative."""
        groups = len(key_GKC)
        torch.bmm(_stack(query_MRC, groups), key_GKC.mT, out=_stack(tile_MRK, groups))
        if self.softcap:
            tile_MRK.tanh_()
            if slope_MRK is not None:
                torch.mul(tile_MRK, tile_MRK, out=slope_MRK).neg_().add_(1.0)
            tile_MRK.mul_(self.softcap / LN2)
        for left, right, hidden_RK in strips:
            tile_MRK[:, :, left:right].masked_fill_(hidden_RK, HIDDEN)


def _teacher_maps(
    tile_MRK: torch.Tensor, spare_MRK: torch.Tensor, merge: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """From logits in bits: mean map of each `merge` heads, and its negative entropy in nats.

    The map lies in the spare tile, or in the tile where maps are merged; the other is free.
    """
    tile_MRK.sub_(tile_MRK.amax(-1, keepdim=True))
    total_MR1 = torch.exp2(tile_MRK, out=spare_MRK).sum(-1, keepdim=True)
    spare_MRK.mul_(total_MR1.reciprocal())
    if merge == 1:
        bits_MR = tile_MRK.mul_(spare_MRK).sum(-1) - total_MR1.log2()[..., 0]
        return spare_MRK, bits_MR * LN2
    heads = len(tile_MRK) // merge
    map_HRK = torch.mean(spare_MRK.unflatten(0, (heads, merge)), 1, out=tile_MRK[:heads])
    return map_HRK, torch.xlogy(map_HRK, map_HRK, out=spare_MRK[:heads]).sum(-1)  # 0 log 0 = 0


def _student_maps(
    tile_MRK: torch.Tensor, spare_MRK: torch.Tensor, teacher_HRK: torch.Tensor, merge: int
) -> torch.Tensor:
    """From logits in bits: sum over keys of teacher * log(mean map of each `merge` heads), in nats.

    The tile becomes the derivative of KL(p || mean_j a_j) with respect to the logits of a_j:
    a_j sum(p r_j) - p r_j with the share r_j = a_j / sum_j a_j; that is a - p for one head.
    Logarithms come from logits: they stay finite where probabilities vanish.
    """
    tile_MRK.sub_(tile_MRK.amax(-1, keepdim=True))
    if merge == 1:
        bits_HR = torch.mul(tile_MRK, teacher_HRK, out=spare_MRK).sum(-1)
        total_HR1 = tile_MRK.exp2_().sum(-1, keepdim=True)
        tile_MRK.mul_(total_HR1.reciprocal()).sub_(teacher_HRK)
        return (bits_HR - total_HR1.log2()[..., 0]) * LN2
    tile_MRK.sub_(torch.exp2(tile_MRK, out=spare_MRK).sum(-1, keepdim=True).log2_())
    shape = len(teacher_HRK), merge
    log_HJRK, share_HJRK = tile_MRK.unflatten(0, shape), spare_MRK.unflatten(0, shape)
    log_H1RK = log_HJRK.amax(1, keepdim=True)
    total_H1RK = torch.sub(log_HJRK, log_H1RK, out=share_HJRK).exp2_().sum(1, keepdim=True)
    share_HJRK.mul_(teacher_HRK[:, None] / total_H1RK)
    log_HJRK.exp2_().mul_(share_HJRK.sum(-1, keepdim=True)).sub_(share_HJRK)
    bits_HR = log_H1RK.add_(total_H1RK.log2_())[:, 0].mul_(teacher_HRK).sum(-1)
    return bits_HR * LN2 - math.log(merge)


class _Sum:
    """The sum over all rows and its gradients: a sample, a block, some heads at a time."""

    def __init__(
        self,
        student: LayerAttention,
        teacher: LayerAttention,
        segments_BT: torch.Tensor,
        rows_N: torch.Tensor,
        weights_N: torch.Tensor,
        block: int | None,
    ) -> None:
        self.student, self.teacher = student, teacher
        self.merges = _merged_heads(student, teacher)
        self.heads = student.query_BHTC.shape[1] // self.merges[0]
        self.weights_N = weights_N.to(_sum_dtype(student)) / self.heads
        self.rows = Rows(segments_BT, rows_N)
        self.windows = student.window, _narrower(student.window, teacher.window)
        self.starts = [self.rows.starts(window) for window in self.windows]
        elements, most_rows = TILES.get(student.query_BHTC.device.type, BIG_TILE)
        self.blocks = plan(
            self.rows,
            self.starts[0],
            self._head_counts(),
            elements // max(self.merges),
            block or most_rows,
        )

    def _head_counts(self) -> list[int]:
        """Numbers of compared heads that make whole groups, or parts of one, in both models."""
        counts = [n for n in range(1, self.heads + 1) if self.heads % n == 0]
        for layer, merge in zip((self.student, self.teacher), self.merges, strict=True):
            repeat = layer.query_BHTC.shape[1] // layer.key_BGTC.shape[1]
            counts = [n for n in counts if n * merge % repeat == 0 or repeat % (n * merge) == 0]
        return counts

    def compute(
        self, wants_query: bool, wants_key: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """The sum, and its gradients with respect to the student's queries and keys if wanted."""
        query_BSTC, key_BGTC = self.student.query_BHTC, self.student.key_BGTC
        self.kl_N = torch.zeros_like(self.weights_N)
        self.grad_query = torch.zeros_like(query_BSTC) if wants_query else None
        grad_key = torch.zeros_like(key_BGTC) if wants_key else None
        size = max(self.merges) * max((block.elements for block in self.blocks), default=0)
        count = 4 if self.student.softcap else 3  # student, teacher, spare, slope of the soft cap
        self.buffers = [self.weights_N.new_empty(size) for _ in range(count)]
        for sample, blocks in groupby(self.blocks, lambda block: block.sample):
            student, teacher = (
                _Side(layer, sample, merge, self.weights_N.dtype)
                for layer, merge in zip((self.student, self.teacher), self.merges, strict=True)
            )
            self.sum_GCT = torch.zeros_like(student.key_GTC.mT) if wants_key else None
            for block in blocks:
                self._add_block(block, student, teacher)
            if grad_key is not None and self.sum_GCT is not None:
                grad_key[sample].copy_(self.sum_GCT.mT)
        return (self.kl_N * self.weights_N).sum(), self.grad_query, grad_key

    def _add_block(self, block: Block, student: _Side, teacher: _Side) -> None:
        rows = slice(block.top, block.bottom)
        position_R, weight_R1 = self.rows.position_N[rows], self.weights_N[rows, None]
        query_SRC, query_URC = student.rows(position_R), teacher.rows(position_R)
        strips = [
            self.rows.strips(block, starts, window)
            for starts, window in zip(self.starts, self.windows, strict=True)
        ]
        weighted_SRC = query_SRC * (weight_R1 * student.unit)
        grad_SRC = torch.empty_like(query_SRC) if self.grad_query is not None else None
        for head in range(0, self.heads, block.heads):
            map_HRK, negentropy_HR, free = self._teacher_tile(
                block, teacher, head, query_URC, strips[1]
            )
            query, group = student.heads(head, block)
            key_GKC = student.key_GTC[group, block.low : block.high]
            tile, spare = (block.tile(x, len(query_SRC[query])) for x in (self.buffers[0], free))
            slope = block.tile(self.buffers[3], len(tile)) if student.softcap else None
            student.fill(tile, query_SRC[query], key_GKC, strips[0], slope)
            cross_HR = _student_maps(tile, spare, map_HRK, student.merge)
            self.kl_N[rows] += (negentropy_HR - cross_HR).sum(0)
            if slope is not None:
                tile.mul_(slope)
            stacked = _stack(tile, len(key_GKC))
            if grad_SRC is not None:
                torch.bmm(stacked, key_GKC, out=_stack(grad_SRC[query], len(key_GKC)))
            if self.sum_GCT is not None:
                self.sum_GCT[group, :, block.low : block.high].baddbmm_(
                    _stack(weighted_SRC[query], len(key_GKC)).mT, stacked
                )
        if self.grad_query is not None and grad_SRC is not None:
            grad_SRC *= weight_R1 * self.student.scaling
            grad = grad_SRC.to(self.grad_query.dtype)
            self.grad_query[block.sample].index_copy_(1, position_R, grad)

    def _teacher_tile(
        self, block: Block, teacher: _Side, head: int, query_URC: torch.Tensor, strips: Strips
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The teacher's map, its negative entropy, and the buffer that is left free."""
        query, group = teacher.heads(head, block)
        key_GKC = teacher.key_GTC[group, block.low : block.high]
        tile, spare = (block.tile(x, len(query_URC[query])) for x in self.buffers[1:3])
        teacher.fill(tile, query_URC[query], key_GKC, strips)
        map_HRK, negentropy_HR = _teacher_maps(tile, spare, teacher.merge)
        return map_HRK, negentropy_HR, self.buffers[1 if teacher.merge == 1 else 2]


class _AttentionKL(torch.autograd.Function):
    """Gradients are formed with the value: they need the same tiles."""

    @staticmethod
    def forward(
        ctx: Any, query_BSTC: torch.Tensor, key_BGTC: torch.Tensor, total: _Sum, recording: bool
    ) -> torch.Tensor:
        wants = [recording and need for need in ctx.needs_input_grad[:2]]
        value, grad_query, grad_key = total.compute(*wants)
        ctx.save_for_backward(grad_query, grad_key)
        return value

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        saved = (None if x is None else x * grad for x in ctx.saved_tensors)
        return *saved, None, None
