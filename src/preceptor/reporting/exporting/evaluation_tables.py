"""The tables of an evaluation, as they leave its report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from preceptor.reporting.findings.evaluation_words import ranked
from preceptor.reporting.parts.tables import Table, ends, table

_SHARES = ("refused", "cut_off", "empty", "repeated")


def tables(found: Mapping[str, Any]) -> dict[str, Table]:
    """Name -> table: `scores`, and where there are any `categories`, `differences`, `retention`,
    `quality`, `judges` and `gate`."""
    benchmarks = found["benchmarks"]
    made = {
        "scores": table(
            "Scores",
            ("benchmark", "measure", "direction", "model", "score...", "items"),
            _scores(benchmarks),
        ),
        "categories": table(
            "Scores by category",
            ("benchmark", "category", "measure", "model", "score..."),
            _categories(benchmarks),
        ),
        "differences": table(
            "Differences on the same items",
            (
                *("benchmark", "measure", "direction", "model", "against", "difference..."),
                *("p_value", "test", "better", "worse"),
            ),
            _differences(benchmarks),
        ),
        "retention": table(
            f"Kept of what {found['reference']} could do",
            ("benchmark", "model", "kept...", "could", "lost", "won"),
            _retention(benchmarks),
        ),
        "quality": _quality(found.get("quality") or []),
        "judges": table(
            "How far the judges can be trusted",
            (
                *("benchmark", "games", "unreadable", "first_position...", "length_slope..."),
                *("consistency", "agreement...", "known_comparisons"),
            ),
            _judges(benchmarks),
        ),
        "gate": table(
            "Gate",
            ("condition", "value", "fails"),
            [(row["condition"], row["value"], row["holds"]) for row in found.get("gate") or []],
        ),
    }
    return {name: own for name, own in made.items() if own.rows}


def _scores(benchmarks: Any) -> Iterator[tuple[Any, ...]]:
    """By benchmark and measure, the best model first; those without a score last."""
    for own in benchmarks:
        for measure in own["measures"]:
            head = (own["name"], measure["name"], measure["direction"])
            by_model = {score["model"]: score for score in own["scores"]}
            order = dict.fromkeys([*ranked(own, measure), *by_model])
            for score in (by_model[model] for model in order):
                cell = score["measures"].get(measure["name"])
                yield (*head, score["model"], *ends(cell), score["n_marked"])


def _categories(benchmarks: Any) -> Iterator[tuple[Any, ...]]:
    for own in benchmarks:
        for category in own["categories"]:
            for measure in own["measures"]:
                for score in own["scores"]:
                    cell = (score["categories"].get(category) or {}).get(measure["name"])
                    head = (own["name"], category, measure["name"], score["model"])
                    yield (*head, *ends(cell))


def _differences(benchmarks: Any) -> Iterator[tuple[Any, ...]]:
    for own in benchmarks:
        directions = {measure["name"]: measure["direction"] for measure in own["measures"]}
        for row in own["differences"]:
            head = (own["name"], row["measure"], directions.get(row["measure"]))
            rest = (row[name] for name in ("p_value", "test", "better", "worse"))
            yield (*head, row["model"], row["against"], *ends(row), *rest)


def _retention(benchmarks: Any) -> Iterator[tuple[Any, ...]]:
    for own in benchmarks:
        for row in own["retention"]:
            counts = (row[name] for name in ("n_could", "n_lost", "n_won"))
            yield (own["name"], row["model"], *ends(row["kept"]), *counts)


def _quality(rows: Any) -> Table:
    formats = list(dict.fromkeys(name for row in rows for name in row["formats"]))
    return table(
        "How the models answered",
        (
            *("benchmark", "model", "answers", "length_mean", "length_median", "drift..."),
            *_SHARES,
            *(f"format.{name}" for name in formats),
        ),
        [
            (
                *(row[name] for name in ("benchmark", "model", "n")),
                *(row["length"][name] for name in ("mean", "median")),
                *ends(row["drift"]),
                *(row[name] for name in _SHARES),
                *(row["formats"].get(name) for name in formats),
            )
            for row in rows
        ],
    )


def _judges(benchmarks: Any) -> Iterator[tuple[Any, ...]]:
    for own in benchmarks:
        judge = own["judge"]
        if judge:
            agreed = judge["agreement"]
            yield (
                own["name"],
                judge["games"],
                judge["unreadable"],
                *ends(judge["first_position"]),
                *ends(judge["length_slope"]),
                judge["consistency"],
                *ends(agreed),
                agreed["n"] if agreed else None,
            )
