"""Forward Kullback-Leibler divergence. Shapes: N positions, V vocabulary."""

from __future__ import annotations

import torch

from preceptor.core.loss import loss


def from_samples(
    ids_NJ: torch.Tensor, weights_NJ: torch.Tensor, entropy_N: torch.Tensor, log_q_NV: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The estimate from tokens drawn from the teacher; unbiased in value and slope.

    Args:
        ids_NJ: the J tokens of each position; a token may stand more than once.
        weights_NJ: with expectation sum over j of w_j [id_j = v] = p_v; 0 where there is no token.
        entropy_N: of the teacher's distribution, in nats.
        log_q_NV: the student's log-probabilities, in nats.

    Returns:
        value_N: -sum over j of w_j log q(id_j) - entropy.
        slope_NV: q times the sum of the weights, less each weight at its token.

    Source: arXiv 2503.16870 (sparse logit sampling).
    """
    cross_N = (weights_NJ * log_q_NV.gather(1, ids_NJ)).sum(1).neg()
    slope_NV = log_q_NV.exp().mul_(weights_NJ.sum(1, keepdim=True))
    slope_NV.scatter_add_(1, ids_NJ, -weights_NJ)
    return cross_N - entropy_N, slope_NV


@loss(needs=("logits",), from_samples=from_samples)
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
