"""`report.html` of an asking: what each teacher's answers earn at each decoding, and what they are.

Reads the run folder only. Tables and sentences are rendered here and need no script; the charts of
best and worst of k and the quoted answers come from the embedded JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preceptor.core import artifacts
from preceptor.reporting.exporting import exports
from preceptor.reporting.findings import run_verdicts
from preceptor.reporting.pages.ask import boards as ask_boards
from preceptor.reporting.pages.ask import samples
from preceptor.reporting.parts import origins, page, wording

ASK_VERSION = 1  # of `ask.json` that this release reads
STYLES = ("pages/boards.css", "pages/ask/report.css")
SCRIPTS = (
    *page.CHARTS,
    "pages/panels.js",
    "pages/quotes.js",
    "pages/ask/report.js",
)


def write(folder: Path) -> Path:
    """Write `report.html` into the run folder (whole or not at all) and return its path.

    Raises:
        RunFolderError: the folder holds no asking, or one of its files cannot be read.
    """
    return exports.write_page(folder / artifacts.REPORT, render(folder))


def render(folder: Path) -> str:
    """The report of the run in `folder` as HTML; the same folder gives the same text."""
    path = folder / artifacts.ASK
    asked = origins.read_result(path, ASK_VERSION, "asking", "ask")
    origin = origins.origin_of(folder)
    try:
        context = _context(folder, asked, origin["raw"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise origins.changed_by_hand(path, "the asking", error) from error
    data = {
        "points": [
            {"teacher": point["teacher"], "decoding": words}
            for point, words in zip(asked["points"], context["labels"], strict=True)
        ],
        "worth": ask_boards.drawn(asked),
        "samples": context["samples"],
    }
    context |= {
        "origin": origin,
        "take": exports.take_along(folder),
        "data": page.embed_json(data),
    }
    return page.render_page("pages/ask/report.html.j2", context, styles=STYLES, scripts=SCRIPTS)


def _context(
    folder: Path, asked: Mapping[str, Any], provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """What the template shows, and the functions that it formats with."""
    points, rewards = asked["points"], list(asked["rewards"])
    teachers = list(dict.fromkeys(point["teacher"] for point in points))
    verdict = origins.with_cost(
        run_verdicts.of("ask", folder, provenance), origins.spent(provenance)
    )
    boards = ask_boards.boards(asked)
    return {
        "asked": asked,
        "teachers": teachers,
        "title": wording.listing(teachers),
        "verdict": page.marked(verdict, [*teachers, *rewards]),
        "warnings": _warnings(asked, boards, provenance),
        "cost": sum(point["cost"] for point in points),
        "boards": boards,
        "labels": ask_boards.labels(points),
        "endings": samples.endings(folder, points),
        "samples": samples.sample_answers(folder, points, rewards),
        "number": wording.number,
        "percent": wording.percent,
    }


def _warnings(
    asked: Mapping[str, Any], boards: list[dict[str, Any]], provenance: Mapping[str, Any]
) -> list[str]:
    found = []
    status = provenance.get("status", "finished")
    if status != "finished":
        found.append(f"The run is not finished (status: {status}); this page shows it so far.")
    for board in boards:
        if board["n_missing"]:
            found.append(
                f"{board['name']}: {board['n_missing']:,} of {asked['n_answers']:,} answers have "
                "no score, and are left out of its figures."
            )
    return found
