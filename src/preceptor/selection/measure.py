"""One pass of a language model over the answers: every signal that is wanted of it.

Shapes: B rows, T tokens, D width, N scored positions of a batch, F width of an MLP.

The pass is exact and does only the work that is needed: sequences that occur twice are scored
once, batches hold rows of about equal length within a token budget, rows are padded on the right
(causal attention never looks there, so no mask is needed), the head runs on response positions
only, tile by tile, and signals that nobody asked for are not formed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from transformers import PreTrainedModel

from preceptor.core.fleet import Fleet, run_here
from preceptor.core.progress import progress
from preceptor.core.stage import Stage
from preceptor.core.types import ALIKE, ENOUGH
from preceptor.data.rendering import Rendered, scored_positions
from preceptor.data.sequences import Lazy
from preceptor.data.token_store import TokenStore
from preceptor.kernels.linear_nll import linear_nll
from preceptor.kernels.linear_signals import linear_signals
from preceptor.models.activations import Activations, mean_cosines
from preceptor.models.head import check_head, read_head
from preceptor.models.load import load_causal_lm, open_card, pick_device, pick_dtype

BATCH_TOKENS = {"cpu": 2048, "cuda": 32768}
SUMS = ("nll", "entropy", "brier")  # over the response tokens of a row
COSINES = ("similarity_answer", "similarity_question")  # means over pairs of a row's tokens
OF_TOKENS = "token "  # before the name of a signal that is wanted token by token


@dataclass(frozen=True)
class Wanted:
    """What a pass is made for.

    Attributes:
        rows: signals of each row, of `SUMS` and `COSINES`.
        tokens: signals of each response token: nll, rank, entropy, brier.
    """

    rows: tuple[str, ...] = ("nll",)
    tokens: tuple[str, ...] = ()

    @property
    def schema(self) -> pa.Schema:
        """Of the stage that keeps the rows' signals."""
        return pa.schema(
            [
                pa.field("batch", pa.int32(), nullable=False),
                pa.field("row", pa.int64(), nullable=False),
                *(pa.field(name, pa.float64(), nullable=False) for name in self.rows),
            ]
        )


LOSS = Wanted()
Found = Mapping[str, np.ndarray]
"""Signal -> one number a row (float64); `OF_TOKENS` + signal -> one a response token."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows scored together: positions in the list of unique sequences."""

    rows: np.ndarray
    n_tokens: int  # real tokens, padding not counted


@dataclass(frozen=True, eq=False)
class Plan:
    """What to score: unique sequences, which item each stands for, and the batches.

    The plan depends on the sequences and the budget alone, so a resumed run scores the same
    batches and gives the same bits.
    """

    unique: Sequence[Rendered]
    item_to_unique: np.ndarray
    batches: list[Batch]
    n_response: np.ndarray  # of each unique sequence


def make_plan(sequences: Sequence[Rendered], batch_tokens: int) -> Plan:
    """Drop repeats, sort by length, fill batches up to `batch_tokens` padded tokens.

    The longest batch comes first (memory is tested at once), the others in a fixed random order
    (the time left is then honest). Of each sequence a digest of 16 bytes and its length are held.
    """
    digests, lengths = bytearray(), np.empty(len(sequences), dtype=np.int64)
    n_response = np.empty(len(sequences), dtype=np.int32)
    for item, sequence in enumerate(sequences):
        content = sequence.ids.tobytes() + sequence.n_response.to_bytes(8, "little")
        digests += hashlib.blake2b(content, digest_size=16).digest()
        lengths[item], n_response[item] = len(sequence.ids), sequence.n_response
    first, item_to_unique = _distinct(np.frombuffer(digests, dtype=np.uint64).reshape(-1, 2))
    batches = _batches(lengths[first], batch_tokens)
    rest = np.random.default_rng(0).permutation(np.arange(1, len(batches)))
    batches = batches[:1] + [batches[place] for place in rest]
    unique = Lazy(lambda row: sequences[first[row]], len(first))
    return Plan(unique, item_to_unique, batches, n_response[first])


