"""What a training brought: models x groups of instructions, each score with its interval.

Reads `quality.json` of a run folder, for the report page and for the terminal. A difference counts
only where its interval excludes 0; everywhere else the words say that none is shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from preceptor.core.errors import RunFolderError
from preceptor.reporting.parts import origins, wording

QUALITY_VERSION = 1
WIDTH = 110  # of a table that does not go to a terminal


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its interval, all in the unit of the measure."""

    value: float
    low: float
    high: float

    @property
    def side(self) -> int:
        """1 or -1 where the whole interval lies above or below 0, else 0."""
        return (self.low > 0) - (self.high < 0)

    @property
    def mirrored(self) -> Interval:
        """The same on the other side of 0."""
        return Interval(-self.value, -self.high, -self.low)


@dataclass(frozen=True)
class Row:
    """One model: its score in each group (None where it was not measured) and its seeds."""

    model: str
    scores: dict[str, Interval | None]
    seeds: list[int] = field(default_factory=list)
    by_seed: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """Score of `model` less that of `against`, on the same instructions of `group`."""

    model: str
    against: str
    group: str
    interval: Interval


@dataclass(frozen=True)
class Quality:
    """`quality.json`, checked.

    Attributes:
        measure: what a score is, in words.
        confidence: of the intervals, in (0, 1).
        groups: of test instructions, in order.
        n: group -> number of instructions; a group may be missing.
        rows: from the untrained model to the last trained one.
        differences: in the file's order; the first one's model is what the run is about.
    """

    measure: str
    confidence: float
    groups: list[str]
    n: dict[str, int]
    rows: list[Row]
    differences: list[Difference]

    @property
    def main(self) -> str:
        """The model the run is about: the first that is compared, else the last row's."""
        known = [row.model for row in self.rows]
        compared = [each.model for each in self.differences if each.model in known]
        return (compared or known[-1:])[0]

    def main_difference(self, group: str) -> Difference | None:
        """The main model against the first other trained model in `group`, else against the first
        row (the untrained model), else None."""
        own = [each for each in self.differences if (each.model, each.group) == (self.main, group)]
        trained = [each for each in own if each.against != self.rows[0].model]
        return (trained or own or [None])[0]

    @property
    def decimals(self) -> int:
        """Decimals (0..4) at which half of a typical interval shows one digit."""
        cells = [cell for row in self.rows for cell in row.scores.values() if cell]
        halves = sorted((cell.high - cell.low) / 2 for cell in cells if cell.high > cell.low)
        return _decimals(halves[len(halves) // 2]) if halves else 2


def _decimals(step: float) -> int:
    return min(4, max(0, -math.floor(math.log10(step))))


def decimals_of(interval: Interval, decimals: int) -> int:
    """`decimals`, or more (up to 6) until no end of `interval` looks like 0 that is not 0."""
    ends = [abs(end) for end in (interval.low, interval.high) if end]
    while decimals < 6 and any(round(end, decimals) == 0 for end in ends):
        decimals += 1
    return decimals


def words_of(interval: Interval | None, decimals: int) -> str:
    """ "0.81 [0.78, 0.84]", or a dash."""
    if interval is None:
        return "–"
    ends = (interval.value, interval.low, interval.high)
    return "{} [{}, {}]".format(*(wording.number(end, decimals) for end in ends))


def read_quality(quality: Any, where: str) -> Quality:
    """`quality` (the JSON value of `quality.json`) checked; `where` stands in errors.

    Raises:
        RunFolderError: another version, or something that is no quality table.
    """
    version = quality.get("version") if isinstance(quality, Mapping) else None
    if version != QUALITY_VERSION:
        raise RunFolderError(
            "the quality table has a version this release cannot read",
            where=where,
            found=repr(version),
            next_step=f"measure again with this release (version {QUALITY_VERSION})",
        )
    try:
        return _quality(quality)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise origins.changed_by_hand(where, "the quality table", error) from error


def _quality(quality: Mapping[str, Any]) -> Quality:
    groups = [str(group) for group in quality["groups"]]
    if not groups or not quality["rows"]:
        raise ValueError("no groups, or no rows")
    return Quality(
        measure=str(quality.get("measure") or "score"),
        confidence=_finite(quality.get("confidence", 0.95)),
        groups=groups,
        n={str(group): int(n) for group, n in (quality.get("n") or {}).items()},
        rows=[_row(row, groups) for row in quality["rows"]],
        differences=[
            Difference(
                str(each["model"]),
                str(each["against"]),
                str(each["group"]),
                _interval(each, "difference"),
            )
            for each in quality.get("differences") or []
        ],
    )


def _row(row: Mapping[str, Any], groups: list[str]) -> Row:
    by_seed: dict[str, list[float]] = {}
    for scores in (row.get("by_seed") or {}).values():
        for group, score in scores.items():
            if score is not None:
                by_seed.setdefault(str(group), []).append(_finite(score))
    return Row(
        model=str(row["model"]),
        scores={g: _interval(row[g], "score") if row.get(g) else None for g in groups},
        seeds=[int(seed) for seed in row.get("seeds") or []],
        by_seed=by_seed,
    )


def _interval(cell: Mapping[str, Any], value: str) -> Interval:
    found = Interval(*(_finite(cell[key]) for key in (value, "low", "high")))
    if found.low > found.high:
        raise ValueError(f"an interval that ends before it begins: {dict(cell)}")
    return found


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is no finite number")
    return number
