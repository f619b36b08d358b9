"""What a selection's folder may have beside its ranking: quoted tokens, controls, a race."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from preceptor.core import artifacts
from preceptor.reporting.pages.select import samples

FAMILIES = ("phi", "gemma", "llama", "qwen2.5", "qwen2")


def read_ranking(folder: Path) -> dict[str, Any]:
    return json.loads((folder / artifacts.RANKING).read_text(encoding="utf-8"))


def change(folder: Path, **values: Any) -> dict[str, Any]:
    """`ranking.json` with other values at its top."""
    ranking = read_ranking(folder) | values
    artifacts.write_json(folder / artifacts.RANKING, ranking)
    return ranking


def add_tokens(folder: Path, rows: dict[tuple[str, str], Any] | None = None) -> pa.Table:
    """`sample_tokens.parquet` of the answers that the page quotes: a piece a word."""
    if rows is None:
        chosen = [name for name, _ in samples.choose(folder, read_ranking(folder))]
        rows = samples.read_rows(folder, chosen)
    rng = np.random.default_rng(4)
    columns: dict[str, list[Any]] = {name: [] for name in artifacts.SAMPLE_TOKENS_SCHEMA.names}
    for (key, teacher), row in rows.items():
        pieces = [*re.findall(r"\s?\w+|\s?[^\w\s]|\s", row["response"]), ""]
        n = len(pieces)
        nll = rng.exponential(1.6, n)
        columns["instruction_id"] += [key] * n
        columns["teacher"] += [teacher] * n
        columns["piece"] += range(n)
        columns["text"] += pieces
        columns["n_tokens"] += [1] * n
        columns["nll"] += nll.tolist()
        columns["rank"] += (1 + rng.integers(0, (1 + 40 * nll**2).astype(int))).tolist()
    table = pa.table(columns, schema=artifacts.SAMPLE_TOKENS_SCHEMA)
    artifacts.write_table(folder / artifacts.SAMPLE_TOKENS, table)
    return table


def add_controls(folder: Path, families: tuple[str, ...] = FAMILIES) -> dict[str, Any]:
    """The part `controls`, with made-up figures; teachers belong to the families in turn."""
    ranking = read_ranking(folder)
    teachers = list(ranking["teachers"])
    family = {name: families[place % len(families)] for place, name in enumerate(teachers)}
    rows = {
        key: {
            "n": len(criterion["teachers"]),
            "length": {"spearman": 0.45, "p_value": 0.043},
            "size": {
                "n": len(teachers),
                "spearman": -0.31,
                "p_value": 0.18,
                "without_length": -0.12,
                "length_without_size": 0.4,
            },
            "family": {
                "n": len(teachers),
                "families": len(set(family.values())),
                "share": 0.62,
                "chance": 0.21,
                "p_value": 0.0004,
            },
            "first_without_length": criterion["teachers"][-1]["teacher"],
        }
        for key, criterion in ranking["criteria"].items()
    }
    controls = {
        "teachers": {
            name: {"family": family[name], "size": float(place + 1)}
            for place, name in enumerate(teachers)
        },
        "criteria": rows,
        "within": {"reward.reward": 0.23, "loss": -0.11},
    }
    return change(folder, controls=controls)


def add_race(folder: Path, n_rounds: int = 6) -> dict[str, Any]:
    """The part `race`: after each round but the last two the worse half of the rest goes."""
    ranking = read_ranking(folder)
    order = [row["teacher"] for row in ranking["criteria"][ranking["recommended_by"]]["teachers"]]
    sizes = np.cumsum([20, 30, 45, 68, 101, 152])[:n_rounds].tolist()
    active, rounds, used = list(order), [], 0
    for number, n_asked in enumerate(sizes):
        last = n_asked == sizes[-1] or number >= n_rounds - 2
        gone = [] if last or len(active) < 3 else active[(len(active) + 1) // 2 :]
        rounds.append(
            {
                "n_asked": n_asked,
                "n_instructions": n_asked,
                "active": list(active),
                "leader": active[number % 2] if len(active) > 1 else active[0],
                "eliminated": [
                    {"teacher": name, "difference": 0.05 + 0.01 * place, "bound": 0.04}
                    for place, name in enumerate(gone)
                ],
            }
        )
        used += len(active) * (n_asked - (sizes[number - 1] if number else 0))
        active = [name for name in active if name not in gone]
    race = {
        "criterion": ranking["recommended_by"],
        "confidence": 0.95,
        "n_total": 805,
        "rounds": rounds,
        "answers_used": used,
        "answers_full": 805 * len(order),
        "tokens_used": 12345,
        "tokens_full": 98765,
        "cost": 0.0,
        "cost_full": 0.0,
        "stopped_because": "instructions",
        "needed": [{"first": active[0], "second": active[-1], "n_more": 319}],
    }
    return change(folder, race=race)


def dress(folder: Path) -> Path:
    """All of it."""
    add_tokens(folder)
    add_controls(folder)
    add_race(folder)
    add_groups(folder)
    return folder


def quoted_texts(folder: Path) -> dict[tuple[str, str], str]:
    """(instruction, teacher) -> the pieces joined."""
    found: dict[tuple[str, str], str] = {}
    for row in pq.read_table(folder / artifacts.SAMPLE_TOKENS).to_pylist():
        key = (row["instruction_id"], row["teacher"])
        found[key] = found.get(key, "") + row["text"]
    return found


def add_groups(folder: Path, values: tuple[str, ...] = ("maths", "law", "few")) -> dict[str, Any]:
    """The part `by`: another teacher is first on the second value, the last one is not ranked."""
    ranking = read_ranking(folder)
    rows = ranking["criteria"][ranking["recommended_by"]]["teachers"]
    groups: list[dict[str, Any]] = []
    for place, value in enumerate(values):
        if place == len(values) - 1:
            groups.append(
                {"value": value, "n_instructions": 1, "recommended": None, "why": "1 instruction"}
            )
            continue
        turned = [rows[(number + place) % len(rows)] for number in range(len(rows))]
        own = [row | {"rank": rank} for rank, row in enumerate(turned, 1)]
        gap = {"difference": 0.02, "low": 0.01, "high": 0.03, "separable": True}
        groups.append(
            {
                "value": value,
                "n_instructions": 40,
                "recommended": own[0]["teacher"],
                "tied_with_first": [],
                "teachers": own,
                "against_overall": gap if place else None,
            }
        )
    by = {
        "column": "domain",
        "least": 2,
        "n_without": 0,
        "groups": groups,
        "routing": {},
        "fragment": "routing.yaml",
        "warnings": [],
    }
    return change(folder, by=by)
