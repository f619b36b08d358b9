"""A synthetic evaluation: models on four benchmarks, from marks drawn with a fixed seed."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hostile import FEW as HOSTILE

from preceptor.core import artifacts

MODELS = ["base-notes", "aster-m", "birch-l", "cedar-s", "student of aster-m and birch-l, seed 3"]
SKILL = [0.0, 0.55, 0.6, 0.25, 0.45]
MT_CATEGORIES = [
    *("writing", "roleplay", "reasoning", "math"),
    *("coding", "extraction", "stem", "humanities"),
]

CHECKS = [f"check_{place:02}" for place in range(14)]
NONE = {"value": None, "low": None, "high": None}
TEXT = (
    "Light from the sun holds every colour. The air scatters the short blue waves far more than "
    "the long red ones, so blue reaches the eye from all over the sky.\n\n- scattering\n- air\n\n"
)
# name, kind, items, turns, categories, measures (name, title, low, high, direction, scale)
BENCHMARKS: list[tuple[str, str, int, int, list[str], list[tuple[Any, ...]]]] = [
    ("alpaca_eval", "alpaca_eval", 120, 1, [],
     [("length_controlled", "length-controlled win rate, %", 0.0, 100.0, "higher", 100.0),
      ("win_rate", "win rate, %", 0.0, 100.0, "higher", 96.0)]),
    ("mt_bench", "mt_bench", 80, 2, MT_CATEGORIES,
     [("grade", "mean grade of both turns", 1.0, 10.0, "higher", 10.0)]),
    ("ifeval", "verifiable", 210, 1, CHECKS,
     [("strict", "prompts with every constraint kept, %", 0.0, 100.0, "higher", 100.0)]),
    ("wiki", "own:loss", 60, 1, ["easy", "hard"],
     [("loss", "loss of held-out text, nats per token", None, None, "lower", 4.0)]),
]  # fmt: skip


def marks_of(place: int, models: int) -> np.ndarray:
    """Marks in [0, 1] of benchmark `place`, shaped (models, items); 0 or 1 for the third one."""
    rng = np.random.default_rng(place)
    name, _, n, _, _, measures = BENCHMARKS[place]
    skill_N = np.array([SKILL[i % len(SKILL)] for i in range(models)])[:, None]
    hardness_N = rng.normal(0, 0.15, (1, n))
    mark = 0.25 + 0.5 * skill_N + hardness_N + rng.normal(0, 0.18, (models, n))
    if measures[0][4] == "lower":
        mark = 1.0 - mark
    return (mark > 0.45).astype(float) if name == "ifeval" else np.clip(mark, 0.02, 0.98)


def measured(values: np.ndarray, scale: float = 1.0) -> dict[str, float | None]:
    """A mean with its normal interval."""
    if not len(values):
        return dict(NONE)
    mean, half = float(values.mean()), 1.96 * float(values.std()) / math.sqrt(len(values))
    return {"value": scale * mean, "low": scale * (mean - half), "high": scale * (mean + half)}


def mcnemar(better: int, worse: int) -> float:
    """The exact two-sided p of McNemar's test."""
    n = better + worse
    tail = sum(math.comb(n, k) for k in range(min(better, worse) + 1)) / 2**n
    return min(1.0, 2 * tail)


def _difference(marks: np.ndarray, models: list[str], a: int, b: int, own: Any) -> dict[str, Any]:
    gap = marks[a] - marks[b]
    better, worse = int((gap > 0).sum()), int((gap < 0).sum())
    exact = set(np.unique(marks)) <= {0.0, 1.0}
    spread = gap.std() / math.sqrt(len(gap))
    sign = 1 if own[4] == "higher" else -1
    return {
        "model": models[a],
        "against": models[b],
        "measure": own[0],
        **measured(gap, own[5]),
        "p_value": mcnemar(better, worse)
        if exact
        else math.erfc(abs(gap.mean() / max(spread, 1e-9)) / math.sqrt(2)),
        "test": "mcnemar" if exact else "bootstrap",
        "better": better if sign > 0 else worse,
        "worse": worse if sign > 0 else better,
    }


