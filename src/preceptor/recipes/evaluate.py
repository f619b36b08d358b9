"""`preceptor evaluate`: examine models on benchmarks, and tell their scores apart."""

from __future__ import annotations

from pathlib import Path

from preceptor.core import artifacts
from preceptor.core.artifacts import EVALUATION
from preceptor.core.evaluation import Evaluation
from preceptor.core.progress import say
from preceptor.core.run import Run, open_run
from preceptor.recipes.examining.evaluated import evaluation_of, gate_of, scores_of
from preceptor.recipes.examining.examined import Examined
from preceptor.recipes.examining.examinees import examine
from preceptor.recipes.examining.sitting import Prepared, prepare
from preceptor.recipes.settings.evaluation import Evaluate
from preceptor.reporting.pages.evaluate import report as evaluation_report


def evaluate(settings: Evaluate, out: Path, command: str = "preceptor evaluate") -> Evaluation:
    """Examine, score, compare, and write the run folder with `evaluation.json` and its page.

    Args:
        settings: of the run; `fail_if` may change between runs of one folder.
        out: the run folder; a folder that the same settings began is finished.
        command: what to type to make the run again, for the provenance.

    Returns:
        The content of `evaluation.json`. Conditions of `fail_if` that hold are in its `gate`.

    Raises:
        PreceptorError: bad settings, data, model, benchmark or folder; before any weight is
            loaded, save for faults that only answering and judging can show.
    """
    prepared = prepare(settings, out)
    with open_run(out, prepared.identity, command) as run:
        if run.finished:
            say(f"{out} holds the finished run of these settings")
            found = _gated_again(prepared, run)
        else:
            examined = _examine(prepared, run)
            examined.write(run.folder)
            found = evaluation_of(prepared, run, examined)
            artifacts.write_json(run.path(EVALUATION), found)
            run.facts["asked"] = prepared.asker.facts
            run.facts["examined"] = len(prepared.pairs)
            run.finish()
        evaluation_report.write(out)
    return found


def _examine(prepared: Prepared, run: Run) -> Examined:
    """Every pair; those that an earlier run has kept are not examined again."""
    examined = Examined(
        run.folder / artifacts.WORK / "examined", list(prepared.benchmarks), [*prepared.candidates]
    )
    for benchmark, model in prepared.pairs:
        if not examined.done(benchmark, model):
            opened = prepared.benchmarks[benchmark]
            exchanges, graded = examine(opened, prepared.candidates[model], prepared.runtime)
            examined.keep(benchmark, model, exchanges, graded, opened.facts)
    return examined


def _gated_again(prepared: Prepared, run: Run) -> Evaluation:
    """A finished evaluation; where other conditions are asked, with these instead."""
    found = artifacts.read_json(run.path(EVALUATION))
    asked = [gate.of(model) for gate in prepared.gates for model in gate.models]
    if asked != [condition["condition"] for condition in found["gate"]]:
        found["gate"] = gate_of(prepared, scores_of(prepared, run))
        artifacts.write_json(run.path(EVALUATION), found)
    return found
