"""`attention_kl`: one layer's attention loss and its gradients, against materialised maps.

Batch 1, 8 heads of width 64 in teacher and student, every position scored, fp32. Both contenders
give the loss and its gradients with respect to the student's queries and keys. `growth_ratio`
and the growths count what the loss adds to the memory of the inputs: quadratic in the length for
maps, linear for us. `max_rel_error` is relative to the loss, and to each gradient's largest entry.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from bench.harness import Contender, Meter, Result, race, row
from preceptor.kernels.attention_kl import attention_kl
from preceptor.models.signals import LayerAttention

HEADS, WIDTH = 8, 64
LENGTHS = (1024, 2048, 4096)
LONG = 8192
SAMPLED = 1024  # entries of each gradient that are compared


def build(length: int) -> tuple[LayerAttention, LayerAttention]:
    """Student (a leaf of the graph) and teacher."""
    generator = torch.Generator().manual_seed(0)
    query_S, key_S, query_U, key_U = (
        torch.randn(1, HEADS, length, WIDTH, generator=generator) for _ in range(4)
    )
    student = LayerAttention(query_S.requires_grad_(), key_S.requires_grad_(), WIDTH**-0.5)
    return student, LayerAttention(query_U, key_U, WIDTH**-0.5)


def sample(loss: torch.Tensor, student: LayerAttention) -> np.ndarray:
    """The loss, then largest entry and fixed sample of each gradient."""
    found = [loss.detach().reshape(1)]
    generator = torch.Generator().manual_seed(1)
    for leaf in (student.query_BHTC, student.key_BGTC):
        assert leaf.grad is not None
        place = torch.randint(leaf.numel(), (SAMPLED,), generator=generator)
        found += [leaf.grad.abs().max().reshape(1), leaf.grad.flatten()[place]]
    return torch.cat(found).numpy()


def ours(meter: Meter, length: int) -> np.ndarray:
    """The tiled kernel."""
    # the first call loads libraries and starts threads: no one that counts times it
    for size, clock in ((64, Meter()), (length, meter)):
        student, teacher = build(size)
        segments_BT = torch.zeros(1, size, dtype=torch.long)
        rows_N, weights_N = torch.arange(size), torch.full((size,), 1 / size)
        with clock:
            loss = attention_kl(student, teacher, segments_BT, rows_N, weights_N)
            loss.backward()
    return sample(loss, student)


def eager(meter: Meter, length: int) -> np.ndarray:
    """Both softmax maps with a causal mask, and `kl_div`: what the published code does."""
    for size, clock in ((64, Meter()), (length, meter)):
        student, teacher = build(size)
        with clock:
            hidden_TT = torch.ones(size, size, dtype=torch.bool).triu(1)
            lowest = torch.finfo(torch.float32).min
            scores = student.query_BHTC @ student.key_BGTC.mT * student.scaling
            log_student = scores.masked_fill_(hidden_TT, lowest).log_softmax(-1)
            scores = teacher.query_BHTC @ teacher.key_BGTC.mT * teacher.scaling
            map_teacher = scores.masked_fill_(hidden_TT, lowest).softmax(-1)
            loss = torch.nn.functional.kl_div(log_student, map_teacher, reduction="sum")
            loss = loss / (size * HEADS)
            loss.backward()
    return sample(loss, student)


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest error, of the loss relative to it, of gradients relative to their largest entry."""
    scale = np.ones_like(wanted)
    scale[0] = wanted[0]
    for top in (1, 2 + SAMPLED):
        scale[top : top + 1 + SAMPLED] = wanted[top]
    return float(np.max(np.abs(found - wanted) / scale))


def line(case: str, peer: str, ours: Result, theirs: Result, **more: Any) -> dict[str, Any]:
    """A row without errors of its own: entries of gradients may be zero."""
    ours, theirs = (dataclasses.replace(x, values=np.empty(0)) for x in (ours, theirs))
    growths = {"ours_growth_mb": ours.growth / 1e6, "peer_growth_mb": theirs.growth / 1e6}
    return row(case, peer, ours, theirs, **growths) | more


def run(repeats: int = 3) -> list[dict[str, Any]]:
    """Rows of the `attention_kl` benchmark."""
    rows = []
    mine = Contender("preceptor", "bench.attention_kl:ours")
    peer = Contender("maps", "bench.attention_kl:eager")
    found = {}
    for length in LENGTHS:
        results = race([mine, peer], {"length": length}, repeats)
        found[length], wanted = results[mine.name], results[peer.name]
        errors = {"max_rel_error": error(found[length].values, wanted.values)}
        rows.append(line(f"{length} tokens", peer.name, found[length], wanted, **errors))
    long = race([mine], {"length": LONG}, repeats)[mine.name]
    half = LENGTHS[-1]
    rows.append(line(f"{LONG} tokens", f"preceptor, {half} tokens", long, found[half]))
    return rows
