"""The output layer of a language model, as kernels read it.

Shapes: N positions, T tokens, D hidden width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from preceptor.core.errors import ModelError

_FULL_TOLERANCE = 1e-3  # of log p, as a share of the largest logit, between two ways to a head
_HALF_TOLERANCE = 2e-2  # logits in half precision are rounded to about that


@dataclass(frozen=True)
class Head:
    """A language-model head: logits = softcap * tanh(scale * (h W^T + b) / softcap).

    `softcap` 0 means none (Gemma 2 caps; Cohere and Granite scale).
    """

    weight_VD: torch.Tensor
    bias_V: torch.Tensor | None = None
    scale: float = 1.0
    softcap: float = 0.0


def read_head(model: Any, name: str = "") -> Head:
    """The head of a causal language model (raises ModelError where there is none)."""
    layer = model.get_output_embeddings()
    if layer is None:
        raise ModelError(
            "the model has no language-model head",
            where=name or type(model).__name__,
            next_step="name a causal language model",
        )
    config = model.config.get_text_config()
    scale = float(getattr(config, "logit_scale", None) or 1.0)  # Cohere
    scale /= float(getattr(config, "logits_scaling", None) or 1.0)  # Granite
    softcap = float(getattr(config, "final_logit_softcapping", None) or 0.0)  # Gemma 2
    return Head(layer.weight, getattr(layer, "bias", None), scale, softcap)


@torch.no_grad()
def check_head(model: Any, head: Head, name: str = "") -> None:
    """Compare head(hidden) with the model's own logits on a few tokens: a head is never guessed.

    The largest difference of log p over the whole vocabulary may be `_FULL_TOLERANCE` (a model in
    fp32) or `_HALF_TOLERANCE` times the largest logit: rounding grows with the logits.

    Raises:
        ModelError: hidden states times the head do not give the model's logits.
    """
    n_ids = model.get_input_embeddings().weight.shape[0]
    ids_BT = torch.arange(2, 10, device=head.weight_VD.device)[None] % n_ids
    wanted_TV = model(input_ids=ids_BT, use_cache=False).logits[0].float()
    hidden_TD = model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state[0]
    logits_TV = plain_logits(hidden_TD, head)
    if logits_TV.shape != wanted_TV.shape:
        found = f"{logits_TV.shape[1]} logits, the model gives {wanted_TV.shape[1]}"
    else:
        error = (logits_TV.log_softmax(1) - wanted_TV.log_softmax(1)).abs().max().item()
        tolerance = _FULL_TOLERANCE if model.dtype == torch.float32 else _HALF_TOLERANCE
        if error <= tolerance * max(1.0, logits_TV.abs().max().item()):  # False for NaN
            return
        found = f"log p differs by up to {error:.3g} nats"
    raise ModelError(
        "the model's output layer is of a kind that is not known",
        where=name or type(model).__name__,
        found=found,
        next_step="please report the architecture; scale and soft-capping are known",
    )


def plain_logits(hidden_ND: torch.Tensor, head: Head) -> torch.Tensor:
    """All logits of some positions at once, fp32: for a few of them (kernels work in tiles)."""
    logits_NV = hidden_ND @ head.weight_VD.T
    if head.bias_V is not None:
        logits_NV = logits_NV + head.bias_V
    logits_NV = (logits_NV * head.scale).float()
    if head.softcap:
        logits_NV = head.softcap * torch.tanh(logits_NV / head.softcap)
    return logits_NV
