"""Forward Kullback-Leibler divergence. Shapes: N positions, V vocabulary."""

from __future__ import annotations

import torch

from preceptor.core.loss import loss


@loss(needs=("logits",), from_samples=True)
def forward_kl(log_p_NV: torch.Tensor, log_q_NV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """KL(p || q), teacher p against student q: the student covers whatever the teacher may say.

    Range [0, inf) nats, lower is closer. Source: arXiv 2406.19112, L_pred; Hinton et al. 2015,
    arXiv 1503.02531.

    Returns:
        value_N: sum over V of p (log p - log q).
        slope_NV: q - p.
    """
    p_NV = log_p_NV.exp()
    slope_NV = log_q_NV.exp().sub_(p_NV)
    return (p_NV * (log_p_NV - log_q_NV)).sum(1), slope_NV
