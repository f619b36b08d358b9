"""The tables of an asking's page: rewards of every teacher x decoding, grids, worth of samples.

Shapes: P points (a teacher at a decoding each), K numbers of samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from preceptor.reporting.findings.run_verdicts import decoding_words
from preceptor.reporting.findings.study_words import shade
from preceptor.reporting.parts import wording
from preceptor.reporting.parts.wording import interval_words

Cell = Mapping[str, float | None]


def labels(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """How each point was decoded, in words; with the limit of tokens where only that differs."""
    words = [decoding_words(point).strip(" ()") or "not noted" for point in points]
    seen = [(point["teacher"], own) for point, own in zip(points, words, strict=True)]
    return [
        f"{own}, at most {point['max_new_tokens']:,} tokens"
        if seen.count((point["teacher"], own)) > 1 and point["max_new_tokens"] is not None
        else own
        for point, own in zip(points, words, strict=True)
    ]


def boards(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A board a reward: `name`, `decimals`, `rows` by falling mean, `grids`, `steps` and `worth`.

    Points without a score come last. Positions of charts are in per cent of the board's range.
    """
    points, words = asked["points"], labels(asked["points"])
    found = []
    for name in asked["rewards"]:
        cells = [point["rewards"][name] for point in points]
        scored = [cell for cell in cells if cell["mean"] is not None]
        decimals = wording.decimals_for([dict(cell) for cell in scored])
        order = sorted(range(len(points)), key=lambda i: _falling(cells[i]["mean"]))
        ends = _range(scored)
        found.append(
            {
                "name": name,
                "decimals": decimals,
                "n_missing": sum(cell["n_missing"] for cell in cells),
                "rows": [
                    {
                        "point": i,
                        "teacher": points[i]["teacher"],
                        "decoding": words[i],
                        "samples": points[i]["samples"],
                        "mean": cell_words(cells[i], decimals),
                        "best": _last(cells[i]["best_of"], decimals),
                        "worst": _last(cells[i]["worst_of"], decimals),
                        "chart": _chart(cells[i], ends),
                    }
                    for i in order
                ],
                "grids": grids(points, name, decimals),
                "worth": _worth(points, words, name, decimals),
            }
        )
    return found


def _falling(value: float | None) -> tuple[bool, float]:
    return value is None, -(value or 0.0)


def cell_words(cell: Cell, decimals: int) -> str:
    """ "0.81 [0.78, 0.84]", or a dash."""
    own = {"value": cell["mean"], "low": cell.get("low"), "high": cell.get("high")}
    return interval_words(own, decimals)


def _last(cells: Sequence[Cell], decimals: int) -> dict[str, Any] | None:
    """The best or the worst of all samples, where there are several."""
    if not cells or cells[-1]["k"] == 1:
        return None
    return {"k": cells[-1]["k"], "words": cell_words(cells[-1], decimals)}


