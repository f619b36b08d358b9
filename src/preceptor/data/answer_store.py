"""The answer store: what any teacher was asked, once, for every later study.

A store is a folder. Each teacher (by identity) has a folder of Parquet shards in it; a shard
appears whole (temporary file, fsync, rename). One process at a time asks a teacher: the others
wait for its lock, and then find the answers there. A kill leaves at most the answers in flight, and
those of the last two seconds, unasked. `docs/reference/answer-store.md` describes every column.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from preceptor.core.artifacts import write_bytes, write_json
from preceptor.core.errors import DataError, RunFolderError, nearest
from preceptor.core.progress import say
from preceptor.core.types import Reply, Request
from preceptor.data.answer_shards import (
    MANY,
    STORE_SCHEMA,
    Shard,
    Tick,
    live_shards,
    merge,
    read_answers,
    remove_replaced,
    shard_path,
    small_shards,
    worth_merging,
    write_shard,
)

STORE_VERSION = 1
STORE, TEACHER, VIEW = "store.json", "teacher.json", "view.sql"
COMMIT_SECONDS = 2.0
_FORMAT = "preceptor answer store"
_REPLY = ["response", "finish_reason", "n_generated", "n_prompt", "logprob", "label_logprobs"]
_VIEW = """\
-- The answers of a store, each key once, for DuckDB (written by preceptor; do not edit).
-- From any folder:  .read STORE/view.sql  and then  FROM answers;
CREATE OR REPLACE MACRO answers_in(store) AS TABLE
    SELECT * EXCLUDE (filename, file_row_number)
    FROM read_parquet(store || '/*/*.parquet', filename = true, file_row_number = true)
    QUALIFY row_number() OVER (PARTITION BY key ORDER BY filename, file_row_number) = 1;
