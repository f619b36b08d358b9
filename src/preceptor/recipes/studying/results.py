"""What a study found: `outcomes.json`, how the criteria did, and `study.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from preceptor.core import artifacts
from preceptor.core.comparison import Comparison, Measured
from preceptor.core.progress import quietly, say
from preceptor.core.study import (
    OUTCOMES,
    STUDY,
    STUDY_VERSION,
    Study,
    StudyBudget,
    StudyCell,
    StudySentence,
)
from preceptor.recipes.compare import compare_criteria
from preceptor.recipes.comparing.trying import FEWEST
from preceptor.recipes.studying.cells import is_done, seconds_of
from preceptor.recipes.studying.paradox import families_of, largest_of, paradox_words
from preceptor.recipes.studying.preparing import Prepared
from preceptor.recipes.studying.scores import (
    Row,
    Scored,
    base_scores_of,
    interval_of,
    matrix_of,
    or_none,
    rows_of,
    score_cells,
)
from preceptor.recipes.studying.sources import SELECTION_FOLDER

COMPARISON = "comparison"  # folder


def write_results(
    prepared: Prepared,
    failed: Mapping[str, str],
    n_instructions: int,
    budget: StudyBudget | None,
) -> Study:
    """Score what is done, compare the criteria, and write `outcomes.json` and `study.json`.

    Args:
        failed: folder of a cell -> why.
        n_instructions: that students learn from.
    """
    settings, out = prepared.settings, prepared.out
    scored = score_cells(prepared, settings.resamples)
    rows = rows_of(prepared, scored)
    matrix = matrix_of(prepared, rows)
    warnings = [*prepared.warnings, *_few_seeds(rows)]
    criteria = _compare(prepared, scored, warnings)
    largest, families = largest_of(prepared, matrix), families_of(prepared, rows)
    cells = _cells(prepared, scored, failed)
    words = paradox_words(largest, families)
    seconds = [cell["seconds"] for cell in cells if cell["seconds"] is not None]
    study: Study = {
        "version": STUDY_VERSION,
        "confidence": settings.confidence,
        "n_resamples": settings.resamples,
        "seed": settings.seed,
        "bases": list(prepared.bases),
        "sources": [
            {
                "name": own.name,
                "teacher": own.teacher,
                "temperature": own.temperature,
                "top_p": own.top_p,
                "pick": own.pick,
                "samples": own.samples,
                "family": own.family,
                "size": own.size,
            }
            for own in prepared.sources.values()
        ],
        "arms": list(settings.arms),
        "seeds": list(range(settings.seed, settings.seed + settings.seeds)),
        "n_instructions": n_instructions,
        "outcome": {
            "title": prepared.outcome_title,
            "measures": [f"{benchmark}.{measure}" for benchmark, measure in prepared.measures],
        },
        "cells": cells,
        "matrix": matrix,
        "base_scores": base_scores_of(prepared, scored),
        "criteria": criteria,
        "largest": largest,
        "paradox": families,
        "paradox_words": words,
        "budget": budget,
        "verdict": _verdict(prepared, scored, rows, cells, criteria, words),
        "warnings": warnings,
        "facts": {
            "cell_hours": round(sum(seconds) / 3600, 4),
            "mean_cell_seconds": round(sum(seconds) / len(seconds), 2) if seconds else None,
        },
    }
    for warning in warnings:
        say(f"warning: {warning}")
    artifacts.write_json(out / STUDY, study)
    return study


def _few_seeds(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    single = sum(row.n_seeds == 1 for row in rows)
    if not single:
        return []
    who = "every outcome is" if single == len(rows) else f"{single} of {len(rows)} outcomes are"
    return [
        f"{who} of one seed: their intervals are over items alone, and too narrow by what another "
        "training would change"
    ]


def _compare(
    prepared: Prepared, scored: Mapping[str, Scored], warnings: list[str]
) -> Comparison | None:
    """Write `outcomes.json`, the first arm's, and compare criteria where enough is known."""
    arm = next(iter(prepared.settings.arms))
    outcomes: list[dict[str, Any]] = []
    known: dict[str, set[str]] = {}
    for cell in prepared.cells:
        own = scored.get(cell.folder)
        if own is None or cell.arm != arm or not math.isfinite(own.outcome):
            continue
        known.setdefault(cell.base, set()).add(cell.source)
        outcomes.append(
            {
                "base": cell.base,
                "teacher": cell.source,
                "seed": cell.seed,
                "outcome": own.outcome,
                "n": own.n,
            }
        )
    out = prepared.out
    artifacts.write_json(out / OUTCOMES, outcomes)
    enough = [base for base, sources in known.items() if len(sources) >= FEWEST]
    few = [base for base in prepared.bases if base not in enough]
    if few:
        warnings.append(
            f"criteria are compared where outcomes of {FEWEST} sources are known, which is not so "
            f"for {', '.join(few)}"
        )
    if not enough:
        return None
    file = out / COMPARISON / OUTCOMES
    file.parent.mkdir(exist_ok=True)
    artifacts.write_json(file, [row for row in outcomes if row["base"] in enough])
    runs = [out / SELECTION_FOLDER / prepared.places[base] for base in enough]
    with quietly():
        return compare_criteria(runs, file, out / COMPARISON)


