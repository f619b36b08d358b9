"""Generalised Jensen-Shannon divergence. Shapes: N positions, V vocabulary."""

from __future__ import annotations

import torch

from preceptor.core.loss import check_share, loss


@loss(needs=("logits",), parameters=("beta",))
def jsd(
    log_p_NV: torch.Tensor, log_q_NV: torch.Tensor, beta: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """beta KL(p || m) + (1 - beta) KL(q || m) with m = beta p + (1 - beta) q; p teacher, q student.

    Range [0, entropy of beta] nats (ln 2 at beta 0.5); lower is closer. Divided by beta it tends to
    KL(p || q) as beta -> 0, and divided by 1 - beta to KL(q || p) as beta -> 1. Source: GKD, arXiv
    2306.13649, generalised JSD(beta).

    Args:
        beta: weight of the teacher in m, strictly between 0 and 1 (else SettingsError).

    Returns:
        value_N: as above.
        slope_NV: q (g - sum of q g), where g = (1 - beta) log(q / m).
    """
    check_share("jsd", "beta", beta, "0 (use forward_kl)", "0 (use reverse_kl)")
    p_NV, q_NV = log_p_NV.exp(), log_q_NV.exp()
    m_NV = torch.add(p_NV * beta, q_NV, alpha=1.0 - beta)
    log_m_NV = m_NV.clamp_min(torch.finfo(m_NV.dtype).tiny).log()  # p = q = 0 adds nothing
    gap_NV = log_q_NV - log_m_NV
    of_student_N = (q_NV * gap_NV).sum(1)
    of_teacher_N = (p_NV * (log_p_NV - log_m_NV)).sum(1)
    slope_NV = (gap_NV - of_student_N[:, None]).mul_(q_NV).mul_(1.0 - beta)
    return beta * of_teacher_N + (1.0 - beta) * of_student_N, slope_NV
