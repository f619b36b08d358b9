"""The paper's pair of losses, from its formulas, against the trainer on real tiny models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def formulas(student: Any, teacher: Any, batch: dict[str, Any]) -> tuple[Any, Any, Any]:
    """(L_next_token, L_pred, L_attn) of arXiv 2406.19112, written out: full logits, full maps.

    The logits at t, and the attention row of t, belong to the label at t + 1.
    """
    import torch

    ids_BT, labels_BT, mask_BT = batch["input_ids"], batch["labels"], batch["attention_mask"]
    outs = []
    for model in (student, teacher):
        model.set_attn_implementation("eager")
        outs.append(model(input_ids=ids_BT, attention_mask=mask_BT, output_attentions=True))
    own, other = outs
    next_token, pred, attn, count = 0.0, 0.0, 0.0, 0
    for b in range(ids_BT.shape[0]):
        for t in range(ids_BT.shape[1] - 1):
            label = int(labels_BT[b, t + 1])
            if label == -100:
                continue
            count += 1
            log_q = torch.log_softmax(own.logits[b, t].double(), 0)
            log_p = torch.log_softmax(other.logits[b, t].double(), 0)
            next_token = next_token - log_q[label]
            pred = pred + (log_p.exp() * (log_p - log_q)).sum()
            for mine, theirs in zip(own.attentions, other.attentions, strict=True):
                a, p = mine[b, :, t, : t + 1].double(), theirs[b, :, t, : t + 1].double()
                seen = (mask_BT[b, : t + 1] == 1)[None].expand_as(a)
                a, p = a[seen].view(a.shape[0], -1), p[seen].view(p.shape[0], -1)
                attn = attn + (p * (p.log() - a.log())).sum()
    heads, layers = own.attentions[0].shape[1], len(own.attentions)
    return next_token / count, pred / count, attn / (count * heads * layers)


@pytest.mark.parametrize("mix", [0.0, 0.4, 1.0])
def test_the_papers_pair_on_a_mixtral_teacher_and_a_mistral_student(
    tiny_model: Callable[..., Path], tmp_path: Path, mix: float
) -> None:
    import datasets
    import torch
    from transformers import AutoTokenizer
    from trl.trainer.sft_config import SFTConfig

    from preceptor.models.load import load_causal_lm, open_card
    from preceptor.teachers.in_process import InProcessTeacher
    from preceptor.training.objective import build_objective
    from preceptor.training.trainer import DistillTrainer

    student_at = tiny_model("mistral-student", architecture="mistral", seed=3)
    teacher_at = tiny_model(
        "mixtral-teacher",
        architecture="mixtral",
        seed=4,
        num_local_experts=4,
        num_experts_per_tok=2,
    )
    cpu, full = torch.device("cpu"), torch.float32
    student = load_causal_lm(open_card(str(student_at)), full, cpu)
    teacher = load_causal_lm(open_card(str(teacher_at)), full, cpu)
    rows = {
        "input_ids": [[5, 9, 30, 41, 52, 63, 7], [8, 77, 88, 99], [1, 60, 61, 62, 63, 64]],
        "labels": [
            [-100, -100, -100, 41, 52, 63, 7],
            [-100, 77, 88, 99],
            [-100, -100, 61, -100, -100, 64],
        ],
    }
    losses: list[dict[str, Any]] = [
        {"name": "forward_kl", "weight": 1.0, "temperature": 1.0},
        {"name": "attention", "weight": 1.0, "layers": "one_to_one"},
    ]
    trainer = DistillTrainer(
        student,
        objective=build_objective(mix, losses, "tokens"),
        teacher=InProcessTeacher(teacher),
        args=SFTConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=3,
            max_length=None,
            report_to="none",
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            shuffle_dataset=False,
        ),
        train_dataset=datasets.Dataset.from_dict(rows),
        processing_class=AutoTokenizer.from_pretrained(student_at),
    )
    data: Any = trainer.train_dataset
    batch = trainer.data_collator([data[place] for place in range(3)])
    student.train()
    loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    found = {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}
    student.zero_grad()
    next_token, pred, attn = formulas(student, teacher, batch)
    wanted = (1 - mix) * next_token + mix * (pred + attn)
    wanted.backward()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    for name, parameter in student.named_parameters():
        if parameter.grad is None:
            assert name not in found or not found[name].any()
            continue
        size = parameter.grad.abs().max().item()
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-5 * size + 1e-9)
