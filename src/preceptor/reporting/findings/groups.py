"""Who is first for each value of a column (`select --by`): for the page and for the terminal."""

from __future__ import annotations

from typing import Any

from preceptor.reporting.parts.wording import decimals_for, label, listing, number


def section(ranking: dict[str, Any]) -> dict[str, Any] | None:
    """What the page shows of the groups; None where the run has none.

    A row: value, n, teacher (None where it was not ranked, with `why`), is_overall, score, range,
    gap (difference to the teacher that is first overall), gap_range, separable, tied ((joining
    words, name) pairs). Numbers are texts. `ranked_values`: values that were ranked. `ranks`, a
    teacher each: teacher, is_overall, cells (parallel to them: rank and shade 0 .. 6, or None).
    """
    by = ranking.get("by")
    if by is None:
        return None
    firsts = [
        next(row for row in group["teachers"] if row["teacher"] == group["recommended"])
        for group in by["groups"]
        if group["recommended"] is not None
    ]
    decimals = decimals_for(firsts)
    found = iter(firsts)
    return {
        "column": by["column"],
        "least": by["least"],
        "criterion": label(ranking["recommended_by"]),
        "overall": ranking["recommended"],
        "others": len({row["teacher"] for row in firsts} - {ranking["recommended"]}),
        "n_ranked": len(firsts),
        "fragment": by["fragment"],
        "rows": [
            _row(group, None if group["recommended"] is None else next(found), decimals)
            for group in by["groups"]
        ],
        "ranked_values": [
            group["value"] for group in by["groups"] if group["recommended"] is not None
        ],
        "ranks": _ranks(ranking, by["groups"]),
    }


def _ranks(ranking: dict[str, Any], groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every teacher's rank on each value, in the order of all instructions."""
    order = [row["teacher"] for row in ranking["criteria"][ranking["recommended_by"]]["teachers"]]
    ranked = [
        {row["teacher"]: row["rank"] for row in group["teachers"]}
        for group in groups
        if group["recommended"] is not None
    ]
    step = max(len(order) - 1, 1)
    return [
        {
            "teacher": teacher,
            "is_overall": teacher == ranking["recommended"],
            "cells": [
                {"rank": f"{own[teacher]:g}", "shade": round(6 * (own[teacher] - 1) / step)}
                if teacher in own
                else None
                for own in ranked
            ],
        }
        for teacher in order
    ]


def _row(group: dict[str, Any], first: dict[str, Any] | None, decimals: int) -> dict[str, Any]:
    row = {"value": group["value"], "n": number(group["n_instructions"], 0), "teacher": None}
    if first is None:
        return row | {"why": group["why"]}
    gap = group["against_overall"]
    return row | {
        "teacher": first["teacher"],
        "is_overall": gap is None,
        "score": number(first["score"], decimals),
        "range": _range(first, decimals),
        "gap": "" if gap is None else signed(gap["difference"], decimals),
        "gap_range": "" if gap is None else _range(gap, decimals),
        "separable": gap is not None and gap["separable"],
        "tied": listing(group["tied_with_first"], limit=2),
    }


def _range(row: dict[str, Any], decimals: int) -> str:
    return f"[{number(row['low'], decimals)}, {number(row['high'], decimals)}]"


def signed(value: float, decimals: int) -> str:
    """A difference, with its sign."""
    text = number(value, decimals)
    return f"+{text}" if value > 0 and text.strip("0.") else text
