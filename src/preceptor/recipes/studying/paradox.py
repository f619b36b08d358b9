"""Does a larger teacher make a better student? What a study says of "larger models' paradox".

arXiv 2411.07133 found that larger models of a family are not always the better teachers. Here: is
the largest teacher the best on a base, and does the outcome rise with the size within a family?
Only the first arm is looked at, and of a teacher with several sources its first one.

Shapes: R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from preceptor.core.study import Family, Largest, StudyRow
from preceptor.recipes.studying.preparing import Prepared
from preceptor.recipes.studying.scores import Row, interval_of, or_none
from preceptor.recipes.studying.sources import AnswerSource
from preceptor.selection.agreement import spearman


def largest_of(prepared: Prepared, matrix: Sequence[StudyRow]) -> list[Largest]:
    """On each base the largest teacher of those with a known size and a student."""
    arm = next(iter(prepared.settings.arms))
    found: list[Largest] = []
    for base in prepared.bases:
        own = {row["source"]: row for row in matrix if (row["base"], row["arm"]) == (base, arm)}
        sized = [one for one in _one_each(prepared) if one.name in own and one.size is not None]
        if len(sized) < 2:
            continue
        largest = max(sized, key=lambda one: one.size or 0.0)
        row = own[largest.name]
        if row["rank"] is None or row["rank_low"] is None or row["rank_high"] is None:
            continue
        found.append(
            {
                "base": base,
                "source": largest.name,
                "size": float(largest.size or 0.0),
                "rank": row["rank"],
                "low": row["rank_low"],
                "high": row["rank_high"],
                "of": len(own),
            }
        )
    return found


def families_of(prepared: Prepared, rows: Sequence[Row]) -> list[Family]:
    """Families with teachers of two sizes or more, on each base."""
    arm = next(iter(prepared.settings.arms))
    found: list[Family] = []
    for base in prepared.bases:
        own = {row.source: row for row in rows if (row.base, row.arm) == (base, arm)}
        kin: dict[str, list[AnswerSource]] = {}
        for one in _one_each(prepared):
            if one.family is not None and one.size is not None and one.name in own:
                kin.setdefault(one.family, []).append(one)
        for family, members in kin.items():
            members.sort(key=lambda one: one.size or 0.0)
            if len({one.size for one in members}) > 1:
                found.append(_family(prepared, base, family, members, own))
    return found


def _one_each(prepared: Prepared) -> list[AnswerSource]:
    """The first source of every teacher."""
    first: dict[str, AnswerSource] = {}
    for one in prepared.sources.values():
        first.setdefault(one.teacher, one)
    return list(first.values())


def _family(
    prepared: Prepared,
    base: str,
    family: str,
    members: Sequence[AnswerSource],
    rows: dict[str, Row],
) -> Family:
    own = [rows[one.name] for one in members]
    outcome = [row.outcome for row in own]
    sizes = [float(one.size or 0.0) for one in members]
    rho = float(spearman(np.array(sizes), np.array(outcome))) if len(own) > 2 else float("nan")
    return {
        "base": base,
        "family": family,
        "sources": [one.name for one in members],
        "sizes": sizes,
        "outcome": outcome,
        "largest_is_best": max(outcome) == outcome[-1],
        "spearman": or_none(rho),
        "steps": [
            interval_of(
                larger.outcome - smaller.outcome,
                larger.outcome_R - smaller.outcome_R,
                prepared.settings.confidence,
            )
            for smaller, larger in pairwise(own)
        ],
    }


def paradox_words(largest: Sequence[Largest], families: Sequence[Family]) -> list[str]:
    """Both in sentences, with what the intervals allow to say."""
    words = []
    by_teacher: dict[str, list[Largest]] = {}
    for row in largest:
        by_teacher.setdefault(row["source"], []).append(row)
    for source, own in by_teacher.items():
        n_best = sum(row["rank"] == 1 for row in own)
        ranked = "; ".join(
            f"{row['base']}: rank {row['rank']} of {row['of']} [{row['low']}, {row['high']}]"
            for row in own
        )
        open_still = sum(row["rank"] > 1 and row["low"] == 1 for row in own)
        text = f"The largest teacher, {source}, is the best for {n_best} of {_bases(len(own))} "
        text += f"({ranked})."
        if open_still:
            text += f" For {_bases(open_still)} of these its rank may still be 1."
        words.append(text)
    steps = [step for family in families for step in family["steps"] if step["low"] is not None]
    if steps:
        better = sum(float(step["low"] or 0.0) > 0 for step in steps)
        worse = sum(float(step["high"] or 0.0) < 0 for step in steps)
        rises = sum(float(step["value"] or 0.0) > 0 for step in steps)
        words.append(
            f"Within families the outcome rises with the size in {rises} of {len(steps)} steps to "
            f"the next larger teacher: {better} rise and {worse} fall by more than the interval, "
            f"{len(steps) - better - worse} cannot be told from no difference."
        )
    if families:
        topped = sum(family["largest_is_best"] for family in families)
        words.append(
            f"The largest of its family is the best of it in {topped} of {len(families)} cases "
            "(family x base)."
        )
    return words


def _bases(n: int) -> str:
    return "1 base" if n == 1 else f"{n} bases"
