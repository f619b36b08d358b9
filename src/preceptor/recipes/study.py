"""`preceptor study`: which teacher, and which criterion, is right? Bases x sources x arms x seeds.

Everything stands in one folder and is an ordinary run: `answers/` is one of `ask`,
`selection/BASE/` of `select`, `cells/BASE/SOURCE/ARM/seed-K/` of the recipe of the arm. The design
is that of arXiv 2411.07133: a student of each base from each teacher's answers, its mean benchmark
score AP, and how every criterion that looked at the answers alone agrees with it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from preceptor.core import artifacts
from preceptor.core.progress import clock, say
from preceptor.core.run import Run, open_run
from preceptor.core.study import STUDY, Study, StudyBudget
from preceptor.recipes.ask import ask
from preceptor.recipes.select import select
from preceptor.recipes.settings.loading import validated
from preceptor.recipes.settings.select import Select
from preceptor.recipes.settings.study import Study as StudySettings
from preceptor.recipes.studying.preparing import Prepared, prepare
from preceptor.recipes.studying.queue import Queue, run_all
from preceptor.recipes.studying.results import write_results
from preceptor.recipes.studying.scores import standings_of
from preceptor.recipes.studying.sources import (
    ANSWERS_FOLDER,
    SELECTION_FOLDER,
    selection_of,
    write_sources,
)


def study(settings: StudySettings, out: Path, command: str = "preceptor study") -> Study:
    """Ask, rank, train, examine and compare; write the run folder with a report.

    Args:
        settings: of the study. `budget` and `runs` are not part of its identity: a study that was
            limited is finished by the same settings without a limit, to the same results.
        out: the run folder; one that the same settings began is finished.
        command: what to type to make the study again, for the provenance.

    Returns:
        The content of `study.json`.

    Raises:
        PreceptorError: bad settings, data, models or folder; before anybody is asked, save for
            faults that only asking, scoring and judging can show. A training that fails is no such
            fault: it is reported, and tried again by the next invocation.
    """
    from preceptor.reporting.pages.study import report as study_report

    started = time.time()
    prepared = prepare(settings, out)
    with open_run(out, prepared.identity, command) as run:
        if run.finished:
            say(f"{out} holds the finished study of these settings")
            study_report.write(out)
            return artifacts.read_json(run.path(STUDY))
        found, complete = _go_on(prepared, run, command, started)
        if complete:
            run.facts["cells"] = len(prepared.cells)
            run.finish()
        study_report.write(out)
    return found


def _go_on(prepared: Prepared, run: Run, command: str, started: float) -> tuple[Study, bool]:
    """Do what is left; `study.json`, and whether every cell that can be is done."""
    settings, out = prepared.settings, prepared.out
    _show_size(prepared)
    ask(prepared.asked.settings, out / ANSWERS_FOLDER, f"{command} (answers)")
    n_instructions = write_sources(settings, list(prepared.sources.values()), prepared.tables, out)
    rankings = {base: _rank(prepared, base, command) for base in prepared.bases}
    deadline = None if settings.budget is None else started + 3600 * settings.budget
    queue = Queue(prepared, command)
    run_all(queue, rankings, standings_of(prepared), deadline)
    left = queue.left(queue.all_cells)
    budget: StudyBudget | None = None
    if settings.budget is not None:
        used = (time.time() - started) / 3600
        budget = {"hours": settings.budget, "used": round(used, 4), "order": queue.order}
        if left:
            say(f"study: {len(left)} cells did not fit into {clock(3600 * settings.budget)}")
    found = write_results(prepared, queue.failed, n_instructions, budget)
    run.facts["seconds"] = round(time.time() - started, 1)
    return found, not left and not queue.failed


def _rank(prepared: Prepared, base: str, command: str) -> dict[str, Any]:
    """The run of `select` of a base; `ranking.json`."""
    out = prepared.out
    table = str((out / SELECTION_FOLDER / artifacts.ANSWERS).resolve())
    sources = list(prepared.sources.values())
    tree = selection_of(prepared.settings, prepared.bases[base], sources, table, out)
    folder = out / SELECTION_FOLDER / prepared.places[base]
    say(f"study: criteria on {base}")
    return select(validated(Select, tree, "selection"), folder, f"{command} (criteria)")


def _show_size(prepared: Prepared) -> None:
    settings = prepared.settings
    n = len(prepared.cells) - len(prepared.impossible)
    say(
        f"study: {len(prepared.bases)} bases x {len(prepared.sources)} sources x "
        f"{len(settings.arms)} arms x {settings.seeds} seeds: {n} trainings"
    )
    for reason in dict.fromkeys(prepared.impossible.values()):
        own = [folder for folder, why in prepared.impossible.items() if why == reason]
        say(f"warning: {len(own)} trainings are {reason}")
