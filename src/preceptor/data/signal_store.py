"""Signals of a teacher on disk: written shard by shard, checked, read a sample at a time.

    plan.json            what the store will hold; written first, removed at the end
    000000.safetensors   signals of a range of samples
    000000.json          its checksum; written after the shard, removed at the end
    store.json           the plan, and the checksum and range of every shard; written last

Every file appears whole (temporary neighbour, fsync, rename). A kill loses at most the shard in
hand, and what a shard holds depends on the plan and the samples alone. A folder without
`store.json` is unfinished, and no reader opens it.

Shapes: S samples of a shard, P scored positions, J entries (token ids with a value) of a position,
E entries of a shard where positions differ in their number. Every shard has

    hash_S       uint64: blake2b of the sample's token ids
    offset_S     int64, S + 1: where the positions of a sample begin

and by kind

    top_k        ids_PJ uint16 | uint32, log_p_PJ float16, log_tail_P float32
    sampled      ids_E uint16 | uint32, weights_E float32, count_P uint16, entropy_P float32,
                 entry_S int64, S + 1: where the entries of a sample begin

Precision. top_k keeps log p as float16: 11 significant bits, so each log p is off by at most
2^-11 |log p| + 2^-25. `SparseRows` scales entries and tail back to sum to 1. An expectation
 under p of a value in [a, b], and so each part of a gradient, then moves by at most
(b - a) 2^-11 H to first order, where H = sum p |log p| over the entries is below the teacher's
entropy in nats: about a thousandth of that range for H = 2. The logits of a teacher in bf16 are
rounded eight times as coarsely; float32 would make the store a third or a half larger for nothing
that can be seen. The tail's log mass is one number a position and stays float32. Sampled weights
stay float32: rounding them would bias an estimate whose point is to have no bias.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from preceptor.core.artifacts import write_bytes, write_json
from preceptor.core.errors import DataError, RunFolderError
from preceptor.data.rendering import Rendered

FORMAT = 1
STORE, PLAN, LOCK = "store.json", "plan.json", ".lock"
OPEN_SHARDS = 32  # memory maps held at once
Arrays = dict[str, np.ndarray]


def ids_hash(ids: Sequence[int] | np.ndarray) -> int:
    """blake2b (8 bytes) of a sample's token ids."""
    return int.from_bytes(hashlib.blake2b(_id_bytes(ids), digest_size=8).digest(), "little")


