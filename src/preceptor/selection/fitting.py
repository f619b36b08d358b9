"""Beta fitted on known outcomes, and what the fit is worth on teachers that it has not seen.

rho(beta) is Spearman's rho between scores at that beta and outcomes, averaged over bases where
there are several. It is a step function: scores change their order only where two teachers cross.
So the best beta is a plateau, and the fitted beta its median on a grid even in log(beta).

Leave one teacher out: beta is fitted on the others, then *all* teachers are ranked at that beta,
and the left-out one takes its mid-rank among them. These M ranks, each made without the outcome
of its own teacher, are correlated with the outcomes. Ranks, not scores: the scale of a score
depends on beta, and every left-out teacher has a beta of its own.

Shapes: M teachers, G points of the grid. Bases may have different teachers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from preceptor.selection.agreement import signs, spearman

PER_DECADE = 100
DECADES = (-3, 3)
# 1/nat: at its low end beta * L is next to nothing, at its high end the 1 of 1 + beta * L
GRID = np.concatenate([[0.0], np.logspace(*DECADES, (DECADES[1] - DECADES[0]) * PER_DECADE + 1)])


@dataclass(frozen=True)
class Known:
    """One base's teachers: names, scores over the grid (higher is better), outcomes (ditto)."""

    teachers: tuple[str, ...]
    score_GM: np.ndarray
    outcome_M: np.ndarray

    def without(self, teacher: str) -> Known:
        """The others."""
        kept = [m for m, name in enumerate(self.teachers) if name != teacher]
        return Known(
            tuple(self.teachers[m] for m in kept), self.score_GM[:, kept], self.outcome_M[kept]
        )


@dataclass(frozen=True)
class Plateau:
    """The grid's points of highest rho: the median one, the ends, and the rho there."""

    place: int
    low: float
    high: float
    rho: float


@dataclass(frozen=True)
class Fitted:
    """A fitted beta and what it is worth.

    Attributes:
        beta: median of the plateau, 1/nat.
        plateau: its ends; every beta of the grid with the highest rho lies between them.
        rho: at that beta on the teachers it was fitted on; optimistic.
        left_out: teacher -> beta fitted without that teacher.
        rho_left_out: of the ranks that teachers take when left out, one per base, averaged; None
            where it does not exist (their ranks or the outcomes are constant).
        rho_G: rho over the grid.
    """

    beta: float
    plateau: tuple[float, float]
    rho: float
    left_out: dict[str, float]
    rho_left_out: float | None
    rho_G: np.ndarray


def rho_over_grid(known: Sequence[Known]) -> np.ndarray:
    """Mean rho over bases at every point of the grid: shape (G,); NaN where no base has one."""
    rho_BG = np.stack([spearman(own.score_GM, own.outcome_M) for own in known])
    n_G = np.isfinite(rho_BG).sum(axis=0)
    total_G = np.nansum(rho_BG, axis=0)
    return np.divide(total_G, n_G, out=np.full(len(n_G), np.nan), where=n_G > 0)


def plateau(rho_G: np.ndarray, grid: np.ndarray = GRID) -> Plateau | None:
    """The points of highest rho (rounding aside); None where rho exists nowhere."""
    if not np.isfinite(rho_G).any():
        return None
    top = np.flatnonzero(rho_G >= np.nanmax(rho_G) - 1e-9)
    place = int(top[(len(top) - 1) // 2])
    return Plateau(place, float(grid[top[0]]), float(grid[top[-1]]), float(rho_G[place]))


def fit_beta(known: Sequence[Known], grid: np.ndarray = GRID) -> Fitted | None:
    """Fit one beta for all the bases, and test it on each teacher in turn.

    Args:
        known: a base each, at least three teachers; scores at each beta of the grid.
        grid: rising, 1/nat.

    Returns:
        The fit; None where rho exists at no beta (all outcomes are equal, say).
    """
    rho_G = rho_over_grid(known)
    best = plateau(rho_G, grid)
    if best is None:
        return None
    left_out: dict[str, float] = {}
    places = [np.full(len(own.teachers), np.nan) for own in known]
    for teacher in dict.fromkeys(name for own in known for name in own.teachers):
        others = [own.without(teacher) for own in known]
        found = plateau(rho_over_grid(others), grid)
        if found is None:  # the others' outcomes are equal: they say nothing of beta
            continue
        left_out[teacher] = float(grid[found.place])
        for own, place_M in zip(known, places, strict=True):
            if teacher in own.teachers:
                m = own.teachers.index(teacher)
                # how many it beats less how many beat it: its centred mid-rank, times two
                place_M[m] = signs(own.score_GM[found.place])[m].sum()
    rhos = [
        float(spearman(place_M[np.isfinite(place_M)], own.outcome_M[np.isfinite(place_M)]))
        for own, place_M in zip(known, places, strict=True)
        if np.isfinite(place_M).sum() > 1
    ]
    rhos = [rho for rho in rhos if np.isfinite(rho)]
    return Fitted(
        beta=float(grid[best.place]),
        plateau=(best.low, best.high),
        rho=best.rho,
        left_out=left_out,
        rho_left_out=float(np.mean(rhos)) if rhos else None,
        rho_G=rho_G,
    )
