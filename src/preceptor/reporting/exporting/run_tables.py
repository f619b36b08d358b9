"""The tables of trainings, askings, routings, stores and training sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from preceptor.core import artifacts
from preceptor.reporting.findings.quality import Interval, read_quality
from preceptor.reporting.findings.training_log import COLUMNS, read_log
from preceptor.reporting.parts.tables import Table, ends, table

_POINT = ("teacher", "temperature", "top_p", "max_new_tokens")
_WAYS = ("routed", "single", "oracle", "random")


def of_training(folder: Path) -> dict[str, Table]:
    """Name -> table: `quality` and `differences` where it was measured, and the last `losses`."""
    made = {"losses": _losses(folder)}
    raw = artifacts.read_json(folder / artifacts.QUALITY)
    if raw is not None:
        found = read_quality(raw, str(folder / artifacts.QUALITY))
        made = {
            "quality": table(
                f"Quality: {found.measure}",
                ("model", "group", "instructions", "score...", "seeds"),
                [
                    (row.model, group, found.n.get(group), *_ends(score), len(row.seeds))
                    for row in found.rows
                    for group, score in row.scores.items()
                ],
            ),
            "differences": table(
                "Differences on the same instructions",
                ("model", "against", "group", "difference..."),
                [
                    (own.model, own.against, own.group, *_ends(own.interval))
                    for own in found.differences
                ],
            ),
            **made,
        }
    return {name: own for name, own in made.items() if own.rows}


def _ends(cell: Interval | None) -> tuple[Any, Any, Any]:
    return (None, None, None) if cell is None else (cell.value, cell.low, cell.high)


def _losses(folder: Path) -> Table:
    """The last value of every logged column, of the student and of its ablations and controls."""
    places = [folder, *sorted(folder.glob("ablation/*")), *sorted(folder.glob("controls/*"))]
    names = [name for name in COLUMNS if not name.startswith("grad_norm")]
    rows = []
    for place in places:
        log = read_log(place / artifacts.METRICS)
        if log is not None and log.steps:
            known = [log.known(name) for name in names]
            last = [values[-1][1] if values else None for values in known]
            student = "student" if place == folder else place.relative_to(folder).as_posix()
            rows.append((student, log.steps[-1], *last))
    return table("Last logged values", ("student", "step", *names), rows)


def of_asking(found: Mapping[str, Any]) -> dict[str, Table]:
    """Name -> table: `points`, `rewards` of every point, and `of_k` (best and worst of k)."""
    counts = (*("n_instructions", "n_answers", "samples", "n_tokens_mean", "cut_share", "cost"),)
    made = {
        "rewards": table(
            "Rewards of the answers",
            (*_POINT, "reward", "mean...", "missing"),
            [
                (*_point(own), name, *ends(cell, "mean"), cell["n_missing"])
                for own in found["points"]
                for name, cell in own["rewards"].items()
            ],
        ),
        "points": table(
            "Teachers and decodings",
            (*_POINT, *(name.removeprefix("n_") for name in counts)),
            [(*_point(own), *(own[name] for name in counts)) for own in found["points"]],
        ),
        "of_k": table(
            "Best and worst of k samples", (*_POINT, "reward", "of", "k", "mean..."), _of_k(found)
        ),
    }
    return {name: own for name, own in made.items() if own.rows}


def _point(own: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(own[name] for name in _POINT)


def _of_k(found: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    for own in found["points"]:
        for name, cell in own["rewards"].items():
            for which in ("best", "worst"):
                for row in cell[f"{which}_of"]:
                    yield (*_point(own), name, which, row["k"], *ends(row, "mean"))


def of_routing(found: Mapping[str, Any]) -> dict[str, Table]:
    """Name -> table: `held_out` (what routing is worth) and `routed` (who is asked how much)."""
    means = found["held_out"]["means"]
    return {
        "held_out": table(
            "What routing is worth on prompts held out",
            ("way", "measure", "mean...", "routed_less_this..."),
            [
                (
                    way,
                    measure,
                    *ends(own[way], "mean"),
                    *ends((own.get("routed_minus") or {}).get(way), "mean"),
                )
                for measure, own in means.items()
                for way in _WAYS
            ],
        ),
        "routed": table(
            "Instructions of each teacher",
            ("teacher", "instructions"),
            list(found["routed"]["teachers"].items()),
        ),
    }


def of_store(facts: Mapping[str, Any]) -> dict[str, Table]:
    """Name -> table: `store`, what it holds."""
    names = ("kind", "k", "temperature", "vocabulary", "samples", "positions", "bytes_per_token")
    rows = [(name, str(facts[name])) for name in names if name in facts]
    return {"store": table("What the store holds", ("what", "value"), rows)}


def of_sets(provenance: Mapping[str, Any]) -> dict[str, Table]:
    """Name -> table: `sets`, the rows of each."""
    rows = list((provenance.get("sets") or {}).items())
    return {"sets": table("Training sets", ("set", "rows"), rows)} if rows else {}
