"""The tables of a study's page: outcomes, grids of decodings, arms, seeds, families, trainings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from preceptor.reporting.findings.study_words import (
    decimals_of,
    interval,
    percent_between,
    pick_words,
    point_words,
    rank_words,
    shade,
    size_words,
)
from preceptor.reporting.parts import wording

SERIES = 5  # colours of page.css; further lines are grey


def rows_by_key(study: Mapping[str, Any]) -> dict[tuple[str, str, str], Mapping[str, Any]]:
    """(base, source, arm) -> row of the matrix."""
    return {(row["base"], row["source"], row["arm"]): row for row in study["matrix"]}


def heat_of_arm(study: Mapping[str, Any], arm: str) -> dict[str, Any]:
    """Outcomes of an arm: a row a source, a column a base; the best first by their mean rank."""
    rows, decimals = rows_by_key(study), decimals_of(study["matrix"])
    columns = [_ends(study, arm, base) for base in study["bases"]]
    lines = []
    for source in _sorted_sources(study, arm):
        cells = [
            _cell(rows.get((base, source["name"], arm)), ends, decimals)
            for base, ends in zip(study["bases"], columns, strict=True)
        ]
        lines.append(
            {
                "name": source["name"],
                "about": _about(source),
                "cells": cells,
                "first": any(cell and cell["best"] for cell in cells),
            }
        )
    return {"arm": arm, "lines": lines, "untrained": _untrained(study, decimals)}


def _sorted_sources(study: Mapping[str, Any], arm: str) -> list[Mapping[str, Any]]:
    """Sources by the mean of their ranks; those without any last, as they stand."""
    ranks: dict[str, list[int]] = {}
    for row in study["matrix"]:
        if row["arm"] == arm and row["rank"] is not None:
            ranks.setdefault(row["source"], []).append(row["rank"])
    return sorted(
        study["sources"],
        key=lambda own: fmean(ranks[own["name"]]) if own["name"] in ranks else float("inf"),
    )


def _ends(study: Mapping[str, Any], arm: str, base: str) -> tuple[float | None, float | None]:
    """The worst and the best outcome of a base."""
    known = [
        row["outcome"]["value"]
        for row in study["matrix"]
        if row["base"] == base and row["arm"] == arm and row["outcome"]["value"] is not None
    ]
    return (min(known), max(known)) if known else (None, None)


def _cell(
    row: Mapping[str, Any] | None, ends: tuple[float | None, float | None], decimals: int
) -> dict[str, Any] | None:
    if row is None or row["outcome"]["value"] is None:
        return None
    value = row["outcome"]["value"]
    return {
        "value": wording.number(value, decimals),
        "ends": interval(row["outcome"], decimals),
        "rank": rank_words(row),
        "shade": shade(value, *ends),
        "best": row["rank"] == 1,
        "maybe": row["rank"] != 1 and row["rank_low"] == 1,
    }


def _about(source: Mapping[str, Any]) -> str:
    """Family and size of a source's teacher, as far as they are known."""
    return ", ".join(part for part in (source["family"], size_words(source["size"])) if part)


def _untrained(study: Mapping[str, Any], decimals: int) -> list[dict[str, Any] | None]:
    """Outcomes of the bases before any training, in their order."""
    known = {own["base"]: own for own in study["base_scores"]}
    return [
        {
            "value": wording.number(own["outcome"], decimals),
            "ends": interval(own, decimals),
        }
        if (own := known.get(base)) is not None and own["outcome"] is not None
        else None
        for base in study["bases"]
    ]


