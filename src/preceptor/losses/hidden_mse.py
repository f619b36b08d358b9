"""Squared distance of hidden states."""

from __future__ import annotations

import torch

from preceptor.core.loss import loss


@loss(needs=("hidden",))
def hidden_mse(student_ND: torch.Tensor, teacher_ND: torch.Tensor) -> torch.Tensor:
    """Mean over the width of (student - teacher)^2, per position; >= 0, lower is closer.

    In the squared unit of the hidden states. The student's states have been projected to the
    teacher's width. Source: FitNets, arXiv 1412.6550, equation 3 (hint loss, mean instead of sum).

    Returns:
        value_N: fp32.
    """
    return (student_ND.float() - teacher_ND.float()).square().mean(1)
