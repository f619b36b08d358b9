"""Negative log-likelihood of given tokens from hidden states, without ever holding all logits.

Shapes: N positions, D hidden width, V vocabulary.
"""

from __future__ import annotations

import torch

from preceptor.models.head import Head

TILES = {"cpu": (1024, 1024)}  # rows x columns of logits: 4 MB in fp32 stays in the caches
BIG_TILE = (4096, 16384)  # on an accelerator


def tile_logits(hidden_ND: torch.Tensor, head: Head, low: int, high: int) -> torch.Tensor:
    """Logits of the vocabulary's columns low .. high - 1, fp32."""
    logits = hidden_ND @ head.weight_VD[low:high].T
    if head.bias_V is not None:
        logits += head.bias_V[low:high]
    if head.scale != 1.0:
        logits *= head.scale
    logits = logits.float()
    if head.softcap:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    return logits


def naive_linear_nll(hidden_ND: torch.Tensor, head: Head, targets_N: torch.Tensor) -> torch.Tensor:
    """The twin: all logits at once, fp32 log-softmax. Same arguments and value as `linear_nll`."""
    logits_NV = tile_logits(hidden_ND, head, 0, head.weight_VD.shape[0])
    return torch.nn.functional.cross_entropy(logits_NV, targets_N, reduction="none")


@torch.no_grad()
def linear_nll(
    hidden_ND: torch.Tensor,
    head: Head,
    targets_N: torch.Tensor,
    tile: tuple[int, int] | None = None,
) -> torch.Tensor:
    """-log softmax(head(hidden))[target], tile by tile with an online log-sum-exp.

    One product with the head, nothing larger than one tile of logits alive.

    Args:
        hidden_ND: hidden states, any float dtype; products run in it, sums in fp32.
        head: the output layer (same dtype and device).
        targets_N: token ids in [0, V).
        tile: rows x columns of logits formed at once; by device if None.

    Returns:
        nll_N: fp32, in nats, >= 0 (up to rounding).
    """
    rows, columns = tile or TILES.get(hidden_ND.device.type, BIG_TILE)
    n, v = hidden_ND.shape[0], head.weight_VD.shape[0]
    nll_N = torch.empty(n, dtype=torch.float32, device=hidden_ND.device)
    for top in range(0, n, rows):
        hidden = hidden_ND[top : top + rows]
        targets = targets_N[top : top + rows]
        highest = torch.full_like(nll_N[top : top + rows], -torch.inf)
        total = torch.zeros_like(highest)
        chosen = torch.zeros_like(highest)
        for low in range(0, v, columns):
            logits = tile_logits(hidden, head, low, min(low + columns, v))
            inside = (targets >= low) & (targets < low + columns)
            index = (targets - low).clamp(0, logits.shape[1] - 1)
            chosen += torch.where(inside, logits.gather(1, index[:, None])[:, 0], 0.0)
            peak = torch.maximum(highest, logits.amax(1))
            total *= torch.exp(highest - peak)
            total += logits.sub_(peak[:, None]).exp_().sum(1)
            highest = peak
        nll_N[top : top + rows] = highest + total.log() - chosen
    return nll_N
