"""A teacher whose signals were stored beforehand: nothing of it runs while a student trains.

`preceptor.training.storing` says what is kept of a distribution and how far a loss on it may be
from a live teacher's; `preceptor.data.signal_store` has the format and its precision.

Shapes: N scored positions of a batch, J ids of a position, R positions of one sample, T tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from preceptor.core.errors import DataError, ModelError
from preceptor.data.signal_store import STORE, StoredSample, StoreReader, ids_hash
from preceptor.kernels.teacher_rows import SampledRows, SparseRows
from preceptor.models.signals import Batch, TeacherSignals


class CachedTeacher:
    """Signals from a store. `open_cached` makes one.

    Attributes:
        per_sample: True: a batch must say each row's sample number, and rows must not be packed.
    """

    gives: frozenset[str] = frozenset({"logits"})
    per_sample = True

    def __init__(self, store: StoreReader) -> None:
        self.store = store
        digest = hashlib.sha256((store.folder / STORE).read_bytes()).hexdigest()
        self.fingerprint = f"store-sha256:{digest}"

    def signals(self, batch: Batch, needs: frozenset[str]) -> TeacherSignals:
        """The stored signals of the batch's samples, at all its scored positions.

        Raises:
            DataError: no sample numbers, packed rows, a sample with other token ids or scored
                positions than the stored one, or a damaged shard.
            ModelError: `needs` names another signal.
        """
        if needs - self.gives:
            raise ModelError(
                "a store gives logits only",
                where=str(self.store.folder),
                found=f"needed {', '.join(sorted(needs))}",
                next_step="drop the losses on attention and hidden states, or use a live teacher",
            )
        if not needs or not batch.rows_N.numel():
            return TeacherSignals()
        found = self._samples(batch)
        facts, device = self.store.facts, batch.rows_N.device
        common = {"vocabulary": facts["vocabulary"], "temperature": facts["temperature"]}
        if facts["kind"] == "top_k":
            ids_NJ = _joined(found, "ids_PJ", device)
            log_p_NJ, log_tail_N = (_joined(found, n, device) for n in ("log_p_PJ", "log_tail_P"))
            return TeacherSignals([SparseRows(ids_NJ, log_p_NJ, log_tail_N, **common)])
        ids_NJ, weights_NJ = (tensor.to(device) for tensor in _padded(found))
        entropy_N = _joined(found, "entropy_P", device)
        return TeacherSignals([SampledRows(ids_NJ, weights_NJ, entropy_N, **common)])

    def _samples(self, batch: Batch) -> list[StoredSample]:
        """What is stored of each row that has scored positions, checked against the row."""
        if batch.samples_B is None:
            raise DataError(
                "the batch does not say the numbers of its samples",
                where=str(self.store.folder),
                next_step="number the rows of the data (column `sample`), in the store's order",
            )
        ids_BT = batch.inputs["input_ids"].cpu().numpy()
        segments_BT = batch.segments_BT.cpu().numpy()
        rows_N = batch.rows_N.cpu().numpy()
        owner_N, at_N = np.divmod(rows_N, ids_BT.shape[1])
        found = []
        for row, number in enumerate(batch.samples_B.tolist()):
            at_R = at_N[owner_N == row]
            if at_R.size:
                stored = self.store.sample(number)
                _check_row(number, stored, ids_BT[row], segments_BT[row], at_R)
                found.append(stored)
        return found


def open_cached(
    folder: Path,
    *,
    tokenizer_fingerprint: str,
    data_fingerprint: str,
    temperature: float,
    teacher_fingerprint: str | None = None,
) -> CachedTeacher:
    """The teacher of a finished store, if the store is of this tokenizer, data and temperature.

    Args:
        tokenizer_fingerprint: of the student's tokenizer.
        data_fingerprint: of the training data, by `signal_store.data_fingerprint`.
        temperature: of the losses that read it.
        teacher_fingerprint: of the teacher that should be behind it; None takes any.

    Raises:
        DataError: no finished store, or one of something else.
    """
    store = StoreReader(folder)
    wanted = {
        "tokenizer_fingerprint": tokenizer_fingerprint,
        "data_fingerprint": data_fingerprint,
        "temperature": temperature,
        "teacher_fingerprint": teacher_fingerprint,
    }
    for name, value in wanted.items():
        stored = store.facts[name]
        if value is not None and stored != value:
            raise DataError(
                f"the signal store was written for another {name.removesuffix('_fingerprint')}",
                where=str(folder),
                found=f"{name} {stored} in the store, {value} now",
                next_step="write a store for what you train now, or train what it was written for",
            )
    return CachedTeacher(store)


def _check_row(
    number: int, stored: StoredSample, ids_T: np.ndarray, segments_T: np.ndarray, at_R: np.ndarray
) -> None:
    real_T = np.flatnonzero(segments_T >= 0)
    wrong, found = "", ""
    if len(np.unique(segments_T[real_T])) > 1:
        wrong, found = "a row holds several documents", "packed rows"
    elif len(at_R) != stored.n_positions:
        wrong = "a sample has another number of scored positions than in the signal store"
        found = f"{len(at_R)} in the batch, {stored.n_positions} in the store"
    elif ids_hash(ids_T[real_T]) != stored.ids_hash:
        wrong, found = "a sample has other token ids than in the signal store", "hashes differ"
    elif not np.array_equal(at_R, real_T[-1] - np.arange(len(at_R), 0, -1)):
        wrong, found = "a sample is scored at other positions than its last tokens", f"{at_R[:3]}…"
    if wrong:
        raise DataError(
            wrong,
            where=f"sample {number}",
            found=found,
            next_step="train on the data the store was written for: same rows, order, template "
            "and max_length, without packing",
        )


def _joined(found: Sequence[StoredSample], name: str, device: torch.device) -> torch.Tensor:
    joined = np.concatenate([stored.arrays[name] for stored in found])
    if joined.dtype in (np.uint16, np.uint32):
        joined = joined.astype(np.int64)
    return torch.from_numpy(joined).to(device)


def _padded(found: Sequence[StoredSample]) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids_NJ, weights_NJ) of all positions, filled up with id -1 and weight 0."""
    count_N = np.concatenate([stored.arrays["count_P"] for stored in found]).astype(np.int64)
    listed_NJ = np.arange(count_N.max()) < count_N[:, None]
    ids_NJ, weights_NJ = np.full(listed_NJ.shape, -1), np.zeros(listed_NJ.shape, np.float32)
    ids_NJ[listed_NJ] = np.concatenate([stored.arrays["ids_E"] for stored in found])
    weights_NJ[listed_NJ] = np.concatenate([stored.arrays["weights_E"] for stored in found])
    return torch.from_numpy(ids_NJ), torch.from_numpy(weights_NJ)
