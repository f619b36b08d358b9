"""Storing a teacher's signals: one pass of the teacher over the data, a shard at a time.

Two forms of a distribution are kept, at one temperature T:

`top_k`  the k likeliest tokens with log p, and the log mass of the others. A divergence then
    compares k + 1 buckets. With P and Q the tail masses of teacher p and student q,

        KL(p || q) = bucketed KL + P KL(p(.|tail) || q(.|tail))

    exactly (chain rule), so the bucketed value is never above the live teacher's, and what it
    misses is bounded. Let D be the spread (max - min) over the tail of the difference between the
    teacher's and the student's logits / T. Then q(.|tail) is p(.|tail) tilted by e^g with g of
    range D, and KL(p(.|tail) || q(.|tail)) = log E e^g - E g over p(.|tail), which is at most D,
    and at most D^2 / 8 (Hoeffding's lemma). So

        0 <= missed KL <= P min(D, D^2 / 8)
        |missed gradient by the student's logits|_1 <= P min(2, D / 2) / T     (Pinsker)

    The order within the tail is not taught; `sampled` teaches it.

`sampled`  k draws with replacement from the proposal r = p^t / sum p^t; each draw of token i stands
    with weight p_i / (k r_i), repeats merged, and the teacher's exact entropy H beside them. For
    any q, E[sum of weight * log q] = sum p log q: forward KL = -H - sum p log q and its gradient
    have no bias, at any k. Source: random sampling KD, arXiv 2503.16870; t = 1 is its proposal.

Shapes: N scored positions of a batch, n positions of a tile, P of a shard, J ids of a position,
S samples of a shard, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch

from preceptor.core.errors import DataError, SettingsError
from preceptor.core.progress import progress, say
from preceptor.core.types import length_batches
from preceptor.data.rendering import Rendered, scored_positions
from preceptor.data.signal_store import (
    Arrays,
    data_fingerprint,
    ids_hash,
    open_writer,
    plan_shards,
)
from preceptor.kernels.head_products import Buffers
from preceptor.kernels.teacher_rows import Rows
from preceptor.models.signals import Batch, SignalTeacher

Kind = Literal["top_k", "sampled"]
MOST = 65535  # ids of a position: their number is stored in 16 bits
TILE_VALUES, BIG_TILE_VALUES = {"cpu": 1 << 22}, 1 << 25  # probabilities worked on at once


class Storable(SignalTeacher, Protocol):
    """What can be stored: teachers in process, and ensembles of them."""

    name: str
    vocabulary: int
    precision: str


@dataclass(frozen=True)
class Form:
    """What is kept of each distribution; see the module's text.

    Attributes:
        k: tokens of `top_k`, draws of `sampled`; from 1 to 65,535.
        temperature: of the softened distributions, > 0.
        seed: of the draws.
        proposal: t, the power of p that is drawn from, > 0; 1 draws from p itself.
    """

    kind: Kind
    k: int
    temperature: float
    seed: int = 0
    proposal: float = 1.0

    def __post_init__(self) -> None:
        for name, good, next_step in (
            ("kind", self.kind in ("top_k", "sampled"), "use top_k or sampled"),
            ("k", 1 <= self.k <= MOST, f"set it from 1 to {MOST:,}"),
            ("temperature", self.temperature > 0, "set it above 0"),
            ("proposal", self.proposal > 0, "set it above 0; 1 draws from the teacher itself"),
        ):
            if not good:
                raise SettingsError(
                    "a signal store cannot be written like this",
                    where=name,
                    found=repr(getattr(self, name)),
                    next_step=next_step,
                )


def write_store(
    folder: Path,
    teacher: Storable,
    samples: Sequence[Rendered],
    form: Form,
    *,
    tokenizer_fingerprint: str,
    device: torch.device,
    batch_tokens: int = 4096,
    shard_positions: int = 65536,
    command: str = "the command that began it",
) -> dict[str, Any]:
    """Compute and store a teacher's signals, or go on where an earlier call was killed.

    A resumed store has the bytes of one that was never interrupted (same machine and versions): a
    shard's batches depend on its samples and `batch_tokens` alone, draws on the sample's number.

    Args:
        folder: of the store alone; made if missing.
        samples: in the order of the training data: `Batch.samples_B` counts them.
        tokenizer_fingerprint: of the tokenizer that rendered them.
        device: where batches are made; the teacher is there, or follows them.
        batch_tokens: padded tokens of a forward pass.
        shard_positions: scored positions of a shard: what a kill can lose.
        command: what the reader of an unfinished store is told to run.

    Returns:
        What `store.json` says.

    Raises:
        DataError: no samples, or one that cannot be scored.
        RunFolderError: the folder holds something else, or a store with another plan.
    """
    _check_samples(samples, teacher.vocabulary)
    shards = plan_shards([sample.n_response for sample in samples], shard_positions)
    plan = {
        **vars(form),
        "vocabulary": teacher.vocabulary,
        "teacher": teacher.name,
        "teacher_fingerprint": teacher.fingerprint,
        "teacher_precision": teacher.precision,
        "tokenizer_fingerprint": tokenizer_fingerprint,
        "data_fingerprint": data_fingerprint(samples),
        "samples": len(samples),
        "batch_tokens": batch_tokens,
        "shard_positions": shard_positions,
    }
    with open_writer(folder, plan, shards, command) as writer:
        todo = writer.todo()
        if todo:
            done = len(samples) - sum(len(shards[number]) for number in todo)
            with progress(f"storing {teacher.name}", len(samples), "samples", done) as advance:
                for number in todo:
                    make = _Shard(teacher, samples, shards[number], form, device)
                    writer.add(number, make.arrays(batch_tokens, advance))
        facts = writer.finish()
    size = sum(shard["bytes"] for shard in facts["shards"])
    say(
        f"stored {facts['positions']:,} tokens of {len(samples):,} samples in {folder}: "
        f"{facts['bytes_per_token']:,} bytes a token, {size / 1e6:,.1f} MB"
    )
    return facts


def _check_samples(samples: Sequence[Rendered], vocabulary: int) -> None:
    reason = "" if samples else "no samples"
    for number, sample in enumerate(samples):
        if not 1 <= sample.n_response < len(sample.ids):
            reason = f"sample {number}: {len(sample.ids)} tokens, {sample.n_response} scored"
        elif not 0 <= min(sample.ids) <= max(sample.ids) < vocabulary:
            reason = f"sample {number}: a token id outside 0 to {vocabulary - 1}"
        if reason:
            break
    if reason:
        raise DataError(
            "the data cannot be scored by the teacher",
            where="samples",
            found=reason,
            next_step="every sample needs a token before its response, in the teacher's vocabulary",
        )


class _Shard:
    """Signals of a range of samples, in memory."""

    def __init__(
        self,
        teacher: Storable,
        samples: Sequence[Rendered],
        numbers: range,
        form: Form,
        device: torch.device,
    ) -> None:
        self.teacher, self.form, self.device, self.first = teacher, form, device, numbers.start
        self.samples = [samples[number] for number in numbers]
        self.offset_S = np.cumsum([0, *(sample.n_response for sample in self.samples)])
        n_ids = min(form.k, teacher.vocabulary) if form.kind == "top_k" else form.k
        n_positions = int(self.offset_S[-1])
        self.ids_PJ = np.zeros((n_positions, n_ids), np.uint32)
        self.values_PJ = np.zeros((n_positions, n_ids), np.float32)
        self.rest_P = np.zeros(n_positions, np.float32)  # log tail mass, or entropy

    def arrays(self, batch_tokens: int, advance: Callable[[int, int], None]) -> Arrays:
        """Run the teacher over the samples; the arrays of the shard."""
        lengths = [len(sample.ids) for sample in self.samples]
        for places in length_batches(lengths, batch_tokens):
            self._take(places)
            advance(len(places), sum(lengths[place] for place in places))
        small = self.teacher.vocabulary <= 1 << 16
        ids_PJ = self.ids_PJ.astype(np.uint16 if small else np.uint32)
        common = {
            "hash_S": np.array([ids_hash(sample.ids) for sample in self.samples], np.uint64),
            "offset_S": self.offset_S.astype(np.int64),
        }
        if self.form.kind == "top_k":
            log_p_PJ = np.maximum(self.values_PJ, np.finfo(np.float16).min).astype(np.float16)
            return {**common, "ids_PJ": ids_PJ, "log_p_PJ": log_p_PJ, "log_tail_P": self.rest_P}
        drawn_PJ = self.values_PJ > 0
        count_P = drawn_PJ.sum(1)
        return {
            **common,
            "ids_E": ids_PJ[drawn_PJ],
            "weights_E": self.values_PJ[drawn_PJ],
            "count_P": count_P.astype(np.uint16),
            "entropy_P": self.rest_P,
            "entry_S": np.concatenate(([0], np.cumsum(count_P)))[self.offset_S].astype(np.int64),
        }

    @torch.no_grad()
    def _take(self, places: Sequence[int]) -> None:
        """One batch of samples through the teacher."""
        batch = _batch([self.samples[place] for place in places], self.device)
        into_N = np.concatenate(
            [np.arange(self.offset_S[place], self.offset_S[place + 1]) for place in places]
        )
        draws_NJ = None
        if self.form.kind == "sampled":
            draws_NJ = np.concatenate([self._draws(place) for place in places])
        for rows in self.teacher.signals(batch, frozenset({"logits"})).logits:
            assert isinstance(rows, Rows)
            buffers = Buffers(self.device)
            for part in _tiles(rows.n_positions, self.teacher.vocabulary, self.device):
                log_p_nV = _log_p(rows, part, self.teacher.vocabulary, self.form, buffers)
                index = part if rows.index_K is None else rows.index_K[part].cpu().numpy()
                if draws_NJ is None:
                    found = top_k(log_p_nV, self.ids_PJ.shape[1])
                else:
                    uniform_nJ = torch.from_numpy(draws_NJ[index]).to(self.device)
                    found = sample(log_p_nV, uniform_nJ, self.form.proposal)
                for held, value in zip(
                    (self.ids_PJ, self.values_PJ, self.rest_P), found, strict=True
                ):
                    held[into_N[index]] = value.cpu().numpy()

    def _draws(self, place: int) -> np.ndarray:
        """Uniform numbers in [0, 1) for a sample: they depend on seed and sample alone."""
        rng = np.random.default_rng([self.form.seed, self.first + place])
        return rng.random((self.samples[place].n_response, self.form.k))


def _batch(samples: Sequence[Rendered], device: torch.device) -> Batch:
    """Samples padded on the right: causal attention never looks there, so no mask is needed."""
    width = max(len(sample.ids) for sample in samples)
    ids_BT = torch.zeros((len(samples), width), dtype=torch.long)
    segments_BT = torch.full_like(ids_BT, -1)
    rows: list[int] = []
    for place, sample in enumerate(samples):
        size = len(sample.ids)
        ids_BT[place, :size] = torch.frombuffer(sample.ids, dtype=torch.int32)
        segments_BT[place, :size] = 0
        rows.extend(place * width + at for at in scored_positions(size, sample.n_response))
    return Batch(
        {"input_ids": ids_BT.to(device)}, torch.tensor(rows).to(device), segments_BT.to(device)
    )


def _tiles(rows: int, columns: int, device: torch.device) -> list[slice]:
    step = max(1, TILE_VALUES.get(device.type, BIG_TILE_VALUES) // columns)
    return [slice(low, min(low + step, rows)) for low in range(0, rows, step)]


def _log_p(rows: Rows, part: slice, width: int, form: Form, buffers: Buffers) -> torch.Tensor:
    """log p of some positions over the vocabulary, as the kernel compares them."""
    tile_nV = rows.project(part, width, form.temperature, buffers)
    nothing_nV = torch.empty(0, device="meta")
    return rows.compare(part, tile_nV, nothing_nV, form.temperature, lambda p, q: (p, q))[0]


def top_k(log_p_nV: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(ids_nJ, log_p_nJ, log_tail_n) of the k likeliest tokens, likeliest first.

    The tail is summed on its own, so a small one is exact; it is -inf where k is all of V.
    """
    log_p_nJ, ids_nJ = log_p_nV.topk(k, dim=1)
    log_tail_n = log_p_nV.scatter(1, ids_nJ, -torch.inf).logsumexp(1)
    return ids_nJ, log_p_nJ, log_tail_n


