"""Tables from files, folders, datasets and the lab: always as one Arrow table."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from preceptor.core.errors import DataError, nearest
from preceptor.lab.place import PREFIX, split_name
from preceptor.lab.tasks import instructions

LAB_ROWS = 400
JSON_BLOCK = 1 << 26  # bytes; no row may be longer


def read_source(path: str, split: str = "train", max_rows: int | None = None) -> pa.Table:
    """Read Parquet, JSONL, a folder of either, a saved dataset, a `datasets` name or `lab:SPLIT`.

    Args:
        path: what to read.
        split: of a dataset that has several.
        max_rows: how many rows of a lab split to make (400 if None); others are read whole.

    Raises:
        DataError: unreadable or empty.
    """
    if path.startswith(PREFIX):
        rows = instructions(split_name(path), max_rows or LAB_ROWS)
        return pa.Table.from_pylist([row.row() for row in rows])
    try:
        table = _read(Path(path), path, split)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DataError(
            "the data cannot be read",
            where=path,
            found=str(error).strip().splitlines()[0] if str(error) else type(error).__name__,
            next_step="give a Parquet or JSONL file, a folder of them, or a dataset name",
        ) from error
    if table.num_rows == 0:
        raise DataError(
            "the data holds no rows", where=path, next_step="give a file that holds answers"
        )
    return table


def _read(file: Path, path: str, split: str) -> pa.Table:
    if file.suffix == ".parquet" and file.is_file():
        return pq.read_table(file)
    if file.suffix in (".jsonl", ".json") and file.is_file():
        return pa_json.read_json(file, pa_json.ReadOptions(block_size=JSON_BLOCK))
    if file.is_file():
        raise ValueError(f"unknown kind of file: {file.suffix or 'no ending'}")
    import datasets
    from datasets.exceptions import DatasetsError

    datasets.disable_progress_bars()
    try:
        if (file / "dataset_info.json").exists() or (file / "dataset_dict.json").exists():
            loaded = datasets.load_from_disk(path)
        else:
            loaded = datasets.load_dataset(path, split=split)
    except DatasetsError as error:
        raise ValueError(str(error.__cause__ or error)) from error
    if isinstance(loaded, datasets.DatasetDict):
        if split not in loaded:
            raise ValueError(f"no split {split!r}; {nearest(split, map(str, loaded))}")
        loaded = loaded[split]
    return loaded.with_format("arrow")[:]
