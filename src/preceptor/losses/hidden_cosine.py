"""Cosine distance of hidden states."""

from __future__ import annotations

import torch

from preceptor.core.loss import loss


@loss(needs=("hidden",))
def hidden_cosine(student_ND: torch.Tensor, teacher_ND: torch.Tensor) -> torch.Tensor:
    """1 - cosine of student and teacher states, per position; in [0, 2], lower is closer.

    The student's states have been projected to the teacher's width. Source: DistilBERT,
    arXiv 1910.01108, section 3 (cosine embedding loss).

    Returns:
        value_N: fp32.
    """
    return 1.0 - torch.nn.functional.cosine_similarity(student_ND.float(), teacher_ND.float())