def _range(cells: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """The least and the largest end of any interval, with a margin."""
    every = [own for cell in cells for own in (cell, *cell["best_of"], *cell["worst_of"])]
    values = [own[end] for own in every for end in ("low", "high") if own[end] is not None]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = (high - low or abs(high) or 1.0) * 0.03
    return low - margin, high + margin


def _chart(cell: Mapping[str, Any], ends: tuple[float, float]) -> dict[str, float] | None:
    """Places of the mean, its interval, and the worst and the best of all samples, in per cent."""
    if cell["mean"] is None:
        return None

    def place(value: float) -> float:
        return round(100.0 * (value - ends[0]) / (ends[1] - ends[0]), 2)

    found = {"mean": place(cell["mean"])}
    if cell["low"] is not None and cell["high"] is not None:
        found |= {"low": place(cell["low"]), "high": place(cell["high"])}
    for name, own in (("worst", cell["worst_of"]), ("best", cell["best_of"])):
        if own and own[-1]["k"] > 1:
            found[name] = place(own[-1]["mean"])
    return found


def grids(points: Sequence[Mapping[str, Any]], reward: str, decimals: int) -> list[dict[str, Any]]:
    """For each teacher that sampled at several points: temperature against top-p, shaded."""
    found = []
    for teacher in dict.fromkeys(point["teacher"] for point in points):
        own = [p for p in points if p["teacher"] == teacher and p["temperature"] is not None]
        sampled = [point for point in own if point["temperature"] > 0]
        values = [p["rewards"][reward]["mean"] for p in own]
        known = [value for value in values if value is not None]
        if len(sampled) < 2 or not known:
            continue
        ends = (min(known), max(known))
        tops = sorted({1.0 if p["top_p"] is None else p["top_p"] for p in sampled})
        lines: dict[float, dict[float, Any]] = {}
        for point in sampled:
            top_p = 1.0 if point["top_p"] is None else point["top_p"]
            cell = _grid_cell(point["rewards"][reward], ends, decimals)
            lines.setdefault(point["temperature"], {})[top_p] = cell
        greedy = [p["rewards"][reward] for p in own if p["temperature"] == 0]
        found.append(
            {
                "teacher": teacher,
                "heads": [f"top-p {top_p:g}" for top_p in tops],
                "lines": [
                    {
                        "name": f"temperature {temperature:g}",
                        "cells": [cells.get(top_p) for top_p in tops],
                    }
                    for temperature, cells in sorted(lines.items())
                ],
                "greedy": _grid_cell(greedy[0], ends, decimals) if greedy else None,
            }
        )
    return found


def _grid_cell(
    cell: Mapping[str, Any], ends: tuple[float, float], decimals: int
) -> dict[str, Any] | None:
    if cell["mean"] is None:
        return None
    value, _, interval = cell_words(cell, decimals).partition(" ")
    return {
        "value": value,
        "ends": interval,
        "shade": shade(cell["mean"], *ends),
        "best": _last(cell["best_of"], decimals),
        "top": cell["mean"] == ends[1],
    }


def _worth(
    points: Sequence[Mapping[str, Any]], words: Sequence[str], reward: str, decimals: int
) -> dict[str, Any] | None:
    """Best and worst of k for every point with several samples, by k; None where there are none."""
    own = [
        (point["teacher"], word, point["rewards"][reward])
        for point, word in zip(points, words, strict=True)
        if _last(point["rewards"][reward]["best_of"], decimals)
    ]
    if not own:
        return None
    steps = sorted({cell["k"] for _, _, reward_cells in own for cell in reward_cells["best_of"]})

    def by_step(cells: Sequence[Cell]) -> list[str]:
        known = {cell["k"]: cell_words(cell, decimals) for cell in cells}
        return [known.get(k, "–") for k in steps]

    return {
        "steps": steps,
        "rows": [
            {
                "teacher": teacher,
                "decoding": word,
                "kind": kind,
                "cells": by_step(cells[f"{kind}_of"]),
            }
            for teacher, word, cells in own
            for kind in ("best", "worst")
        ],
    }


def drawn(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the charts of k need, by reward: a panel a teacher, a line a point with its greedy mean.

    A line: `label`, and `best` and `worst` as lists of [k, mean, low, high].
    """
    points, words = asked["points"], labels(asked["points"])
    found = []
    for name in asked["rewards"]:
        panels: dict[str, dict[str, Any]] = {}
        for point, word in zip(points, words, strict=True):
            cell = point["rewards"][name]
            panel = panels.setdefault(
                point["teacher"], {"teacher": point["teacher"], "greedy": None, "lines": []}
            )
            if point["temperature"] == 0:
                panel["greedy"] = cell["mean"]
            if len(cell["best_of"]) > 1:
                panel["lines"].append(
                    {
                        "label": word,
                        "best": _line(cell["best_of"]),
                        "worst": _line(cell["worst_of"]),
                    }
                )
        own = [panel for panel in panels.values() if panel["lines"]]
        found.append({"reward": name, "panels": own})
    return found


def _line(cells: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    return [
        [cell["k"], *(float(f"{cell[key]:.6g}") for key in ("mean", "low", "high"))]
        for cell in cells
    ]
