"""Criteria tried on known outcomes: what `trials.html.j2` and the charts show of them.

A comparison of criteria and a study bring the same tables; both pages draw them from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preceptor.reporting.findings.comparison_words import label, shade, sorted_trials
from preceptor.reporting.parts.wording import interval_words

MEAN = "Mean over bases"


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
