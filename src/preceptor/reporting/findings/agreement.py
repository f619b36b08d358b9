"""How alike the criteria order the teachers: Spearman's ρ of every two of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from preceptor.reporting.parts.wording import label, number

STEPS = (0.2, 0.4, 0.6, 0.8)  # of |ρ|, at which the shade changes


def mid_ranks(ranks: Sequence[float]) -> list[float]:
    """Ranks in which equals share the mean of their places, as Spearman's ρ wants them."""
    below = [sum(other < own for other in ranks) for own in ranks]
    same = [sum(other == own for other in ranks) for own in ranks]
    return [low + (n + 1) / 2 for low, n in zip(below, same, strict=True)]


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's ρ in [-1, 1] of two rank lists of equal length; None if either is constant."""
    n = len(first)
    mean_a, mean_b = sum(first) / max(n, 1), sum(second) / max(n, 1)
    products = [(a - mean_a) * (b - mean_b) for a, b in zip(first, second, strict=True)]
    spread_a = sum((a - mean_a) ** 2 for a in first)
    spread_b = sum((b - mean_b) ** 2 for b in second)
    if n < 2 or not spread_a or not spread_b:
        return None
    return sum(products) / math.sqrt(spread_a * spread_b)


def pairs(ranking: Mapping[str, Any]) -> dict[tuple[str, str], tuple[float | None, int]]:
    """(criterion, criterion) -> ρ in [-1, 1], and the number of teachers that both rank.

    ρ is None where an order is constant. A criterion's order counts with its better end first.
    """
    ranks = {
        key: {row["teacher"]: float(row["rank"]) for row in criterion["teachers"]}
        for key, criterion in ranking["criteria"].items()
    }
    found = {}
    for first, own in ranks.items():
        for second, other in ranks.items():
            both = [teacher for teacher in own if teacher in other]
            rho = spearman(
                mid_ranks([own[teacher] for teacher in both]),
                mid_ranks([other[teacher] for teacher in both]),
            )
            found[first, second] = (rho, len(both))
    return found


def shade(rho: float | None) -> str:
    """The class of a cell: `rho-n4` (opposite) .. `rho-0` .. `rho-p4` (the same)."""
    if rho is None:
        return "rho-none"
    step = sum(abs(rho) >= bound for bound in STEPS)
    return "rho-0" if step == 0 else f"rho-{'p' if rho > 0 else 'n'}{step}"


def matrix(ranking: Mapping[str, Any]) -> dict[str, Any] | None:
    """The table of the page; None with fewer than two criteria.

    `labels`, `rows` (a list of cells a criterion: value as text, shade, words), `n` (teachers,
    where it is the same for all pairs), `least` (label and ρ of the criterion that agrees least
    with the recommending one; None where no ρ exists).
    """
    keys = list(ranking["criteria"])
    if len(keys) < 2:
        return None
    found = pairs(ranking)
    main = ranking["recommended_by"]
    known = [(rho, key) for key in keys if key != main and (rho := found[main, key][0]) is not None]
    least = min(known, default=None)
    counts = {n for _, n in found.values()}
    return {
        "labels": [label(key) for key in keys],
        "main": keys.index(main),
        "rows": [
            [
                {
                    "value": number(found[first, second][0], 2),
                    "shade": "rho-self" if first == second else shade(found[first, second][0]),
                    "n": found[first, second][1],
                }
                for second in keys
            ]
            for first in keys
        ],
        "n": counts.pop() if len(counts) == 1 else None,
        "least": None if least is None else (label(least[1]), number(least[0], 2)),
    }
