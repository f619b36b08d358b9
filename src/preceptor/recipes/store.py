"""`preceptor store`: what an answer store holds, and fewer, larger shards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from preceptor.core.progress import progress
from preceptor.data.answer_shards import live_shards, n_answers
from preceptor.data.answer_store import AnswerStore

_COLUMNS = ["temperature", "top_p", "max_new_tokens", "n_prompt", "n_generated", "cost"]


def list_store(folder: Path) -> list[dict[str, Any]]:
    """A row a teacher: `teacher`, `identity`, `decodings`, `answers`, tokens, `cost`, `shards`,
    `bytes` (raises RunFolderError). Takes no lock.

    Tokens and cost are those of all stored answers; a prompt counts as often as it was answered.
    """
    store = AnswerStore(folder)
    rows = []
    for name, identity in store.parts().items():
        table = store.table(_COLUMNS, name)
        sizes = _sizes(folder / name)
        rows.append(
            {
                "teacher": identity.get("model", name),
                "identity": {k: v for k, v in identity.items() if k != "model"},
                "decodings": _decodings(table),
                "answers": table.num_rows,
                "prompt_tokens": _sum(table, "n_prompt"),
                "generated_tokens": _sum(table, "n_generated"),
                "cost": _sum(table, "cost"),
                "shards": len(sizes),
                "bytes": sum(sizes),
            }
        )
    return rows


def _sizes(folder: Path) -> list[int]:
    """Bytes of each shard; one that another process merges meanwhile has none."""
    sizes = []
    for shard in live_shards(folder):
        try:
            sizes.append(shard.path.stat().st_size)
        except FileNotFoundError:
            sizes.append(0)
    return sizes


def _sum(table: pa.Table, column: str) -> Any:
    return table.group_by([]).aggregate([(column, "sum")])[f"{column}_sum"][0].as_py() or 0


def _decodings(table: pa.Table) -> list[str]:
    """In words, the ones with most answers first."""
    counted = table.group_by(_COLUMNS[:3]).aggregate([([], "count_all")])
    rows = sorted(counted.to_pylist(), key=lambda row: -row["count_all"])
    return [f"{row['count_all']:,} {_in_words(row)}" for row in rows]


def _in_words(row: Mapping[str, Any]) -> str:
    sampled = f"T {row['temperature']:g}"
    if row["top_p"] < 1:
        sampled += f", top_p {row['top_p']:g}"
    return f"{'greedy' if row['temperature'] == 0 else sampled}, to {row['max_new_tokens']} tokens"


def compact_store(folder: Path) -> list[dict[str, Any]]:
    """Merge each teacher's shards; a row a teacher: `teacher`, `before`, `after` (shards).

    Waits for whoever asks a teacher (raises RunFolderError).
    """
    store = AnswerStore(folder)
    rows = []
    for identity in store.parts().values():
        with store.part(identity) as part:
            before = live_shards(part.folder)
            total = sum(map(n_answers, before))
            with progress(f"compacting {part.folder.name}", total, "answers") as advance:
                part.compact(advance)
            after = len(live_shards(part.folder))
            name = identity.get("model", part.folder.name)
            rows.append({"teacher": name, "before": len(before), "after": after})
    return rows