def _kept(own: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    could, can = reference > 0.5, own > 0.5
    return {
        "kept": measured(can[could].astype(float)),
        "n_could": int(could.sum()),
        "n_lost": int((could & ~can).sum()),
        "n_won": int((~could & can).sum()),
    }


def _benchmark(place: int, models: list[str]) -> dict[str, Any]:
    name, kind, n, _, categories, measures = BENCHMARKS[place]
    marks = marks_of(place, len(models))
    of = np.arange(n) % max(len(categories), 1)
    scores = [
        {
            "model": model,
            "n_marked": n,
            "measures": {own[0]: measured(marks[i], own[5]) for own in measures},
            "categories": {
                category: {own[0]: measured(marks[i][of == c], own[5]) for own in measures}
                for c, category in enumerate(categories)
            },
            "facts": {},
        }
        for i, model in enumerate(models)
    ]
    pairs = [(i, 0) for i in range(1, len(models))]
    pairs += [(b, a) for a, b in combinations(range(1, len(models)), 2)]
    judge = None
    if kind in ("alpaca_eval", "mt_bench"):
        judge = {
            "games": n * len(models),
            "unreadable": 3,
            "first_position": {"value": 0.561, "low": 0.532, "high": 0.59},
            "length_slope": {"value": 0.082, "low": 0.041, "high": 0.124},
            "consistency": 0.84,
            "agreement": {"value": 0.78, "low": 0.71, "high": 0.84, "n": 150}
            if kind == "mt_bench"
            else None,
            "words": ["The judge prefers the answer that it reads first, beyond chance."],
        }
    names = ("name", "title", "low", "high", "direction")
    return {
        "name": name,
        "kind": kind,
        "n": n,
        "measures": [
            dict(zip(names, own, strict=False)) | {"source": "arXiv 2404.04475, eq. 2"}
            for own in measures
        ],
        "categories": list(categories),
        "scores": scores,
        "differences": [
            _difference(marks, models, a, b, own) for own in measures for a, b in pairs
        ],
        "retention": [
            {
                "model": model,
                **_kept(marks[i], marks[0]),
                "categories": {
                    category: _kept(marks[i][of == c], marks[0][of == c])
                    for c, category in enumerate(categories)
                },
            }
            for i, model in enumerate(models)
            if i and measures[0][4] == "higher"
        ],
        "judge": judge,
    }


def _quality(place: int, models: list[str]) -> list[dict[str, Any]]:
    name, _, n, turns, _, _ = BENCHMARKS[place]
    forms = ("list", "header", "code", "bold", "json", "table")
    return [
        {
            "model": model,
            "benchmark": name,
            "n": n * turns,
            "length": {"mean": 412.0 + 260 * i, "median": 366.0 + 230 * i},
            "drift": dict(NONE)
            if i == 0
            else {"value": 0.2 * i, "low": 0.2 * i - 0.06, "high": 0.2 * i + 0.06},
            "refused": 0.004 * i,
            "cut_off": None if i == 3 else 0.03 * i,
            "empty": 0.0,
            "repeated": 0.11 if i == 0 else 0.01,
            "formats": {form: min(1.0, 0.05 + 0.04 * j * (i + 1)) for j, form in enumerate(forms)},
        }
        for i, model in enumerate(models)
    ]


def evaluation(models: list[str] | None = None) -> Any:
    """A whole `evaluation.json`; the first model is the reference."""
    models = list(models or MODELS)
    places = range(len(BENCHMARKS))
    return {
        "version": 1,
        "confidence": 0.95,
        "n_resamples": 1000,
        "seed": 0,
        "reference": models[0],
        "models": models,
        "benchmarks": [_benchmark(place, models) for place in places],
        "quality": [row for place in places[:3] for row in _quality(place, models)],
        "gate": [
            {"condition": "alpaca_eval.win_rate < 20 (aster-m)", "value": 51.2, "holds": False},
            {"condition": "mt_bench.grade < 6 (base-notes)", "value": 2.46, "holds": True},
            {"condition": "wiki.loss/rare > 5", "value": None, "holds": True},
        ],
        "warnings": ["3 replies of the judge on alpaca_eval cannot be read"],
    }


def _item(place: int, model: str, i: int, item: int, mark: float, texts: list[str]) -> Any:
    """The rows of one model on one item: exchanges, marks, games."""
    name, kind, _, turns, categories, measures = BENCHMARKS[place]
    own = {"benchmark": name, "model": model, "item": f"q{item:04}"}
    own_category = {"category": categories[item % len(categories)] if categories else ""}
    text, asked = texts[(item + i) % len(texts)], texts[item % len(texts)]
    exchanges = [
        own
        | own_category
        | {
            "turn": turn,
            "prompt": f"Why is the sky blue? ({name}, {item}, turn {turn})\n{asked}",
            "response": f"{model} says: {text}\n{TEXT * (1 + i)}" if (item + i) % 29 else "",
            "finish_reason": "stop" if (item + i) % 17 else "length",
            "n_generated": 80 * (1 + i),
        }
        for turn in range(turns)
    ]
    numbers = {measures[0][0]: mark, "length": 100.0 * (1 + i)}
    marks = [own | own_category | {"name": key, "value": value} for key, value in numbers.items()]
    seen = {"turn": 0, "first": item % 2 == 0, "length_gap": 300 * i}
    verdict = {"preference": mark, "reply": f"Answer A is better. {text}"}
    return exchanges, marks, [own | seen | verdict] if kind == "alpaca_eval" else []


def _tables(folder: Path, models: list[str], texts: list[str], places: range) -> None:
    files = (
        (artifacts.EXCHANGES, artifacts.EXCHANGES_SCHEMA),
        (artifacts.MARKS, artifacts.MARKS_SCHEMA),
        (artifacts.JUDGEMENTS, artifacts.JUDGEMENTS_SCHEMA),
    )
    rows: list[list[Any]] = [[] for _ in files]
    for place in places:
        values = marks_of(place, len(models))
        for i, model in enumerate(models):
            for item in range(BENCHMARKS[place][2]):
                made = _item(place, model, i, item, float(values[i, item]), texts)
                for held, more in zip(rows, made, strict=True):
                    held += more
    for (file, schema), held in zip(files, rows, strict=True):
        artifacts.write_table(folder / file, pa.Table.from_pylist(held, schema=schema))


def build_evaluation_folder(
    folder: Path, models: list[str] | None = None, texts: list[str] | None = None
) -> Path:
    """Write a finished evaluation into `folder`; the same arguments give the same files."""
    folder.mkdir(parents=True, exist_ok=True)
    made = evaluation(models)
    artifacts.write_json(folder / artifacts.EVALUATION, made)
    _tables(folder, made["models"], texts or HOSTILE, range(3))
    provenance = {
        "preceptor": "0.3.0",
        "status": "finished",
        "command": "preceptor evaluate lab:base-notes lab:aster-m eval.yaml --out runs/ev",
        "settings": {"benchmarks": [{"kind": "alpaca_eval"}]},
        "inputs": {"questions.jsonl": "sha256:" + 16 * "9f86"},
        "models": {"aster-m": "sha256:" + 16 * "d884"},
        "asked": {"judge:gpt-4": {"answers": 600, "cost": 4.2, "seconds": 300.0}},
        "stage_seconds": {"marks": 31.5},
        "wall_seconds_of_last_run": 280.0,
        "machine": {"system": "Linux", "processor": "x86_64", "cores": 2},
        "versions": {"python": "3.11.9", "torch": "2.9.0"},
    }
    artifacts.write_json(folder / artifacts.PROVENANCE, provenance)
    artifacts.write_bytes(folder / artifacts.SETTINGS, b"benchmarks: [alpaca_eval, mt_bench]\n")
    return folder
