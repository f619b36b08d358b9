"""The answer store: what any teacher was asked, once, for every later study.

A store is a folder. Each teacher (by identity) has a folder of Parquet shards in it; a shard
appears whole (temporary file, fsync, rename). One process at a time asks a teacher: the others
wait for its lock, and then find the answers there. A kill leaves at most the answers in flight
unasked. `docs/reference/answer-store.md` describes every column.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from preceptor.core.artifacts import write_json, write_table
from preceptor.core.errors import RunFolderError
from preceptor.core.progress import say
from preceptor.core.types import Reply, Request

STORE_VERSION = 1
COMMIT_SECONDS = 2.0  # at first; grows to 1 % of the asking time, to bound the number of shards
ROW_GROUP = 16_384  # answers read at a time

STORE_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("teacher", pa.string(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("instruction_hash", pa.string(), nullable=False),
        pa.field("instruction", pa.string(), nullable=False),
        pa.field("messages", pa.string(), nullable=False),
        pa.field("temperature", pa.float64(), nullable=False),
        pa.field("top_p", pa.float64(), nullable=False),
        pa.field("max_new_tokens", pa.int32(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("labels", pa.list_(pa.string()), nullable=False),
        pa.field("response", pa.string(), nullable=False),
        pa.field("finish_reason", pa.string(), nullable=False),
        pa.field("n_prompt", pa.int32()),
        pa.field("n_generated", pa.int32(), nullable=False),
        pa.field("logprob", pa.float64()),
        pa.field("label_logprobs", pa.list_(pa.float64()), nullable=False),
        pa.field("cost", pa.float64(), nullable=False),
    ]
)
_REPLY = ["key", "response", "finish_reason", "n_generated", "n_prompt", "logprob"]


class AnswerStore:
    """A folder of answers.

    Args:
        folder: made at the first use.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def part(self, identity: Mapping[str, str]) -> Iterator[Part]:
        """The answers of one teacher, for this process alone (raises RunFolderError).

        Leaving it commits.
        """
        folder = self.folder / part_name(identity)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = open(folder / ".lock", "w")  # noqa: SIM115 - held while asking
        except OSError as error:
            raise RunFolderError(
                "the answer store cannot be written",
                where=str(self.folder),
                found=error.strerror or str(error),
                next_step="set `store` to a folder that you may write",
            ) from error
        with lock:
            _wait_for(lock, folder)
            part = Part(folder, identity)
            try:
                yield part
            finally:
                part.commit()


def part_name(identity: Mapping[str, str]) -> str:
    """Folder of a teacher: its name, made fit for a file system, and a hash of its identity."""
    content = json.dumps(sorted(identity.items())).encode()
    name = re.sub(r"[^A-Za-z0-9.]+", "-", identity.get("model", "teacher")).strip("-.")[-40:]
    return f"{name}-{hashlib.blake2b(content, digest_size=6).hexdigest()}"


def _wait_for(lock: Any, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"another process asks {folder.name}; waiting for it to finish")
        fcntl.flock(lock, fcntl.LOCK_EX)


class Part:
    """The answers of one teacher; made by `AnswerStore.part`, which holds its lock."""

    def __init__(self, folder: Path, identity: Mapping[str, str]) -> None:
        self.folder, self.identity = folder, dict(identity)
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink()
        known = folder / "teacher.json"
        if not known.exists():
            write_json(known, {"version": STORE_VERSION, "identity": self.identity})
        self._next = 1 + max((int(shard.stem) for shard in self.shards()), default=-1)
        self._rows: dict[str, list[Any]] = {name: [] for name in STORE_SCHEMA.names}
        self._started = self._committed = time.monotonic()

    def shards(self) -> list[Path]:
        return sorted(self.folder.glob("*.parquet"))

    def replies(self, keys: Sequence[str]) -> dict[str, Reply]:
        """Those of the keys that were answered before, with their answers."""
        wanted, found = set(keys), {}
        for shard in self.shards():
            with pq.ParquetFile(shard) as file:
                for batch in file.iter_batches(ROW_GROUP, columns=[*_REPLY, "label_logprobs"]):
                    for row in batch.to_pylist():
                        key, labels = row.pop("key"), tuple(row.pop("label_logprobs"))
                        if key in wanted:
                            found[key] = Reply(**row, label_logprobs=labels)
        return found

    def add(
        self, keys: Sequence[str], requests: Sequence[Request], replies: Sequence[Reply], price: Any
    ) -> None:
        """Take answers; commit when it is time."""
        for key, request, reply in zip(keys, requests, replies, strict=True):
            row = {
                "key": key,
                "teacher": self.identity.get("model", ""),
                "identity": json.dumps(dict(sorted(self.identity.items()))),
                "instruction_hash": request.instruction_hash(),
                "instruction": request.messages[-1][1],
                "messages": json.dumps(
                    [{"role": role, "content": text} for role, text in request.messages],
                    ensure_ascii=False,
                ),
                "temperature": request.decoding.temperature,
                "top_p": request.decoding.top_p,
                "max_new_tokens": request.decoding.max_new_tokens,
                "sample": request.sample,
                "seed": request.run_seed,
                "labels": list(request.labels),
                "response": reply.response,
                "finish_reason": reply.finish_reason,
                "n_prompt": reply.n_prompt,
                "n_generated": reply.n_generated,
                "logprob": reply.logprob,
                "label_logprobs": list(reply.label_logprobs),
                "cost": price(reply.n_prompt or 0, reply.n_generated),
            }
            for name, value in row.items():
                self._rows[name].append(value)
        now = time.monotonic()
        if now - self._committed >= max(COMMIT_SECONDS, 0.01 * (now - self._started)):
            self.commit()

    def commit(self) -> None:
        """Write the answers taken since the last commit as one shard."""
        if self._rows["key"]:
            table = pa.table(self._rows, schema=STORE_SCHEMA)
            write_table(self.folder / f"{self._next:06d}.parquet", table)
            self._next += 1
            self._rows = {name: [] for name in STORE_SCHEMA.names}
        self._committed = time.monotonic()
