"""The few answers a selection report quotes, picked and read without loading the whole table.

The instructions are those where the recommended teacher's reward differs most from the mean of
the other teachers: half of them in its favour, half against it. Both extremes are shown because
the best cases alone would say nothing about what a student would pick up from this teacher.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from preceptor.core import artifacts

MAX_CHARACTERS = 4000  # of one response
MAX_INSTRUCTION_CHARACTERS = 2000
MAX_BYTES = 400_000  # of all samples as JSON; longer responses are cut further to fit


def gaps(signals: pa.Table, teacher: str, reward: str | None) -> list[tuple[str, float | None]]:
    """Per instruction: reward of `teacher` minus the mean reward of the others, falling.

    Ties go by instruction id. Without a reward or without other teachers the gap is None and the
    order is that of the ids.
    """
    column = f"reward.{reward}"
    is_teacher = pc.field("teacher") == teacher
    own, others = signals.filter(is_teacher), signals.filter(~is_teacher)
    if reward is None or column not in signals.column_names or not others.num_rows:
        names = (own if own.num_rows else signals)["instruction_id"].unique()
        return [(name, None) for name in sorted(names.to_pylist())]
    own = own.select(["instruction_id", column]).rename_columns(["instruction_id", "own"])
    grouped = others.group_by("instruction_id", use_threads=False)  # one order of summation
    means = grouped.aggregate([(column, "mean")])
    joined = own.join(means, keys="instruction_id", join_type="inner")
    gap = pc.call_function("subtract", [joined["own"], joined[f"{column}_mean"]])
    table = pa.table({"id": joined["instruction_id"], "gap": gap})
    table = table.filter(pc.call_function("is_finite", [table["gap"]]))
    table = table.sort_by([("gap", "descending"), ("id", "ascending")])
    return list(zip(table["id"].to_pylist(), table["gap"].to_pylist(), strict=True))


def extremes(ordered: list[tuple[str, float | None]], count: int) -> list[tuple[str, float | None]]:
    """The first and the last of `ordered`, `count` in all, the strongest contrast of each first."""
    if len(ordered) <= count or all(gap is None for _, gap in ordered):
        return ordered[:count]
    n_against = count // 2
    return ordered[: count - n_against] + ordered[::-1][:n_against]


def _read_signals(path: Path, teacher: str, reward: str | None) -> pa.Table:
    known = set(pq.read_schema(path).names)
    wanted = [name for name in ("teacher", "instruction_id", f"reward.{reward}") if name in known]
    return pq.read_table(path, columns=wanted)


def _cut(text: str, limit: int) -> dict[str, Any]:
    """The text up to `limit` characters and, only if something was cut, its full length."""
    return {"text": text[:limit]} | ({"of": len(text)} if len(text) > limit else {})


def _answers(folder: Path, ids: list[str], reward: str | None) -> dict[tuple[str, str], Any]:
    """(instruction id, teacher) → answer row joined with its signals, for `ids` only."""
    chosen = pc.field("instruction_id").isin(ids)
    columns = ["instruction_id", "instruction", "teacher", "response", "finish_reason"]
    answers = pq.read_table(folder / artifacts.ANSWERS, columns=columns, filters=chosen)
    signals = pq.read_table(folder / artifacts.SIGNALS, filters=chosen)
    rows = {(row["instruction_id"], row["teacher"]): row for row in answers.to_pylist()}
    for signal in signals.to_pylist():
        row = rows.get((signal["instruction_id"], signal["teacher"]))
        if row is None:
            continue
        n_tokens = signal["n_tokens"]
        row["tokens"], row["truncated"] = n_tokens, signal["truncated"]
        nll = signal["nll"]  # null where no criterion needs it
        finite = n_tokens and nll is not None and math.isfinite(nll)
        row["loss"] = nll / n_tokens if finite else None  # nats per response token
        value = signal.get(f"reward.{reward}")
        row["reward"] = value if value is not None and math.isfinite(value) else None
    return rows


def _fit(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cut every response to one common length, halved until all samples fit MAX_BYTES."""
    limit = MAX_CHARACTERS
    while True:
        fitted = [
            sample
            | {
                "answers": [
                    {key: value for key, value in answer.items() if key != "response"}
                    | _cut(answer["response"], limit)
                    for answer in sample["answers"]
                ]
            }
            for sample in samples
        ]
        size = len(json.dumps(fitted, ensure_ascii=False).encode("utf-8", "replace"))
        if size <= MAX_BYTES or limit <= 250:
            return fitted
        limit //= 2


def sample_answers(
    folder: Path, teachers: list[str], recommended: str, reward: str | None, *, count: int = 6
) -> list[dict[str, Any]]:
    """`count` instructions with every teacher's answer, ready for JSON.

    Each sample: id, instruction (text cut at 2,000 characters), gap (reward units, None without
    rewards), answers (teacher as index into `teachers`; text cut at 4,000 characters, its full
    length under "of" if cut; reward; loss in nats per token; tokens; truncated; finish).
    Empty if the run folder holds no answers or signals.
    """
    if not ((folder / artifacts.ANSWERS).exists() and (folder / artifacts.SIGNALS).exists()):
        return []
    signals = _read_signals(folder / artifacts.SIGNALS, recommended, reward)
    chosen = extremes(gaps(signals, recommended, reward), count)
    rows = _answers(folder, [name for name, _ in chosen], reward)
    samples = []
    for name, gap in chosen:
        found = [(index, rows.get((name, teacher))) for index, teacher in enumerate(teachers)]
        present = [(index, row) for index, row in found if row is not None]
        if not present:
            continue
        answers = [
            {
                "teacher": index,
                "response": row["response"],
                "reward": row.get("reward"),
                "loss": row.get("loss"),
                "tokens": row.get("tokens"),
                "truncated": bool(row.get("truncated")),
                "finish": row["finish_reason"],
            }
            for index, row in present
        ]
        instruction = _cut(present[0][1]["instruction"], MAX_INSTRUCTION_CHARACTERS)
        samples.append({"id": name, "gap": gap, "instruction": instruction, "answers": answers})
    return _fit(samples)
