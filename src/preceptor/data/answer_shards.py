"""Shards of stored answers: Parquet files that appear whole, are read without a lock, and merge.

A shard is named after the numbers it covers: `00000007.parquet` was written as answers came,
`00000000-00000063.parquet` is those sixty-four merged. The shard that covers others replaces them
from the moment its name appears, so a merge can be killed at any point: readers pass over what
is covered, and the next process that opens the folder removes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from preceptor.core.artifacts import whole_file
from preceptor.core.errors import RunFolderError

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
ROW_GROUP = 16_384  # answers read, and held in memory, at a time
SHARD_ROWS, SHARD_BYTES = 500_000, 128 * 2**20  # at most, of a merged shard
MANY = 64  # shards of one level that are worth a merge
LEVELS = (MANY, MANY**2, MANY**3)  # a shard with fewer answers than these is of level 0, 1, 2
_compute: Any = pyarrow.compute  # its functions are made at import and have no stubs
_NAME = re.compile(r"(\d{8})(?:-(\d{8}))?")
_TRIES = 100

Tick = Callable[[int], None]
"""Told how many answers a merge has just written; may raise to give the merge up."""


@dataclass(frozen=True, order=True)
class Shard:
    """A file, and the numbers from `first` to `last` that it covers."""

    first: int
    last: int
    path: Path


def shard_path(folder: Path, first: int, last: int) -> Path:
    """Where the shard of these numbers is."""
    return folder / (f"{first:08d}.parquet" if first == last else f"{first:08d}-{last:08d}.parquet")


def write_shard(path: Path, tables: Iterator[pa.Table], tick: Tick = lambda rows: None) -> int:
    """Write tables of `STORE_SCHEMA` as one shard, whole or not at all; gives its rows."""
    written, waiting = 0, STORE_SCHEMA.empty_table()
    with (
        whole_file(path) as file,
        pq.ParquetWriter(
            file, STORE_SCHEMA, compression="zstd", write_page_checksum=True
        ) as writer,
    ):
        for table in tables:
            waiting = pa.concat_tables([waiting, table])
            if waiting.num_rows >= ROW_GROUP:
                writer.write_table(waiting.combine_chunks(), ROW_GROUP)
                written += waiting.num_rows
                tick(waiting.num_rows)
                waiting = STORE_SCHEMA.empty_table()
        if waiting.num_rows:
            writer.write_table(waiting.combine_chunks(), ROW_GROUP)
            tick(waiting.num_rows)
    return written + waiting.num_rows


def live_shards(folder: Path) -> list[Shard]:
    """The shards that no other replaces, in order (raises RunFolderError at a foreign file)."""
    shards = _shards(folder)
    return [shard for shard in shards if not _replaced(shard, shards)]


def remove_replaced(folder: Path) -> None:
    """What a killed merge left behind goes, if its replacement can be read. Needs the lock."""
    shards = _shards(folder)
    for shard in shards:
        by = _replaced(shard, shards)
        if by is not None:
            _open(by.path).close()
            shard.path.unlink(missing_ok=True)


def _shards(folder: Path) -> list[Shard]:
    """Listed until two listings agree: one alone may miss both a new shard and those it replaced,
    where another process merges meanwhile."""
    names: set[str] | None = None
    for _ in range(_TRIES):
        before, names = names, {path.name for path in folder.glob("*.parquet")}
        if names == before:
            break
    shards = []
    for name in names or ():
        numbers = _NAME.fullmatch(Path(name).stem)
        first, last = (int(numbers[1]), int(numbers[2] or numbers[1])) if numbers else (1, 0)
        if shard_path(folder, first, last).name != name:
            raise RunFolderError(
                "the answer store holds a file that is no shard of its own",
                where=str(folder / name),
                found="another name than preceptor gives",
                next_step="move it elsewhere",
            )
        shards.append(Shard(first, last, folder / name))
    return sorted(shards)


def _replaced(shard: Shard, shards: Sequence[Shard]) -> Shard | None:
    """The shard that covers this one, if there is one."""
    for other in shards:
        if other != shard and other.first <= shard.first and shard.last <= other.last:
            return other
    return None


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Any fault of a shard is one error; only that it is not there stays what it is."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise RunFolderError(
            "a shard of the answer store cannot be read",
            where=str(path),
            found=(str(error).splitlines() or [type(error).__name__])[0],
            next_step="restore it from a copy, or remove it: its answers are then asked again",
        ) from error


def _open(path: Path) -> pq.ParquetFile:
    with _reading(path):
        file = pq.ParquetFile(path, page_checksum_verification=True)
        if not file.schema_arrow.equals(STORE_SCHEMA):
            file.close()
            raise pa.ArrowInvalid("other columns than those of an answer store")
        return file


@contextmanager
def _snapshot(folder: Path) -> Iterator[list[tuple[Path, pq.ParquetFile]]]:
    """Every live shard, open: a merge elsewhere may then unlink them, and they are read still."""
    for left in reversed(range(_TRIES)):
        with ExitStack() as stack:
            try:
                files = [
                    (shard.path, stack.enter_context(_open(shard.path)))
                    for shard in live_shards(folder)
                ]
            except FileNotFoundError as error:
                if left:
                    continue
                raise RunFolderError(
                    "the answer store changes faster than it can be read",
                    where=str(folder),
                    found=f"{error.filename} went while it was opened",
                    next_step="read it again later",
                ) from error
            yield files
            return


def read_answers(
    folder: Path, columns: Sequence[str], keys: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """Answers, at most 16,384 at a time, each key once. Takes no lock.

    Args:
        folder: of one teacher.
        columns: of `STORE_SCHEMA`.
        keys: only these; every answer where it is None.

    Raises:
        RunFolderError: a shard that cannot be read.
    """
    with _snapshot(folder) as files:
        held = [_keys(path, file) for path, file in files]
        masks = _first_places(held, None if keys is None else pa.array(keys, pa.string()))
        del held
        for (path, file), mask in zip(files, masks, strict=True):
            yield from _chosen(path, file, columns, mask)


def _keys(path: Path, file: pq.ParquetFile) -> pa.ChunkedArray:
    with _reading(path):
        return file.read(["key"])["key"]


def _first_places(held: Sequence[pa.ChunkedArray], wanted: pa.Array | None) -> list[np.ndarray]:
    """Of each shard's keys: which are wanted (all, if None) and stand there for the first time."""
    if wanted is None:
        masks = [np.ones(len(keys), bool) for keys in held]
    else:
        masks = [_compute.is_in(keys, value_set=wanted).to_numpy() for keys in held]
    chosen = [c for keys, mask in zip(held, masks, strict=True) for c in keys.filter(mask).chunks]
    counted = pa.chunked_array(chosen, pa.string()).value_counts()
    doubled = counted.field("values").filter(_compute.greater(counted.field("counts"), 1))
    seen: set[str] = set()
    for keys, mask in zip(held, masks, strict=True):
        if len(doubled):
            for place in np.flatnonzero(_compute.is_in(keys, value_set=doubled).to_numpy()):
                key = keys[int(place)].as_py()
                mask[place] &= key not in seen
                seen.add(key)
    return masks


