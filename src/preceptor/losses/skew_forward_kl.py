"""Skew forward Kullback-Leibler divergence. Shapes: N positions, V vocabulary."""

from __future__ import annotations

import torch

from preceptor.core.loss import check_share, loss


@loss(needs=("logits",), parameters=("alpha",))
def skew_forward_kl(
    log_p_NV: torch.Tensor, log_q_NV: torch.Tensor, alpha: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """KL(p || m) with m = alpha p + (1 - alpha) q; p teacher, q student: slopes stay bounded.

    Range [0, -ln alpha] nats, lower is closer. Source: DistiLLM, arXiv 2402.03898, section 3.1
    (alpha 0.1 there).

    Args:
        alpha: weight of the teacher in m, strictly between 0 and 1 (else SettingsError).

    Returns:
        value_N: sum over V of p (log p - log m).
        slope_NV: q s - r, where r = (1 - alpha) p q / m and s = sum of r; from
            d value / d q = -(1 - alpha) p / m.
    """
    check_share("skew_forward_kl", "alpha", alpha, "forward_kl", "constant")
    p_NV, q_NV = log_p_NV.exp(), log_q_NV.exp()
    m_NV = torch.add(p_NV * alpha, q_NV, alpha=1.0 - alpha)
    m_NV = m_NV.clamp_min(torch.finfo(m_NV.dtype).tiny)  # p = q = 0 adds nothing
    value_N = (p_NV * (log_p_NV - m_NV.log())).sum(1)
    pull_NV = (q_NV / m_NV).mul_(p_NV).mul_(1.0 - alpha)  # q / m <= 1 / (1 - alpha)
    return value_N, (q_NV * pull_NV.sum(1, keepdim=True)).sub_(pull_NV)
