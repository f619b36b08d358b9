"""`linear_divergence`: next-token loss and divergence with gradients, against TRL, Liger and plain.

Everybody gets the same hidden states, heads and targets in fp32, and forms gradients for the
student's hidden states and head. TRL's kernel forms the divergence alone; ours is timed with both
losses all the same. Liger's forms both. The floor is the four bare products on our tiles: nothing
that forms logits and gradients once can be faster.

Shapes: N positions, D hidden width (the same for both models), V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from bench.harness import Contender, Meter, race, row
from preceptor.core.plugs import plug
from preceptor.kernels.linear_divergence import TILE_BYTES, DenseRows, linear_divergence
from preceptor.losses import LOSSES
from preceptor.models.head import Head

N = 1024
CASES = ((32_000, 1024), (32_000, 2048), (151_936, 1024), (151_936, 2048))
MIX = (0.4, 0.6)  # weights of next-token loss and divergence
BETA = 0.3  # teacher's weight in the Jensen-Shannon row
LOOKED_AT = 64  # rows of each gradient that are compared
LARGE = 300e6  # weights of a head from which full logits take more than 8 GiB


class Inputs(NamedTuple):
    """What a training step hands over; the first two want gradients."""

    hidden_ND: torch.Tensor
    head_VD: torch.Tensor
    teacher_ND: torch.Tensor
    teacher_head_VD: torch.Tensor
    targets_N: torch.Tensor


def build_inputs(vocabulary: int, width: int, n: int = N) -> Inputs:
    """Random states and heads whose logits have a standard deviation of 2."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).mul_(scale)

    spread = 2.0 / math.sqrt(width)
    return Inputs(
        normal(n, width).requires_grad_(),
        normal(vocabulary, width, scale=spread).requires_grad_(),
        normal(n, width),
        normal(vocabulary, width, scale=spread),
        torch.randint(0, vocabulary, (n,), generator=generator),
    )


