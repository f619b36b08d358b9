"""One finished selection as `compare.json` tells it: its criteria, and how they agree.

Shapes: M teachers, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

from preceptor.core.comparison import Agreement, Base, Measured, Standing
from preceptor.recipes.comparing.finished import Finished, Scores
from preceptor.selection.agreement import Bounds, bounds, kendall, spearman
from preceptor.selection.families import family_of
from preceptor.selection.trial import firsts, measured
from preceptor.selection.verdict import View


def views_of(run: Finished) -> dict[str, View]:
    """Whom each criterion puts first, and whom it cannot separate from that teacher."""
    return {
        name: View(
            own.kind,
            tuple(firsts(run.teachers, own.good_M)),
            tuple(name for name in own.row["tied_with_first"] if name in run.teachers),
        )
        for name, own in run.criteria.items()
    }


def describe(run: Finished, runs: Sequence[Finished], confidence: float) -> Base:
    """One of `runs`, outcomes aside."""
    views = views_of(run)
    criteria: dict[str, Standing] = {
        name: {
            "kind": own.kind,
            "direction": own.row["direction"],
            "unit": own.row["unit"],
            "description": own.row["description"],
            "first": list(views[name].first),
            "tied_with_first": list(views[name].tied),
            "scores": own.score_M.tolist(),
            "recomputed": own.resampled_MR is not None,
        }
        for name, own in run.criteria.items()
    }
    return {
        "name": _name(run, runs),
        "base": run.base,
        "run": str(run.folder),
        "family": family_of(run.base),
        "deciding": run.ranking["recommended_by"],
        "n_instructions": run.ranking["n_instructions"],
        "teachers": list(run.teachers),
        "criteria": criteria,
        "agreement": _agreement(run, confidence),
        "outcomes": None,
    }


def _name(run: Finished, runs: Sequence[Finished]) -> str:
    """The base; with the run's folder where several runs share it."""
    same = [other for other in runs if other.base == run.base]
    if len(same) == 1:
        return run.base
    folders = [other.folder.resolve().name for other in same]
    own = run.folder.resolve()
    return f"{run.base} ({own.name if folders.count(own.name) == 1 else own})"


def _agreement(run: Finished, confidence: float) -> list[Agreement]:
    """Rank correlations of every pair of criteria; the intervals are over instructions."""
    return [
        {
            "first": first,
            "second": second,
            "spearman": _between(spearman, run.criteria[first], run.criteria[second], confidence),
            "kendall": _between(kendall, run.criteria[first], run.criteria[second], confidence),
        }
        for first, second in combinations(run.criteria, 2)
    ]


def _between(
    formula: Callable[..., np.ndarray], first: Scores, second: Scores, confidence: float
) -> Measured:
    """Both criteria on the same resamples; no interval where one cannot be resampled."""
    value = float(formula(first.good_M, second.good_M))
    if first.good_MR is None or second.good_MR is None:
        return measured(Bounds(value, np.nan, np.nan))
    return measured(bounds(value, formula(first.good_MR.T, second.good_MR.T), confidence))