def data_fingerprint(samples: Sequence[Rendered]) -> str:
    """sha256 over the token ids and response lengths of all samples, in order."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(np.array([len(sample.ids), sample.n_response], "<i8").tobytes())
        digest.update(_id_bytes(sample.ids))
    return f"sha256:{digest.hexdigest()}"


def _id_bytes(ids: Sequence[int] | np.ndarray) -> bytes:
    return np.asarray(ids, dtype="<i4").tobytes()


def plan_shards(n_positions: Sequence[int], limit: int) -> list[range]:
    """Ranges of consecutive samples of up to `limit` scored positions (or one sample) each."""
    shards: list[range] = []
    first, held = 0, 0
    for number, n in enumerate(n_positions):
        if number > first and held + n > limit:
            shards.append(range(first, number))
            first, held = number, 0
        held += n
    return [*shards, range(first, len(n_positions))] if n_positions else shards


class StoreWriter:
    """A store that is written. `open_writer` makes one."""

    def __init__(self, folder: Path, plan: Mapping[str, Any], shards: Sequence[range]) -> None:
        self.folder, self.plan, self.shards = folder, dict(plan), list(shards)
        self._done: dict[int, dict[str, Any]] = {}
        if (folder / STORE).exists():  # finished; a shard that was deleted is written again
            for number, record in enumerate(_read_json(folder / STORE)["shards"]):
                if _shard_file(folder, number).exists():
                    self._done[number] = record
            return
        for number in range(len(self.shards)):
            shard, record_file = _shard_file(folder, number), _record_file(folder, number)
            if shard.exists() and record_file.exists():
                record = _read_json(record_file)
                if record["sha256"] == _sha256(shard):
                    self._done[number] = record

    def todo(self) -> list[int]:
        """Numbers of the shards that are still to be computed."""
        return [number for number in range(len(self.shards)) if number not in self._done]

    def add(self, number: int, arrays: Arrays) -> None:
        """Write one shard, and then its checksum."""
        content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        samples = self.shards[number]
        record = {
            "file": _shard_file(self.folder, number).name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "samples": [samples.start, samples.stop],
            "positions": int(arrays["offset_S"][-1]),
            "bytes": len(content),
        }
        write_bytes(_shard_file(self.folder, number), content)
        write_json(_record_file(self.folder, number), record)
        self._done[number] = record

    def finish(self) -> dict[str, Any]:
        """Write `store.json`, remove what only writing needs, and return what it says."""
        records = [self._done[number] for number in range(len(self.shards))]
        total = sum(record["bytes"] for record in records)
        positions = sum(record["positions"] for record in records)
        facts = {
            **self.plan,
            "positions": positions,
            "bytes_per_token": round(total / positions, 2),
            "shards": records,
        }
        write_json(self.folder / STORE, facts)
        for number in range(len(self.shards)):
            _record_file(self.folder, number).unlink(missing_ok=True)
        (self.folder / PLAN).unlink(missing_ok=True)
        return facts


@contextmanager
def open_writer(
    folder: Path, plan: Mapping[str, Any], shards: Sequence[range], command: str
) -> Iterator[StoreWriter]:
    """Open a store to write, new or begun earlier, for this process alone.

    Args:
        folder: made if missing; belongs to this store alone.
        plan: everything that decides the content of the shards; plain JSON values.
        shards: range of samples of each shard.
        command: what finishes this store; a reader of an unfinished one is told so.

    Raises:
        RunFolderError: not writable, in use, or a folder of something else or of another plan.
    """
    plan = json.loads(json.dumps({"format": FORMAT, **plan}))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_other(folder, plan)
        lock = open(folder / LOCK, "w")  # noqa: SIM115 - held while writing
    except OSError as error:
        raise RunFolderError(
            "the folder of the signal store cannot be written",
            where=str(folder),
            found=error.strerror or str(error),
            next_step="give a folder that you may write",
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunFolderError(
                "another process writes this signal store",
                where=str(folder),
                found=error.strerror or str(error),
                next_step="wait for it, or give another folder",
            ) from error
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink()
        writer = StoreWriter(folder, plan, shards)
        if not (folder / STORE).exists():
            write_json(folder / PLAN, {**plan, "command": command})
        yield writer
        (folder / LOCK).unlink(missing_ok=True)


def _refuse_other(folder: Path, plan: Mapping[str, Any]) -> None:
    known = next((folder / name for name in (STORE, PLAN) if (folder / name).exists()), None)
    if known is None:
        held = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        if held:
            raise RunFolderError(
                "the folder holds files that are no signal store",
                where=str(folder),
                found=", ".join(sorted(held)[:5]),
                next_step="give a new or empty folder",
            )
        return
    before = _read_json(known)
    changed = [name for name in plan if before.get(name) != plan[name]]
    if changed:
        shown = (f"{name}: {before.get(name)!r} then, {plan[name]!r} now" for name in changed[:3])
        raise RunFolderError(
            "the folder holds a signal store of something else",
            where=str(folder),
            found="; ".join(shown),
            next_step="give another folder, or go back to what the store was begun with",
        )


@dataclass(frozen=True)
class StoredSample:
    """Signals of one sample: `arrays` as in the shard, floats as float32, cut to the sample."""

    ids_hash: int
    n_positions: int
    arrays: Arrays


class StoreReader:
    """A finished store, read lazily: memory does not grow with its size.

    A shard's checksum is compared when it is first opened; a few shards stay mapped.

    Raises:
        DataError: no store, an unfinished one, or one of another format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        _refuse_unfinished(folder)
        self.facts = _read_json(folder / STORE)
        if self.facts.get("format") != FORMAT:
            raise DataError(
                "the signal store has another format",
                where=str(folder / STORE),
                found=f"format {self.facts.get('format')!r}, this version reads {FORMAT}",
                next_step="write the store again with this version",
            )
        self._starts = np.array([shard["samples"][0] for shard in self.facts["shards"]])
        self._checked: set[int] = set()
        self._open: OrderedDict[int, tuple[Any, Arrays]] = OrderedDict()

    def sample(self, number: int) -> StoredSample:
        """What is stored of a sample.

        Raises:
            DataError: no such sample, or a shard that is missing or damaged.
        """
        if not 0 <= number < self.facts["samples"]:
            raise DataError(
                "the signal store does not hold this sample",
                where=str(self.folder),
                found=f"sample {number}, the store holds 0 to {self.facts['samples'] - 1}",
                next_step="write a store for the data that you train on",
            )
        shard = int(np.searchsorted(self._starts, number, side="right")) - 1
        handle, index = self._shard(shard)
        place = number - int(self._starts[shard])
        low, high = (int(index["offset_S"][place + side]) for side in (0, 1))
        cuts = dict.fromkeys(("ids_PJ", "log_p_PJ", "log_tail_P"), (low, high))
        if "entry_S" in index:
            entries = tuple(int(index["entry_S"][place + side]) for side in (0, 1))
            cuts = dict.fromkeys(("count_P", "entropy_P"), (low, high))
            cuts |= dict.fromkeys(("ids_E", "weights_E"), entries)
        arrays = {name: handle.get_slice(name)[a:b] for name, (a, b) in cuts.items()}
        for name, array in arrays.items():
            if array.dtype == np.float16:
                arrays[name] = array.astype(np.float32)
        return StoredSample(int(index["hash_S"][place]), high - low, arrays)

    def _shard(self, number: int) -> tuple[Any, Arrays]:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        path = self.folder / self.facts["shards"][number]["file"]
        try:
            if number not in self._checked:
                self._check(path, self.facts["shards"][number]["sha256"])
                self._checked.add(number)
            handle: Any = safe_open(path, framework="np")
        except (OSError, SafetensorError) as error:
            raise DataError(
                "a shard of the signal store cannot be read",
                where=str(path),
                found=str(error),
                next_step=_REMAKE,
            ) from error
        small = [name for name in handle.keys() if name.endswith("_S")]  # noqa: SIM118
        self._open[number] = (handle, {name: handle.get_tensor(name) for name in small})
        if len(self._open) > OPEN_SHARDS:
            self._open.popitem(last=False)
        return self._open[number]

    def _check(self, path: Path, wanted: str) -> None:
        found = _sha256(path)
        if found != wanted:
            raise DataError(
                "a shard of the signal store is damaged",
                where=str(path),
                found=f"sha256 {found[:16]}…, {wanted[:16]}… was written",
                next_step=_REMAKE,
            )


_REMAKE = "delete the file and write the store again: only this shard is then computed"


def _refuse_unfinished(folder: Path) -> None:
    if (folder / STORE).exists():
        return
    if (folder / PLAN).exists():
        raise DataError(
            "the signal store is not finished",
            where=str(folder),
            found=f"{len(list(folder.glob('*.safetensors')))} shards, no {STORE}",
            next_step=f"finish it: {_read_json(folder / PLAN).get('command')}",
        )
    raise DataError(
        "there is no signal store in this folder",
        where=str(folder),
        found=f"no {STORE}",
        next_step="name the folder of a store, or write one",
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            "a file of the signal store cannot be read",
            where=str(path),
            found=f"{type(error).__name__}: {error}",
            next_step="delete it and write the store again",
        ) from error
    if not isinstance(value, dict):
        raise DataError(
            "a file of the signal store is no record",
            where=str(path),
            found=type(value).__name__,
            next_step="delete it and write the store again",
        )
    return value


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shard_file(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.safetensors"


def _record_file(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.json"
