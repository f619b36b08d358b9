"""The objective: a weighted sum of losses, and the union of the signals they need.

    (1 - mix) * next_token + mix * (w_d T^2 divergence + w_a attention + w_h hidden)

`mix` is the paper's lambda (arXiv 2406.19112; with a divergence alone it is Domain Alignment from
Expert). Nothing has a silent default: a loss that is not listed has no part in the objective.

Shapes: B samples, T tokens, N scored positions, D hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch

from preceptor.core.errors import SettingsError
from preceptor.core.loss import Loss, as_loss
from preceptor.core.plugs import plug
from preceptor.kernels.linear_divergence import linear_divergence
from preceptor.losses import LOSSES
from preceptor.models.head import Head
from preceptor.models.pairing import check_attention_pair, layer_pairs
from preceptor.models.signals import Batch, LayerAttention, TeacherSignals

Pairs = tuple[tuple[int, int], ...]
Layers = str | Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Term:
    """One loss of the sum: `function` with its parameters bound; `pairs` of layers once known.

    A `weight` of 0 watches the loss: its mean is logged, and nothing is learned from it.
    """

    name: str
    function: Callable[..., Any]
    weight: float
    temperature: float = 1.0
    from_samples: bool = False
    layers: Layers = ()
    pairs: Pairs = ()


@dataclass(frozen=True)
class Student:
    """What the student gives for a batch, with gradients.

    Attributes:
        hidden_ND: last hidden states at the scored positions.
        targets_N: the tokens that follow.
        attention: layer number -> attention.
        hidden: layer number -> states at the scored positions, projected to the teacher's width.
    """

    hidden_ND: torch.Tensor
    head: Head
    targets_N: torch.Tensor
    attention: Mapping[int, LayerAttention] = field(default_factory=dict)
    hidden: Mapping[int, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Parts:
    """The weighted losses of a batch (`terms`, with gradients) and their plain means (`means`).

    `means` are over the scored positions (of all tokens, or of all samples alike, as the objective
    weighs them), without the losses' weights: next_token and divergence in nats a token (T^2 left
    out), attention in nats a map row, hidden in its own unit.
    """

    terms: Mapping[str, torch.Tensor]
    means: Mapping[str, torch.Tensor]

    @property
    def total(self) -> torch.Tensor:
        return torch.stack(list(self.terms.values())).sum()


@dataclass(frozen=True)
class Objective:
    """The weighted sum. Make one with `build_objective`.

    Attributes:
        mix: lambda in [0, 1]: share of the teacher's losses; the rest is next-token loss.
        mean: `tokens` weighs all scored tokens alike; `samples` all samples (documents).
    """

    mix: float
    divergence: Term | None = None
    attention: Term | None = None
    hidden: Term | None = None
    mean: Literal["tokens", "samples"] = "tokens"

    @property
    def needs(self) -> frozenset[str]:
        """Signals of the teacher that the objective needs: none where `mix` is 0."""
        if self.mix == 0:
            return frozenset()
        terms = {"logits": self.divergence, "attention": self.attention, "hidden": self.hidden}
        return frozenset(name for name, term in terms.items() if term is not None)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the losses, as metrics are called."""
        given = ("divergence", "attention", "hidden")
        return ("next_token", *(n for n in given if getattr(self, n) is not None and self.mix > 0))

    def paired(self, student_config: Any, teacher_config: Any) -> Objective:
        """The objective with its layers paired (raises ModelError for what cannot be compared)."""
        attention, hidden = self.attention, self.hidden
        if attention is not None and self.mix > 0:
            pairs = check_attention_pair(student_config, teacher_config, attention.layers)
            attention = replace(attention, pairs=tuple(pairs))
        if hidden is not None and self.mix > 0:
            depths = [
                c.get_text_config().num_hidden_layers for c in (student_config, teacher_config)
            ]
            pairs = layer_pairs(hidden.layers, *depths)
            hidden = replace(hidden, pairs=tuple((own + 1, other + 1) for own, other in pairs))
        return replace(self, attention=attention, hidden=hidden)

    def __call__(
        self,
        student: Student,
        teacher: TeacherSignals,
        batch: Batch,
        weights_N: torch.Tensor,
        split: bool = False,
    ) -> Parts:
        """The losses of a batch: every position's loss times `weights_N`, summed.

        Args:
            split: form next-token and divergence terms apart (to look at their gradients); one
                pass otherwise, under the name `prediction`.
        """
        terms, means = self._prediction(student, teacher, weights_N, split)
        whole = weights_N.sum().clamp_min(torch.finfo(weights_N.dtype).tiny)
        if self.attention is not None and self.mix > 0:
            watched = self.attention.weight == 0
            with torch.no_grad() if watched else nullcontext():
                value = self.attention.function(
                    student.attention,
                    teacher.attention,
                    self.attention.pairs,
                    batch.segments_BT,
                    batch.rows_N,
                    weights_N,
                )
            if not watched:
                terms["attention"] = self.mix * self.attention.weight * value
            means["attention"] = value.detach() / whole
        if self.hidden is not None and self.mix > 0:
            parts = [
                (self.hidden.function(student.hidden[own], teacher.hidden[other]) * weights_N).sum()
                for own, other in self.hidden.pairs
            ]
            value = torch.stack(parts).mean()
            terms["hidden"] = self.mix * self.hidden.weight * value
            means["hidden"] = value.detach() / whole
        return Parts(terms, means)

    def _prediction(
        self, student: Student, teacher: TeacherSignals, weights_N: torch.Tensor, split: bool
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        own = 1.0 - self.mix
        term = self.divergence if self.mix > 0 and len(weights_N) else None
        shares_N = weights_N / weights_N.sum().clamp_min(torch.finfo(weights_N.dtype).tiny)
        call = partial(
            linear_divergence, student.hidden_ND, student.head, student.targets_N, weights_N
        )
        if term is None:
            losses = call(next_token_weight=own, divergence_weight=0.0)
            mean = (losses.next_token_N * shares_N).sum()
            return {"next_token": losses.loss}, {"next_token": mean}
        call = partial(
            call,
            teacher=teacher.logits,
            divergence=term.function,
            temperature=term.temperature,
        )
        weight = self.mix * term.weight
        losses = call(next_token_weight=0.0 if split else own, divergence_weight=weight)
        terms = {"divergence" if split and weight > 0 else "prediction": losses.loss}
        if split and own > 0:
            terms["next_token"] = linear_divergence(
                student.hidden_ND,
                student.head,
                student.targets_N,
                weights_N,
                next_token_weight=own,
                divergence_weight=0.0,
            ).loss
        means = {
            "next_token": (losses.next_token_N * shares_N).sum(),
            "divergence": (losses.divergence_N * shares_N).sum(),
        }
        return terms, means


def build_objective(
    mix: float, losses: Sequence[Mapping[str, Any]], mean: Literal["tokens", "samples"]
) -> Objective:
    """An objective from plain values.

    Args:
        mix: lambda in [0, 1].
        losses: each with `name` (a name on the shelf or `module:function`) and `weight`;
            `temperature` for divergences, `layers` for attention and hidden states, and
            `parameters` that the loss names (`beta`, `alpha`).
        mean: `tokens` or `samples`.

    Raises:
        SettingsError: mix outside [0, 1], a weight that is not positive, two losses of one kind,
            a missing or unknown value.
    """
    if not 0 <= mix <= 1:
        raise SettingsError(
            "the mix of the losses is outside [0, 1]",
            where="mix",
            found=repr(mix),
            next_step="0 is next-token loss alone, 1 the teacher's losses alone",
        )
    if mix > 0 and not losses:
        raise SettingsError(
            "there is nothing to mix with",
            where="losses",
            found=f"mix {mix}, no losses",
            next_step="list losses of the teacher, or set mix to 0",
        )
    slots: dict[str, Term] = {}
    for entry in losses:
        slot, term = _term(entry)
        if slot in slots:
            raise SettingsError(
                "two losses of one kind",
                where="losses",
                found=f"{slots[slot].name!r} and {term.name!r}",
                next_step="keep one",
            )
        slots[slot] = term
    return Objective(mix=mix, mean=mean, **slots)


_SLOTS = {"logits": "divergence", "attention": "attention", "hidden": "hidden"}


def _term(entry: Mapping[str, Any]) -> tuple[str, Term]:
    name = str(entry["name"])
    loss: Loss = as_loss(name, plug("loss", LOSSES, name))
    where = f"losses, {name!r}"
    if len(loss.needs) != 1:
        raise SettingsError(
            "a loss reads one signal of the teacher",
            where=where,
            found=f"{sorted(loss.needs)}",
            next_step="name one in its decorator: `needs=(...,)`",
        )
    slot = _SLOTS[next(iter(loss.needs))]
    weight = entry.get("weight")
    if not isinstance(weight, int | float) or weight <= 0:
        raise SettingsError(
            "a loss needs a positive weight", where=where, found=repr(weight), next_step="set it"
        )
    parameters = dict(entry.get("parameters") or {})
    if set(parameters) != set(loss.parameters):
        raise SettingsError(
            "a loss has other parameters than it takes",
            where=where,
            found=f"given {sorted(parameters)}, takes {sorted(loss.parameters)}",
            next_step="set `parameters: {...}` to exactly those",
        )
    extra: dict[str, Any] = {"temperature": entry.get("temperature"), "layers": entry.get("layers")}
    wanted = "temperature" if slot == "divergence" else "layers"
    other = "layers" if slot == "divergence" else "temperature"
    if extra[wanted] is None or extra[other] is not None:
        raise SettingsError(
            f"this loss needs `{wanted}`" + (f" and no `{other}`" if extra[other] else ""),
            where=where,
            found=f"{wanted}: {extra[wanted]!r}, {other}: {extra[other]!r}",
            next_step=f"set `{wanted}` explicitly",
        )
    if slot == "divergence" and extra["temperature"] <= 0:
        raise SettingsError(
            "the temperature must be positive",
            where=where,
            found=repr(extra["temperature"]),
            next_step="1 leaves the distributions as they are; more softens them",
        )
    function = partial(loss.function, **parameters) if parameters else loss.function
    if slot == "divergence":
        heat = float(extra["temperature"])
        return slot, Term(name, function, weight, heat, from_samples=loss.from_samples is not None)
    return slot, Term(name, function, weight, layers=extra["layers"])
