"""Tables that a program gave in memory, kept in the folder of the run that reads them.

A run names its inputs by path and hash, and is resumed by the same ones. So a table has one place,
`in_memory/NAME.parquet`, and an equal one that is there already stays as it is, byte for byte.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from preceptor.core import artifacts
from preceptor.core.errors import RunFolderError
from preceptor.core.run import IN_MEMORY, refuse_foreign


def find_input(folder: Path, name: str, table: pa.Table) -> Path | None:
    """Where a run folder holds this table; None in a folder without a run that lacks it.

    Raises:
        RunFolderError: a folder of something else, or of a run that was begun with another table.
    """
    path = folder / IN_MEMORY / f"{name}.parquet"
    if folder.exists():
        refuse_foreign(folder)
    there = path.exists()
    if there and _is_same(path, table):
        return path
    if (folder / artifacts.PROVENANCE).exists():
        raise RunFolderError(
            "the run folder belongs to other inputs",
            where=str(path),
            found="another table" if there else "a run that was begun without this table",
            next_step="give another `out`, or the table that the run was started with",
        )
    return None


def keep_input(folder: Path, name: str, table: pa.Table) -> Path:
    """Keep a table as `in_memory/NAME.parquet` of a run folder, and give its path.

    Raises:
        RunFolderError: as `find_input`, or a folder that cannot be written.
    """
    found = find_input(folder, name, table)
    if found is not None:
        return found
    path = folder / IN_MEMORY / f"{name}.parquet"
    artifacts.make_folder(path.parent, "`out`")
    artifacts.write_table(path, table)
    return path


def _is_same(path: Path, table: pa.Table) -> bool:
    """Whether a file holds just this table: the same bytes, or, of another writer, equal values."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    if path.read_bytes() == sink.getvalue().to_pybytes():
        return True
    try:
        return pq.read_table(path).equals(table)
    except (OSError, pa.ArrowException):
        return False
