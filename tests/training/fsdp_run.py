"""One process of a two-process run (or the only one): trains a tiny student and writes its losses.

Called by `test_fsdp.py`, with RANK, WORLD_SIZE and so on in the environment.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any


def shard_on_cpu() -> None:
    """accelerate offers FSDP on accelerators only: tell it that these CPU processes shard, too."""
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType

    plain = AcceleratorState.__init__

    def patched(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        plain(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU and fsdp_plugin is not None:
            self.distributed_type = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = patched


def main(student: str, teacher: str, out: str, processes: int) -> None:
    import datasets
    import torch
    from trl.trainer.sft_config import SFTConfig

    from preceptor.models.load import load_causal_lm, open_card
    from preceptor.recipes.teaching.student import save_model
    from preceptor.teachers.in_process import InProcessTeacher
    from preceptor.training.objective import build_objective
    from preceptor.training.trainer import DistillTrainer

    warnings.simplefilter("ignore")
    cpu, full = torch.device("cpu"), torch.float32
    card = open_card(student)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, card.vocabulary, (16, 12), generator=generator).tolist()
    labels = [[-100] * 4 + row[4:] for row in ids]
    sharded: dict[str, Any] = {}
    if processes > 1:
        shard_on_cpu()
        layers = ["LlamaDecoderLayer"]
        sharded = {
            "fsdp": True,
            "fsdp_config": {
                "version": 2,
                "transformer_layer_cls_to_wrap": layers,
                "state_dict_type": "SHARDED_STATE_DICT",  # as accelerate has it
            },
        }
    losses: list[dict[str, Any]] = [
        {"name": "forward_kl", "weight": 1.0, "temperature": 1.0},
        {"name": "attention", "weight": 1.0, "layers": "one_to_one"},
    ]
    trainer = DistillTrainer(
        load_causal_lm(card, full, cpu),
        objective=build_objective(0.5, losses, "tokens"),
        teacher=InProcessTeacher(load_causal_lm(open_card(teacher), full, cpu)),
        gradient_norms=False,
        args=SFTConfig(
            output_dir=out,
            per_device_train_batch_size=4 // processes,
            max_steps=8,
            learning_rate=1e-2,
            logging_steps=1,
            max_length=None,
            report_to="none",
            use_cpu=True,
            bf16=False,
            save_strategy="no",
            disable_tqdm=True,
            activation_checkpointing=False,
            dataloader_pin_memory=False,
            **sharded,
        ),
        train_dataset=datasets.Dataset.from_dict({"input_ids": ids, "labels": labels}),
        processing_class=card.tokenizer,
    )
    trainer.train()
    if processes > 1:
        kinds = {type(p).__name__ for p in trainer.model.parameters()}
        assert kinds == {"DTensor"}, kinds
    save_model(trainer, card, Path(out, "model"))
    if trainer.is_world_process_zero():
        logged = [row for row in trainer.state.log_history if "grad_norm" in row]
        keep = ("loss", "grad_norm", "next_token", "divergence", "attention")
        rows = [{name: row[name] for name in keep} for row in logged]
        Path(out, "losses.json").write_text(json.dumps(rows))
