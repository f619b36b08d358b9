"""The few answers a selection report quotes, picked and read without loading a whole table.

The instructions are those where the recommended teacher's reward differs most from the mean of
the other teachers: half of them in its favour, half against it. Both extremes are shown because
the best cases alone would say nothing about what a student would pick up from this teacher.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from preceptor.core import artifacts
from preceptor.reporting.pages.select import tokens

COUNT = 6  # instructions
MAX_INSTRUCTION_CHARACTERS = 2000
LIMITS = (4000, 3000, 2000, 1500, 1000, 500, 250)  # characters of a response, the first that fits
MAX_BYTES = 1_200_000  # of all samples as JSON, their tokens included

_compute: Any = pyarrow.compute  # its functions are made at import and have no stubs
Gap = tuple[str, float | None]
"""An instruction, and by how much the recommended teacher's reward is above the others' mean."""


def primary_reward(ranking: Mapping[str, Any]) -> str | None:
    """The reward of the recommending criterion, else the first reward, else None."""
    own = ranking["criteria"][ranking["recommended_by"]].get("reward")
    return own or next(iter(ranking.get("rewards") or {}), None)


def choose(folder: Path, ranking: Mapping[str, Any], count: int = COUNT) -> list[Gap]:
    """The instructions that the report quotes, the strongest contrast of each kind first.

    Half of them for the recommended teacher and half against it; ties go by instruction id.
    Without a reward or without other teachers the gap is None, and the order is that of the ids.
    Empty if the run folder holds no answers or signals.
    """
    if not ((folder / artifacts.ANSWERS).exists() and (folder / artifacts.SIGNALS).exists()):
        return []
    reward = f"reward.{primary_reward(ranking)}"
    path = folder / artifacts.SIGNALS
    columns = [n for n in ("teacher", "instruction_id", reward) if n in pq.read_schema(path).names]
    table = pq.read_table(path, columns=columns, read_dictionary=["teacher", "instruction_id"])
    ids, id_of_row = _numbered(table["instruction_id"])
    teachers, teacher_of_row = _numbered(table["teacher"])
    order = np.empty(len(ids), dtype=np.int64)
    order[_compute.array_sort_indices(ids).to_numpy()] = np.arange(len(ids))
    own = _compute.equal(teachers, ranking["recommended"]).to_numpy(zero_copy_only=False)
    is_own = own[teacher_of_row]
    if reward not in columns or is_own.all() or not is_own.any():
        there = np.unique(id_of_row[is_own] if is_own.any() else id_of_row)
        first = there[np.argsort(order[there])][:count]
        return [(ids[place].as_py(), None) for place in first.tolist()]
    gap = _gaps(id_of_row, is_own, table[reward].to_numpy(), len(ids))
    known = np.flatnonzero(np.isfinite(gap))
    falling = known[np.lexsort((order[known], -gap[known]))]
    if len(falling) > count:
        n_against = count // 2
        falling = np.concatenate((falling[: count - n_against], falling[::-1][:n_against]))
    return [(ids[place].as_py(), float(gap[place])) for place in falling.tolist()]


def _numbered(column: pa.ChunkedArray) -> tuple[Any, np.ndarray]:
    """The distinct texts of a dictionary column, and the number of each row's."""
    column = column.unify_dictionaries()
    codes = [chunk.indices.to_numpy() for chunk in column.chunks]
    if not codes:
        return pa.array([], pa.string()), np.empty(0, dtype=np.int64)
    return column.chunk(0).dictionary, np.concatenate(codes)


def _gaps(id_of_row: np.ndarray, is_own: np.ndarray, reward: np.ndarray, n: int) -> np.ndarray:
    """Per instruction: the reward less the mean reward of the others; NaN where either lacks."""
    others = id_of_row[~is_own]
    mean = np.full(n, np.nan)
    count = np.bincount(others, minlength=n)
    total = np.bincount(others, weights=reward[~is_own], minlength=n)
    np.divide(total, count, out=mean, where=count > 0)
    gap = np.full(n, np.nan)
    gap[id_of_row[is_own]] = reward[is_own]
    return gap - mean


