"""`compare.html`: whether criteria agree, and how they do on known outcomes.

Reads `compare.json` of a folder only. Words, tables, heat maps and forest plots are rendered here
and need no script; scatter plots and the curve of beta are drawn from the embedded JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preceptor.core import artifacts
from preceptor.core.comparison import COMPARE, COMPARE_PAGE, COMPARE_VERSION
from preceptor.reporting import exports, origins, page, run_verdicts, select_words
from preceptor.reporting.compare_words import (
    interval_words,
    kind_words,
    label,
    shade,
    short,
    sorted_trials,
)

STYLES = ("compare.css",)
SCRIPTS = (
    "vendor/d3.min.js",
    "vendor/plot.umd.min.js",
    "page.js",
    "panels.js",
    "compare.js",
)
MEAN = "Mean over bases"
FREE = "it was read from finished runs, and asked or trained nothing"  # what it cost


def write(folder: Path) -> Path:
    """Write `compare.html` and `compare.md` beside `compare.json`; returns the first one's path."""
    path = folder / COMPARE_PAGE
    artifacts.write_bytes(path, render(folder).encode())
    exports.write_summary(folder)
    return path


def render(folder: Path) -> str:
    """The page of the comparison in `folder` as HTML; the same file gives the same text.

    Raises:
        RunFolderError: no comparison, or one of another version.
    """
    path = folder / COMPARE
    comparison = origins.read_result(path, COMPARE_VERSION, "comparison", "compare-criteria")
    bases = comparison["bases"]
    tried = [base for base in bases if base["outcomes"]]
    boards = boards_of(comparison, tried)
    panels = [panels_of(base) for base in tried]
    names = names_of(comparison)
    verdict = origins.with_cost(run_verdicts.of("compare", folder, {}), FREE)
    data = {
        "bases": panels,
        "beta": [
            {"board": place, "reward": reward, **_curve(fit)}
            for place, board in enumerate(boards)
            for reward, fit in board["beta"].items()
        ],
    }
    context = {
        "comparison": comparison,
        "bases": bases,
        "title": _title(bases, bool(tried)),
        "verdict": page.marked(verdict, names),
        "further": _further(comparison, verdict, names),
        "boards": boards,
        "tried": tried,
        "tried_panels": panels,
        "heats": [_heat(base) for base in bases],
        "has_scatter": bool(tried),
        "has_beta": any(board["beta"] for board in boards),
        "n_criteria": len(dict.fromkeys(name for base in bases for name in base["criteria"])),
        "n_teachers": len(dict.fromkeys(name for base in bases for name in base["teachers"])),
        "origin": {
            "command": comparison.get("command"),
            "basics": {},
            "rest": {},
            "settings": None,
            "recorded": True,
        },
        "take": exports.take_along(folder),
        "data": page.embed_json(data),
        "number": select_words.number,
        "percent": select_words.percent,
        "label": label,
        "short": short,
        "kind_words": kind_words,
        "interval_words": interval_words,
    }
    return page.render_page("compare.html.j2", context, styles=STYLES, scripts=SCRIPTS)


def _title(bases: list[dict[str, Any]], known: bool) -> tuple[str, str]:
    """The heading: what is asked, and of which base."""
    what = "Which criterion to trust" if known else "Do the criteria agree?"
    names = list(dict.fromkeys(base["base"] for base in bases))
    return what, names[0] if len(names) == 1 else f"{len(names)} bases"


def names_of(comparison: Mapping[str, Any]) -> list[str]:
    """The names of strangers that a sentence of the verdict may hold."""
    bases = comparison["bases"]
    return [base["name"] for base in bases] + [one for base in bases for one in base["teachers"]]


def _further(comparison: Mapping[str, Any], verdict: str, names: list[str]) -> list[dict[str, Any]]:
    """The sentences that are not in `verdict` yet, by base, those about all of them before; the
    base's name only where it tells."""
    several = len(comparison["bases"]) > 1
    groups: dict[str | None, list[page.Words]] = {}
    for own in comparison["verdict"]:
        if not origins.said_in(own["text"], verdict):
            groups.setdefault(own["base"], []).append(page.marked(own["text"], names))
    order = sorted(groups, key=lambda base: base is not None)
    return [{"base": base if several else None, "texts": groups[base]} for base in order]


