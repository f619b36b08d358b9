"""Divergence of attention maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from preceptor.core.loss import loss
from preceptor.kernels.attention_kl import attention_kl
from preceptor.models.signals import LayerAttention


@loss(needs=("attention",))
def attention(
    student: Mapping[int, LayerAttention],
    teacher: Mapping[int, LayerAttention],
    pairs: Sequence[tuple[int, int]],
    segments_BT: torch.Tensor,
    rows_N: torch.Tensor,
    weights_N: torch.Tensor,
) -> torch.Tensor:
    """L_attn: mean over layer pairs and heads of KL(A_teacher[t, :] || A_student[t, :]), in nats.

    With `weights_N` = 1 / N this is 1 / (|M| H L) times the sum over layers, heads and the query
    positions t that predict a response token. Maps, masks and unequal head counts are as
    `kernels.attention_kl` says. Source: arXiv 2406.19112, attention loss.

    Args:
        student: layer number -> attention, with gradients.
        teacher: layer number -> attention.
        pairs: (student layer, teacher layer) to compare.
        segments_BT: document of each token, -1 for padding.
        rows_N: query positions b * T + t, rising.
        weights_N: weight of each position.

    Returns:
        A scalar >= 0; lower is closer.
    """
    total = torch.zeros((), device=rows_N.device)
    for own, other in pairs:
        total = total + attention_kl(student[own], teacher[other], segments_BT, rows_N, weights_N)
    return total / len(pairs)
