"""`report.html` of an evaluation: who is best at what, how sure, and what the answers look like.

Reads the run folder only. Sentences, tables and provenance are rendered here and need no script;
charts, the switch to another measure, sorting and sample exchanges come from the embedded JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from preceptor.core import artifacts
from preceptor.core.evaluation import EVALUATION_VERSION, Evaluation
from preceptor.reporting.exporting import exports
from preceptor.reporting.findings import evaluation_words as words
from preceptor.reporting.findings import run_verdicts
from preceptor.reporting.pages.evaluate import boards as evaluation_boards
from preceptor.reporting.pages.evaluate.samples import sample_exchanges
from preceptor.reporting.parts import origins, page, wording
from preceptor.reporting.parts.wording import interval_words, short

STYLES = ("pages/evaluate/report.css",)
SCRIPTS = (
    *page.CHARTS,
    "pages/quotes.js",
    "pages/evaluate/report.js",
    "pages/evaluate/charts.js",
    "pages/evaluate/samples.js",
)


def write(folder: Path) -> Path:
    """Write `report.html` and the summary `report.md` into the run folder; returns the first.

    Raises:
        RunFolderError: the folder holds no evaluation, or one of its files cannot be read.
    """
    return exports.write_page(folder / artifacts.REPORT, render(folder))


def render(folder: Path) -> str:
    """The report of the run in `folder` as HTML; the same folder gives the same text."""
    path = folder / artifacts.EVALUATION
    read = origins.read_result(path, EVALUATION_VERSION, "evaluation", "evaluate")
    evaluation = cast(Evaluation, read)
    origin = origins.origin_of(folder)
    try:
        context = _context(evaluation)
        said = run_verdicts.of("evaluate", folder, origin["raw"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise origins.changed_by_hand(path, "the evaluation", error) from error
    samples = sample_exchanges(folder, evaluation)
    names = [*evaluation["models"], *(own["name"] for own in evaluation["benchmarks"])]
    data = {
        "models": evaluation["models"],
        "reference": context["reference"],
        "benchmarks": evaluation_boards.packed(context["boards"]),
        "samples": samples,
    }
    context |= {
        "verdict": page.marked(origins.with_cost(said, origins.spent(origin["raw"])), names),
        "n_samples": len(samples),
        "origin": origin,
        "take": exports.take_along(folder),
        "data": page.embed_json(data),
    }
    return page.render_page(
        "pages/evaluate/report.html.j2", context, styles=STYLES, scripts=SCRIPTS
    )


def _context(evaluation: Evaluation) -> dict[str, Any]:
    """What the template shows of `evaluation.json`, and the functions that it formats with."""
    boards = evaluation_boards.boards(evaluation)
    judged = [own for own in evaluation["benchmarks"] if own["judge"]]
    return {
        "evaluation": evaluation,
        "title": words.title(evaluation),
        "further": words.verdict(evaluation)[1:],
        "n_items": sum(board["n"] for board in boards),
        "reference": evaluation["models"].index(evaluation["reference"]),
        "failed": [row for row in evaluation["gate"] if row["holds"]],
        "boards": boards,
        "order": evaluation_boards.sorted_models(evaluation, boards),
        "grids": [evaluation_boards.grid(board, evaluation["models"]) for board in boards],
        "retention": evaluation_boards.retention(evaluation),
        "answering": evaluation_boards.answering(evaluation),
        "judges": [
            {"name": own["name"], **own["judge"], **_judge_words(own["judge"])}
            for own in judged
            if own["judge"]
        ],
        "number": wording.number,
        "percent": wording.percent,
        "p_words": words.p_words,
        "interval_words": interval_words,
        "short": short,
        "readings": words.READINGS,
    }


def _judge_words(judge: Mapping[str, Any]) -> dict[str, str]:
    """The numbers of a judge as its table shows them; shares in per cent."""
    return {
        "first_words": _share_words(judge["first_position"]),
        "slope_words": interval_words(
            judge["length_slope"], words.decimals([judge["length_slope"]])
        ),
        "agreement_words": _share_words(judge["agreement"]) if judge["agreement"] else "–",
    }


def _share_words(own: Mapping[str, float | None]) -> str:
    """A share in [0, 1] with its interval, in per cent: "52.1% [49.0, 55.2]"."""
    ends = {key: own[key] for key in ("value", "low", "high")}
    scaled = {key: None if end is None else 100.0 * end for key, end in ends.items()}
    value, space, interval = interval_words(scaled, 1).partition(" ")
    return f"{value}%{space}{interval}" if scaled["value"] is not None else value