CREATE OR REPLACE VIEW answers AS FROM answers_in({folder});
"""


class AnswerStore:
    """A folder of answers.

    Args:
        folder: made at the first use.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def part(self, identity: Mapping[str, str]) -> Iterator[Part]:
        """The answers of one teacher, for this process alone. Leaving it commits.

        Raises:
            RunFolderError: not writable, no answer store, of a newer version, or with a shard
                that cannot be read.
        """
        folder = self.folder / part_name(identity)
        try:
            self._claim()
            folder.mkdir(exist_ok=True)
            lock = open(folder / ".lock", "w")  # noqa: SIM115 - held while asking
        except OSError as error:
            raise RunFolderError(
                "the answer store cannot be written",
                where=str(self.folder),
                found=error.strerror or str(error),
                next_step="make room, or set `store` to a folder that you may write",
            ) from error
        with lock:
            _wait_for(lock, folder)
            part = Part(folder, identity)
            try:
                yield part
            except BaseException:
                part.close()
                raise
            part.close()
            part.tidy()

    def parts(self) -> dict[str, dict[str, str]]:
        """Folder of each teacher -> its identity, by name. Takes no lock.

        Raises:
            RunFolderError: no answer store there, or of a newer version.
        """
        if not (self.folder / STORE).exists():
            raise RunFolderError(
                "no answer store there",
                where=str(self.folder),
                found=f"no {STORE}" if self.folder.is_dir() else "no such folder",
                next_step="name the folder of `store`, or `store` inside a run folder",
            )
        _check_version(self.folder / STORE)
        known = sorted(self.folder.glob(f"*/{TEACHER}"))
        return {path.parent.name: _read_identity(path) for path in known}

    def table(self, columns: Sequence[str] | None = None, part: str | None = None) -> pa.Table:
        """What is stored, each key once, while others may be writing. Takes no lock.

        Args:
            columns: of `STORE_SCHEMA`; all if not given.
            part: name of one teacher's folder; all of them if not given.

        Raises:
            RunFolderError: no answer store there, or a shard that cannot be read.
            DataError: no such column, or no such part.
        """
        columns = STORE_SCHEMA.names if columns is None else list(columns)
        parts = list(self.parts())
        for what, wanted, known in (
            ("column", columns, STORE_SCHEMA.names),
            ("teacher", [part] if part else [], parts),
        ):
            for name in wanted:
                if name not in known:
                    raise DataError(
                        f"the answer store has no {what} {name!r}",
                        where=str(self.folder),
                        found=nearest(name, known),
                        next_step="correct the name",
                    )
        tables = [
            table
            for name in ([part] if part else parts)
            for table in read_answers(self.folder / name, columns)
        ]
        schema = pa.schema([STORE_SCHEMA.field(name) for name in columns])
        return pa.concat_tables([schema.empty_table(), *tables])

    def _claim(self) -> None:
        """Make the folder a store, or see that it is one (raises RunFolderError, OSError)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        known = self.folder / STORE
        held = sorted(path.name for path in self.folder.iterdir() if path.name[0] != ".")
        if held and not known.exists():
            raise RunFolderError(
                "the folder holds files that are no answer store",
                where=str(self.folder),
                found=", ".join(held[:5]),
                next_step="set `store` to a new or empty folder",
            )
        if held:
            _check_version(known)
        else:
            write_json(known, {"format": _FORMAT, "version": STORE_VERSION})
        path = glob.escape(str(self.folder.resolve())).replace("'", "''")
        view = _VIEW.format(folder=f"'{path}'").encode()
        if not (self.folder / VIEW).exists() or (self.folder / VIEW).read_bytes() != view:
            write_bytes(self.folder / VIEW, view)


def part_name(identity: Mapping[str, str]) -> str:
    """Folder of a teacher: its name, made fit for a file system, and a hash of its identity."""
    content = json.dumps(sorted(identity.items())).encode()
    name = re.sub(r"[^A-Za-z0-9.]+", "-", identity.get("model", "teacher"))[-40:].strip("-.")
    return f"{name or 'teacher'}-{hashlib.blake2b(content, digest_size=6).hexdigest()}"


def _wait_for(lock: Any, folder: Path) -> None:
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process asks {folder.name}; waiting for it to finish")
            fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        raise RunFolderError(
            "the answer store cannot be locked",
            where=str(folder),
            found=error.strerror or str(error),
            next_step="set `store` to a folder on a file system that has flock",
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no mapping")
    except (OSError, ValueError) as error:
        raise RunFolderError(
            "a file of the answer store cannot be read",
            where=str(path),
            found=f"{type(error).__name__}: {error}",
            next_step="restore it from a copy; the answers are in the shards, and are kept",
        ) from error
    return found


def _check_version(path: Path) -> None:
    found = _read_json(path)
    version = found.get("version")
    if found.get("format") != _FORMAT or not isinstance(version, int) or version > STORE_VERSION:
        raise RunFolderError(
            "the answer store is of another version",
            where=str(path),
            found=f"format {found.get('format')!r}, version {version!r}; known: {STORE_VERSION}",
            next_step="use the version of preceptor that wrote it, or another `store`",
        )


def _read_identity(path: Path) -> dict[str, str]:
    """Whose answers they are; the folder's name must say so, too."""
    found = _read_json(path).get("identity")
    if isinstance(found, dict) and part_name(found) == path.parent.name:
        return found
    raise RunFolderError(
        "a folder of the answer store belongs to another teacher than it says",
        where=str(path),
        found=f"{json.dumps(found)} in {path.parent.name}",
        next_step="give the folder and the file back what preceptor wrote, or move them elsewhere",
    )


class _LeftError(Exception):
    """A merge is given up, since the part is left."""


