"""The verdict of a selection, and the range of a rank, in words."""

from __future__ import annotations

from typing import Any

from preceptor.reporting.parts.wording import label, listing, percent


def verdict(ranking: dict[str, Any]) -> dict[str, Any]:
    """The parts of the verdict sentence; names stay apart so the page can isolate them.

    Keys: teacher, base, criterion (plain label), tied ((joining words, name) pairs), resamples
    (the clause on how often the teacher came first, "" where it was not recorded).
    """
    key = ranking["recommended_by"]
    criterion = ranking["criteria"][key]
    teacher = ranking["recommended"]
    own = next((row for row in criterion["teachers"] if row["teacher"] == teacher), {})
    p_best, n_resamples = own.get("p_best"), ranking.get("n_resamples")
    # of a race, the survivors alone are resampled: of one there is nothing to tell
    alone = (ranking.get("race") or {}).get("stopped_because") == "one_left"
    clause = ""
    if p_best is not None and n_resamples and not alone:
        share = "all" if p_best == 1 else f"{percent(p_best)} of"
        clause = (
            f"it came first in {share} {n_resamples:,} resamples "
            f"of the {ranking['n_instructions']:,} instructions"
        )
    return {
        "teacher": teacher,
        "base": ranking["base"],
        "criterion": label(key),
        "tied": listing(criterion.get("tied_with_first") or []),
        "resamples": clause,
    }


def rank_range(row: dict[str, Any]) -> str:
    """The interval of a rank: "1–3", or "1" where both ends agree."""
    low, high = row.get("rank_low"), row.get("rank_high")
    if low is None or high is None:
        return ""
    return f"{low:g}" if low == high else f"{low:g}–{high:g}"
