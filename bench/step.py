"""`step`: a whole distillation step, against what its parts cost.

Ours is forward and backward of `DistillTrainer` with both losses over all layers, teacher included.
The peer is TRL's SFT step (forward and backward, its own fused head) and one forward pass of the
teacher, with logits. Optimiser steps are the same in both and left out.
"""

from __future__ import annotations

import tempfile
import warnings
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bench.harness import Contender, Meter, race, row
from bench.workload import build_tokenizer

SHAPE = {"hidden": 1024, "layers": 4, "tokens": 512, "vocabulary": 32_000}
ROUNDS = 3  # steps in one timed block; one more warms up


def _model(seed: int) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=SHAPE["vocabulary"],
        hidden_size=SHAPE["hidden"],
        intermediate_size=2816,
        num_hidden_layers=SHAPE["layers"],
        num_attention_heads=16,
        num_key_value_heads=4,
        max_position_embeddings=SHAPE["tokens"],
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM._from_config(config, dtype=torch.float32)


def _examples(rows: int) -> Any:
    import datasets

    rng = np.random.default_rng(0)
    ids = rng.integers(3, SHAPE["vocabulary"], (rows, SHAPE["tokens"])).tolist()
    labels = [[-100] * (SHAPE["tokens"] // 4) + own[SHAPE["tokens"] // 4 :] for own in ids]
    return datasets.Dataset.from_dict({"input_ids": ids, "labels": labels})


def _trainer(kind: str, folder: str) -> Any:
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from preceptor.teachers.in_process import InProcessTeacher
    from preceptor.training.objective import build_objective
    from preceptor.training.trainer import DistillTrainer

    common: dict[str, Any] = {
        "args": SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=1,
            max_length=None,
            report_to="none",
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            disable_tqdm=True,
        ),
        "train_dataset": _examples(2),
        "processing_class": build_tokenizer("tiny"),
    }
    if kind == "sft":
        return SFTTrainer(_model(0), **common)
    losses = [
        {"name": "forward_kl", "weight": 1.0, "temperature": 1.0},
        {"name": "attention", "weight": 1.0, "layers": "one_to_one"},
    ]
    teacher = InProcessTeacher(_model(1), fingerprint="random")
    objective = build_objective(0.5, losses, "tokens")
    return DistillTrainer(
        _model(0), objective=objective, teacher=teacher, gradient_norms=False, **common
    )


def contender(meter: Meter, kind: str) -> np.ndarray:
    """`kd`: our step; `sft`: TRL's step and a teacher forward; `body`: the same without logits."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer("kd" if kind == "kd" else "sft", folder)
        teacher = None if kind == "kd" else _model(1).eval()
        batch = trainer.data_collator([trainer.train_dataset[0]])

        def step() -> float:
            if teacher is not None:
                with torch.no_grad():
                    inputs = {k: v for k, v in batch.items() if k != "labels"}
                    (teacher if kind == "sft" else teacher.base_model)(**inputs, use_cache=False)
            loss = trainer.compute_loss(trainer.model, dict(batch))
            loss.backward()
            return float(loss)

        trainer.model.train()
        step()
        with meter:
            for _ in range(ROUNDS):
                step()
    return np.empty(0)


def run(repeats: int = 3) -> list[dict[str, Any]]:
    """Rows of the `step` benchmark."""
    contenders = [
        Contender("preceptor", "bench.step:contender", {"kind": "kd"}),
        Contender("TRL SFT step + teacher forward", "bench.step:contender", {"kind": "sft"}),
        Contender("TRL SFT step + teacher's body", "bench.step:contender", {"kind": "body"}),
    ]
    results = race(contenders, {}, repeats)
    case = "hidden 1024, 4 layers, T 512, V 32k"
    mine = results["preceptor"]
    return [row(case, peer.name, mine, results[peer.name]) for peer in contenders[1:]]
