"""The run folder: its file names, its table schemas, and atomic writes.

`docs/reference/run-folder.md` describes every column; `tests/core/test_artifacts.py` pins them.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from preceptor.core.errors import RunFolderError

SETTINGS, ANSWERS, SIGNALS = "settings.yaml", "answers.parquet", "signals.parquet"
RANKING, REPORT, PROVENANCE = "ranking.json", "report.html", "provenance.json"
QUALITY, GRADES, METRICS = "quality.json", "grades.parquet", "metrics.jsonl"
SAMPLES, ASK, CARD = "samples.parquet", "ask.json", "README.md"
EVALUATION, MARKS = "evaluation.json", "marks.parquet"
EXCHANGES, JUDGEMENTS = "exchanges.parquet", "judgements.parquet"
TOKENS = "tokens"  # folder: signals of every response token
SAMPLE_TOKENS = "sample_tokens.parquet"
ROUTER = "router.safetensors"
WORK = "work"  # shards of stages in progress; removed when their table is written

RANKING_VERSION = 1

ANSWERS_SCHEMA = pa.schema(
    [
        pa.field("instruction_id", pa.string(), nullable=False),
        pa.field("instruction", pa.string(), nullable=False),
        pa.field("teacher", pa.string(), nullable=False),
        pa.field("response", pa.string(), nullable=False),
        pa.field("finish_reason", pa.string(), nullable=False),  # stop | length | recorded
        pa.field("n_generated", pa.int32()),  # tokens the teacher generated; null when recorded
    ]
)

GRADES_SCHEMA = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("instruction_id", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("reward", pa.float64(), nullable=False),
    ]
)

SAMPLE_TOKENS_SCHEMA = pa.schema(  # a row per piece of text: one token, or those of one character
    [
        pa.field("instruction_id", pa.string(), nullable=False),
        pa.field("teacher", pa.string(), nullable=False),
        pa.field("piece", pa.int32(), nullable=False),  # 0, 1 ... of one answer
        pa.field("text", pa.string(), nullable=False),  # empty: tokens that end the answer
        pa.field("n_tokens", pa.int32(), nullable=False),
        pa.field("nll", pa.float32(), nullable=False),  # nats, summed over its tokens
        pa.field("rank", pa.int32()),  # the largest of its tokens; null where it was not measured
    ]
)

_OF_AN_ITEM = (
    pa.field("benchmark", pa.string(), nullable=False),
    pa.field("model", pa.string(), nullable=False),
    pa.field("item", pa.string(), nullable=False),
)
MARKS_SCHEMA = pa.schema(  # a row per number of an item
    [
        *_OF_AN_ITEM,
        pa.field("category", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("value", pa.float64()),  # null where the item has no such number
    ]
)
EXCHANGES_SCHEMA = pa.schema(  # a row per turn
    [
        *_OF_AN_ITEM,
        pa.field("category", pa.string(), nullable=False),
        pa.field("turn", pa.int32(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("response", pa.string(), nullable=False),
        pa.field("finish_reason", pa.string(), nullable=False),
        pa.field("n_generated", pa.int32()),
    ]
)
JUDGEMENTS_SCHEMA = pa.schema(  # a row per comparison that a judge was shown
    [
        *_OF_AN_ITEM,
        pa.field("turn", pa.int32(), nullable=False),
        pa.field("first", pa.bool_(), nullable=False),  # the model's answer stood first
        pa.field("preference", pa.float64()),  # of the model's answer; null where unreadable
        pa.field("length_gap", pa.int64(), nullable=False),  # characters
        pa.field("reply", pa.string(), nullable=False),
    ]
)


OPTIONAL_SIGNALS = (  # null, or not there, where no criterion needs them
    "nll_unconditional",
    "n_tokens_reference",
    "nll_reference",
    "nll_reference_unconditional",
    "n_question",
    "nll_question",
    "entropy",
    "brier",
    "similarity_answer",
    "similarity_question",
    "local",
)
_ALWAYS = OPTIONAL_SIGNALS[:4]
_COUNTS = ("n_tokens_reference", "n_question")
FEATURE = "feature."  # before a criterion's own numbers of each answer


def signals_schema(
    rewards: Iterable[str],
    measured: bool = True,
    others: Iterable[str] = (),
    features: Iterable[str] = (),
) -> pa.Schema:
    """Columns of `signals.parquet`: one row per teacher x instruction; nll summed, in nats.

    Args:
        measured: whether some criterion needs the base's loss; `nll` is null otherwise.
        others: which further signals there are, of `OPTIONAL_SIGNALS` and `token_start`.
        features: columns that criteria have made of tokens or gradients.
    """
    optional = [name for name in OPTIONAL_SIGNALS if name in _ALWAYS or name in others]
    kinds = {name: pa.int32() if name in _COUNTS else pa.float64() for name in optional}
    return pa.schema(
        [
            pa.field("teacher", pa.string(), nullable=False),
            pa.field("instruction_id", pa.string(), nullable=False),
            pa.field("n_tokens", pa.int32(), nullable=False),
            pa.field("nll", pa.float64(), nullable=not measured),
            *(pa.field(name, kind) for name, kind in kinds.items()),
            pa.field("truncated", pa.bool_(), nullable=False),
            *(pa.field(f"reward.{name}", pa.float64(), nullable=False) for name in rewards),
            *([pa.field("token_start", pa.int64())] if "token_start" in others else []),
            *(pa.field(name, pa.float64(), nullable=False) for name in features),
        ]
    )


def samples_schema(rewards: Iterable[str]) -> pa.Schema:
    """Columns of `samples.parquet`: one row per teacher x decoding point x instruction x sample.

    What nobody noted of a recorded answer is null; so is a reward that could not be read.
    """
    return pa.schema(
        [
            pa.field("instruction_id", pa.string(), nullable=False),
            pa.field("instruction", pa.string(), nullable=False),
            pa.field("teacher", pa.string(), nullable=False),
            pa.field("temperature", pa.float64()),
            pa.field("top_p", pa.float64()),
            pa.field("max_new_tokens", pa.int32()),
            pa.field("sample", pa.int32(), nullable=False),  # 0, 1 ... of one point
            pa.field("response", pa.string(), nullable=False),
            pa.field("finish_reason", pa.string(), nullable=False),  # stop | length | recorded
            pa.field("n_prompt", pa.int32()),
            pa.field("n_generated", pa.int32()),
            *(pa.field(f"reward.{name}", pa.float64()) for name in rewards),
        ]
    )


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that appears whole or not at all (raises RunFolderError).

    A temporary neighbour, fsync, rename, fsync of the folder.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise RunFolderError(
            "a file cannot be written",
            where=str(path),
            found=error.strerror or str(error),
            next_step="make room or mend the permissions; what was written before is kept",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """So that the new name outlives a power cut; not every file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def make_folder(folder: Path, option: str) -> None:
    """Make the folder, and those above it, that `option` names (raises RunFolderError)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(
            "the folder cannot be made",
            where=str(folder),
            found=error.strerror or str(error),
            next_step=f"give {option} a place that you may write",
        ) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write whole or not at all (raises RunFolderError)."""
    with whole_file(path) as file:
        file.write(content)


def write_json(path: Path, value: Any) -> None:
    """Deterministic JSON (given order, two spaces, no NaN), written atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path, missing: Any = None) -> Any:
    """What a JSON file holds; `missing` where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else missing


def write_table(path: Path, table: pa.Table) -> None:
    """Parquet (zstd), written atomically."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_bytes(path, sink.getvalue().to_pybytes())


def write_tables(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Parquet (zstd) of tables that come one after the other, written atomically.

    One table at a time is in memory; each is a row group.
    """
    with whole_file(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)