def _cells(
    prepared: Prepared, scored: Mapping[str, Scored], failed: Mapping[str, str]
) -> list[StudyCell]:
    found: list[StudyCell] = []
    reasons = {**prepared.impossible, **failed}
    for cell in prepared.cells:
        own = scored.get(cell.folder)
        status = "done" if is_done(prepared.out, cell) else "left"
        if status == "left" and cell.folder in reasons:
            status = "failed"
        found.append(
            {
                "base": cell.base,
                "source": cell.source,
                "arm": cell.arm,
                "seed": cell.seed,
                "status": status,  # type: ignore[typeddict-item]
                "outcome": None if own is None else or_none(own.outcome),
                "scores": {}
                if own is None
                else {name: or_none(value) for name, value in own.scores.items()},
                "seconds": seconds_of(prepared.out, cell),
                "folder": cell.folder,
                "reason": reasons.get(cell.folder, "") if status == "failed" else "",
            }
        )
    return found


def _verdict(
    prepared: Prepared,
    scored: Mapping[str, Scored],
    rows: Sequence[Row],
    cells: Sequence[StudyCell],
    criteria: Comparison | None,
    words: Sequence[str],
) -> list[StudySentence]:
    """What is to be said, the bases first."""
    said: list[StudySentence] = []
    arm = next(iter(prepared.settings.arms))
    for base in prepared.bases:
        own = [row for row in rows if (row.base, row.arm) == (base, arm)]
        if len(own) > 1:
            said.append({"kind": "best", "text": _best(prepared, base, own)})
        untrained = next(
            (one for one in scored.values() if one.cell.base == base and not one.cell.source), None
        )
        if own and untrained is not None:
            said.append({"kind": "base", "text": _over_base(prepared, base, own, untrained)})
    others: list[tuple[str, str]] = [("arms", text) for text in _arms(prepared, rows)]
    if criteria is not None:
        over_all = [row for row in criteria["verdict"] if row["base"] is None]
        chosen = over_all or criteria["verdict"]
        others += [("criteria", row["text"]) for row in chosen if row["kind"] != "beta"]
    others += [("paradox", text) for text in words]
    for kind, text in others:
        said.append({"kind": kind, "text": text})
    impossible = len(prepared.impossible)
    failed = sum(cell["status"] == "failed" for cell in cells) - impossible
    left = sum(cell["status"] == "left" for cell in cells)
    for kind, n, what in (
        ("failed", impossible, "are not possible."),
        ("failed", failed, "failed: the same command tries them again."),
        ("left", left, "are left: the same command goes on."),
    ):
        if n:
            said.append({"kind": kind, "text": f"{n} of {len(cells)} trainings {what}"})
    return said


def _best(prepared: Prepared, base: str, rows: Sequence[Row]) -> str:
    """The best source of a base, and whom it cannot be told from."""
    confidence = prepared.settings.confidence
    best = max(rows, key=lambda row: row.outcome)
    shown = _shown(interval_of(best.outcome, best.outcome_R, confidence))
    text = f"{base} learns best from {best.source}: {prepared.outcome_title} {shown}"
    gaps = {
        row.source: interval_of(
            best.outcome - row.outcome, best.outcome_R - row.outcome_R, confidence
        )
        for row in rows
        if row is not best
    }
    tied = [name for name, gap in gaps.items() if gap["low"] is None or gap["low"] <= 0]
    if not tied:
        return text + ", better than every other source."
    return text + f"; it cannot be told from {', '.join(tied)}."


def _over_base(prepared: Prepared, base: str, rows: Sequence[Row], untrained: Scored) -> str:
    """How many sources improve the base."""
    confidence = prepared.settings.confidence
    gaps = [
        interval_of(
            row.outcome - untrained.outcome, row.outcome_R - untrained.outcome_R, confidence
        )
        for row in rows
    ]
    better = sum(gap["low"] is not None and gap["low"] > 0 for gap in gaps)
    worse = sum(gap["high"] is not None and gap["high"] < 0 for gap in gaps)
    text = f"{base} itself has {untrained.outcome:.3g}: {better} of {len(rows)} sources improve it"
    return text + (f", {worse} make it worse." if worse else ".")


def _arms(prepared: Prepared, rows: Sequence[Row]) -> list[str]:
    """Every other arm against the first, over the bases and sources that both have."""
    first, *others = prepared.settings.arms
    by_key = {(row.arm, row.base, row.source): row for row in rows}
    said = []
    for arm in others:
        pairs = [
            (by_key[arm, base, source], by_key[first, base, source])
            for name, base, source in by_key
            if name == arm and (first, base, source) in by_key
        ]
        if not pairs:
            continue
        gap = interval_of(
            float(np.mean([one.outcome - other.outcome for one, other in pairs])),
            np.mean([one.outcome_R - other.outcome_R for one, other in pairs], axis=0),
            prepared.settings.confidence,
        )
        said.append(f"{arm} less {first}, mean over {len(pairs)} base-source pairs: {_shown(gap)}.")
    return said


def _shown(own: Measured) -> str:
    value, low, high = own["value"], own["low"], own["high"]
    if value is None or low is None or high is None:
        return "unknown"
    return f"{value:.3g} [{low:.3g}, {high:.3g}]"
