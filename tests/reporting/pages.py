"""Every page that the project writes, with a small run that it is written from.

A page joins all checks of looks, access and safety by a line in `PAGES`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from askings import build_asking_folder
from evaluations import MODELS, build_evaluation_folder
from selection_runs import TEACHERS, build_run_folder
from selections import dress
from studies import BASES, build, grid, written
from test_compare_report import comparison
from test_training_report import build_training_folder

from preceptor.core import artifacts
from preceptor.core.comparison import COMPARE
from preceptor.reporting.pages.ask import report as ask_report
from preceptor.reporting.pages.compare import report as compare_report
from preceptor.reporting.pages.evaluate import report as evaluation_report
from preceptor.reporting.pages.select import report as select_report
from preceptor.reporting.pages.study import report as study_report
from preceptor.reporting.pages.training import report as training_report
from preceptor.reporting.pages.two_runs import report as run_comparison
from served import serving


@dataclass(frozen=True)
class Page:
    """A page: a file, or an address of a server.

    Attributes:
        build: writes a run, or several, into a folder that is there.
        write: makes the page of the run, and gives its path.
        serve: of a page that a server shows: serves the folder while the page is looked at, and
            gives its address.
        names: keys of the run's files that are names although no value says so.
        of_run: whether it tells of one run: what it found, and by which command.
    """

    build: Callable[[Path], object]
    write: Callable[[Path], Path] | None = None
    serve: Callable[[Path], AbstractContextManager[str]] | None = None
    names: tuple[str, ...] = ()
    of_run: bool = True

    def shown(self, folder: Path, stack: ExitStack) -> Path | str:
        """The page of what was built in `folder`; a server runs until `stack` is closed."""
        if self.write is not None:
            return self.write(folder)
        assert self.serve is not None
        return stack.enter_context(self.serve(folder))


def _compared(folder: Path) -> None:
    (folder / COMPARE).write_text(json.dumps(comparison("Qwen2-1.5B", "Gemma-2-2B")))


def _two_runs(folder: Path) -> None:
    for name in ("first", "second"):
        build_training_folder(folder / name, steps=10)


def _beside(folder: Path) -> Path:
    page = folder / "comparison.html"
    page.write_text(run_comparison.render(folder / "first", folder / "second"), encoding="utf-8")
    return page


def _several_runs(folder: Path) -> None:
    """A finished training with its page, and one that was cut off."""
    training_report.write(build_training_folder(folder / "done", steps=10, ablation=False))
    half = build_training_folder(folder / "half", steps=10, ablation=False)
    (half / artifacts.QUALITY).unlink()
    provenance = json.loads((half / artifacts.PROVENANCE).read_text())
    artifacts.write_json(half / artifacts.PROVENANCE, provenance | {"status": "running"})


@contextmanager
def _gallery(folder: Path) -> Iterator[str]:
    with serving(folder) as server:
        yield server.url


@contextmanager
def _live(folder: Path) -> Iterator[str]:
    with serving(folder) as server:
        yield f"{server.url}runs/{server.runs()['half']['id']}/"


PAGES = {
    "select": Page(
        lambda folder: dress(build_run_folder(folder, n_instructions=3, teachers=TEACHERS[:6])),
        select_report.write,
        names=("reward",),
    ),
    "training": Page(
        lambda folder: build_training_folder(folder, steps=40),
        training_report.write,
        names=("general", "shop"),
    ),
    "compare": Page(_compared, compare_report.write, names=("armo",)),
    "evaluate": Page(
        lambda folder: build_evaluation_folder(folder, MODELS[:3]), evaluation_report.write
    ),
    "study": Page(
        lambda folder: written(folder, build(BASES[:2], arms=("sft", "kd"))), study_report.write
    ),
    "study-grid": Page(lambda folder: written(folder, grid()), study_report.write),
    "ask": Page(build_asking_folder, ask_report.write, names=("judge", "letters")),
    "two-runs": Page(_two_runs, _beside, of_run=False),
    "gallery": Page(_several_runs, serve=_gallery, of_run=False),
    "live": Page(_several_runs, serve=_live, of_run=False),
}
FILES = sorted(name for name, page in PAGES.items() if page.write is not None)
RUNS = sorted(name for name, page in PAGES.items() if page.of_run)
