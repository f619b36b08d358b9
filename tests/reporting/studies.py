"""Made-up studies for the tests of the page, shaped as the recipe writes them."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from hostile import ONE as HOSTILE
from test_compare_report import base as compared
from test_compare_report import judged

from preceptor.core import artifacts
from preceptor.core.comparison import COMPARE_VERSION
from preceptor.core.study import STUDY, STUDY_VERSION

TEACHERS = [  # name, family, billions of parameters
    ("gemma-2-2b-it", "gemma", 2.6),
    ("gemma-2-9b-it", "gemma", 9.2),
    ("gemma-2-27b-it", "gemma", 27.2),
    ("qwen2.5-3b-instruct", "qwen", 3.1),
    ("qwen2.5-7b-instruct", "qwen", 7.6),
    ("qwen2.5-72b-instruct", "qwen", 72.7),
    ("llama-3-8b-instruct", "llama", 8.0),
    ("llama-3-70b-instruct", "llama", 70.6),
    ("llama \u202e405b", "llama", 405.9),
    (HOSTILE, None, None),
]
BASES = ["Qwen2-1.5B", "Gemma-2-2B", "Llama-3.2-3B"]


def source(name: str, **more: Any) -> dict[str, Any]:
    made = {
        "name": name, "teacher": name, "temperature": 0.0, "top_p": 1.0, "pick": "greedy",
        "samples": 1, "family": None, "size": None,
    }  # fmt: skip
    return made | more


def interval(value: float, wide: float = 0.8) -> dict[str, float | None]:
    return {"value": value, "low": value - wide, "high": value + wide}


def build(
    bases: list[str] = BASES,
    sources: list[dict[str, Any]] | None = None,
    arms: tuple[str, ...] = ("sft",),
    seeds: int = 2,
    **more: Any,
) -> dict[str, Any]:
    """A study of every base, source, arm and seed; the last source of the first base failed."""
    given = sources is not None
    own = sources or [source(name, family=f, size=s) for name, f, s in TEACHERS]
    draw = np.random.default_rng(7)
    level = {one["name"]: float(4 + 9 * draw.random()) for one in own}
    cells, matrix = [], []
    for base in bases:
        for arm in arms:
            rows = []
            for place, one in enumerate(own):
                failed = base == bases[0] and place == len(own) - 1 and not given
                values = []
                for seed in range(seeds):
                    value = level[one["name"]] + 2 * arms.index(arm) + float(draw.normal(0, 0.5))
                    status = "failed" if failed else "left" if seed and place == 1 else "done"
                    outcome = round(value, 3) if status == "done" else None
                    values += [outcome] if outcome is not None else []
                    cells.append(
                        {
                            "base": base, "source": one["name"], "arm": arm, "seed": seed,
                            "status": status, "outcome": outcome,
                            "scores": {"lab.reward": outcome}, "seconds": 60.0,
                            "folder": f"cells/{base}/{place}/{arm}/seed-{seed}",
                            "reason": f"killed by {HOSTILE}" if failed else "",
                        }
                    )  # fmt: skip
                if values:
                    rows.append((one["name"], float(np.mean(values)), len(values)))
            order = sorted(rows, key=lambda row: -row[1])
            for name, value, n in rows:
                rank = [row[0] for row in order].index(name) + 1
                matrix.append(
                    {
                        "base": base, "source": name, "arm": arm, "outcome": interval(value),
                        "seeds": n, "rank": rank, "rank_low": max(1, rank - 1),
                        "rank_high": min(len(order), rank + 2),
                    }
                )  # fmt: skip
    made = {
        "version": STUDY_VERSION, "confidence": 0.95, "n_resamples": 1000, "seed": 0,
        "bases": bases, "sources": own, "arms": list(arms), "seeds": list(range(seeds)),
        "n_instructions": 800,
        "outcome": {"title": "mean of alpaca_eval.length_controlled and arena_hard.score",
                    "measures": ["alpaca_eval.length_controlled", "arena_hard.score"]},
        "cells": cells, "matrix": matrix,
        "base_scores": [
            {"base": base, "outcome": 3.1, "low": 2.5, "high": 3.8, "scores": {}} for base in bases
        ],
        "criteria": None if given else comparison(bases),
        "largest": [
            {"base": base, "source": "llama \u202e405b", "size": 405.9, "rank": 7, "low": 5,
             "high": 9, "of": 10}
            for base in bases
        ] if not given else [],
        "paradox": [] if given else families(bases, matrix),
        "paradox_words": [] if given else ["The largest teacher is the best on none of 3 bases."],
        "budget": {"hours": 2.0, "used": 1.9, "order": [c["folder"] for c in cells[:3]]},
        "verdict": [
            {"kind": "best", "text": f"gemma-2-9b-it teaches {bases[0]} best, and surely so."},
            {"kind": "criteria", "text": f"CAR would have said so, {HOSTILE} not."},
        ],
        "warnings": [f"nothing is known of {HOSTILE}"],
        "facts": {"cell_hours": 1.8, "mean_cell_seconds": 61.0},
    }  # fmt: skip
    return made | more


def families(bases: list[str], matrix: list[dict[str, Any]]) -> list[dict[str, Any]]:
    first = matrix[0]["arm"]
    known = {
        (row["base"], row["source"]): row["outcome"]["value"]
        for row in matrix
        if row["arm"] == first
    }
    found = []
    for base in bases:
        for family in ("gemma", "qwen", "llama"):
            own = [(name, size) for name, f, size in TEACHERS if f == family]
            values = [known[base, name] for name, _ in own]
            found.append(
                {
                    "base": base, "family": family, "sources": [name for name, _ in own],
                    "sizes": [size for _, size in own], "outcome": values,
                    "largest_is_best": values[-1] == max(values), "spearman": 0.5,
                    "steps": [interval(b - a) for a, b in pairwise(values)],
                }
            )  # fmt: skip
    return found


def comparison(bases: list[str]) -> dict[str, Any]:
    """As `compare-criteria` finds it, with five teachers."""
    return {
        "version": COMPARE_VERSION, "confidence": 0.95, "n_resamples": 1000, "seed": 0,
        "inputs": {}, "warnings": [], "verdict": [],
        "bases": [compared(name, known=True) for name in bases],
        "mean": judged(bases=bases) if len(bases) > 1 else None,
    }  # fmt: skip


def grid() -> dict[str, Any]:
    """One teacher at every point of a grid, and its greedy answers."""
    sources = [source("gemma@greedy", teacher="gemma")]
    sources += [
        source(f"gemma@t{t:g}-p{p:g}", teacher="gemma", temperature=t, top_p=p, pick="one")
        for t in (0.6, 1.0, 1.2)
        for p in (0.8, 1.0)
    ]
    return build(BASES[:1], sources, seeds=1)


def picks() -> dict[str, Any]:
    """Best, worst and one of several samples, and the greedy answer, of one teacher."""
    sources = [source("gemma@greedy", teacher="gemma")]
    sources += [
        source(f"gemma@t0.8-{pick}", teacher="gemma", temperature=0.8, pick=pick, samples=8)
        for pick in ("best", "worst", "one")
    ]
    return build(BASES[:2], sources, seeds=1)


def written(folder: Path, study: dict[str, Any]) -> Path:
    """The folder of a finished study."""
    folder.mkdir(exist_ok=True)
    (folder / STUDY).write_text(json.dumps(study))
    artifacts.write_json(
        folder / artifacts.PROVENANCE,
        {"preceptor": "0.1.0", "command": "preceptor study s.yaml --out runs/s", "settings": {}},
    )
    artifacts.write_bytes(folder / artifacts.SETTINGS, b"bases: [lab:base-notes]\n")
    return folder