def _picked(path: Path, ids: Sequence[str], columns: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of some instructions, one row group in memory at a time."""
    wanted, rows = pa.array(ids, pa.string()), []
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            keys = file.read_row_group(group, columns=["instruction_id"])["instruction_id"]
            places = np.flatnonzero(_compute.is_in(keys, value_set=wanted).to_numpy())
            if len(places):
                table = file.read_row_group(group, columns=columns)
                rows += table.take(pa.array(places)).to_pylist()
    return rows


def read_rows(folder: Path, ids: Sequence[str]) -> dict[tuple[str, str], dict[str, Any]]:
    """(instruction id, teacher) -> its row of `answers.parquet`, and of `signals.parquet`."""
    columns = ["instruction_id", "instruction", "teacher", "response", "finish_reason"]
    answers = _picked(folder / artifacts.ANSWERS, ids, columns)
    rows = {(row["instruction_id"], row["teacher"]): row for row in answers}
    path = folder / artifacts.SIGNALS
    known = [n for n in pq.read_schema(path).names if not n.startswith(artifacts.FEATURE)]
    for signal in _picked(path, ids, known):
        row = rows.get((signal["instruction_id"], signal["teacher"]))
        if row is not None:
            row.update(signal)
    return rows


def _answer(index: int, row: Mapping[str, Any], reward: str | None) -> dict[str, Any]:
    n_tokens, nll, value = row.get("n_tokens"), row.get("nll"), row.get(f"reward.{reward}")
    loss = nll / n_tokens if n_tokens and nll is not None and math.isfinite(nll) else None
    return {
        "teacher": index,
        "response": row["response"],
        "reward": value if value is not None and math.isfinite(value) else None,
        "loss": loss,  # nats a response token
        "tokens": n_tokens,
        "truncated": bool(row.get("truncated")),
        "finish": row["finish_reason"],
    }


def cut(text: str, limit: int) -> dict[str, Any]:
    """The text up to `limit` characters and, only if something was cut, its full length."""
    return {"text": text[:limit]} | ({"of": len(text)} if len(text) > limit else {})


def _fit(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cut every response to one common length, at which all samples fit MAX_BYTES."""
    fitted: list[dict[str, Any]] = []
    for limit in LIMITS:
        fitted = [
            sample | {"answers": [_shown(answer, limit) for answer in sample["answers"]]}
            for sample in samples
        ]
        text = json.dumps(fitted, ensure_ascii=False, separators=(",", ":"))
        if len(text.encode("utf-8", "replace")) <= MAX_BYTES:
            break
    return fitted


def _shown(answer: dict[str, Any], limit: int) -> dict[str, Any]:
    kept = {key: value for key, value in answer.items() if key not in ("response", "pieces")}
    return kept | cut(answer["response"], limit) | tokens.cut(answer["pieces"], limit)


def sample_answers(
    folder: Path, teachers: list[str], ranking: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Six instructions with every teacher's answer, ready for JSON.

    Each sample: id, instruction (text cut at 2,000 characters), gap (reward units, None without
    rewards), answers (teacher as index into `teachers`; text cut at 4,000 characters or fewer, its
    full length under "of" if cut; reward; loss in nats per token; tokens; truncated; finish; and
    what `tokens.cut` gives where the answer was measured token by token).
    Empty if the run folder holds no answers or signals.
    """
    chosen = choose(folder, ranking)
    if not chosen:
        return []
    reward = primary_reward(ranking)
    rows = read_rows(folder, [name for name, _ in chosen])
    pieces = tokens.read(folder)
    samples = []
    for name, gap in chosen:
        found = [(index, rows.get((name, teacher))) for index, teacher in enumerate(teachers)]
        present = [(index, row) for index, row in found if row is not None]
        if not present:
            continue
        answers = []
        for index, row in present:
            own = pieces.get((name, teachers[index]))
            answer = _answer(index, row, reward) | {"pieces": own}
            if own is not None and not row["response"].startswith(own.text):
                answer["response"] = own.text  # what the tokenizer makes of it
            answers.append(answer)
        instruction = cut(present[0][1]["instruction"], MAX_INSTRUCTION_CHARACTERS)
        samples.append({"id": name, "gap": gap, "instruction": instruction, "answers": answers})
    return _fit(samples)
