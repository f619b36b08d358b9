"""A stage of a long job: rows are committed in shards as they come, so that a kill loses seconds.

A shard is a Parquet file that appears whole (temporary file, fsync, rename). What a stage holds
does not depend on where an earlier run was killed: the job plans its work beforehand and asks
which parts are done.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from preceptor.core.artifacts import write_table

COMMIT_SECONDS = 2.0  # at first; grows to 1 % of the running time, to bound the number of shards


class Stage:
    """Rows of one schema in a folder of shards. Use as a context manager; leaving it commits.

    Args:
        folder: made if missing; belongs to this stage alone.
        schema: of the rows.

    Attributes:
        before_commit: called before rows are committed, to make durable what they stand for.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.before_commit: Callable[[], None] = lambda: None
        self.folder, self.schema = folder, schema
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink()
        self._next = 1 + max((int(shard.stem) for shard in self._shards()), default=-1)
        self._rows: dict[str, list[Any]] = {name: [] for name in schema.names}
        self._started = self._committed = time.monotonic()

    def _shards(self) -> list[Path]:
        return sorted(self.folder.glob("*.parquet"))

    def table(self) -> pa.Table:
        """Every committed row, in the order of commitment."""
        tables = [pq.read_table(shard) for shard in self._shards()]
        if not tables:
            return self.schema.empty_table()
        return pa.concat_tables(tables).cast(self.schema)

    def seconds(self) -> float:
        """Working time recorded with the shards, over all runs."""
        times = []
        for shard in self._shards():
            metadata = pq.read_metadata(shard).metadata or {}
            times.append(float(json.loads(metadata.get(b"seconds", b"0"))))
        return sum(times)

    def add(self, **columns: list[Any]) -> None:
        """Take rows (columns of equal length); commit when it is time."""
        for name, values in columns.items():
            self._rows[name].extend(values)
        now = time.monotonic()
        due = max(COMMIT_SECONDS, 0.01 * (now - self._started))
        if now - self._committed >= due:
            self.commit()

    def commit(self) -> None:
        """Write the rows taken since the last commit as one shard."""
        now = time.monotonic()
        if self._rows[self.schema.names[0]]:
            self.before_commit()
            table = pa.table(self._rows, schema=self.schema)
            seconds = json.dumps(round(now - self._committed, 3))
            table = table.replace_schema_metadata({"seconds": seconds})
            write_table(self.folder / f"{self._next:06d}.parquet", table)
            self._next += 1
            self._rows = {name: [] for name in self.schema.names}
        self._committed = now

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.commit()


def clear(folder: Path) -> None:
    """Remove the shards of finished stages."""
    shutil.rmtree(folder, ignore_errors=True)
