"""What an asking's page quotes of `samples.parquet`: how answers ended, and a few of them.

Of the instructions that are quoted, half are those whose samples differ most in the first reward,
half are drawn at random. Of each teacher the sample with the highest and the one with the lowest
reward stand there, whatever the decoding; without rewards its first one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from preceptor.core import artifacts
from preceptor.reporting.pages.evaluate.samples import fit, pick

ITEMS = 16
REASONS = ("stop", "length", "content_filter", "recorded")
POINT = ("teacher", "temperature", "top_p", "max_new_tokens")

Point = tuple[Any, ...]
"""Values of `POINT`."""


def point_of(row: Mapping[str, Any]) -> Point:
    return tuple(row[name] for name in POINT)


def endings(folder: Path, points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any] | None]:
    """Of each point, reason -> share of its answers, and `n`; None where the table lacks it."""
    path = folder / artifacts.SAMPLES
    if not path.exists():
        return [None for _ in points]
    table = pq.read_table(path, columns=[*POINT, "finish_reason"])
    counted = table.group_by([*POINT, "finish_reason"], use_threads=False)
    count: dict[Point, dict[str, int]] = {}
    for row in counted.aggregate([([], "count_all")]).to_pylist():
        count.setdefault(point_of(row), {})[row["finish_reason"]] = row["count_all"]
    found: list[dict[str, Any] | None] = []
    for point in points:
        own = count.get(point_of(point))
        n = sum(own.values()) if own else 0
        shares = {reason: own.get(reason, 0) / n for reason in REASONS} if own and n else None
        found.append({"n": n, **shares} if shares else None)
    return found


def sample_answers(
    folder: Path, points: Sequence[Mapping[str, Any]], rewards: Sequence[str], count: int = ITEMS
) -> list[Any]:
    """At most `count` instructions with answers of every teacher, ready for JSON.

    Each sample: `why` ("gap" or "random"), `gap` (highest less lowest first reward, or None),
    `prompts` (the instruction), and `answers`: `point` (index), `which` ("highest", "lowest" or
    ""), `of` (samples of the teacher), `turns` (its text and `finish`), `marks` ([reward, value]).
    """
    path = folder / artifacts.SAMPLES
    if not path.exists():
        return []
    known = set(pq.read_schema(path).names)
    columns = [f"reward.{name}" for name in rewards if f"reward.{name}" in known]
    first = columns[0] if columns else None
    keys = pq.read_table(path, columns=["instruction_id", *columns[:1]])
    picked = pick(
        dict.fromkeys(keys["instruction_id"].unique().to_pylist(), ""), _spread(keys, first), count
    )
    wanted = pc.field("instruction_id").isin(list(picked))
    text = ["instruction_id", "instruction", "response", "finish_reason"]
    rows = pq.read_table(path, columns=[*text, *POINT, *columns], filters=wanted).to_pylist()
    place = {point_of(point): number for number, point in enumerate(points)}
    samples = []
    for item, (why, gap) in picked.items():
        own = [row for row in rows if row["instruction_id"] == item and point_of(row) in place]
        if own:
            samples.append(
                {
                    "why": why,
                    "gap": gap,
                    "prompts": [own[0]["instruction"]],
                    "answers": _chosen(own, place, columns),
                }
            )
    return fit(samples)


def _spread(keys: pa.Table, first: str | None) -> dict[str, float]:
    """Instruction -> highest less lowest first reward; those with fewer than two are left out."""
    if first is None:
        return {}
    scored = keys.filter(pc.call_function("is_finite", [keys[first]]))
    ends = scored.group_by("instruction_id", use_threads=False).aggregate(
        [(first, "min"), (first, "max"), (first, "count")]
    )
    return {
        row["instruction_id"]: row[f"{first}_max"] - row[f"{first}_min"]
        for row in ends.to_pylist()
        if row[f"{first}_count"] > 1
    }


def _chosen(
    rows: Sequence[Mapping[str, Any]], place: Mapping[Point, int], columns: Sequence[str]
) -> list[dict[str, Any]]:
    """Of each teacher the answers with the highest and the lowest first reward."""
    found = []
    for teacher in dict.fromkeys(row["teacher"] for row in rows):
        own = [row for row in rows if row["teacher"] == teacher]
        scored = [row for row in own if columns and _finite(row[columns[0]])]
        if len(scored) > 1:
            ordered = sorted(scored, key=lambda row: -row[columns[0]])
            shown = [(ordered[0], "highest"), (ordered[-1], "lowest")]
        else:
            shown = [((scored or own)[0], "")]
        found += [
            {
                "point": place[point_of(row)],
                "which": which,
                "of": len(own),
                "turns": [{"text": row["response"], "finish": row["finish_reason"]}],
                "marks": [
                    (name.removeprefix("reward."), float(f"{row[name]:.4g}"))
                    for name in columns
                    if _finite(row[name])
                ],
                "games": [],
            }
            for row, which in shown
        ]
    return found


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)