def looked_at(loss: torch.Tensor, inputs: Inputs) -> np.ndarray:
    """The loss, and of rows of both gradients the entry of largest magnitude."""
    found = [loss.detach()[None]]
    for tensor in inputs[:2]:
        assert tensor.grad is not None
        rows = tensor.grad[:: max(1, len(tensor) // LOOKED_AT)][:LOOKED_AT]
        found.append(rows.gather(1, rows.abs().argmax(1, keepdim=True))[:, 0])
    return torch.cat(found).numpy()


def _our_loss(inputs: Inputs, name: str, parameters: dict[str, float], mix: Any) -> torch.Tensor:
    n = len(inputs.targets_N)
    return linear_divergence(
        inputs.hidden_ND,
        Head(inputs.head_VD),
        inputs.targets_N,
        torch.full((n,), 1.0 / n),
        teacher=[DenseRows(inputs.teacher_ND, Head(inputs.teacher_head_VD))],
        divergence=partial(plug("loss", LOSSES, name), **parameters),
        next_token_weight=mix[0],
        divergence_weight=mix[1],
    ).loss


def ours(
    meter: Meter, vocabulary: int, width: int, name: str, parameters: dict[str, float]
) -> np.ndarray:
    """Both losses in one pass; then, not timed, the divergence alone: values of both."""
    inputs = build_inputs(vocabulary, width)
    with meter:
        both = _our_loss(inputs, name, parameters, MIX)
        both.backward()
    values = looked_at(both, inputs)
    for tensor in inputs[:2]:
        tensor.grad = None
    alone = _our_loss(inputs, name, parameters, (0.0, 1.0))
    alone.backward()
    return np.stack([values, looked_at(alone, inputs)])


def trl(meter: Meter, vocabulary: int, width: int) -> np.ndarray:
    """TRL's tiled forward KL, without a next-token loss."""
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    inputs = build_inputs(vocabulary, width)
    with meter:
        divergence_N, _ = ChunkedDivergenceFunction.apply(  # pyright: ignore[reportGeneralTypeIssues]
            inputs.hidden_ND,
            inputs.head_VD,
            None,
            inputs.teacher_ND,
            inputs.teacher_head_VD,
            None,
            0.0,
        )
        loss = divergence_N.mean()
        loss.backward()
    return looked_at(loss, inputs)


def liger(meter: Meter, vocabulary: int, width: int, beta: float, chunk: int) -> np.ndarray:
    """Liger's fused Jensen-Shannon loss with next-token loss, not compiled (CPU)."""
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss  # pyright: ignore[reportMissingImports]

    inputs = build_inputs(vocabulary, width)
    fused = LigerFusedLinearJSDLoss(
        weight_hard_loss=MIX[0],
        weight_soft_loss=MIX[1],
        beta=beta,
        compiled=False,
        chunk_size=chunk,
    )
    with meter:
        loss: Any = fused(
            inputs.hidden_ND,
            inputs.head_VD,
            inputs.teacher_ND,
            inputs.teacher_head_VD,
            inputs.targets_N,
        )
        loss.backward()
    return looked_at(loss, inputs)


def naive(meter: Meter, vocabulary: int, width: int) -> np.ndarray:
    """All logits of both models, two losses, autograd: what a notebook does."""
    inputs = build_inputs(vocabulary, width)
    with meter:
        logits_NV = inputs.hidden_ND @ inputs.head_VD.T
        teacher_NV = inputs.teacher_ND @ inputs.teacher_head_VD.T
        loss = MIX[0] * cross_entropy(logits_NV, inputs.targets_N) + MIX[1] * kl_div(
            log_softmax(logits_NV, 1),
            log_softmax(teacher_NV, 1),
            reduction="batchmean",
            log_target=True,
        )
        loss.backward()
    return looked_at(loss, inputs)


@torch.no_grad()
def floor(meter: Meter, vocabulary: int, width: int) -> np.ndarray:
    """The four bare products on our tiles, into memory made once."""
    inputs = build_inputs(vocabulary, width)
    most = max(1, TILE_BYTES["cpu"] // (4 * vocabulary))
    step = math.ceil(N / math.ceil(N / most))
    with meter:
        tile_nV, teacher_nV = torch.empty(2, step, vocabulary)
        of_hidden_ND, of_head_VD = torch.empty(N, width), torch.empty(vocabulary, width)
        for low in range(0, N, step):
            rows = slice(low, low + step)
            n = len(inputs.hidden_ND[rows])
            torch.mm(inputs.hidden_ND[rows], inputs.head_VD.T, out=tile_nV[:n])
            torch.mm(inputs.teacher_ND[rows], inputs.teacher_head_VD.T, out=teacher_nV[:n])
            torch.mm(tile_nV[:n], inputs.head_VD, out=of_hidden_ND[rows])
            of_head_VD.addmm_(tile_nV[:n].T, inputs.hidden_ND[rows], beta=float(low > 0))
    return np.empty(0)


def run(repeats: int = 3) -> list[dict[str, Any]]:
    """Rows of the `linear_divergence` benchmark."""
    rows = []
    for vocabulary, width in CASES:
        rows += _case(vocabulary, width, repeats, full=vocabulary * width <= LARGE)
    return rows


def _case(vocabulary: int, width: int, repeats: int, full: bool) -> list[dict[str, Any]]:
    forward = {"name": "forward_kl", "parameters": {}}
    both = {"name": "jsd", "parameters": {"beta": BETA}}
    # Liger's default chunk of 1,024 positions takes more than 8 GiB under a large vocabulary
    chunk = {"beta": BETA, "chunk": N if vocabulary < 100_000 else N // 4}
    module = "bench.linear_divergence"
    contenders = [
        Contender("forward_kl", f"{module}:ours", forward),
        Contender("jsd", f"{module}:ours", both),
        Contender("TRL, divergence alone", f"{module}:trl"),
        Contender("Liger", f"{module}:liger", chunk),
        Contender("floor: four products", f"{module}:floor"),
    ]
    if full:
        contenders.append(Contender("full logits", f"{module}:naive"))
    found = race(contenders, {"vocabulary": vocabulary, "width": width}, repeats)
    rows = []
    for peer in contenders[2:]:
        own = "jsd" if peer.name == "Liger" else "forward_kl"
        alone = peer.name.startswith("TRL")  # our values: of both losses, of the divergence alone
        mine = replace(found[own], values=found[own].values[int(alone)])
        name = f"V {vocabulary:,}, hidden {width}, {own}"
        rows.append(row(name, peer.name, mine, found[peer.name]))
    return rows
