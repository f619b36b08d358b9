"""The cells of a study through its workers: what is done is skipped, and what fails is noted.

Nothing is kept of the queue itself: which cells are done stands in their folders. So a study that
was killed goes on with the cells that have no `cell.json`, and the same trainings end the same way
in whatever order they run.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from preceptor.core.fleet import LostGroupsError
from preceptor.core.progress import clock, say
from preceptor.recipes.inputs.respondents import open_fleet
from preceptor.recipes.studying.budget import Standing, first_seeds, next_seeds
from preceptor.recipes.studying.cells import Cell, is_done, job_of, open_worker, seconds_of
from preceptor.recipes.studying.preparing import Prepared
from preceptor.recipes.teaching.student import MODEL

ROUND = 4  # further seeds of each worker between two looks at what is most telling


@dataclass
class Queue:
    """What is done, and what this invocation did.

    Attributes:
        failed: folder of a cell -> why; of this invocation.
        order: folders of the cells that it began, in their order.
        seconds: (base, arm) -> what each done cell took.
    """

    prepared: Prepared
    command: str
    failed: dict[str, str] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    seconds: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for cell in self.all_cells:
            known = seconds_of(self.prepared.out, cell)
            if known is not None:
                self.seconds.setdefault((cell.base, cell.arm), []).append(known)

    @property
    def all_cells(self) -> list[Cell]:
        """Of bases and students, without those that cannot be."""
        own = self.prepared
        return [*own.untrained, *(c for c in own.cells if c.folder not in own.impossible)]

    def left(self, cells: Sequence[Cell]) -> list[Cell]:
        """Those that are neither done nor failed."""
        out = self.prepared.out
        return [c for c in cells if c.folder not in self.failed and not is_done(out, c)]

    def expected(self, cell: Cell) -> float | None:
        """Seconds: mean of the done cells of the same base and arm, of the arm, of any training."""
        trained = [key for key in self.seconds if key[1]]
        for keys in (
            [(cell.base, cell.arm)],
            [key for key in trained if key[1] == cell.arm],
            trained,
        ):
            known = [value for key in keys for value in self.seconds.get(key, [])]
            if known:
                return sum(known) / len(known)
        return None

    def run(self, cells: Sequence[Cell], deadline: float | None) -> None:
        """Run these cells, one after the other or beside each other; failures are noted.

        Args:
            deadline: begin nothing that would end later (Unix time).
        """
        cells = self.left(cells)
        if not cells:
            return
        own = self.prepared
        jobs = [
            job_of(own.settings, cell, own.sources, own.tables, own.bases, deadline)
            for cell in cells
        ]
        opener = partial(open_worker, own.settings, own.out.resolve(), self.command)
        fleet: Any = open_fleet(own.settings.runs)
        begun: dict[int, bool] = {}
        try:
            with closing(fleet(opener, jobs)) as stream:
                for place, result in stream:
                    begun[place] = result["status"] != "left"
                    self._note(cells[place], result)
        except LostGroupsError as error:
            for place, why in error.reasons.items():
                begun[place] = True
                reason = f"its worker died twice: {why}"
                self._note(cells[place], {"status": "failed", "seconds": None, "reason": reason})
        self.order += [cells[place].folder for place in sorted(begun) if begun[place]]

    def _note(self, cell: Cell, result: Mapping[str, Any]) -> None:
        if result["status"] == "left":
            return
        if result["status"] == "failed":
            self.failed[cell.folder] = str(result["reason"])
            what = f"failed: {result['reason']}"
        else:
            known = seconds_of(self.prepared.out, cell)
            self.seconds.setdefault((cell.base, cell.arm), []).append(known or 0.0)
            what = f"done in {clock(result['seconds'])}"
        every = self.all_cells
        left = self.left(every)
        n_done = len(every) - len(left) - len(self.failed)
        text = f"study: {n_done}/{len(every)} cells; {cell.title} {what}"
        if self.failed:
            text += f"; {len(self.failed)} failed"
        say(text + self._time_left(left))

    def _time_left(self, left: Sequence[Cell]) -> str:
        known = [self.expected(cell) for cell in left]
        if not left or None in known:
            return ""
        workers = self.prepared.settings.runs.workers
        most = min(workers if isinstance(workers, int) else workers[1], len(left))
        seconds = sum(value for value in known if value is not None) / most
        beside = f" with {most} workers" if most > 1 else ""
        return f"; about {clock(seconds)} left{beside}"


def run_all(
    queue: Queue,
    rankings: Mapping[str, Mapping[str, Any]],
    standings: Callable[[], list[Standing]],
    deadline: float | None,
) -> None:
    """Run every cell, the bases first; with a deadline the most telling trainings first.

    Args:
        rankings: base -> content of `ranking.json`.
        standings: of the students so far; asked after each round of further seeds.
    """
    own = queue.prepared
    cells = [cell for cell in own.cells if cell.folder not in own.impossible]
    first, more = first_seeds(cells, rankings)
    if deadline is None:
        queue.run([*own.untrained, *first, *more], None)
    else:
        queue.run([*own.untrained, *first], deadline)
        workers = own.settings.runs.workers
        size = ROUND * (workers if isinstance(workers, int) else workers[1])
        while time.time() < deadline and (left := queue.left(more)):
            chosen = next_seeds(standings(), left, queue.expected, size)
            queue.run(chosen, deadline)
            if len(queue.left(chosen)) == len(chosen):
                break  # none of them fits
    _drop_models(own.settings.keep_models, own.out, own.cells)


def _drop_models(keep: bool, out: Path, cells: Sequence[Cell]) -> None:
    """Weights that a kill left behind."""
    for cell in cells:
        if not keep and is_done(out, cell):
            shutil.rmtree(out / cell.folder / MODEL, ignore_errors=True)
