"""One pass of a language model over the answers: -log p of every response, summed, in nats.

Shapes: B rows, T tokens, D width, N scored positions of a batch.

The pass is exact and does only the work that is needed: sequences that occur twice are scored
once, batches hold rows of about equal length within a token budget, rows are padded on the right
(causal attention never looks there, so no mask is needed), and the head runs on response
positions only, tile by tile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from transformers import PreTrainedModel

from preceptor.core.fleet import Fleet, run_here
from preceptor.core.progress import progress
from preceptor.core.stage import Stage
from preceptor.data.rendering import Rendered, scored_positions
from preceptor.data.sequences import Lazy
from preceptor.kernels.linear_nll import linear_nll
from preceptor.models.head import check_head, read_head
from preceptor.models.load import load_causal_lm, open_card, pick_device, pick_dtype

BATCH_TOKENS = {"cpu": 2048, "cuda": 32768}
NLL_SCHEMA = pa.schema(
    [
        pa.field("batch", pa.int32(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("nll", pa.float64(), nullable=False),
    ]
)


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


def make_plan(sequences: Sequence[Rendered], batch_tokens: int) -> Plan:
    """Drop repeats, sort by length, fill batches up to `batch_tokens` padded tokens.

    The longest batch comes first (memory is tested at once), the others in a fixed random order
    (the time left is then honest). Of each sequence a digest of 16 bytes and its length are held.
    """
    digests, lengths = bytearray(), np.empty(len(sequences), dtype=np.int64)
    for item, sequence in enumerate(sequences):
        content = sequence.ids.tobytes() + sequence.n_response.to_bytes(8, "little")
        digests += hashlib.blake2b(content, digest_size=16).digest()
        lengths[item] = len(sequence.ids)
    first, item_to_unique = _distinct(np.frombuffer(digests, dtype=np.uint64).reshape(-1, 2))
    batches = _batches(lengths[first], batch_tokens)
    rest = np.random.default_rng(0).permutation(np.arange(1, len(batches)))
    batches = batches[:1] + [batches[place] for place in rest]
    unique = Lazy(lambda row: sequences[first[row]], len(first))
    return Plan(unique, item_to_unique, batches)


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
    """Rows of about equal length, longest first, so that rows x longest <= budget (or one row)."""
    order = np.argsort(-lengths, kind="stable")
    batches: list[Batch] = []
    start = 0
    while start < len(order):
        size = max(1, budget // max(int(lengths[order[start]]), 1))
        rows = order[start : start + size]
        batches.append(Batch(rows, int(lengths[rows].sum())))
        start += size
    return batches


class Scorer:
    """A causal language model that scores responses.

    Args:
        model: any `transformers` causal language model, in eval mode.
        name: for error texts.

    Raises:
        ModelError: the model's head is not one this pass can reproduce.
    """

    def __init__(self, model: PreTrainedModel, name: str = "") -> None:
        self.model, self.name = model, name
        self.device = model.device
        self.body = model.base_model
        self.head = read_head(model, name)
        check_head(model, self.head, name)

    @torch.inference_mode()
    def score(self, rows: Sequence[Rendered]) -> np.ndarray:
        """Sum of -log p over the response tokens of each row: float64, nats, >= 0."""
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
        nll_N = linear_nll(hidden_ND, self.head, torch.tensor(targets, device=self.device))
        ends = np.cumsum([row.n_response for row in rows])
        return np.add.reduceat(
            nll_N.double().cpu().numpy(), np.concatenate(([0], ends[:-1])).astype(np.int64)
        )


def open_scorer(
    reference: str, dtype: str, device: str, trust_remote_code: bool
) -> Callable[[Sequence[Rendered]], np.ndarray]:
    """Load a model; what comes back scores a batch of rows (`Scorer.score`)."""
    card, place = open_card(reference, trust_remote_code, fingerprinted=False), pick_device(device)
    model = load_causal_lm(card, pick_dtype(dtype, place), place, trust_remote_code)
    return Scorer(model, reference).score


def measure(
    title: str,
    open_worker: Callable[[], Callable[[Sequence[Rendered]], np.ndarray]],
    plan: Plan,
    stage: Stage,
    fleet: Fleet = run_here,
) -> np.ndarray:
    """nll of every item of the plan; scores what the stage does not hold yet and commits it.

    Args:
        open_worker: loads the model, in each worker; called only if something is left to score.
        fleet: the workers; each gets batch after batch.

    Returns:
        float64 of shape (items,), nats, summed over each item's response tokens.
    """
    nll = np.full(len(plan.unique), np.nan)
    table = stage.table()
    nll[table["row"].to_numpy()] = table["nll"].to_numpy()
    done = np.isin(np.arange(len(plan.batches)), table["batch"].to_numpy())
    todo = np.flatnonzero(~done).tolist()
    if todo:
        n_done = len(plan.unique) - sum(len(plan.batches[number].rows) for number in todo)
        groups = Lazy(
            lambda place: [plan.unique[row] for row in plan.batches[todo[place]].rows], len(todo)
        )
        with progress(title, len(plan.unique), "sequences", n_done) as advance:
            for place, found in fleet(open_worker, groups):
                number, rows = todo[place], plan.batches[todo[place]].rows
                nll[rows] = found
                stage.add(batch=[number] * len(rows), row=rows.tolist(), nll=nll[rows].tolist())
                advance(len(rows), plan.batches[number].n_tokens)
            stage.commit()
    return nll[plan.item_to_unique]
