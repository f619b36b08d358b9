"""Two evaluations beside each other: the models and benchmarks that both have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from preceptor.reporting.findings.evaluation_words import ranked
from preceptor.reporting.findings.run_verdicts import listing
from preceptor.reporting.pages.two_runs.pairs import (
    Compared,
    Paired,
    Panel,
    Section,
    Side,
    overlap,
    reading,
)
from preceptor.reporting.parts.tables import ends, table

_COLUMNS = ("model", "A_score...", "B_score...", "intervals", "B_less_A...", "reading")


def compare(first: Side, second: Side, paired: Paired) -> Compared:
    """The page of two finished evaluations.

    `paired.changes` are differences of scores, by benchmark, measure and model.
    """
    one, other = first.found, second.found
    panels, words = [], []
    for a, b in _shared(one, other):
        for measure in a["measures"]:
            if measure["name"] in {own["name"] for own in b["measures"]}:
                panel = _panel(a, b, measure, paired)
                panels.append(panel)
                if measure is a["measures"][0]:
                    words.append(_words(a, measure, panel))
    models = [name for name in one["models"] if name in other["models"]]
    names = (*one["models"], *other["models"], *(own["name"] for own in one["benchmarks"]))
    note = (
        "B less A with an interval is paired: both runs on the same items, resampled together. "
        "Without one, only the runs' own intervals are known; that they overlap is no test."
    )
    verdict = [f"The runs share {len(models):,} models and {len(words):,} benchmarks."]
    verdict = [*words, *paired.words] if words and models else verdict
    left = _alone(one, other)
    return Compared(
        tuple(verdict),
        (Section("scores", "Scores in both runs", note, tuple(panels), "of"),) if panels else (),
        names,
        (*([f"There is no joint statement: {paired.why}."] if paired.why else ()), *left),
    )


def _shared(one: Any, other: Any) -> Iterator[tuple[Any, Any]]:
    by_name = {own["name"]: own for own in other["benchmarks"]}
    for own in one["benchmarks"]:
        if own["name"] in by_name:
            yield own, by_name[own["name"]]


def _panel(a: Any, b: Any, measure: Mapping[str, Any], paired: Paired) -> Panel:
    name = measure["name"]
    cells = [{own["model"]: own["measures"].get(name) for own in held["scores"]} for held in (a, b)]
    rows = []
    order = ranked(a, measure), ranked(b, measure)
    for model in dict.fromkeys([*order[0], *order[1], *cells[0], *cells[1]]):
        left, right = (ends(held.get(model)) for held in cells)
        change = paired.changes.get((a["name"], name, model))
        plain = None if None in (left[0], right[0]) else right[0] - left[0]
        rows.append(
            (
                model,
                *left,
                *right,
                overlap(*left[1:], *right[1:]),
                *(change or (plain, None, None)),
                reading(change, measure["direction"]),
            )
        )
    label = f"{a['name']}: {measure['title']}"
    chart = {
        "kind": "ends",
        "label": f"{measure['title']}, {measure['direction']} is better",
        "rows": [_drawn(row) for row in rows if row[1] is not None and row[4] is not None],
    }
    return Panel(label, table(label, _COLUMNS, rows), chart if chart["rows"] else None)


def _drawn(row: tuple[Any, ...]) -> dict[str, Any]:
    keys = ("value", "low", "high")
    return {
        "name": row[0],
        "a": dict(zip(keys, row[1:4], strict=True)),
        "b": dict(zip(keys, row[4:7], strict=True)),
    }


def _words(a: Any, measure: Mapping[str, Any], panel: Panel) -> str:
    """What changed on one benchmark, by the measure that it is known by."""
    rows = panel.table.only(("model", "intervals", "reading")).rows
    both = [row for row in rows if row[1] is not None or row[2] is not None]
    told = [row for row in both if row[2] is not None]
    head = f"On {a['name']} ({measure['title']}), "
    if told:
        better = [str(row[0]) for row in told if row[2] == "B better"]
        worse = [str(row[0]) for row in told if row[2] == "B worse"]
        parts = [f"{listing(better)} did better in B"] if better else []
        parts += [f"{listing(worse)} did worse in B"] if worse else []
        rest = len(told) - len(better) - len(worse)
        parts += [f"{rest:,} of {len(told):,} models cannot be told apart"] if rest else []
        return f"{head}{', '.join(parts)}."
    if not both:
        return f"{head}no model has a score in both runs."
    apart = [str(row[0]) for row in both if row[1] == "apart"]
    if apart:
        return f"{head}the intervals of {listing(apart)} do not overlap."
    return f"{head}the two intervals of each of {len(both):,} models overlap."


def _alone(one: Any, other: Any) -> list[str]:
    """Models and benchmarks of one run only."""
    said = []
    for what, a, b in (
        ("models", one["models"], other["models"]),
        ("benchmarks", *([own["name"] for own in f["benchmarks"]] for f in (one, other))),
    ):
        for letter, own, rest in (("A", a, b), ("B", b, a)):
            alone = [name for name in own if name not in rest]
            if alone:
                said.append(f"Only {letter} has the {what} {listing(alone)}.")
    return said
