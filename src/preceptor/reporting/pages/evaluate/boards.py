"""The scores of an evaluation as its page needs them: lists that are parallel to the models.

Tables are rendered from the same boards that travel to the script, so a switch of measure and back
changes no digit.

Shapes: B benchmarks, M measures of one, N models, C categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from preceptor.core.evaluation import Benchmarked, Difference, Evaluation
from preceptor.reporting.findings import evaluation_words as words

RADAR = (3, 12)  # fewest and most categories that a radar plot can show
MAX_ACROSS = 8  # categories side by side in a table
GAP = (  # what a difference holds, in the order of its list in the page's data
    *("model", "against", "value", "low", "high", "decimals"),
    *("p", "holm", "test", "better", "worse", "side"),
)
FORMATS = ("list", "header", "code", "bold", "json", "table")

Cell = dict[str, float | None]


def cell(own: Mapping[str, Any] | None) -> Cell | None:
    """A value with its interval; None where there is no value."""
    if own is None or own["value"] is None:
        return None
    return {key: own[key] for key in ("value", "low", "high")}


def boards(evaluation: Evaluation) -> list[dict[str, Any]]:
    """A board a benchmark.

    Each has `name`, `kind`, `n`, `marked` (items with a number, N), `categories`, `radar` (whether
    a radar plot can show them) and `measures`: `name`, `title`, `caption`, `direction`,
    `source`, `low`, `high`, `decimals`, `cells` (N, None where there is no value), `order`
    (models, best first), `tied` (models that cannot be told apart from the first), `by_category`
    and `shades` (C x N), `gaps` and `pairs` (differences to the reference, best first, and
    of all pairs).
    """
    return [_board(own, evaluation) for own in evaluation["benchmarks"]]


def packed(all_boards: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The boards as they travel to the script: values with intervals, and differences, as lists."""

    def cells(row: Sequence[Cell | None]) -> list[list[float | None] | None]:
        return [None if own is None else list(own.values()) for own in row]

    return [
        {
            **board,
            "measures": [
                {
                    **measure,
                    "cells": cells(measure["cells"]),
                    "by_category": [cells(row) for row in measure["by_category"]],
                    "gaps": [[row[key] for key in GAP] for row in measure["gaps"]],
                    "pairs": [[row[key] for key in GAP] for row in measure["pairs"]],
                }
                for measure in board["measures"]
            ],
        }
        for board in all_boards
    ]


def _board(own: Benchmarked, evaluation: Evaluation) -> dict[str, Any]:
    by_model = {score["model"]: score for score in own["scores"]}
    marked = [by_model.get(model) for model in evaluation["models"]]
    return {
        "name": own["name"],
        "kind": own["kind"],
        "n": own["n"],
        "marked": [score["n_marked"] if score else None for score in marked],
        "categories": list(own["categories"]),
        "radar": RADAR[0] <= len(own["categories"]) <= RADAR[1],
        "measures": [_measure(measure, own, evaluation) for measure in own["measures"]],
    }


def _measure(
    measure: Mapping[str, Any], own: Benchmarked, evaluation: Evaluation
) -> dict[str, Any]:
    name, models = measure["name"], evaluation["models"]
    by_model = {score["model"]: score for score in own["scores"]}
    scores = [by_model.get(model) for model in models]
    cells = [cell(score["measures"].get(name)) if score else None for score in scores]
    by_category = [
        [
            cell((score["categories"].get(category) or {}).get(name)) if score else None
            for score in scores
        ]
        for category in own["categories"]
    ]
    digits = words.decimals(cells)
    rows = [row for row in own["differences"] if row["measure"] == name]
    order = [models.index(model) for model in words.ranked(own, measure)]
    turned = (_against(row, evaluation["reference"]) for row in rows)
    gaps = {row["model"]: row for row in turned if row}
    places = [*order, *(i for i in range(len(models)) if i not in order)]
    against = [gaps[models[i]] for i in places if models[i] in gaps]
    return {
        **{key: measure[key] for key in ("name", "title", "low", "high", "direction", "source")},
        "caption": words.caption(measure),
        "decimals": digits,
        "cells": cells,
        "order": order,
        "tied": [models.index(model) for model in words.tied_with_first(own, measure)],
        "by_category": by_category,
        "shades": shades(by_category, measure["direction"]),
        "gaps": _listed(against, measure, models, digits),
        "pairs": _listed(_pairs(rows, models), measure, models, digits),
    }


def _against(row: Difference, reference: str) -> Mapping[str, Any] | None:
    """The row as a difference to the reference; None where it is none."""
    if row["against"] == reference:
        return row
    return words.turned(row) if row["model"] == reference else None