class Part:
    """The answers of one teacher; made by `AnswerStore.part`, which holds its lock.

    A thread commits what was taken, every two seconds, so that answers are not in memory alone
    for longer, however slowly the next ones come.
    """

    def __init__(self, folder: Path, identity: Mapping[str, str]) -> None:
        self.folder, self.identity = folder, dict(identity)
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink()
        if (folder / TEACHER).exists():
            _read_identity(folder / TEACHER)
        else:
            write_json(folder / TEACHER, {"identity": self.identity})
        remove_replaced(folder)
        self._next = 1 + max((shard.last for shard in live_shards(folder)), default=-1)
        self._rows: list[dict[str, Any]] = []
        self._writing = threading.Lock()
        self._left = threading.Event()
        self._fault: BaseException | None = None
        self._scattered = False  # a merge failed
        self._committer = threading.Thread(target=self._keep_committing, daemon=True)

    def replies(self, keys: Sequence[str]) -> dict[str, Reply]:
        """Those of the keys that were answered before, with their answers."""
        found = {}
        for table in read_answers(self.folder, ["key", *_REPLY], keys):
            for row in table.to_pylist():
                key, labels = row.pop("key"), tuple(row.pop("label_logprobs"))
                found[key] = Reply(**row, label_logprobs=labels)
        return found

    def add(
        self,
        keys: Sequence[str],
        requests: Sequence[Request],
        replies: Sequence[Reply],
        price: Callable[[int, int], float],
    ) -> None:
        """Take answers; they are on the disk two seconds later (raises RunFolderError)."""
        identity = json.dumps(dict(sorted(self.identity.items())))
        self._rows += [
            {
                "key": key,
                "teacher": self.identity.get("model", ""),
                "identity": identity,
                "instruction_hash": request.instruction_hash(),
                "instruction": whole_text(request.messages[-1][1]),
                "messages": json.dumps(
                    [
                        {"role": whole_text(role), "content": whole_text(text)}
                        for role, text in request.messages
                    ],
                    ensure_ascii=False,
                ),
                "temperature": request.decoding.temperature,
                "top_p": request.decoding.top_p,
                "max_new_tokens": request.decoding.max_new_tokens,
                "sample": request.sample,
                "seed": request.run_seed,
                "labels": [whole_text(label) for label in request.labels],
                "response": reply.response,
                "finish_reason": reply.finish_reason,
                "n_prompt": reply.n_prompt,
                "n_generated": reply.n_generated,
                "logprob": reply.logprob,
                "label_logprobs": list(reply.label_logprobs),
                "cost": price(reply.n_prompt or 0, reply.n_generated),
            }
            for key, request, reply in zip(keys, requests, replies, strict=True)
        ]
        if self._fault is not None:
            raise self._fault
        if not self._committer.ident:
            self._committer.start()

    def commit(self) -> None:
        """Write the answers taken since the last commit as one shard (raises RunFolderError)."""
        with self._writing:
            rows = self._rows[:]  # another thread may add meanwhile
            if rows:
                table = pa.Table.from_pylist(rows, STORE_SCHEMA)
                write_shard(shard_path(self.folder, self._next, self._next), iter([table]))
                self._next += 1
                del self._rows[: len(rows)]

    def compact(self, tick: Tick = lambda rows: None) -> None:
        """Merge the shards into few, and drop keys that stand twice (raises RunFolderError)."""
        self.commit()
        merge(live_shards(self.folder), tick)

    def close(self) -> None:
        """Commit what is left; nothing is added from here on."""
        self._left.set()
        if self._committer.ident:
            self._committer.join()
        self.commit()

    def tidy(self) -> None:
        """Merge the shards that are not full, if they are many."""
        small = small_shards(live_shards(self.folder))
        if len(small) > MANY:
            self._merge(small)

    def _merge(self, shards: Sequence[Shard], tick: Tick = lambda rows: None) -> None:
        """A merge that nobody asked for may fail: it costs no answer."""
        try:
            if not self._scattered:
                merge(shards, tick)
        except RunFolderError as error:
            self._scattered = True
            say(f"warning: the answers are kept, but their shards are not merged: {error}")

    def _keep_committing(self) -> None:
        def tick(rows: int) -> None:
            if self._left.is_set():
                raise _LeftError
            self.commit()

        try:
            while not self._left.wait(COMMIT_SECONDS):
                self.commit()
                self._merge(worth_merging(live_shards(self.folder)), tick)
        except _LeftError:
            pass
        except BaseException as fault:  # whoever adds next is told
            self._fault = fault


def whole_text(text: str) -> str:
    """The text as UTF-8 can hold it: half a surrogate pair, which some servers cut, is replaced."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
