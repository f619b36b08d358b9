"""Next-token distributions of a teacher, in the forms that teachers give them.

Shapes: K positions of one teacher, n of them in a tile, b in a block of a tile, J listed tokens,
D hidden width, V tokens compared: the first min(student's, teacher's) of the vocabulary.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from preceptor.core.errors import ModelError, SettingsError, nearest
from preceptor.kernels.head_products import Buffers, blocks, finish, naive_logits, project
from preceptor.models.head import Head

Divergence = Callable[..., tuple[torch.Tensor, torch.Tensor]]

FLOOR = math.log(torch.finfo(torch.float32).tiny)  # a mass below the smallest fp32 counts as that
_KINDS = ("probability", "geometric")


class Rows(ABC):
    """Distributions of one teacher at `n_positions` positions, over `n_tokens` tokens.

    `index_K` says which of the scored positions these are; None means all of them in order.
    """

    index_K: torch.Tensor | None

    @property
    @abstractmethod
    def n_positions(self) -> int: ...

    @property
    @abstractmethod
    def n_tokens(self) -> int: ...

    def check(self, divergence: Divergence, temperature: float) -> None:
        """Raise ModelError if the rows cannot be used so; most can."""
        del divergence, temperature

    def project(
        self, rows: slice, width: int, temperature: float, buffers: Buffers
    ) -> torch.Tensor | None:
        """The tile of products for these rows (n, width); None where nothing is multiplied."""
        del rows, width, temperature, buffers

    @abstractmethod
    def compare(
        self,
        rows: slice,
        tile_bV: Any,
        log_q_bV: torch.Tensor,
        temperature: float,
        divergence: Divergence,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """value_b and slope_bV of the divergence to the student's softened `log_q_bV`.

        `tile_bV` holds these rows of what `project` gave, if anything; it may be overwritten.
        """

    @abstractmethod
    def naive_compare(
        self, log_q_KV: torch.Tensor, temperature: float, divergence: Divergence
    ) -> torch.Tensor:
        """The twin: value_K at all positions at once, differentiable by autograd."""


@dataclass(frozen=True)
class DenseRows(Rows):
    """Full distributions of one model: its final hidden states and its head, any hidden size."""

    hidden_KD: torch.Tensor
    head: Head
    index_K: torch.Tensor | None = None

    @property
    def n_positions(self) -> int:
        return self.hidden_KD.shape[0]

    @property
    def n_tokens(self) -> int:
        return self.head.weight_VD.shape[0]

    def project(
        self, rows: slice, width: int, temperature: float, buffers: Buffers
    ) -> torch.Tensor:
        hidden_nD = self.hidden_KD[rows]
        tile_nV = buffers.get("teacher", hidden_nD.shape[0], width)
        project(tile_nV, hidden_nD, self.head)
        return tile_nV

    def compare(self, rows, tile_bV, log_q_bV, temperature, divergence):
        log_p_bV = torch.log_softmax(finish(tile_bV, self.head, temperature), 1)
        return divergence(log_p_bV, log_q_bV)

    def naive_compare(self, log_q_KV, temperature, divergence):
        return divergence(self.naive_log_p(log_q_KV.shape[1], temperature), log_q_KV)[0]

    def naive_log_p(self, width: int, temperature: float) -> torch.Tensor:
        logits_KV = naive_logits(self.hidden_KD, self.head)[:, :width]
        return torch.log_softmax(logits_KV / temperature, 1)


@dataclass(frozen=True)
class MixtureRows(Rows):
    """Several models as one teacher, over one vocabulary.

    `probability`: sum of w p, each p softened before it is mixed. `geometric`: product of p^w,
    normalised. Source: Hinton et al. 2015, arXiv 1503.02531, section 2 on ensembles.

    Attributes:
        parts: the models at the same positions (their own `index_K` is not read).
        weights: one per part, > 0, sum 1 (else SettingsError).
        kind: `probability` or `geometric` (else SettingsError).
    """

    parts: Sequence[DenseRows]
    weights: Sequence[float]
    kind: str
    index_K: torch.Tensor | None = None

    def __post_init__(self) -> None:
        where = "the weights of a mixture of teachers"
        if self.kind not in _KINDS:
            raise SettingsError(
                "unknown kind of mixture",
                where=where,
                found=repr(self.kind),
                next_step=nearest(self.kind, _KINDS),
            )
        if len(self.weights) != len(self.parts) or min(self.weights, default=0.0) <= 0.0:
            raise SettingsError(
                "a mixture needs one positive weight for each teacher",
                where=where,
                found=f"{len(self.parts)} teachers, weights {list(self.weights)}",
                next_step="leave out a teacher of weight 0",
            )
        if abs(sum(self.weights) - 1.0) > 1e-6:
            raise SettingsError(
                "the weights do not sum to 1",
                where=where,
                found=f"{list(self.weights)}, sum {sum(self.weights)}",
                next_step="divide them by their sum",
            )
        if len({part.n_positions for part in self.parts}) > 1:
            raise ModelError(
                "the teachers of a mixture stand at different positions",
                found=str([part.n_positions for part in self.parts]),
                next_step="give all of them the same positions",
            )

    @property
    def n_positions(self) -> int:
        return self.parts[0].n_positions

    @property
    def n_tokens(self) -> int:
        return min(part.n_tokens for part in self.parts)

    def project(
        self, rows: slice, width: int, temperature: float, buffers: Buffers
    ) -> torch.Tensor:
        """log sum of w p, or sum of w logits / temperature (not normalised)."""
        total_nV = buffers.get("mixture", rows.stop - rows.start, width)
        for number, (part, weight) in enumerate(zip(self.parts, self.weights, strict=True)):
            tile_nV = part.project(rows, width, temperature, buffers)
            for block in blocks(tile_nV):
                z_bV = finish(tile_nV[block], part.head, temperature)
                if self.kind == "geometric":
                    term_bV = z_bV.mul_(weight)
                else:
                    term_bV = torch.log_softmax(z_bV, 1).add_(math.log(weight))
                total_bV = total_nV[block]
                if number == 0:
                    total_bV.copy_(term_bV)
                elif self.kind == "geometric":
                    total_bV += term_bV
                else:
                    torch.logaddexp(total_bV, term_bV, out=total_bV)
        return total_nV

    def compare(self, rows, tile_bV, log_q_bV, temperature, divergence):
        geometric = self.kind == "geometric"
        return divergence(torch.log_softmax(tile_bV, 1) if geometric else tile_bV, log_q_bV)

    def naive_compare(self, log_q_KV, temperature, divergence):
        stack_PKV = torch.stack(
            [part.naive_log_p(log_q_KV.shape[1], temperature) for part in self.parts]
        )
        weights_P = torch.tensor(self.weights, device=stack_PKV.device)[:, None, None]
        if self.kind == "geometric":
            log_p_KV = torch.log_softmax((weights_P * stack_PKV).sum(0), 1)
        else:
            log_p_KV = torch.logsumexp(weights_P.log() + stack_PKV, 0)
        return divergence(log_p_KV, log_q_KV)[0]


@dataclass(frozen=True)
class SparseRows(Rows):
    """The likeliest tokens of each position, and one bucket with the rest of the mass.

    The divergence is that of J + 1 buckets. The student's bucket of the rest holds all tokens not
    listed; its slope is shared among them by their mass. The teacher's buckets are normalised, so
    rounded figures do no harm. Tokens that the student lacks are left out.

    Attributes:
        ids_KJ: distinct token ids of a position; -1 where there are fewer than J.
        log_p_KJ: their log-probabilities at `temperature`, in nats.
        log_tail_K: log of the mass not listed; -inf where there is none.
        vocabulary: number of tokens of the teacher.
        temperature: of the stored distributions; must be the call's (else ModelError).
    """

    ids_KJ: torch.Tensor
    log_p_KJ: torch.Tensor
    log_tail_K: torch.Tensor
    vocabulary: int
    temperature: float
    index_K: torch.Tensor | None = None

    @property
    def n_positions(self) -> int:
        return self.ids_KJ.shape[0]

    @property
    def n_tokens(self) -> int:
        return self.vocabulary

    def check(self, divergence: Divergence, temperature: float) -> None:
        _check_temperature(self.temperature, temperature)

    def _log_p(self, rows: slice, absent_bJ: torch.Tensor, full_b: torch.Tensor) -> torch.Tensor:
        tail_b = self.log_tail_K[rows].float().masked_fill(full_b, FLOOR)
        listed_bJ = self.log_p_KJ[rows].float().masked_fill(absent_bJ, FLOOR)
        buckets = torch.cat([listed_bJ, tail_b[:, None]], 1).clamp_min(FLOOR)
        return torch.log_softmax(buckets, 1)

    def compare(self, rows, tile_bV, log_q_bV, temperature, divergence):
        width, j = log_q_bV.shape[1], self.ids_KJ.shape[1]
        ids_bJ, absent_bJ = _present(self.ids_KJ[rows], width)
        slots_bJ = ids_bJ.masked_fill(absent_bJ, width)  # one column more takes what is absent
        rest_bV = log_q_bV.new_empty(log_q_bV.shape[0], width + 1)
        rest_bV[:, :width] = log_q_bV
        rest_bV[:, width] = -torch.inf
        rest_bV.scatter_(1, slots_bJ, -torch.inf)
        log_rest_b1 = rest_bV.logsumexp(1, keepdim=True)
        full_b1 = log_rest_b1.isneginf()  # every token is listed: no rest
        log_rest_b1 = log_rest_b1.masked_fill(full_b1, FLOOR)
        listed_bJ = log_q_bV.gather(1, ids_bJ).masked_fill(absent_bJ, FLOOR)
        log_p = self._log_p(rows, absent_bJ, full_b1[:, 0])
        value_b, slope = divergence(log_p, torch.cat([listed_bJ, log_rest_b1], 1))
        slope_bV = rest_bV.sub_(log_rest_b1).exp_().mul_(slope[:, j:])
        slope_bV.scatter_(1, slots_bJ, slope[:, :j])
        return value_b, slope_bV[:, :width]

    def naive_compare(self, log_q_KV, temperature, divergence):
        width = log_q_KV.shape[1]
        ids_KJ, absent_KJ = _present(self.ids_KJ, width)
        listed = torch.zeros(len(ids_KJ), width + 1, dtype=torch.bool, device=ids_KJ.device)
        listed = listed.scatter(1, ids_KJ.masked_fill(absent_KJ, width), True)[:, :width]
        rest_K1 = log_q_KV.exp().masked_fill(listed, 0.0).sum(1, keepdim=True)
        log_rest_K1 = rest_K1.clamp_min(math.exp(FLOOR)).log()
        listed_KJ = log_q_KV.gather(1, ids_KJ).masked_fill(absent_KJ, FLOOR)
        log_p = self._log_p(slice(None), absent_KJ, listed.all(1))
        return divergence(log_p, torch.cat([listed_KJ, log_rest_K1], 1))[0]


@dataclass(frozen=True)
class SampledRows(Rows):
    """Tokens drawn from the teacher, for divergences that say how to estimate them from draws.

    Tokens that the student lacks are left out. Source: arXiv 2503.16870 (sparse logit sampling).

    Attributes:
        ids_KJ: token ids; -1 where there are fewer than J.
        weights_KJ: with expectation sum over j of w_j [id_j = v] = p_v, at `temperature`.
        entropy_K: entropy of the teacher's distribution, in nats.
        vocabulary: number of tokens of the teacher.
        temperature: of the sampled distributions; must be the call's (else ModelError).
    """

    ids_KJ: torch.Tensor
    weights_KJ: torch.Tensor
    entropy_K: torch.Tensor
    vocabulary: int
    temperature: float
    index_K: torch.Tensor | None = None

    @property
    def n_positions(self) -> int:
        return self.ids_KJ.shape[0]

    @property
    def n_tokens(self) -> int:
        return self.vocabulary

    def check(self, divergence: Divergence, temperature: float) -> None:
        _check_temperature(self.temperature, temperature)
        _estimator(divergence)

    def compare(self, rows, tile_bV, log_q_bV, temperature, divergence):
        ids_bJ, absent_bJ = _present(self.ids_KJ[rows], log_q_bV.shape[1])
        weights_bJ = self.weights_KJ[rows].float().masked_fill(absent_bJ, 0.0)
        entropy_b = self.entropy_K[rows].float()
        return _estimator(divergence)(ids_bJ, weights_bJ, entropy_b, log_q_bV)

    def naive_compare(self, log_q_KV, temperature, divergence):
        """Of forward KL."""
        ids_KJ, absent_KJ = _present(self.ids_KJ, log_q_KV.shape[1])
        p_KV = torch.zeros_like(log_q_KV)  # the estimate as a full distribution
        weights_KJ = self.weights_KJ.float().masked_fill(absent_KJ, 0.0)
        p_KV = p_KV.scatter_add(1, ids_KJ, weights_KJ)
        return -(p_KV * log_q_KV).sum(1) - self.entropy_K.float()


def _estimator(divergence: Divergence) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """How the divergence is estimated from draws, its parameters bound (raises ModelError)."""
    plain: Any = getattr(divergence, "func", divergence)
    estimate = getattr(plain, "loss", {}).get("from_samples")
    if estimate is None:
        raise ModelError(
            "this divergence cannot be estimated from sampled tokens",
            where=f"the divergence {getattr(plain, '__name__', plain)!r}",
            next_step="use forward_kl, or store the likeliest tokens instead of samples",
        )
    return partial(estimate, **getattr(divergence, "keywords", {}))


def _present(ids_bJ: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The ids with 0 for those that do not count, and which those are."""
    ids_bJ = ids_bJ.long()
    absent_bJ = (ids_bJ < 0) | (ids_bJ >= width)
    return ids_bJ.masked_fill(absent_bJ, 0), absent_bJ


def _check_temperature(stored: float, asked: float) -> None:
    if stored != asked:
        raise ModelError(
            "the teacher's stored distributions have another temperature than the divergence",
            found=f"stored {stored}, asked {asked}",
            next_step="store them at that temperature, or train at theirs",
        )
