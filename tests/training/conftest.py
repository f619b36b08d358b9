"""Tiny students, teachers and trainers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROWS = {
    "input_ids": [
        [5, 9, 30, 41, 52, 63, 7],
        [8, 77, 88, 99],
        [1, 60, 61, 62, 63, 64],
        [70, 71, 72, 73, 74],
        [5, 9, 30, 33, 34, 35, 36, 7],
        [8, 40, 41, 42],
    ],
    "labels": [
        [-100, -100, -100, 41, 52, 63, 7],
        [-100, 77, 88, 99],
        [-100, -100, 61, -100, -100, 64],
        [-100, -100, 72, 73, 74],
        [-100, -100, -100, 33, 34, 35, 36, 7],
        [-100, -100, 41, 42],
    ],
}
PREDICTION: dict[str, Any] = {"name": "forward_kl", "weight": 1.0, "temperature": 1.0}
ATTENTION: dict[str, Any] = {"name": "attention", "weight": 1.0, "layers": "one_to_one"}


@pytest.fixture
def load(tiny_model: Callable[..., Path]) -> Callable[..., Any]:
    """`load(name, **options of save_model)`: a tiny model in fp32 on the CPU."""

    def make(name: str, **options: Any) -> Any:
        import torch

        from preceptor.models.load import load_causal_lm, open_card

        card = open_card(str(tiny_model(name, **options)))
        return load_causal_lm(card, torch.float32, torch.device("cpu"))

    return make


@pytest.fixture
def make_trainer(load: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """`make_trainer(losses, mix=..., ...)`: a DistillTrainer on six rows, two tiny Llamas."""

    def make(
        losses: list[dict[str, Any]],
        mix: float = 1.0,
        mean: Any = "tokens",
        student: Any = None,
        teacher: Any = "llama",
        rows: dict[str, list[Any]] | None = None,
        more: dict[str, Any] | None = None,
        **arguments: Any,
    ) -> Any:
        import datasets
        from transformers import AutoTokenizer
        from trl.trainer.sft_config import SFTConfig

        from preceptor.teachers.in_process import InProcessTeacher
        from preceptor.training.objective import build_objective
        from preceptor.training.trainer import DistillTrainer

        student = student if student is not None else load("student", seed=5)
        if teacher == "llama":
            teacher = InProcessTeacher(load("teacher", seed=6))
        defaults: dict[str, Any] = {
            "output_dir": str(tmp_path / "out"),
            "per_device_train_batch_size": 3,
            "max_length": None,
            "report_to": "none",
            "use_cpu": True,
            "bf16": False,
            "activation_checkpointing": False,
            "disable_tqdm": True,
            "logging_steps": 1,
            "save_strategy": "no",
            "learning_rate": 1e-2,
            "dataloader_pin_memory": False,
            "shuffle_dataset": False,
        }
        return DistillTrainer(
            student,
            objective=build_objective(mix, losses, mean),
            teacher=teacher,
            args=SFTConfig(**(defaults | arguments)),
            train_dataset=datasets.Dataset.from_dict(rows or ROWS),
            processing_class=AutoTokenizer.from_pretrained(student.name_or_path),
            **(more or {}),
        )

    return make
