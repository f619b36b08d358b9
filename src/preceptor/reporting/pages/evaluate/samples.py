"""The exchanges that the page of an evaluation quotes: picked by marks, read without the rest.

Half of the items of a benchmark are those on which the models' marks lie farthest apart, half are
drawn at random from the others: extremes alone would say little about a usual answer. Both halves
go round the categories, so that each has its share.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from preceptor.core import artifacts
from preceptor.core.evaluation import Benchmarked, Evaluation
from preceptor.reporting.parts import page

ITEMS = 60  # of all benchmarks together
MAX_CHARACTERS = 4000  # of one answer or question
MIN_CHARACTERS = 250
MAX_BYTES = 2_000_000  # of all samples, as they stand in the page
MAX_MARKS = 8  # shown of one answer
_KEYS = ["item", "category"]

Picked = dict[str, tuple[str, float | None]]
"""Item -> why it was picked ("gap" or "random"), and how far its marks lie apart."""


def sample_exchanges(folder: Path, evaluation: Evaluation, count: int = ITEMS) -> list[Any]:
    """At most `count` items with every model's answers, ready for JSON.

    Each sample: `benchmark` (index), `item`, `category`, `why`, `gap` (None where marks are
    missing), `prompts` (a turn each), and `answers`: `model` (index), `turns` (text, `of` its full
    length where it was cut, `finish`), `marks` ([name, value]) and `games` (`turn`, `first`,
    `preference`, `reply`). Empty if the run folder holds no exchanges.

    Args:
        evaluation: the content of `evaluation.json` of the folder.
    """
    path = folder / artifacts.EXCHANGES
    if not path.exists():
        return []
    asked = pq.read_table(path, columns=["benchmark", *_KEYS])
    names = [own["name"] for own in evaluation["benchmarks"]]
    present = set(asked["benchmark"].unique().to_pylist())
    held = [own for own in evaluation["benchmarks"] if own["name"] in present]
    samples = []
    for place, own in enumerate(held):
        share = count // len(held) + (place < count % len(held))
        samples += _of_benchmark(folder, evaluation, own, names.index(own["name"]), asked, share)
    return fit(samples)


def _of_benchmark(
    folder: Path, evaluation: Evaluation, own: Benchmarked, index: int, asked: pa.Table, count: int
) -> list[dict[str, Any]]:
    chosen = pc.field("benchmark") == own["name"]
    items = asked.filter(chosen).group_by(_KEYS, use_threads=False).aggregate([])
    categories = dict(zip(items["item"].to_pylist(), items["category"].to_pylist(), strict=True))
    marks = _read(folder / artifacts.MARKS, chosen)
    picked = pick(categories, spreads(marks, own["measures"][0]["name"]), count)
    wanted = chosen & pc.field("item").isin(list(picked))
    turns = _read(folder / artifacts.EXCHANGES, wanted)
    by_answer = _grouped(turns)
    values = _grouped(marks.filter(pc.field("item").isin(list(picked))) if marks else None)
    games = _grouped(_read(folder / artifacts.JUDGEMENTS, wanted))
    samples = []
    for item, (why, gap) in picked.items():
        found = [
            (number, (item, model))
            for number, model in enumerate(evaluation["models"])
            if (item, model) in by_answer
        ]
        if not found:
            continue
        prompts = by_answer[found[0][1]]
        samples.append(
            {
                "benchmark": index,
                "item": item,
                "category": categories[item],
                "why": why,
                "gap": gap,
                "prompts": [row["prompt"] for row in prompts],
                "answers": [
                    {
                        "model": number,
                        "turns": [_turn(row) for row in by_answer[key]],
                        "marks": _marks(values.get(key, [])),
                        "games": [_game(row) for row in games.get(key, [])],
                    }
                    for number, key in found
                ],
            }
        )
    return samples


def _read(path: Path, chosen: pc.Expression) -> pa.Table | None:
    return pq.read_table(path, filters=chosen) if path.exists() else None


def _grouped(table: pa.Table | None) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """(item, model) -> its rows, in the order of their turns and else of the table."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in table.to_pylist() if table else []:
        found.setdefault((row["item"], row["model"]), []).append(row)
    for rows in found.values():
        rows.sort(key=lambda row: row.get("turn", 0))
    return found


