"""Two selections beside each other: whom they recommend, and how the ranks changed.

A rank's interval is of its own run. Whether two of them overlap describes them; it is no test of
their difference, which only `Paired` (the same instructions in both) gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preceptor.reporting.findings.agreement import mid_ranks, spearman
from preceptor.reporting.findings.run_verdicts import listing
from preceptor.reporting.pages.two_runs.pairs import (
    Compared,
    Paired,
    Panel,
    Section,
    Side,
    differing,
    overlap,
)
from preceptor.reporting.parts import wording
from preceptor.reporting.parts.tables import ends, table

# settings that the scale of a score depends on
_SCALE = ("base", "reference", "rewards", "beta", "loss_reduction", "criterion_options")
_COLUMNS = (
    *("teacher", "A_rank...", "B_rank...", "moved_up...", "rank_intervals"),
    *("A_score...", "B_score...", "score_intervals"),
)


def compare(first: Side, second: Side, paired: Paired) -> Compared:
    """The page of two finished selections; `paired.changes` are places gained, by teacher."""
    one, other = first.found, second.found
    scale = [name for name, *_ in _differing_scale(first, second)]
    keys = [(one["recommended_by"], other["recommended_by"])]
    shared = [key for key in one["criteria"] if key in other["criteria"]]
    keys += [(key, key) for key in shared if (key, key) not in keys]
    panels = tuple(
        _panel(one, other, pair, paired if i == 0 else Paired(), comparable=not scale)
        for i, pair in enumerate(keys)
    )
    names = {row["teacher"] for found in (one, other) for row in _rows(found, None).values()}
    note = (
        "Ranks are those of each run; a bar beside a dot is the interval of a rank, and names are "
        "in bold where the two intervals of a teacher lie apart. That they overlap is no test. "
        "Moved up counts places among the teachers of both runs."
    )
    if paired.n:
        note += (
            f" Its interval, by the deciding criterion, is paired: both runs on the same "
            f"{paired.n:,} instructions, resampled together."
        )
    warnings = [f"There is no joint statement: {paired.why}."] if paired.why else []
    if scale:
        warnings.append(
            f"Scores of the runs are not on one scale: they differ in {listing(scale)}. "
            "Ranks can be compared, scores cannot."
        )
    return Compared(
        tuple(_verdict(one, other, panels[0], paired)),
        (Section("ranks", "Ranks in both runs", note, panels, "criterion"),),
        tuple(sorted(names)),
        tuple(warnings),
    )


def _differing_scale(first: Side, second: Side) -> list[tuple[str, Any, Any]]:
    """Settings and models by which the scores of two runs are not on one scale."""
    pairs = [{k: side.settings.get(k) for k in _SCALE} for side in (first, second)]
    found = list(differing(*pairs))
    own = [side.provenance.get("models") or {} for side in (first, second)]
    models = [{k: v for k, v in held.items() if not k.startswith("teacher ")} for held in own]
    return found or [(f"the {name}", one, other) for name, one, other in differing(*models)]


def _rows(ranking: Mapping[str, Any], key: str | None) -> dict[str, Mapping[str, Any]]:
    """Teacher -> row of a criterion; of the deciding one where `key` is None."""
    criterion = ranking["criteria"][key or ranking["recommended_by"]]
    return {row["teacher"]: row for row in criterion["teachers"]}


def _panel(
    one: Mapping[str, Any],
    other: Mapping[str, Any],
    keys: tuple[str, str],
    paired: Paired,
    comparable: bool,
) -> Panel:
    """The teachers under one criterion of each run."""
    a, b = _rows(one, keys[0]), _rows(other, keys[1])
    shared = [teacher for teacher in a if teacher in b]
    place_a = {t: i for i, t in enumerate(sorted(shared, key=lambda t: a[t]["rank"]))}
    place_b = {t: i for i, t in enumerate(sorted(shared, key=lambda t: b[t]["rank"]))}
    same_scale = comparable and keys[0] == keys[1]
    rows = []
    for teacher in [*a, *(t for t in b if t not in a)]:
        row_a, row_b = a.get(teacher), b.get(teacher)
        ranks = (*_ranks(row_a), *_ranks(row_b))
        scores = (*ends(row_a, "score"), *ends(row_b, "score"))
        moved = place_a[teacher] - place_b[teacher] if teacher in place_a else None
        rows.append(
            (
                teacher,
                *ranks,
                *paired.changes.get((teacher,), (moved, None, None)),
                overlap(*ranks[1:3], *ranks[4:6]),
                *scores,
                overlap(*scores[1:3], *scores[4:6]) if same_scale else None,
            )
        )
    label = wording.label(keys[0])
    if keys[0] != keys[1]:
        label = f"{label} (A), {wording.label(keys[1])} (B)"
    chart = {
        "kind": "slope",
        "rows": [
            {
                "name": teacher,
                "a": _drawn(a[teacher]),
                "b": _drawn(b[teacher]),
                "apart": overlap(*_ranks(a[teacher])[1:], *_ranks(b[teacher])[1:]) == "apart",
            }
            for teacher in shared
        ],
    }
    return Panel(label, table(f"Ranks by {label}", _COLUMNS, rows), chart if shared else None)


def _ranks(row: Mapping[str, Any] | None) -> tuple[Any, Any, Any]:
    if row is None:
        return None, None, None
    return row["rank"], row.get("rank_low"), row.get("rank_high")


def _drawn(row: Mapping[str, Any]) -> dict[str, Any]:
    rank, low, high = _ranks(row)
    return {"rank": rank, "low": rank if low is None else low, "high": high or rank}


def _verdict(
    one: Mapping[str, Any], other: Mapping[str, Any], panel: Panel, paired: Paired
) -> list[str]:
    """Whether the recommendations agree, how the ranks do, and the joint statement."""
    best, rival = one["recommended"], other["recommended"]
    rows = panel.table.only(("teacher", "A_rank", "B_rank", "rank_intervals")).rows
    both = [row for row in rows if row[1] is not None and row[2] is not None]
    if best == rival:
        first = f"Both runs recommend {best}"
    else:
        first = f"The runs disagree: A recommends {best}, B recommends {rival}"
        ties = [
            f"{name} cannot separate the two"
            for name, found, choice in (("A", one, rival), ("B", other, best))
            if choice in (found["criteria"][found["recommended_by"]].get("tied_with_first") or [])
        ]
        first += f"; {' and '.join(ties)}" if ties else ""
    said = [f"{first} ({_levels(one, other)} intervals)."]
    rho = spearman(*(mid_ranks([float(row[place] or 0) for row in both]) for place in (1, 2)))
    if rho is not None:
        apart = [str(row[0]) for row in both if row[3] == "apart"]
        words = f"Spearman's rho of the ranks of the {len(both):,} teachers of both is {rho:.2f}"
        words += (
            f"; the rank intervals of {listing(apart)} do not overlap"
            if apart
            else "; every teacher's two rank intervals overlap"
        )
        said.append(f"{words}.")
    missing = [sum(row[i] is None for row in rows) for i in (2, 1)]
    if any(missing):
        said.append(f"{missing[0]:,} teachers are in A alone, {missing[1]:,} in B alone.")
    return [*said, *paired.words]


def _levels(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    levels = dict.fromkeys(wording.percent(found["confidence"]) for found in (one, other))
    return " and ".join(levels)
