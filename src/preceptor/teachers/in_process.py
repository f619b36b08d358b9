"""A teacher that runs beside the student: one forward pass of its body gives every signal.

Logits are never formed here. The teacher hands out its last hidden states at the scored positions
and its head; a kernel makes distributions of them tile by tile.

Shapes: N scored positions of a batch, D hidden width, L hidden layers, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch

from preceptor.core.errors import ModelError
from preceptor.kernels.teacher_rows import DenseRows
from preceptor.models.capture import capture_attention
from preceptor.models.head import Head, check_head, read_head
from preceptor.models.load import Card, load_causal_lm
from preceptor.models.signals import SIGNALS, Batch, TeacherSignals


class InProcessTeacher:
    """A causal language model as a teacher of logits, attention and hidden states.

    Passes run under `no_grad` and not under `inference_mode`: tensors of the latter cannot be saved
    for the backward pass of the student's losses. They run in the teacher's own dtype, whatever
    autocast the student trains under.

    Args:
        model: any `transformers` causal language model; it is set to eval mode.
        name: for error texts.
        offload: keep the weights on the CPU and bring them to the batch's device for each pass.
            The head's copy stays there for as long as the signals that refer to it.
        attention_layers: layers whose attention is given, from 0; all if None.
        hidden_layers: layers whose hidden states are given (0 the embedding, L the last); all if
            None.
        fingerprint: of the weights; made from all their bytes if empty (give the card's: that
            takes a while for a large model).

    Attributes:
        vocabulary: number of token ids that it gives logits for.
        precision: dtype of its weights.
        config: the model's.
        per_sample: False: rows of a batch need no sample numbers and may be packed.

    Raises:
        ModelError: the head is of a kind that is not known, or quantised weights are to be
            offloaded.
    """

    gives: frozenset[str] = frozenset(SIGNALS)
    per_sample = False

    def __init__(
        self,
        model: Any,
        name: str = "",
        *,
        offload: bool = False,
        attention_layers: Collection[int] | None = None,
        hidden_layers: Collection[int] | None = None,
        fingerprint: str = "",
    ) -> None:
        self.model, self.name = model.eval(), name or str(model.name_or_path)
        self.attention_layers, self.hidden_layers = attention_layers, hidden_layers
        self.config = model.config
        head = read_head(model, self.name)
        check_head(model, head, self.name)
        self.vocabulary, self.precision = int(head.weight_VD.shape[0]), str(model.dtype)
        self.fingerprint = fingerprint or weights_fingerprint(model)
        self._home = _take_home(model, self.name) if offload else None

    @torch.no_grad()
    def signals(self, batch: Batch, needs: frozenset[str]) -> TeacherSignals:
        """What `needs` names, from one forward pass.

        Raises:
            ModelError: an attention that cannot be captured, or a layer that is not there.
        """
        if not needs:
            return TeacherSignals()
        rows_N = batch.rows_N
        kind = rows_N.device.type
        with self._on(rows_N.device), torch.autocast(kind, enabled=False):
            capture = (
                capture_attention(self.model, self.attention_layers)
                if "attention" in needs
                else nullcontext({})
            )
            with capture as attention:
                out = self.model.base_model(
                    **batch.inputs, use_cache=False, output_hidden_states="hidden" in needs
                )
            last_ND = out.last_hidden_state.flatten(0, 1)[rows_N]
            hidden = self._hidden(out, rows_N, last_ND) if "hidden" in needs else {}
            logits = [DenseRows(last_ND, self._head())] if "logits" in needs else []
        return TeacherSignals(logits, dict(attention), hidden)

    def _hidden(
        self, out: Any, rows_N: torch.Tensor, last_ND: torch.Tensor
    ) -> Mapping[int, torch.Tensor]:
        depth = len(out.hidden_states) - 1
        wanted = range(depth + 1) if self.hidden_layers is None else self.hidden_layers
        unknown = sorted(set(wanted) - set(range(depth + 1)))
        if unknown:
            raise ModelError(
                "hidden states of layers that the teacher does not have",
                where=self.name,
                found=f"layers {unknown}",
                next_step=f"name layers from 0 (the embedding) to {depth}",
            )
        return {
            layer: last_ND if layer == depth else out.hidden_states[layer].flatten(0, 1)[rows_N]
            for layer in wanted
        }

    def _head(self) -> Head:
        """The head where the weights are now; tensors of its own, without gradients."""
        head = read_head(self.model, self.name)
        bias_V = None if head.bias_V is None else head.bias_V.detach()
        return Head(head.weight_VD.detach(), bias_V, head.scale, head.softcap)

    @contextmanager
    def _on(self, device: torch.device) -> Iterator[None]:
        """The weights on `device` while a pass runs; only the way there is a copy."""
        if self._home is None:
            yield
            return
        try:
            for tensor, at_home in self._home:
                tensor.data = at_home.to(device, non_blocking=True)
            yield
        finally:
            for tensor, at_home in self._home:
                tensor.data = at_home


def open_in_process(
    card: Card,
    dtype: torch.dtype,
    device: torch.device,
    *,
    trust_remote_code: bool = False,
    load_in: Literal["4bit", "8bit"] | None = None,
    offload: bool = False,
    attention_layers: Collection[int] | None = None,
    hidden_layers: Collection[int] | None = None,
) -> InProcessTeacher:
    """Load a teacher from its card (raises ModelError).

    Args:
        device: where it runs; with `offload` it is loaded on the CPU and follows the batch.
        load_in: quantise with bitsandbytes; the fingerprint then says so.
    """
    place = torch.device("cpu") if offload else device
    model = load_causal_lm(card, dtype, place, trust_remote_code, load_in)
    return InProcessTeacher(
        model,
        card.reference,
        offload=offload,
        attention_layers=attention_layers,
        hidden_layers=hidden_layers,
        fingerprint=f"{card.fingerprint} in {load_in}" if load_in else card.fingerprint,
    )


def weights_fingerprint(model: Any) -> str:
    """sha256 over the names, dtypes, shapes and bytes of a model's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().data)
    return f"weights-sha256:{digest.hexdigest()}"


def _take_home(model: Any, name: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(parameter or buffer, its data on the CPU); pinned where a GPU will fetch them."""
    if getattr(model, "is_quantized", False):
        raise ModelError(
            "quantised weights cannot be kept on the CPU between uses",
            where=name,
            found="load_in and offload",
            next_step="drop one of them",
        )
    pairs = []
    for tensor in [*model.parameters(), *model.buffers()]:
        at_home = tensor.data.cpu()
        at_home = at_home.pin_memory() if torch.cuda.is_available() else at_home
        tensor.data = at_home
        pairs.append((tensor, at_home))
    return pairs