def _turn(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"text": row["response"], "finish": row["finish_reason"]}


def _marks(rows: Iterable[Mapping[str, Any]]) -> list[tuple[str, float]]:
    known = [
        (row["name"], float(f"{row['value']:.4g}"))
        for row in rows
        if row["value"] is not None and math.isfinite(row["value"])
    ]
    return known[:MAX_MARKS]


def _game(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "turn": row["turn"],
        "first": row["first"],
        "preference": row["preference"],
        "reply": {"text": row["reply"]},
    }


def spreads(marks: pa.Table | None, measure: str) -> dict[str, float]:
    """Item -> highest less lowest mark of all models; items with a single mark are left out.

    The mark is the one of the measure's name, else the benchmark's first one.
    """
    if marks is None or not marks.num_rows:
        return {}
    names = marks["name"].unique().to_pylist()
    own = marks.filter(pc.field("name") == (measure if measure in names else names[0]))
    own = own.filter(pc.field("value").is_valid())
    ends = own.group_by("item", use_threads=False).aggregate(
        [("value", "min"), ("value", "max"), ("value", "count")]
    )
    return {
        row["item"]: row["value_max"] - row["value_min"]
        for row in ends.to_pylist()
        if row["value_count"] > 1
    }


def pick(categories: Mapping[str, str], spread: Mapping[str, float], count: int) -> Picked:
    """Half of `count` items by the largest spread, half at random with a fixed seed.

    Args:
        categories: item -> category; both halves take from each category in turn.
        spread: item -> how far its marks lie apart; items without one are only drawn.
    """
    apart = sorted(
        (item for item in categories if spread.get(item)),
        key=lambda item: (-spread[item], item),
    )
    first = _in_turn(apart, categories, (count + 1) // 2)
    left = sorted(set(categories) - set(first))
    random.Random(0).shuffle(left)
    drawn = _in_turn(left, categories, count - len(first))
    return {item: ("gap", spread[item]) for item in first} | {
        item: ("random", spread.get(item)) for item in drawn
    }


def _in_turn(items: Sequence[str], categories: Mapping[str, str], count: int) -> list[str]:
    """The first `count` items, one of each category in turn; categories in order of their first."""
    queues: dict[str, list[str]] = {}
    for item in items:
        queues.setdefault(categories[item], []).append(item)
    rounds = zip_longest(*queues.values())
    return [item for each in rounds for item in each if item is not None][:count]


def fit(samples: list[dict[str, Any]], limit: int = MAX_BYTES) -> list[dict[str, Any]]:
    """Cut every text to one common length, halved until all fit; then single items go."""
    length = MAX_CHARACTERS
    while True:
        fitted = [_cut_sample(sample, length) for sample in samples]
        if _fits(fitted, limit):
            return fitted
        if length // 2 < MIN_CHARACTERS:
            break
        length //= 2
    while fitted and not _fits(fitted, limit):
        step = min(10, len(fitted))
        fitted = [sample for place, sample in enumerate(fitted, start=1) if place % step]
    return fitted


def _fits(value: Any, limit: int) -> bool:
    """Whether `value` takes at most `limit` bytes in the page."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    least = len(text.encode("utf-8", "replace")) + 5 * sum(map(text.count, "<>&"))
    return least <= limit and len(page.embed_json(value).encode("utf-8", "replace")) <= limit


def _cut_sample(sample: Mapping[str, Any], length: int) -> dict[str, Any]:
    return {
        **sample,
        "prompts": [_cut(text, length) for text in sample["prompts"]],
        "answers": [
            {
                **answer,
                "turns": [{**turn, **_cut(turn["text"], length)} for turn in answer["turns"]],
                "games": [
                    {**game, "reply": _cut(game["reply"]["text"], length // 4)}
                    for game in answer["games"]
                ],
            }
            for answer in sample["answers"]
        ],
    }


def _cut(text: str, length: int) -> dict[str, Any]:
    """The text up to `length` characters and, only if something was cut, its full length."""
    return {"text": text[:length]} | ({"of": len(text)} if len(text) > length else {})
