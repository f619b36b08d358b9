"""`compare.html`: whether criteria agree, and how they do on known outcomes.

Reads `compare.json` of a folder only. Words, tables, heat maps and forest plots are rendered here
and need no script; scatter plots and the curve of beta are drawn from the embedded JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preceptor.core.comparison import COMPARE, COMPARE_PAGE, COMPARE_VERSION
from preceptor.reporting.exporting import exports
from preceptor.reporting.findings import run_verdicts
from preceptor.reporting.findings.comparison_words import (
    kind_words,
    label,
    shade,
)
from preceptor.reporting.pages.trials import boards_of, panels_of
from preceptor.reporting.parts import origins, page, wording
from preceptor.reporting.parts.wording import interval_words, short

STYLES = ("pages/boards.css",)
SCRIPTS = (
    *page.CHARTS,
    "pages/panels.js",
    "pages/compare/report.js",
)
FREE = "it was read from finished runs, and asked or trained nothing"  # what it cost


def write(folder: Path) -> Path:
    """Write `compare.html` and `compare.md` beside `compare.json`; returns the first one's path."""
    return exports.write_page(folder / COMPARE_PAGE, render(folder))


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
        "number": wording.number,
        "percent": wording.percent,
        "label": label,
        "short": short,
        "kind_words": kind_words,
        "interval_words": interval_words,
    }
    return page.render_page("pages/compare/report.html.j2", context, styles=STYLES, scripts=SCRIPTS)


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