def grids(study: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Where a teacher's sources differ in decoding or pick: a grid for each teacher and base.

    Rows are temperatures (or picks, where only picks differ); columns are top-p, or picks.
    """
    by_teacher: dict[str, list[Mapping[str, Any]]] = {}
    for source in study["sources"]:
        by_teacher.setdefault(source["teacher"], []).append(source)
    arm = study["arms"][0]
    return [
        grid
        for teacher, sources in by_teacher.items()
        if len(sources) > 1
        for base in study["bases"]
        if (grid := _grid(study, teacher, sources, base, arm)) is not None
    ]


def _grid(
    study: Mapping[str, Any],
    teacher: str,
    sources: Sequence[Mapping[str, Any]],
    base: str,
    arm: str,
) -> dict[str, Any] | None:
    """Temperature against top-p where both differ or one pick is made; else against the pick."""
    rows, decimals = rows_by_key(study), decimals_of(study["matrix"])
    sampled = [own for own in sources if own["pick"] != "greedy"]
    tops = list(dict.fromkeys(own["top_p"] for own in sampled))
    several_picks = len({own["pick"] for own in sampled}) > 1
    by_pick = several_picks or len(tops) < 2

    def column(own: Mapping[str, Any]) -> str:
        if by_pick:
            return pick_words(own)
        return "–" if own["top_p"] is None else f"top-p {own['top_p']:g}"

    def line(own: Mapping[str, Any]) -> tuple[float, str]:
        heat = own["temperature"]
        words = "not noted" if heat is None else f"temperature {heat:g}"
        if by_pick and len(tops) > 1 and own["top_p"] is not None:
            words += f", top-p {own['top_p']:g}"
        return (-1.0 if heat is None else heat), words

    known = {own["name"]: rows.get((base, own["name"], arm)) for own in sources}
    values = [
        r["outcome"]["value"] for r in known.values() if r and r["outcome"]["value"] is not None
    ]
    if len(values) < 2:
        return None
    ends = (min(values), max(values))
    heads = list(dict.fromkeys(column(own) for own in sampled))
    lines: dict[tuple[float, str], dict[str, Any]] = {}
    for own in sampled:
        cell = _cell(known[own["name"]], ends, decimals)
        lines.setdefault(line(own), {})[column(own)] = cell
    greedy = [
        _cell(known[own["name"]], ends, decimals) for own in sources if own["pick"] == "greedy"
    ]
    return {
        "teacher": teacher,
        "base": base,
        "corner": "Sampled at" if by_pick else f"Sampled at, {pick_words(sampled[0])}",
        "heads": heads,
        "lines": [
            {"name": key[1], "cells": [cells.get(head) for head in heads]}
            for key, cells in sorted(lines.items())
        ],
        "greedy": next(iter(greedy), None),
    }


def arms_of(study: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Where there are several arms: for each base, a line a source with a cell an arm."""
    if len(study["arms"]) < 2:
        return []
    rows, decimals = rows_by_key(study), decimals_of(study["matrix"])
    found = []
    for base in study["bases"]:
        own = [row["outcome"] for row in study["matrix"] if row["base"] == base]
        values = [cell["value"] for cell in own if cell["value"] is not None]
        ends = (min(values), max(values)) if values else (None, None)
        lines = []
        for source in study["sources"]:
            cells = [
                _cell(rows.get((base, source["name"], arm)), ends, decimals)
                for arm in study["arms"]
            ]
            known = [
                (rows[base, source["name"], arm]["outcome"]["value"], place)
                for place, (arm, cell) in enumerate(zip(study["arms"], cells, strict=True))
                if cell is not None
            ]
            for place, cell in enumerate(cells):
                if cell is not None:
                    cell["best"] = len(known) > 1 and place == max(known)[1]
                    cell["maybe"] = False  # that is said of ranks among sources
            lines.append({"name": source["name"], "cells": cells})
        found.append({"base": base, "lines": lines})
    return found


def seeds_of(study: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Where there are several seeds: the outcome of each student, by base, source and arm."""
    if len(study["seeds"]) < 2:
        return []
    by_row: dict[tuple[str, str, str], list[float]] = {}
    for cell in study["cells"]:
        if cell["outcome"] is not None:
            key = (cell["base"], cell["source"], cell["arm"])
            by_row.setdefault(key, []).append(cell["outcome"])
    decimals = decimals_of(study["matrix"])
    found = []
    for base in study["bases"]:
        own = {key: values for key, values in by_row.items() if key[0] == base}
        everything = [value for values in own.values() for value in values]
        if not everything:
            continue
        low, high = min(everything), max(everything)
        lines = [
            {
                "name": key[1],
                "arm": key[2] if len(study["arms"]) > 1 else "",
                "dots": [percent_between(value, low, high) for value in values],
                "mean": percent_between(fmean(values), low, high),
                "words": ", ".join(wording.number(value, decimals) for value in values),
                "spread": wording.number(stdev(values), decimals) if len(values) > 1 else "–",
            }
            for key, values in sorted(own.items(), key=lambda item: -fmean(item[1]))
        ]
        ends = [wording.number(value, decimals) for value in (low, high)]
        found.append({"base": base, "low": ends[0], "high": ends[1], "lines": lines})
    return found


def families_drawn(study: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each base, its families' points of size and outcome with intervals; for the charts."""
    rows, arm = rows_by_key(study), study["arms"][0]
    families = list(dict.fromkeys(own["family"] for own in study["paradox"]))
    found = []
    for base in study["bases"]:
        points = [
            {
                "family": own["family"],
                "series": families.index(own["family"]) if len(families) <= SERIES else -1,
                "source": name,
                "size": size,
                "outcome": value,
                "low": _end(rows.get((base, name, arm)), "low"),
                "high": _end(rows.get((base, name, arm)), "high"),
            }
            for own in study["paradox"]
            if own["base"] == base
            for name, size, value in zip(own["sources"], own["sizes"], own["outcome"], strict=True)
        ]
        untrained = next((u["outcome"] for u in study["base_scores"] if u["base"] == base), None)
        if points:
            found.append({"base": base, "points": points, "untrained": untrained})
    return found


def _end(row: Mapping[str, Any] | None, end: str) -> float | None:
    return None if row is None else row["outcome"][end]


def family_rows(study: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same as a table: each family's teachers from small to large, and the steps between."""
    decimals = decimals_of(study["matrix"])
    return [
        {
            "base": own["base"],
            "family": own["family"],
            "path": [
                (name, size_words(size), wording.number(value, decimals))
                for name, size, value in zip(
                    own["sources"], own["sizes"], own["outcome"], strict=True
                )
            ],
            "drops": sum(1 for step in own["steps"] if _below_zero(step)),
            "rises": sum(1 for step in own["steps"] if _above_zero(step)),
            "steps": len(own["steps"]),
            "spearman": own["spearman"],
            "largest": own["largest_is_best"],
        }
        for own in study["paradox"]
    ]


def _below_zero(step: Mapping[str, Any]) -> bool:
    return step["high"] is not None and step["high"] < 0


def _above_zero(step: Mapping[str, Any]) -> bool:
    return step["low"] is not None and step["low"] > 0


def counts(cells: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Status -> how many trainings."""
    found = Counter(cell["status"] for cell in cells)
    return {status: found.get(status, 0) for status in ("done", "left", "failed")}


def failures(cells: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Failed trainings by their reason, the most frequent one first."""
    by_reason: dict[str, list[str]] = {}
    for cell in cells:
        if cell["status"] == "failed":
            by_reason.setdefault(cell["reason"], []).append(cell["folder"])
    ordered = sorted(by_reason.items(), key=lambda item: -len(item[1]))
    return [{"reason": reason, "folders": folders} for reason, folders in ordered]


def source_rows(study: Mapping[str, Any]) -> list[dict[str, str]]:
    """Every source with its teacher, how it was decoded and picked, family and size."""
    return [
        {
            "name": own["name"],
            "teacher": own["teacher"],
            "point": point_words(own),
            "about": _about(own),
        }
        for own in study["sources"]
    ]
