"""Skew reverse Kullback-Leibler divergence. Shapes: N positions, V vocabulary."""

from __future__ import annotations

import torch

from preceptor.core.loss import check_share, loss


@loss(needs=("logits",), parameters=("alpha",))
def skew_reverse_kl(
    log_p_NV: torch.Tensor, log_q_NV: torch.Tensor, alpha: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """KL(q || m) with m = (1 - alpha) p + alpha q; p teacher, q student: slopes stay bounded.

    Range [0, -ln alpha] nats, lower is closer. Source: DistiLLM, arXiv 2402.03898, section 3.1
    (alpha 0.1 there).

    Args:
        alpha: weight of the student in m, strictly between 0 and 1 (else SettingsError).

    Returns:
        value_N: sum over V of q (log q - log m).
        slope_NV: q (g - sum of q g), where g = log(q / m) - alpha q / m = d value / d q - 1.
    """
    check_share("skew_reverse_kl", "alpha", alpha, "reverse_kl", "constant")
    p_NV, q_NV = log_p_NV.exp(), log_q_NV.exp()
    m_NV = torch.add(p_NV * (1.0 - alpha), q_NV, alpha=alpha)
    m_NV = m_NV.clamp_min(torch.finfo(m_NV.dtype).tiny)  # p = q = 0 adds nothing
    gap_NV = log_q_NV - m_NV.log()
    value_N = (q_NV * gap_NV).sum(1)
    g_NV = torch.sub(gap_NV, q_NV / m_NV, alpha=alpha)
    middle_N = (q_NV * g_NV).sum(1)
    return value_N, (g_NV - middle_N[:, None]).mul_(q_NV)