def sample(
    log_p_nV: torch.Tensor, uniform_nJ: torch.Tensor, proposal: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(ids_nJ, weights_nJ, entropy_n) of J draws from p^proposal; repeats merged.

    Rising ids first, then places of weight 0. The sum over j of weights_nJ * f(ids_nJ) has the
    expectation sum p f; entropy_n is exact, in nats.

    Args:
        uniform_nJ: float64 in [0, 1), one number a draw.
    """
    log_r_nV = torch.log_softmax(log_p_nV.double() * proposal, 1)
    total_nV = log_r_nV.exp().cumsum(1)
    drawn_nJ = torch.searchsorted(total_nV, uniform_nJ * total_nV[:, -1:], right=True)
    drawn_nJ = drawn_nJ.clamp_(max=log_p_nV.shape[1] - 1).sort(1).values
    fresh_nJ = drawn_nJ != drawn_nJ.roll(1, 1)
    fresh_nJ[:, 0] = True
    group_nJ = fresh_nJ.cumsum(1) - 1
    ids_nJ = torch.zeros_like(drawn_nJ).scatter_(1, group_nJ, drawn_nJ)
    count_nJ = torch.zeros_like(uniform_nJ).scatter_add_(1, group_nJ, torch.ones_like(uniform_nJ))
    log_ratio_nJ = log_p_nV.gather(1, ids_nJ).double() - log_r_nV.gather(1, ids_nJ)
    weights_nJ = torch.where(count_nJ > 0, count_nJ * log_ratio_nJ.exp(), 0.0)
    entropy_n = torch.special.entr(log_p_nV.exp()).sum(1)
    return ids_nJ, (weights_nJ / uniform_nJ.shape[1]).float(), entropy_n
