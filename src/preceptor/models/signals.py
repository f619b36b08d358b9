"""What a teacher is asked about a batch, and what it gives: the contract of training teachers.

Shapes: B samples (rows of the batch), T tokens, N scored positions of the batch, H query heads,
G key heads (H a multiple of G), C head width, D hidden width, L hidden layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

SIGNALS = ("logits", "attention", "hidden")  # what a loss may need and a teacher may give


@dataclass(frozen=True)
class LayerAttention:
    """What one layer's attention map is made of: softmax(softcap(query key^T * scaling)).

    Attributes:
        query_BHTC: queries after rotary embedding.
        key_BGTC: keys after rotary embedding, not repeated for grouped queries.
        scaling: factor of the products.
        window: a query sees its own position and the `window` - 1 before it; None sees all.
        softcap: logits become softcap * tanh(logits / softcap); None caps nothing (Gemma 2).
    """

    query_BHTC: torch.Tensor
    key_BGTC: torch.Tensor
    scaling: float
    window: int | None = None
    softcap: float | None = None


@dataclass(frozen=True)
class Batch:
    """A batch as teachers see it.

    Attributes:
        inputs: arguments of a model's forward (`input_ids` and so on), labels not among them.
        rows_N: scored positions b * T + t, rising; the logits there predict a response token.
        segments_BT: number of the document a token belongs to, -1 for padding; a token attends
            within its document only.
        samples_B: number of each sample in the data set, for teachers that stored their signals.
        route_B: number of the teacher of each sample, for routed teachers.
    """

    inputs: Mapping[str, Any]
    rows_N: torch.Tensor
    segments_BT: torch.Tensor
    samples_B: torch.Tensor | None = None
    route_B: torch.Tensor | None = None


class TeacherRows(Protocol):
    """Next-token distributions of a teacher at some of the scored positions.

    `index_K` says which of the N scored positions these are (positions in 0 .. N-1), or is None
    for all of them in order. `preceptor.kernels.linear_divergence` has the kinds.
    """

    @property
    def index_K(self) -> torch.Tensor | None: ...


@dataclass(frozen=True)
class TeacherSignals:
    """What a teacher gives for a batch; what was not asked for is empty.

    Attributes:
        logits: parts that together cover every scored position once.
        attention: layer number -> attention.
        hidden: layer number -> hidden states of shape (N, D) at the scored positions; 0 is the
            embedding, L the last layer's output after the final norm.
    """

    logits: Sequence[TeacherRows] = ()
    attention: Mapping[int, LayerAttention] = field(default_factory=dict)
    hidden: Mapping[int, torch.Tensor] = field(default_factory=dict)


class SignalTeacher(Protocol):
    """A teacher during training.

    Attributes:
        gives: the signals it can give, of `SIGNALS`.
        fingerprint: of the weights or the store behind it.
    """

    @property
    def gives(self) -> frozenset[str]: ...

    @property
    def fingerprint(self) -> str: ...

    def signals(self, batch: Batch, needs: frozenset[str]) -> TeacherSignals:
        """What `needs` names, for this batch, without gradients."""
        ...
