"""Activations inside a language model: the last layer's MLP, as it is about to act.

Shapes: B rows, T tokens, F width of the MLP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from preceptor.core.errors import ModelError

# what an architecture calls the product that widens: (name, whether it holds a gate before it)
_UP = (
    ("up_proj", False),  # Llama, Mistral, Qwen, Gemma
    ("gate_up_proj", True),  # Phi-3, GLM
    ("c_fc", False),  # GPT-2
    ("dense_h_to_4h", False),  # GPT-NeoX, Falcon
    ("fc1", False),  # Phi-2, OPT
    ("fc_in", False),  # GPT-J
)


class Activations:
    """Takes the output of the last layer's up-projection whenever the model runs.

    Raises:
        ModelError: the last layer has no such product, or several (a mixture of experts).
    """

    def __init__(self, model: Any, name: str = "") -> None:
        module, self._gated = _last_up_projection(model, name)
        self._taken: torch.Tensor | None = None
        module.register_forward_hook(self._keep)

    def _keep(self, module: Any, inputs: Any, output: torch.Tensor) -> None:
        self._taken = output.chunk(2, dim=-1)[1] if self._gated else output

    def take(self) -> torch.Tensor:
        """activation_BTF of the last forward; let go of here."""
        assert self._taken is not None, "the model did not run"
        taken, self._taken = self._taken, None
        return taken


def _last_up_projection(model: Any, name: str) -> tuple[Any, bool]:
    layers = [m for m in model.base_model.modules() if isinstance(m, torch.nn.ModuleList)]
    for layer in [part[-1] for part in layers if len(part)][:1]:
        modules = dict(layer.named_modules())
        for known, gated in _UP:
            found = [m for path, m in modules.items() if path.rpartition(".")[2] == known]
            if len(found) == 1 and isinstance(found[0], torch.nn.Module):
                return found[0], gated
    raise ModelError(
        "the activations of the last MLP cannot be taken",
        where=name or type(model).__name__,
        found="no single up-projection in the last layer (a mixture of experts has several)",
        next_step="leave out the criterion that compares activations (scas)",
    )


def mean_cosines(activation_BTF: torch.Tensor, responses: Sequence[range]) -> dict[str, np.ndarray]:
    """Mean cosines between the activations of tokens: float64 of shape (B,), in [-1, 1].

    The mean over all pairs of two sets of tokens is the inner product of the means of their
    unit vectors, so no pair is formed.

    Args:
        responses: positions of each row that belong to its response; those before are its
            question.

    Returns:
        `similarity_answer` (pairs within the response, a token with itself included), and
        `similarity_question` (a response token and one of the question; 0 where it has none).
    """
    unit_BTF = torch.nn.functional.normalize(activation_BTF.float(), dim=-1)
    zero_F = unit_BTF.new_zeros(unit_BTF.shape[-1])
    pairs = []
    for unit_TF, own in zip(unit_BTF, responses, strict=True):
        answer_F = unit_TF[own.start : own.stop].mean(0)
        question_F = unit_TF[: own.start].mean(0) if own.start else zero_F
        pairs.append(torch.stack([answer_F @ answer_F, answer_F @ question_F]))
    answer_B, question_B = torch.stack(pairs).double().cpu().numpy().T
    return {"similarity_answer": answer_B, "similarity_question": question_B}
