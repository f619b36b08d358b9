"""Learned maps from the student's hidden width to the teacher's.

They belong to the trainer, not to the student: its checkpoints stay plain.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from preceptor.training.objective import Term

FILE = "projections.safetensors"


class Projections(nn.Module):
    """One bias-free linear map for each pair of layers; nothing where no loss needs one.

    Args:
        term: the loss of hidden states, with its pairs.
        config: of the student.
        teacher: whose `config` gives the width.
        seed: of the initial weights.
    """

    def __init__(self, term: Term | None, config: Any, teacher: Any, seed: int) -> None:
        super().__init__()
        self.maps = nn.ModuleDict()
        if term is None or not term.pairs:
            return
        own = config.get_text_config().hidden_size
        other = teacher.config.get_text_config().hidden_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for layer, _ in term.pairs:
                self.maps[str(layer)] = nn.Linear(own, other, bias=False)
        for weight in self.parameters():
            weight.register_hook(_mean_over_processes)

    def forward(self, hidden: Mapping[Any, torch.Tensor]) -> dict[int, torch.Tensor]:
        """Layer number -> projected states (N, teacher's width), of the layers that are paired."""
        return {int(name): layer(hidden[int(name)].float()) for name, layer in self.maps.items()}

    def save(self, folder: Path) -> None:
        """Write the maps beside a checkpoint."""
        if len(self.maps):
            folder.mkdir(parents=True, exist_ok=True)
            save_file({k: v.contiguous() for k, v in self.state_dict().items()}, folder / FILE)

    def load(self, folder: Path) -> None:
        """Read them back."""
        if len(self.maps):
            self.load_state_dict(load_file(folder / FILE))


def _mean_over_processes(gradient: torch.Tensor) -> torch.Tensor:
    """The maps stand outside of DDP and FSDP, so their gradients are averaged here."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gradient = gradient.contiguous()
        torch.distributed.all_reduce(gradient)
        gradient = gradient / torch.distributed.get_world_size()
    return gradient
