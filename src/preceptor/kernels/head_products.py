"""Vocabulary-sized products of hidden states and heads, and what is done to them in place.

Shapes: N positions, n of them in a tile, b in a block of a tile, D hidden width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from preceptor.models.head import Head

BLOCK_BYTES, BIG_BLOCK = {"cpu": 8 << 20}, 256 << 20  # of logits worked on at once: fits the caches
SLICE_BYTES, BIG_SLICE = {"cpu": 16 << 20}, 256 << 20  # of a head converted at once
_FP32_OUT = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 8)


class Buffers:
    """Memory for tiles, reserved once and used again by every tile of a call."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._held: dict[str, torch.Tensor] = {}
        if device.type == "cpu":
            # made and freed untouched: glibc then keeps freed blocks of up to this size for the
            # next one, where it would otherwise return them and fault in new pages each time
            torch.empty(31 << 20, dtype=torch.uint8)

    def get(self, name: str, rows: int, columns: int) -> torch.Tensor:
        """An fp32 tensor (rows, columns), contents arbitrary."""
        held = self._held.get(name)
        if held is None or held.numel() < rows * columns:
            held = torch.empty(rows * columns, dtype=torch.float32, device=self._device)
            self._held[name] = held
        return held[: rows * columns].view(rows, columns)


def blocks(tile_nV: torch.Tensor) -> Iterator[slice]:
    """Rows of a tile in blocks small enough that elementwise work stays in the caches."""
    rows, columns = tile_nV.shape
    pairs = BLOCK_BYTES.get(tile_nV.device.type, BIG_BLOCK) // (8 * columns)
    step = max(1, 2 * pairs)  # even: sums over rows share among threads
    for low in range(0, rows, step):
        yield slice(low, min(low + step, rows))


def product_dtype(hidden: torch.Tensor) -> torch.dtype:
    """Dtype of the factors of vocabulary-sized products; sums and results are fp32.

    Autocast's dtype or the input's own, where the device gives fp32 results of half-precision
    factors (CUDA, torch >= 2.8); elsewhere fp32.
    """
    kind = hidden.device.type
    autocast = torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if autocast else hidden.dtype
    half = dtype in (torch.bfloat16, torch.float16)
    return dtype if half and hidden.is_cuda and _FP32_OUT else torch.float32


def multiply(out: torch.Tensor, left: torch.Tensor, right: torch.Tensor, add: bool = False) -> None:
    """out = left @ right in fp32, or out += left @ right."""
    options: dict[str, Any] = {} if left.dtype == out.dtype else {"out_dtype": out.dtype}
    if add:
        torch.addmm(out, left, right, out=out, **options)
    else:
        torch.mm(left, right, out=out, **options)


def head_slices(
    weight_VD: torch.Tensor, width: int, dtype: torch.dtype
) -> Iterator[tuple[slice, torch.Tensor]]:
    """The first `width` rows of a head in `dtype`: as they are, or converted slice by slice."""
    step = width
    if weight_VD.dtype != dtype:
        room = SLICE_BYTES.get(weight_VD.device.type, BIG_SLICE)
        step = max(1, room // (weight_VD.shape[1] * dtype.itemsize))
    for low in range(0, width, step):
        part = slice(low, min(low + step, width))
        yield part, weight_VD[part].to(dtype)


def project(out_nV: torch.Tensor, hidden_nD: torch.Tensor, head: Head) -> None:
    """The product of hidden states and head, for as many tokens as `out_nV` is wide."""
    dtype = product_dtype(hidden_nD)
    hidden_nD = hidden_nD.to(dtype)
    for part, weight in head_slices(head.weight_VD, out_nV.shape[1], dtype):
        multiply(out_nV[:, part], hidden_nD, weight.T)


def finish(product_bV: torch.Tensor, head: Head, temperature: float = 1.0) -> torch.Tensor:
    """From product to logits / temperature, in place: bias, scale and soft cap of the head."""
    if head.bias_V is not None:
        product_bV += head.bias_V[: product_bV.shape[1]]
    factor = head.scale
    if head.softcap:
        product_bV.mul_(factor / head.softcap).tanh_()
        factor = head.softcap
    if factor != temperature:
        product_bV *= factor / temperature
    return product_bV


def naive_logits(hidden_ND: torch.Tensor, head: Head) -> torch.Tensor:
    """All logits at once in fp32, with autograd: the twin of `project` and `finish`."""
    logits_NV = hidden_ND.float() @ head.weight_VD.float().T
    if head.bias_V is not None:
        logits_NV = logits_NV + head.bias_V.float()
    logits_NV = logits_NV * head.scale
    if head.softcap:
        logits_NV = head.softcap * torch.tanh(logits_NV / head.softcap)
    return logits_NV
