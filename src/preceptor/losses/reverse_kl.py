"""Reverse Kullback-Leibler divergence. Shapes: N positions, V vocabulary."""

from __future__ import annotations

import torch

from preceptor.core.loss import loss


@loss(needs=("logits",))
def reverse_kl(log_p_NV: torch.Tensor, log_q_NV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """KL(q || p), student q against teacher p: the student keeps to what the teacher would say.

    Range [0, inf) nats, lower is closer. Source: MiniLLM, arXiv 2306.08543; here with
    the exact expectation over the vocabulary.

    Returns:
        value_N: sum over V of q g, where g = log q - log p.
        slope_NV: q (g - value).
    """
    q_NV = log_q_NV.exp()
    gap_NV = log_q_NV - log_p_NV
    value_N = (q_NV * gap_NV).sum(1)
    return value_N, (gap_NV - value_N[:, None]).mul_(q_NV)
