"""Two studies beside each other: outcomes by teacher, and the criteria that knew them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from preceptor.reporting.exporting.study_tables import MEAN
from preceptor.reporting.pages.two_runs.pairs import (
    Compared,
    Paired,
    Panel,
    Section,
    Side,
    ends_chart,
    overlap,
)
from preceptor.reporting.parts.tables import ends, table

_OUTCOMES = ("source", "A_outcome...", "B_outcome...", "intervals", "A_rank...", "B_rank...")
_CRITERIA = ("criterion", "kind", "A_spearman...", "B_spearman...", "intervals")


def compare(first: Side, second: Side, _: Paired) -> Compared:
    """The page of two studies; each has its own trainings, so that nothing is paired."""
    one, other = first.found, second.found
    same = one["outcome"]["measures"] == other["outcome"]["measures"]
    matrix = tuple(_matrix(one, other, same))
    criteria = tuple(_criteria(one, other))
    warnings = []
    if not same:
        warnings.append(
            f"The outcomes are not on one scale: A has {one['outcome']['title']}, B has "
            f"{other['outcome']['title']}. Ranks can be compared, outcomes cannot."
        )
    if not matrix:
        warnings.append("The studies share no base and arm.")
    sections = [
        Section(
            "outcomes",
            "Outcomes in both studies",
            "The students of every teacher in both; intervals are of each study alone, and that "
            "two of them overlap is no test.",
            matrix,
            "base",
        ),
        Section(
            "criteria",
            "Criteria in both studies",
            "Spearman's rho of each criterion and the outcomes of its own study.",
            criteria,
            "base",
        ),
    ]
    names = {row[key] for found in (one, other) for row in found["matrix"] for key in _NAMED}
    return Compared(
        tuple(_verdict(matrix, criteria)),
        tuple(section for section in sections if section.panels),
        tuple(sorted(names)),
        tuple(warnings),
    )


_NAMED = ("base", "source")


def _matrix(one: Any, other: Any, same: bool) -> Iterator[Panel]:
    """A panel for every base and arm that both studies have."""
    held = [_by_place(found["matrix"]) for found in (one, other)]
    for place, a in held[0].items():
        b = held[1].get(place)
        if b is None:
            continue
        rows = []
        order = sorted(a, key=lambda name: a[name]["rank"] or len(a))
        for source in dict.fromkeys([*order, *b]):
            cells = [own.get(source) for own in (a, b)]
            left, right = (ends(cell and cell["outcome"]) for cell in cells)
            near = overlap(*left[1:], *right[1:]) if same else None
            ranks = [_rank(cell) for cell in cells]
            rows.append((source, *left, *right, near, *ranks[0], *ranks[1]))
        label = place[0] if place[1] == "sft" else f"{place[0]}, {place[1]}"
        chart = ends_chart(one["outcome"]["title"], rows) if same else None
        yield Panel(label, table(label, _OUTCOMES, rows), chart)


def _by_place(matrix: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """(base, arm) -> source -> row."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in matrix:
        found.setdefault((row["base"], row["arm"]), {})[row["source"]] = row
    return found


def _rank(row: Mapping[str, Any] | None) -> tuple[Any, Any, Any]:
    if row is None:
        return None, None, None
    return row["rank"], row["rank_low"], row["rank_high"]


def _criteria(one: Any, other: Any) -> Iterator[Panel]:
    """A panel for the mean over bases, and for every base that both have outcomes of."""
    held = [_trials(found["criteria"]) for found in (one, other)]
    for base, a in held[0].items():
        b = held[1].get(base)
        if b is None:
            continue
        rows = []
        for name in dict.fromkeys([*a, *b]):
            cells = [own.get(name) for own in (a, b)]
            left, right = (ends(cell and cell["spearman"]) for cell in cells)
            kind = next(cell["kind"] for cell in cells if cell)
            rows.append((name, kind, *left, *right, overlap(*left[1:], *right[1:])))
        label = "Mean over bases" if base == MEAN else base
        yield Panel(label, table(f"Criteria: {label}", _CRITERIA, rows))


def _trials(criteria: Any) -> dict[str, Any]:
    """Base -> criterion -> trial; the mean over bases first."""
    if not criteria:
        return {}
    found = {MEAN: criteria["mean"]["criteria"]} if criteria["mean"] else {}
    tried = [base for base in criteria["bases"] if base["outcomes"]]
    return found | {base["name"]: base["outcomes"]["criteria"] for base in tried}


def _verdict(matrix: tuple[Panel, ...], criteria: tuple[Panel, ...]) -> Iterator[str]:
    """Who is best in each study, and which criterion orders the teachers best in each."""
    for panel in matrix[:3]:
        best = [_first(panel, column) for column in ("A_rank", "B_rank")]
        if None in best:
            continue
        if best[0] == best[1]:
            yield f"{best[0]} is the best teacher of {panel.label} in both studies."
        else:
            yield f"{panel.label} learns best from {best[0]} in A, from {best[1]} in B."
    if not matrix:
        yield "The studies share no base and arm: there is nothing to set beside each other."
    for panel in criteria[:1]:
        rows = panel.table.only(("criterion", "kind", "A_spearman", "B_spearman")).rows
        own = [row for row in rows if row[1] != "control"]
        best = [_top(own, column) for column in (2, 3)]
        if None not in best:
            same = best[0] == best[1]
            words = f"{best[0]} in both" if same else f"{best[0]} in A, {best[1]} in B"
            yield f"The criterion nearest to the outcomes is {words} ({panel.label})."


def _first(panel: Panel, column: str) -> str | None:
    rows = panel.table.only(("source", column)).rows
    return next((str(row[0]) for row in rows if row[1] == 1), None)


def _top(rows: Any, column: int) -> str | None:
    known = [row for row in rows if row[column] is not None]
    return str(max(known, key=lambda row: row[column])[0]) if known else None