def boards_of(comparison: Mapping[str, Any], tried: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the outcomes section can show: means over bases first, then each base."""
    found = []
    if comparison["mean"]:
        found.append(_board(MEAN, comparison["mean"]))
    return found + [_board(base["name"], base["outcomes"]) for base in tried]


def _board(name: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """Trials with their forest plot in per cent of [-1, 1], differences as a matrix, beta."""
    rows = [
        {
            "key": key,
            "label": label(key),
            "control": trial["kind"] == "control",
            "trial": trial,
            "forest": _forest(trial["spearman"]),
        }
        for key, trial in sorted_trials(own["criteria"])
    ]
    gaps = {}
    for row in own["differences"]:
        gaps[row["first"], row["second"]] = row
        gaps[row["second"], row["first"]] = _turned(row)
    keys = [row["key"] for row in rows if row["trial"]["spearman"]["value"] is not None]
    matrix = [
        {
            "label": label(first),
            "cells": [_gap(gaps.get((first, second))) for second in keys],
        }
        for first in keys
    ]
    return {
        "name": name,
        "rows": rows,
        "matrix": matrix,
        "heads": [label(key) for key in keys],
        "beta": own["beta"],
        "teachers": own.get("teachers"),
        "bases": own.get("bases"),
    }


def _turned(row: Mapping[str, Any]) -> dict[str, Any]:
    """The same difference the other way round."""

    def minus(value: float | None) -> float | None:
        return None if value is None else -value

    return {"value": minus(row["value"]), "low": minus(row["high"]), "high": minus(row["low"])}


def _gap(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A cell of the matrix of differences: its value, its words, whether it excludes 0."""
    if row is None or row["value"] is None:
        return None
    sure = row["low"] is not None and (row["low"] > 0 or row["high"] < 0)
    shown = shade(row["value"]) if sure else ""
    return {"value": row["value"], "shade": shown, "sure": sure, "words": interval_words(row, 2)}


def _forest(rho: Mapping[str, Any]) -> dict[str, float] | None:
    """A rho and its two intervals as places in per cent of [-1, 1]."""
    if rho["value"] is None:
        return None
    found = {"value": rho["value"]}
    ends = {"low": rho["low"], "high": rho["high"]}
    if rho["instructions"]:
        ends |= {"inner_low": rho["instructions"][0], "inner_high": rho["instructions"][1]}
    found |= {key: value for key, value in ends.items() if value is not None}
    return {key: 50.0 * (value + 1.0) for key, value in found.items()}


def _heat(base: Mapping[str, Any]) -> dict[str, Any]:
    """Agreement of criteria as a square: rho above the diagonal, tau below it."""
    keys = list(base["criteria"])
    pairs = {(row["first"], row["second"]): row for row in base["agreement"]}
    cells = []
    for i, first in enumerate(keys):
        row: list[dict[str, Any] | None] = []
        for j, second in enumerate(keys):
            own = pairs.get((first, second) if i < j else (second, first))
            if i == j or own is None:
                row.append(None)
                continue
            found = own["spearman" if i < j else "kendall"]
            kind = "ρ" if i < j else "τ"
            row.append(
                {
                    "value": found["value"],
                    "shade": shade(found["value"]),
                    "words": f"{label(first)}, {label(second)}: {kind} {interval_words(found, 2)}",
                }
            )
        cells.append(row)
    return {
        "labels": [label(key) for key in keys],
        "cells": cells,
        "pairs": [
            (label(row["first"]), label(row["second"]), row["spearman"], row["kendall"])
            for row in base["agreement"]
        ],
    }


def panels_of(base: Mapping[str, Any]) -> dict[str, Any]:
    """What the scatter plots of one base need: outcomes, and the scores of each criterion."""
    own = base["outcomes"]
    places = [base["teachers"].index(teacher) for teacher in own["teachers"]]
    return {
        "name": base["name"],
        "teachers": own["teachers"],
        "outcome": own["outcome"],
        "panels": [
            {
                "label": label(key),
                "unit": criterion["unit"],
                "direction": criterion["direction"],
                "scores": [criterion["scores"][place] for place in places],
                "rho": own["criteria"][key]["spearman"]["value"],
            }
            for key, criterion in base["criteria"].items()
        ],
    }


def _curve(fit: Mapping[str, Any]) -> dict[str, Any]:
    """What the chart of one fitted beta needs."""
    return {
        "curve": fit["curve"],
        "beta": fit["beta"],
        "suggested": fit["suggested"],
        "run": fit["run_beta"],
        "plateau": fit["plateau"],
        "left": list(fit["left_out"].values()),
    }
