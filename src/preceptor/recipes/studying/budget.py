"""In which order the cells of a study tell most: first seeds, then further ones.

First seeds. Every base and source gets one student. Of each base the sources come in this order:
those that some criterion puts first, the more criteria the earlier; those that some criterion puts
last, likewise; then those whose ranks differ most between the criteria. Ties go by the criterion
that decides. Bases take turns. So the best source is likely among the first students, and criteria
that contradict each other are soon told apart.

Further seeds go where they lower the chance of naming the wrong best source. Outcomes of a source
are taken as normal about its mean, with one variance s2 of a single student in each base and arm.
Let D be the difference of the leader and a rival, d its estimate and v = s2 (1/n + 1/m) its
variance after n and m students. The leader is the wrong one of the two with the chance
Phi(-|d| / sqrt(v)). With one student more the variance becomes w < v, and the estimate moves by a
normal of the variance v - w, so the chance is expected to become the mean of Phi(-|d'| / sqrt(w))
over d' from N(d, v - w). The gain of a student is the sum of both chances' differences over the
pairs that it is in, for each second that it is expected to take: the knowledge gradient of
Frazier, Powell and Dayanik (2008, SIAM J. Control Optim. 47) with the union bound of Chen, Lin,
Yucesan and Chick (2000, Discrete Event Dyn. Syst. 10) for the chance.

Shapes: M sources of a base and arm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from preceptor.recipes.studying.cells import Cell

_Z = np.linspace(-6.0, 6.0, 241)  # nodes of the mean over a standard normal
_WEIGHT_Z = np.exp(-0.5 * _Z**2) / np.exp(-0.5 * _Z**2).sum()
_below = np.vectorize(lambda z: 0.5 * math.erfc(-z / math.sqrt(2.0)), otypes=[np.float64])


@dataclass
class Standing:
    """The students of one base and arm so far.

    Attributes:
        mean_M: mean outcome of each source.
        n_M: students that it is the mean of.
        variance: of the outcome of a single student.
    """

    base: str
    arm: str
    sources: list[str]
    mean_M: np.ndarray
    n_M: np.ndarray
    variance: float


def telling_order(ranking: Mapping[str, Any]) -> list[str]:
    """The sources of a base, the most telling ones first (see above).

    Args:
        ranking: the content of the base's `ranking.json`.
    """
    deciding = [
        row["teacher"] for row in ranking["criteria"][ranking["recommended_by"]]["teachers"]
    ]
    ranks: dict[str, list[int]] = {name: [] for name in deciding}
    firsts, lasts = dict.fromkeys(deciding, 0), dict.fromkeys(deciding, 0)
    for criterion in ranking["criteria"].values():
        last = max(row["rank"] for row in criterion["teachers"])
        for row in criterion["teachers"]:
            ranks[row["teacher"]].append(row["rank"])
            firsts[row["teacher"]] += row["rank"] == 1
            lasts[row["teacher"]] += row["rank"] == last > 1

    def key(name: str) -> tuple[int, float, int]:
        place = deciding.index(name)
        if firsts[name]:
            return 0, -firsts[name], place
        if lasts[name]:
            return 1, -lasts[name], place
        return 2, -float(np.std(ranks[name])), place

    return sorted(deciding, key=key)


def first_seeds(
    cells: Sequence[Cell], rankings: Mapping[str, Mapping[str, Any]]
) -> tuple[list[Cell], list[Cell]]:
    """The first student of every base, source and arm in their order, and all other cells.

    Args:
        rankings: base -> content of `ranking.json`.
    """
    orders = {base: telling_order(ranking) for base, ranking in rankings.items()}
    arms = list(dict.fromkeys(cell.arm for cell in cells))
    bases = list(dict.fromkeys(cell.base for cell in cells))
    first: dict[tuple[str, str, str], Cell] = {}
    for cell in cells:
        first.setdefault((cell.arm, cell.base, cell.source), cell)

    def place(cell: Cell) -> tuple[int, int, int]:
        order = orders[cell.base]
        known = order.index(cell.source) if cell.source in order else len(order)
        return arms.index(cell.arm), known, bases.index(cell.base)

    chosen = sorted(first.values(), key=place)
    there = set(chosen)
    return chosen, [cell for cell in cells if cell not in there]


def chance_wrong(difference: np.ndarray, variance: np.ndarray | float) -> np.ndarray:
    """Chance that the leader of a pair is the worse one: Phi(-|d| / sqrt(v)); 1/2 of a tie."""
    scale = np.sqrt(np.maximum(variance, 1e-300))
    return _below(-np.abs(difference) / scale)


def expected_gain(difference: float, before: float, after: float) -> float:
    """By how much the chance of a wrong leader falls when the variance falls, in expectation.

    Args:
        difference: d, of the leader and its rival.
        before, after: v and w, of the estimate, w <= v.

    Returns:
        In [0, 1/2]; higher is better.
    """
    if before <= after:
        return 0.0
    moved_Z = difference + math.sqrt(before - after) * _Z
    expected = float(_WEIGHT_Z @ chance_wrong(moved_Z, after))
    return max(0.0, float(chance_wrong(np.array(difference), before)) - expected)


def gain_of(standing: Standing, m: int) -> float:
    """What one more student of source m is expected to be worth (see above)."""
    mean_M, n_M, s2 = standing.mean_M, standing.n_M, standing.variance
    leader = int(np.argmax(mean_M))
    rivals = [r for r in range(len(mean_M)) if r != leader and m in (leader, r)]
    total = 0.0
    for rival in rivals:
        parts = {own: s2 / n_M[own] for own in (leader, rival)}
        before = sum(parts.values())
        parts[m] = s2 / (n_M[m] + 1)
        difference = float(mean_M[leader] - mean_M[rival])
        total += expected_gain(difference, before, sum(parts.values()))
    return total


def next_seeds(
    standings: Sequence[Standing],
    left: Sequence[Cell],
    seconds: Callable[[Cell], float | None],
    size: int,
) -> list[Cell]:
    """Up to `size` cells of `left`, the most telling first; the means are held meanwhile.

    Cells of a source that has no student yet come last, in their order.

    Args:
        left: cells that may be run, in the order of their seeds.
        seconds: what a cell is expected to take; None where nobody knows.
    """
    standings = [
        Standing(s.base, s.arm, s.sources, s.mean_M, s.n_M.astype(np.float64), s.variance)
        for s in standings
    ]
    waiting = list(left)
    chosen: list[Cell] = []
    while waiting and len(chosen) < size:
        best: tuple[float, Cell, Standing, int] | None = None
        seen: set[tuple[str, str, str]] = set()
        for cell in waiting:
            key = (cell.base, cell.arm, cell.source)
            own = next((s for s in standings if (s.base, s.arm) == key[:2]), None)
            if key in seen or own is None or cell.source not in own.sources:
                continue
            seen.add(key)
            m = own.sources.index(cell.source)
            worth = gain_of(own, m) / max(seconds(cell) or 1.0, 1e-9)
            if best is None or worth > best[0]:
                best = worth, cell, own, m
        if best is None:
            chosen += waiting[: size - len(chosen)]
            break
        _, cell, own, m = best
        own.n_M[m] += 1
        chosen.append(cell)
        waiting.remove(cell)
    return chosen
