"""One pass of a language model over the answers: the gradient of each one, projected.

The gradient is that of an answer's mean loss over its response tokens with respect to every
parameter of the model as it is (tied ones count once, dropout is off), one answer at a time.
It is projected to K numbers by random signs,

    x_k = sum_p s_kp g_p / sqrt(P),    s_kp = +1 or -1,

which keeps angles and relative lengths (Johnson and Lindenstrauss; with signs, Achlioptas 2003).
The signs are bits of a hash of (k, p): the same for every answer, model of this shape, device
and process, and made block by block, so that nothing of size K x P is ever held.

Shapes: P parameters, K numbers of a projected gradient, R answers projected together, T tokens,
N scored positions, V vocabulary, W words of 64 signs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from preceptor.core.errors import ModelError
from preceptor.core.fleet import Fleet, run_here
from preceptor.core.progress import progress
from preceptor.core.stage import Stage
from preceptor.data.rendering import Rendered, scored_positions
from preceptor.data.sequences import Lazy
from preceptor.data.token_store import TokenStore, read_tokens
from preceptor.models.head import Head, check_head, plain_logits, read_head
from preceptor.models.load import load_causal_lm, open_card, pick_device, pick_dtype
from preceptor.selection.measure import Batch, Plan, make_plan

GROUP = 8  # answers that are projected together, at most; each product has this many rows
HELD = 4 << 30  # bytes of gradients that wait to be projected; on a GPU, half of what is free
SIGNS = {"cpu": 1 << 22, "cuda": 1 << 27}  # held at once, four bytes each
POSITIONS = 1024  # whose logits are formed at once
NUMBER = np.dtype("<f4")
TRAINABLE = (torch.float32, torch.bfloat16, torch.float16)

GRADIENT_SCHEMA = pa.schema(
    [
        pa.field("batch", pa.int32(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
    ]
)

# SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), as signed numbers
_STEP, _FIRST, _SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15
_WORD = 1 << 44  # between the counters of a parameter's words; models have fewer parameters


def _mixed(counters: torch.Tensor) -> torch.Tensor:
    """The number of SplitMix64 (seed 0) at each place of its sequence: int64, 64 random bits."""
    z = (counters + 1) * _STEP
    z = (z ^ ((z >> 30) & ((1 << 34) - 1))) * _FIRST
    z = (z ^ ((z >> 27) & ((1 << 37) - 1))) * _SECOND
    return z ^ ((z >> 31) & ((1 << 33) - 1))


@lru_cache(maxsize=4)
def _signs_of_bytes(device: torch.device) -> torch.Tensor:
    """(256, 8): of each byte its bits as signs, lowest first; a bit that is set is +1."""
    bits = torch.arange(256, device=device)[:, None] >> torch.arange(8, device=device) & 1
    return (2 * bits - 1).float()


def signs(low: int, high: int, dim: int, device: torch.device) -> torch.Tensor:
    """Signs of the parameters low .. high - 1: fp32 of shape (high - low, dim), each +1 or -1.

    The sign of (parameter p, number k) is bit k % 64 of word p + 2^44 (k // 64) of SplitMix64; so
    fewer numbers are the first ones of many.
    """
    words = torch.arange(math.ceil(dim / 64), device=device) * _WORD
    mixed_PW = _mixed(torch.arange(low, high, device=device)[:, None] + words)
    bytes_PW8 = mixed_PW.view(torch.uint8).flatten().int()
    spread = torch.nn.functional.embedding(bytes_PW8, _signs_of_bytes(device))
    return spread.view(high - low, -1)[:, :dim]


def rows_held(size: int, device: torch.device, weights: int = 0) -> int:
    """How many gradients of `size` bytes are kept at once, 0 to `GROUP`.

    Args:
        weights: bytes that are still to be loaded.
    """
    room = HELD
    if device.type == "cuda":
        room = max(0, torch.cuda.mem_get_info(device)[0] - weights) // 2
    return min(GROUP, room // size)


def signs_held(device: torch.device) -> int:
    """How many signs are held at once."""
    return SIGNS.get(device.type, SIGNS["cuda"])


class Projection:
    """Sums up the projections of up to `GROUP` gradients, piece by piece.

    Every product has `GROUP` rows, whatever is in them: how answers are grouped does not change a
    number. Products are in fp32, their sum over the pieces in fp64.
    """

    def __init__(self, dim: int, parameters: int, device: torch.device) -> None:
        self.dim, self.parameters, self.device = dim, parameters, device
        self._block = max(1, signs_held(device) // dim)
        self._sum_RK = torch.zeros((GROUP, dim), dtype=torch.float64)

    def add(self, gradient_RP: torch.Tensor, first: int) -> None:
        """Take the same piece of some gradients, which begins at parameter `first`."""
        for low in range(0, gradient_RP.shape[1], self._block):
            piece = gradient_RP[:, low : low + self._block]
            rows = torch.zeros((GROUP, piece.shape[1]), device=self.device)
            rows[: len(piece)] = piece
            begin = first + low
            signs_PK = signs(begin, begin + piece.shape[1], self.dim, self.device)
            self._sum_RK += (rows @ signs_PK).cpu().double()

    def take(self, count: int) -> np.ndarray:
        """The projected gradients in the first rows, (count, K) float32; begins anew."""
        found = (self._sum_RK[:count] / math.sqrt(self.parameters)).float().numpy()
        self._sum_RK.zero_()
        return found


class Gradients:
    """A causal language model whose gradients are taken.

    As many gradients as there is room for (`HELD`) are kept, in the model's dtype, and projected
    together. Of a model so large that not even one fits, each parameter's gradient is projected as
    soon as it is there, and dropped.

    Args:
        model: in eval mode; every parameter must be trainable.
        dim: numbers of a projected gradient.
        rows: gradients that are kept at once, 0 to `GROUP`; by size and device if not given.

    Raises:
        ModelError: frozen or quantised parameters, or an output layer that is not known.
    """

    def __init__(
        self, model: PreTrainedModel, name: str, dim: int, rows: int | None = None
    ) -> None:
        self.model, self.name, self.device = model, name, model.device
        _refuse_untrainable(model, name)
        self.head = read_head(model, name)
        check_head(model, self.head, name)
        weights = list(model.parameters())  # tied ones are there once
        self.parameters = sum(weight.numel() for weight in weights)
        self.projection = Projection(dim, self.parameters, self.device)
        size = self.parameters * model.dtype.itemsize
        self.rows = rows_held(size, self.device) if rows is None else rows
        self._held_RP: torch.Tensor | None = None
        self._row = 0
        first = 0
        for weight in weights:
            weight.register_post_accumulate_grad_hook(self._taker(first))
            first += weight.numel()

    def _taker(self, first: int) -> Callable[[torch.Tensor], None]:
        """What takes a parameter's gradient when it is complete."""

        def take(weight: torch.Tensor) -> None:
            assert weight.grad is not None
            own = weight.grad.detach().flatten()
            weight.grad = None
            if self._held_RP is None:
                self.projection.add(own[None], first)
            else:
                self._held_RP[self._row, first : first + len(own)] = own

        return take

    def project(self, rows: Sequence[Rendered]) -> np.ndarray:
        """The projected gradient of each answer: float32 of shape (rows, dim).

        Raises:
            ModelError: a gradient that is not finite.
        """
        step = max(1, self.rows)
        parts = [self._project(rows[low : low + step]) for low in range(0, len(rows), step)]
        found = np.concatenate(parts)
        if not np.isfinite(found).all():
            raise ModelError(
                "the gradient of an answer is not finite",
                where=self.name,
                found=f"{(~np.isfinite(found)).any(axis=1).sum():,} of {len(rows):,} answers",
                next_step="set `dtype` to float32, or look for weights that are not finite",
            )
        return found

    def _project(self, rows: Sequence[Rendered]) -> np.ndarray:
        if not self.rows:
            parts = []
            for row in rows:
                self._backward(row)
                parts.append(self.projection.take(1))
            return np.concatenate(parts)
        shape = (len(rows), self.parameters)
        if self._held_RP is None or len(self._held_RP) < len(rows):
            self._held_RP = None  # before a larger one is made
            self._held_RP = torch.empty(shape, dtype=self.model.dtype, device=self.device)
        for self._row, row in enumerate(rows):
            self._held_RP[self._row] = 0  # parameters that an answer does not touch
            self._backward(row)
        self.projection.add(self._held_RP[: len(rows)], 0)
        return self.projection.take(len(rows))

    @torch.enable_grad()
    def _backward(self, row: Rendered) -> None:
        """The gradient of one answer's mean loss goes to the takers."""
        ids_T = torch.frombuffer(row.ids, dtype=torch.int32).long().to(self.device)
        output = self.model.base_model(input_ids=ids_T[None], use_cache=False)
        positions = scored_positions(len(row.ids), row.n_response)
        hidden_ND = output.last_hidden_state[0, positions.start : positions.stop]
        targets_N = ids_T[len(ids_T) - row.n_response :]
        loss = hidden_ND.new_zeros((), dtype=torch.float32)
        for low in range(0, row.n_response, POSITIONS):
            own = slice(low, low + POSITIONS)
            loss = loss + checkpoint(
                _loss, hidden_ND[own], self.head, targets_N[own], use_reentrant=False
            )
        (loss / row.n_response).backward()


def _loss(hidden_ND: torch.Tensor, head: Head, targets_N: torch.Tensor) -> torch.Tensor:
    logits_NV = plain_logits(hidden_ND, head)
    return torch.nn.functional.cross_entropy(logits_NV, targets_N, reduction="sum")


def _refuse_untrainable(model: PreTrainedModel, name: str) -> None:
    bad = [
        f"{of} ({weight.dtype}{'' if weight.requires_grad else ', frozen'})".replace("torch.", "")
        for of, weight in model.named_parameters()
        if weight.dtype not in TRAINABLE or not weight.requires_grad
    ]
    if bad or getattr(model, "hf_quantizer", None) is not None:
        raise ModelError(
            "gradients need a model whose parameters can all be trained",
            where=name,
            found=f"{len(bad):,} frozen or quantised, {bad[0]} first" if bad else "it is quantised",
            next_step="name the checkpoint in full precision, or leave out criteria of gradients",
        )


def gradient_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """As the settings say; float16 becomes float32, for gradients are often below its range."""
    picked = pick_dtype(dtype, device)
    return torch.float32 if picked == torch.float16 else picked


def open_gradients(
    reference: str, dtype: str, device: str, trust_remote_code: bool, dim: int
) -> Callable[[Sequence[Rendered]], np.ndarray]:
    """Load a model; what comes back projects the gradients of some answers.

    The result is float32 of shape (rows, dim): see `Gradients`. It is divided by the square root
    of the number of parameters, as in the public code of arXiv 2511.02833; the order of teachers
    does not depend on that factor.
    """
    card, place = open_card(reference, trust_remote_code, fingerprinted=False), pick_device(device)
    model = load_causal_lm(card, gradient_dtype(dtype, place), place, trust_remote_code)
    return Gradients(model, reference, dim).project


def plan_gradients(sequences: Sequence[Rendered]) -> Plan:
    """Drop repeats; batches of `GROUP` answers, the longest answer in the first, else at random."""
    plan = make_plan(sequences, 1)  # a row a batch
    batches = [
        Batch(
            np.concatenate([one.rows for one in plan.batches[low : low + GROUP]]),
            sum(one.n_tokens for one in plan.batches[low : low + GROUP]),
        )
        for low in range(0, len(plan.batches), GROUP)
    ]
    return replace(plan, batches=batches)


def measure_gradients(
    title: str,
    open_worker: Callable[[], Callable[[Sequence[Rendered]], np.ndarray]],
    dim: int,
    plan: Plan,
    stage: Stage,
    path: Path,
    fleet: Fleet = run_here,
) -> np.ndarray:
    """Every unique sequence's projected gradient; takes those that the stage does not hold yet.

    Args:
        open_worker: loads the model, in each worker; called only if something is left.
        dim: numbers of a gradient.
        stage: of `GRADIENT_SCHEMA`; says which rows of the file are there.
        path: of the file of gradients, made if missing.
        fleet: the workers; each gets batch after batch.

    Returns:
        float32 of shape (unique sequences, dim), mapped from the file.

    Raises:
        RunFolderError: the file cannot be written, or is of another run.
    """
    folder, name = path.parent, path.stem
    done = np.isin(np.arange(len(plan.batches)), stage.table()["batch"].to_numpy())
    todo = np.flatnonzero(~done).tolist()
    lengths = np.full(len(plan.unique), dim, dtype=np.int64)
    with TokenStore(folder, lengths, [name], {name: NUMBER}) as store:
        stage.before_commit = store.flush
        if todo:
            n_done = len(plan.unique) - sum(len(plan.batches[number].rows) for number in todo)
            groups = Lazy(
                lambda place: [plan.unique[row] for row in plan.batches[todo[place]].rows],
                len(todo),
            )
            with progress(title, len(plan.unique), "answers", n_done) as advance:
                try:
                    for place, found in fleet(open_worker, groups):
                        number, rows = todo[place], plan.batches[todo[place]].rows
                        store.write(rows, {name: found.ravel()})
                        stage.add(batch=[number] * len(rows), row=rows.tolist())
                        advance(len(rows), plan.batches[number].n_tokens)
                finally:
                    stage.commit()  # while the file is open
    return read_tokens(folder, name).reshape(len(plan.unique), dim)