def _pairs(rows: Sequence[Difference], models: Sequence[str]) -> list[Mapping[str, Any]]:
    """Every pair once, in the order of the models, however often it was written down."""
    found: dict[tuple[int, int], Mapping[str, Any]] = {}
    for row in rows:
        first, second = models.index(row["model"]), models.index(row["against"])
        own = row if first < second else words.turned(row)
        found.setdefault((min(first, second), max(first, second)), own)
    return [found[pair] for pair in sorted(found)]


def _listed(
    rows: Sequence[Mapping[str, Any]],
    measure: Mapping[str, Any],
    models: Sequence[str],
    digits: int,
) -> list[dict[str, Any]]:
    """Differences with what a table says of them; `holm` is over the rows of this list."""
    together = words.holm([row["p_value"] for row in rows])
    found = []
    for row, p_holm in zip(rows, together, strict=True):
        own = cell(row)
        if own is None:
            continue
        found.append(
            {
                "model": models.index(row["model"]),
                "against": models.index(row["against"]),
                **own,
                "decimals": words.gap_decimals(own, digits),
                "p": row["p_value"],
                "holm": p_holm,
                "test": words.name_of_test(row["test"]),
                "better": row["better"],
                "worse": row["worse"],
                "side": words.side(own, measure["direction"]),
            }
        )
    return found


def sorted_models(evaluation: Evaluation, all_boards: Sequence[Mapping[str, Any]]) -> list[int]:
    """The models as the first table lists them: by the first benchmark's measure, best first."""
    first = all_boards[0]["measures"][0]["order"] if all_boards else []
    return [*first, *(i for i in range(len(evaluation["models"])) if i not in first)]


def shades(rows_CN: Sequence[Sequence[Cell | None]], direction: str) -> list[list[int | None]]:
    """The shade of each cell of a category table, from 2 at the better end of all to 6."""
    values = [own["value"] for row in rows_CN for own in row if own and own["value"] is not None]
    low, high = (min(values), max(values)) if values else (0.0, 0.0)

    def shade(own: Cell | None) -> int | None:
        if own is None or own["value"] is None:
            return None
        share = (own["value"] - low) / (high - low) if high > low else 0.0
        return 2 + round(4 * (1.0 - share if direction == "higher" else share))

    return [[shade(own) for own in row] for row in rows_CN]


def grid(board: Mapping[str, Any], models: Sequence[str]) -> dict[str, Any]:
    """The category table of a board: its heads, and rows of (label, [(category, model) ...]).

    The longer of the two lists goes down the page, unless the categories fit beside each other.
    """
    names = board["categories"]
    down = len(names) > MAX_ACROSS and len(names) > len(models)
    across, along = range(len(models)), range(len(names))
    if down:
        rows = [(names[c], [(c, i) for i in across]) for c in along]
        return {"corner": "Category", "heads": list(models), "rows": rows}
    rows = [(models[i], [(c, i) for c in along]) for i in across]
    return {"corner": "Model", "heads": list(names), "rows": rows}


def retention(evaluation: Evaluation) -> list[dict[str, Any]]:
    """What each model kept of the reference's abilities, by benchmark; rows as the page shows them.

    A row has `kept` (cell, in per cent), `n_could`, `n_lost`, `n_won` and `bar`: kept, lost and won
    items in per cent of all that appear in it; `categories` (C) hold the same without the bar.
    """
    found = []
    for own in evaluation["benchmarks"]:
        rows = [
            {
                "model": row["model"],
                **_kept(row),
                "bar": _bar(row),
                "categories": [_kept(row["categories"].get(each)) for each in own["categories"]],
            }
            for row in own["retention"]
            if row["n_could"] or row["n_won"]
        ]
        if rows:
            found.append({"name": own["name"], "rows": rows, "categories": own["categories"]})
    return found


def _kept(own: Mapping[str, Any] | None) -> dict[str, Any]:
    if own is None:
        return {"kept": None, "n_could": None, "n_lost": None, "n_won": None}
    kept = cell(own["kept"])
    if kept is not None:
        kept = {key: None if end is None else 100.0 * end for key, end in kept.items()}
    return {"kept": kept, **{key: own[key] for key in ("n_could", "n_lost", "n_won")}}


def _bar(own: Mapping[str, Any]) -> list[float]:
    """Widths in per cent of kept, lost and won items."""
    could, lost, won = own["n_could"], own["n_lost"], own["n_won"]
    return [round(100.0 * part / (could + won), 2) for part in (could - lost, lost, won)]


def answering(evaluation: Evaluation) -> list[dict[str, Any]]:
    """How the models answered, by benchmark: rows of lengths, shares and formats."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in evaluation["quality"]:
        groups.setdefault(row["benchmark"], []).append(
            {
                **row,
                "ratio": words.ratio_words(row["drift"]),
                "shares": [row[key] for key in words.SHARES],
                "forms": [row["formats"].get(form) for form in FORMATS],
            }
        )
    return [{"name": name, "rows": rows} for name, rows in groups.items()]