def _distinct(digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first item of each digest, in order, and which of these each item equals."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: of equals, the first comes first
    new = np.ones(len(order), dtype=bool)
    new[1:] = (digests[order[1:]] != digests[order[:-1]]).any(axis=1)
    first = np.sort(order[new])
    item_to_unique = np.empty(len(order), dtype=np.int64)
    item_to_unique[order] = np.searchsorted(first, order[new])[np.cumsum(new) - 1]
    return first, item_to_unique


def _batches(lengths: np.ndarray, budget: int) -> list[Batch]:
    """Rows as `core.types.length_batches` groups them, in columns: there may be millions."""
    order = np.argsort(-lengths, kind="stable")
    batches: list[Batch] = []
    start = 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        rows = order[start : start + max(1, budget // longest)]
        alike = int(np.count_nonzero(lengths[rows] >= ALIKE * longest))
        rows = rows[: max(alike, math.ceil(ENOUGH * budget / longest))]
        batches.append(Batch(rows, int(lengths[rows].sum())))
        start += len(rows)
    return batches


class Scorer:
    """A causal language model that measures responses.

    Args:
        model: any `transformers` causal language model, in eval mode.
        name: for error texts.
        wanted: what to measure.

    Raises:
        ModelError: the model's head is not one this pass can reproduce, or its MLP is not where
            cosines of activations can be taken.
    """

    def __init__(self, model: PreTrainedModel, name: str = "", wanted: Wanted = LOSS) -> None:
        self.model, self.name, self.wanted = model, name, wanted
        self.device = model.device
        self.body = model.base_model
        self.head = read_head(model, name)
        check_head(model, self.head, name)
        self.of_rows = [signal for signal in wanted.rows if signal in SUMS]
        self.of_head = {*self.of_rows, *wanted.tokens}
        cosines = set(wanted.rows) & set(COSINES)
        self.activations = Activations(model, name) if cosines else None

    @torch.inference_mode()
    def score(self, rows: Sequence[Rendered]) -> Found:
        """What is wanted of each row and of its response tokens."""
        lengths = [len(row.ids) for row in rows]
        ids_BT = torch.zeros((len(rows), max(lengths)), dtype=torch.long)
        keep: list[int] = []
        targets: list[int] = []
        for place, row in enumerate(rows):
            ids_BT[place, : lengths[place]] = torch.frombuffer(row.ids, dtype=torch.int32)
            offset = place * ids_BT.shape[1]
            positions = scored_positions(lengths[place], row.n_response)
            keep.extend(range(offset + positions.start, offset + positions.stop))
            targets.extend(row.response_ids)
        ids_BT = ids_BT.to(self.device)
        hidden_BTD = self.body(input_ids=ids_BT, use_cache=False).last_hidden_state
        hidden_ND = hidden_BTD.flatten(0, 1)[torch.tensor(keep, device=self.device)]
        of_tokens = self._of_tokens(hidden_ND, torch.tensor(targets, device=self.device))
        begins = np.cumsum([0] + [row.n_response for row in rows[:-1]])
        found = {
            signal: np.add.reduceat(of_tokens[signal].astype(np.float64), begins)
            for signal in self.of_rows
        }
        found |= {OF_TOKENS + signal: of_tokens[signal] for signal in self.wanted.tokens}
        if self.activations is not None:
            cosines = mean_cosines(
                self.activations.take(),
                [scored_positions(n, row.n_response) for n, row in zip(lengths, rows, strict=True)],
            )
            found |= {name: cosines[name] for name in COSINES if name in self.wanted.rows}
        return found

    def _of_tokens(self, hidden_ND: torch.Tensor, targets_N: torch.Tensor) -> dict[str, np.ndarray]:
        if self.of_head == {"nll"}:
            found = {"nll": linear_nll(hidden_ND, self.head, targets_N)}
        else:
            found = linear_signals(hidden_ND, self.head, targets_N, self.of_head)
        return {signal: values.cpu().numpy() for signal, values in found.items()}


def open_scorer(
    reference: str, dtype: str, device: str, trust_remote_code: bool, wanted: Wanted = LOSS
) -> Callable[[Sequence[Rendered]], Found]:
    """Load a model; what comes back measures a batch of rows (`Scorer.score`)."""
    card, place = open_card(reference, trust_remote_code, fingerprinted=False), pick_device(device)
    model = load_causal_lm(card, pick_dtype(dtype, place), place, trust_remote_code)
    return Scorer(model, reference, wanted).score


def measure(
    title: str,
    open_worker: Callable[[], Callable[[Sequence[Rendered]], Found]],
    plan: Plan,
    stage: Stage,
    fleet: Fleet = run_here,
    tokens: TokenStore | None = None,
) -> dict[str, np.ndarray]:
    """Every item's signals; measures what the stage does not hold yet and commits it.

    Args:
        open_worker: loads the model, in each worker; called only if something is left to measure.
        stage: of a `Wanted.schema`.
        fleet: the workers; each gets batch after batch.
        tokens: where signals of tokens go, by the plan's unique sequences.

    Returns:
        Signal -> float64 of shape (items,): sums over an item's response tokens (nats), or means
        over pairs of its tokens.
    """
    table = stage.table()
    found = {
        name: np.full(len(plan.unique), np.nan)
        for name in stage.schema.names
        if name not in ("batch", "row")
    }
    for name, values in found.items():
        values[table["row"].to_numpy()] = table[name].to_numpy()
    done = np.isin(np.arange(len(plan.batches)), table["batch"].to_numpy())
    todo = np.flatnonzero(~done).tolist()
    if tokens is not None:
        stage.before_commit = tokens.flush
    if todo:
        n_done = len(plan.unique) - sum(len(plan.batches[number].rows) for number in todo)
        groups = Lazy(
            lambda place: [plan.unique[row] for row in plan.batches[todo[place]].rows], len(todo)
        )
        with progress(title, len(plan.unique), "sequences", n_done) as advance:
            for place, measured in fleet(open_worker, groups):
                number, rows = todo[place], plan.batches[todo[place]].rows
                if tokens is not None:
                    tokens.write(rows, _tokens(measured))
                for name, values in found.items():
                    values[rows] = measured[name]
                columns = {name: values[rows].tolist() for name, values in found.items()}
                stage.add(batch=[number] * len(rows), row=rows.tolist(), **columns)
                advance(len(rows), plan.batches[number].n_tokens)
            stage.commit()
    return {name: values[plan.item_to_unique] for name, values in found.items()}


def _tokens(measured: Found) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(OF_TOKENS): values
        for name, values in measured.items()
        if name.startswith(OF_TOKENS)
    }
