"""`preceptor compare-criteria`: finished selections against each other and known outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from preceptor.core import artifacts
from preceptor.core.comparison import COMPARE, COMPARE_VERSION, Comparison, Mean, Sentence
from preceptor.core.errors import RunFolderError
from preceptor.core.progress import say
from preceptor.recipes.comparing.agreement import describe, views_of
from preceptor.recipes.comparing.finished import open_finished
from preceptor.recipes.comparing.outcomes import read_outcomes
from preceptor.recipes.comparing.trying import refuse_unmatched, try_on_outcomes
from preceptor.selection.verdict import without_outcomes

PILOT = "preceptor select --pilot"  # what the advice names


def compare_criteria(
    runs: Sequence[Path],
    outcomes: Path | None = None,
    out: Path | None = None,
    command: str = "",
) -> Comparison:
    """Compare the criteria of finished selections, and try them on known outcomes.

    Levels, resamples and seeds are those of the runs.

    Args:
        runs: folders of `preceptor select`; a base each, as a rule.
        outcomes: table of known outcomes.
        out: folder for `compare.json` and `compare.html`; made if missing.
        command: what to type to compare again, for the page.

    Returns:
        The content of `compare.json`.

    Raises:
        RunFolderError: no finished selection, or a folder that cannot be written.
        DataError: outcomes that cannot be read or matched, or of fewer than three teachers.
    """
    _refuse_repeats(runs)
    table = None if outcomes is None else read_outcomes(outcomes)
    found = [open_finished(folder) for folder in runs]
    if table is not None:
        refuse_unmatched(found, table)
    warnings = [warning for run in found for warning in run.warnings]
    first = found[0].ranking
    confidence, seed = float(first["confidence"]), int(first["seed"])
    resamples = min(int(run.ranking["n_resamples"]) for run in found)
    if any(run.ranking["confidence"] != confidence for run in found):
        warnings.append(f"the runs differ in confidence; all intervals here are {confidence:.0%}")
    bases = [describe(run, found, confidence) for run in found]
    verdict: list[Sentence] = []
    mean: Mean | None = None
    if table is not None:
        mean, verdict = try_on_outcomes(
            found, bases, table, warnings, confidence=confidence, resamples=resamples, seed=seed
        )
    for run, base in zip(found, bases, strict=True):
        said = without_outcomes(base["name"], views_of(run), base["deciding"], PILOT)
        # where outcomes are known, they advise
        verdict += [row for row in said if row["kind"] != "advice" or base["outcomes"] is None]
    comparison: Comparison = {
        "version": COMPARE_VERSION,
        "confidence": confidence,
        "n_resamples": resamples,
        "seed": seed,
        "command": command,
        "inputs": {} if table is None else {table.path: table.sha256},
        "warnings": warnings,
        "verdict": verdict,
        "bases": bases,
        "mean": mean,
    }
    for warning in warnings:
        say(f"warning: {warning}")
    if out is not None:
        _write(comparison, out)
    return comparison


def _refuse_repeats(runs: Sequence[Path]) -> None:
    """No run twice (raises RunFolderError)."""
    places = [run.resolve() for run in runs]
    for run, place in zip(runs, places, strict=True):
        if places.count(place) > 1:
            raise RunFolderError(
                "a run stands twice", where=str(run), next_step="give every run once"
            )


def _write(comparison: Comparison, out: Path) -> None:
    """`compare.json` and `compare.html`; what a folder holds beside them is left alone."""
    from preceptor.reporting.pages.compare import report as compare_report

    artifacts.make_folder(out, "--out")
    artifacts.write_json(out / COMPARE, comparison)
    compare_report.write(out)