def _chosen(
    path: Path, file: pq.ParquetFile, columns: Sequence[str], mask: np.ndarray
) -> Iterator[pa.Table]:
    """The rows of a shard that the mask names; row groups without any are not read."""
    row = 0
    for group in range(file.num_row_groups):
        own = mask[row : row + file.metadata.row_group(group).num_rows]
        row += len(own)
        if own.any():
            with _reading(path):
                table = file.read_row_group(group, list(columns))
            yield table.select(list(columns)) if own.all() else table.filter(own)


@lru_cache(4096)
def n_answers(shard: Shard) -> int:
    """Rows of a shard (raises RunFolderError)."""
    with _open(shard.path) as file:
        return file.metadata.num_rows


def small_shards(shards: Sequence[Shard], fewer: int = SHARD_ROWS) -> list[Shard]:
    """The newest shards with fewer answers each than that, in order."""
    small = list(takewhile(lambda shard: n_answers(shard) < fewer, reversed(shards)))
    return small[::-1]


def worth_merging(shards: Sequence[Shard]) -> list[Shard]:
    """The newest shards of one level and below, if they are many; else none.

    So an answer is written again about once a level, and asking for days leaves some sixty-four
    shards of each level.
    """
    for level in LEVELS:
        small = small_shards(shards, level)
        if len(small) >= MANY:
            return small
    return []


def merge(shards: Sequence[Shard], tick: Tick = lambda rows: None) -> None:
    """Write neighbouring shards again as few, each key once. Needs the lock of their folder.

    It may be killed, or given up by `tick`, at any point: the new shard is on the disk before those
    go that it replaces.

    Raises:
        RunFolderError: no room for the new shard, or a shard that cannot be read.
    """
    if not shards:
        return
    with ExitStack() as stack:
        files = [stack.enter_context(_open(shard.path)) for shard in shards]
        held = [_keys(shard.path, file) for shard, file in zip(shards, files, strict=True)]
        masks = _first_places(held, None)
        del held
        for low, high in _neighbours(shards, files):
            if high - low == 1 and masks[low].all():
                continue
            new = shard_path(shards[low].path.parent, shards[low].first, shards[high - 1].last)
            tables = (
                table
                for place in range(low, high)
                for table in _chosen(
                    shards[place].path, files[place], STORE_SCHEMA.names, masks[place]
                )
            )
            n_written = write_shard(new, tables, tick)
            with _open(new) as file:
                assert file.metadata.num_rows == n_written
            for shard, file in zip(shards[low:high], files[low:high], strict=True):
                file.close()
                if shard.path != new:
                    shard.path.unlink(missing_ok=True)


def _neighbours(
    shards: Sequence[Shard], files: Sequence[pq.ParquetFile]
) -> Iterator[tuple[int, int]]:
    """Runs of shards (from, up to) that together are no larger than a shard may be."""
    low = rows = size = 0
    for place, (shard, file) in enumerate(zip(shards, files, strict=True)):
        own_rows, own_size = file.metadata.num_rows, shard.path.stat().st_size
        if place > low and (rows + own_rows > SHARD_ROWS or size + own_size > SHARD_BYTES):
            yield low, place
            low, rows, size = place, 0, 0
        rows, size = rows + own_rows, size + own_size
    yield low, len(shards)
