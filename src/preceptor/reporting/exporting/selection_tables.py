"""The tables of a selection, as they leave its report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from preceptor.reporting.findings import agreement
from preceptor.reporting.parts.tables import Table, ends, table

BOARD = ("rank", "rank_low", "rank_high", "teacher", "score", "score_low", "score_high", "first_in")


def tables(ranking: Mapping[str, Any]) -> dict[str, Table]:
    """Name -> table: `leaderboard` (of every criterion), `teachers`, `agreement`, and where the run
    has them `controls`, `winners` (by domain), `beta` and `pilot`."""
    found = {
        "leaderboard": _leaderboard(ranking),
        "teachers": _teachers(ranking),
        "agreement": table(
            "Agreement of the criteria (Spearman's rho of their ranks)",
            ("first", "second", "spearman", "teachers"),
            _agreement(ranking),
        ),
        "controls": _controls(ranking),
        "winners": _winners(ranking),
        "beta": table(
            "Order of the teachers by beta",
            ("reward", "beta", "rank", "teacher", "score"),
            [
                (reward, float(step["beta"]), row["rank"], row["teacher"], row["score"])
                for reward, grid in (ranking.get("beta_sensitivity") or {}).items()
                for step in grid
                for row in step["teachers"]
            ],
        ),
        "pilot": _pilot(ranking),
    }
    return {name: own for name, own in found.items() if own.rows}


def _leaderboard(ranking: Mapping[str, Any]) -> Table:
    """Every criterion's rows, best first; the recommending criterion first."""
    main = ranking["recommended_by"]
    order = sorted(ranking["criteria"].items(), key=lambda item: item[0] != main)
    rows = []
    for key, criterion in order:
        tied = set(criterion.get("tied_with_first") or [])
        for row in criterion["teachers"]:
            rows.append(
                (
                    key,
                    criterion.get("direction", "higher"),
                    criterion.get("unit", ""),
                    *(row.get(name) for name in ("rank", "rank_low", "rank_high", "teacher")),
                    *ends(row, "score"),
                    row.get("p_best"),
                    row["teacher"] in tied,
                )
            )
    return table("Leaderboard", ("criterion", "direction", "unit", *BOARD, "tied_with_first"), rows)


def _teachers(ranking: Mapping[str, Any]) -> Table:
    profiles = ranking.get("teachers") or {}
    rewards = list(ranking.get("rewards") or {})
    return table(
        "What was measured of every teacher",
        ("teacher", "loss", "tokens", "truncated", *(f"reward.{name}" for name in rewards)),
        [
            (
                teacher,
                *(own.get(name) for name in ("loss", "n_tokens_mean", "truncated")),
                *((own.get("rewards") or {}).get(name) for name in rewards),
            )
            for teacher, own in profiles.items()
        ],
    )


def _agreement(ranking: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    found = agreement.pairs(ranking)
    for first, second in combinations(ranking["criteria"], 2):
        yield first, second, *found[first, second]


def _controls(ranking: Mapping[str, Any]) -> Table:
    """What length, size and family of the teachers would explain of every criterion's order."""
    own = (ranking.get("controls") or {}).get("criteria") or {}
    columns = (
        *("criterion", "teachers", "length_rho", "length_p", "size_rho", "size_p"),
        *("size_rho_without_length", "family_share", "family_by_chance", "family_p"),
        "first_without_length",
    )
    rows = []
    for key, row in own.items():
        length, size, family = (row.get(name) or {} for name in ("length", "size", "family"))
        rows.append(
            (
                *(key, row.get("n"), length.get("spearman"), length.get("p_value")),
                *(size.get(name) for name in ("spearman", "p_value", "without_length")),
                *(family.get(name) for name in ("share", "chance", "p_value")),
                row.get("first_without_length"),
            )
        )
    return table("What else would explain the order", columns, rows)


def _winners(ranking: Mapping[str, Any]) -> Table:
    """The first teacher of every value of the run's `by`, or why there is none."""
    by = ranking.get("by") or {"column": "by", "groups": []}
    rows = []
    for group in by["groups"]:
        if group["recommended"] is None:
            rows.append((group["value"], group["n_instructions"], *[None] * 8, group.get("why")))
            continue
        first = group["teachers"][0]
        rows.append(
            (
                group["value"],
                group["n_instructions"],
                group["recommended"],
                *ends(first, "score"),
                "; ".join(group["tied_with_first"]),
                *ends(group["against_overall"], "difference"),
                None,
            )
        )
    columns = ("teacher", "score...", "tied_with", "over_the_run's_first...", "not_ranked")
    title = f"Winners by {by['column']}"
    return table(title, (str(by["column"]), "instructions", *columns), rows)


def _pilot(ranking: Mapping[str, Any]) -> Table:
    pilot: Mapping[str, Any] = ranking.get("pilot") or {"rows": []}
    rows: list[tuple[Any, ...]] = [
        (
            row["teacher"],
            *ends(row, "score"),
            *ends(row["over_base"], "difference"),
            len(row["seeds"]),
            row["n_tokens"],
        )
        for row in pilot["rows"]
    ]
    if rows:
        rows.append(("(untrained base)", *ends(pilot["base"], "score"), *[None] * 5))
    columns = ("student_of", "score...", "over_base...", "seeds", "tokens")
    return table("Pilot: students of the finalists", columns, rows)
