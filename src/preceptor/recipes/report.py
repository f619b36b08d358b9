"""`preceptor report`: a run's page again, what leaves it, and two runs on one page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from preceptor.core import artifacts
from preceptor.core.errors import RunFolderError
from preceptor.reporting.exporting import exports
from preceptor.reporting.findings import run_kinds
from preceptor.reporting.pages.ask import report as ask_report
from preceptor.reporting.pages.compare import report as compare_report
from preceptor.reporting.pages.evaluate import report as evaluation_report
from preceptor.reporting.pages.select import report as select_report
from preceptor.reporting.pages.study import report as study_report
from preceptor.reporting.pages.summary import report as run_summary
from preceptor.reporting.pages.training import report as training_report
from preceptor.reporting.pages.two_runs import report as run_comparison
from preceptor.reporting.parts.tables import Table

PAGE = "comparison.html"  # of two runs, where no --out says another name
_RENDER: Mapping[str, Callable[[Path], str]] = {
    "select": select_report.render,
    "evaluate": evaluation_report.render,
    "study": study_report.render,
    "compare": compare_report.render,
    "ask": ask_report.render,
    **dict.fromkeys((*run_kinds.TRAININGS, "tour"), training_report.render),
}


@dataclass(frozen=True)
class Reported:
    """What was written.

    Attributes:
        verdict: what was found, in a sentence.
        page: the page.
        tables: the CSV files.
        markdown: the summary.
    """

    verdict: str
    page: Path
    tables: tuple[Path, ...]
    markdown: str


def report(
    first: Path, second: Path | None = None, out: Path | None = None, csv: Path | None = None
) -> Reported:
    """Draw the page of a finished run again, or one page of two runs of one kind.

    Args:
        first: folder of a finished run; of a study also of one that its budget ended.
        second: to compare it with.
        out: file of the page, or a folder for it. If None: of one run its own report, with the
            Markdown beside it; of two `comparison.html` in the working folder.
        csv: folder for a CSV file of every table; none if None.

    Raises:
        RunFolderError: no run, one that is not finished, runs that cannot be compared, or a place
            that cannot be written.
    """
    for folder in (first, *([second] if second is not None else [])):
        refuse_unfinished(folder)
    if second is not None:
        return _compared(first, second, out, csv)
    kind = run_kinds.KINDS[str(run_kinds.kind_of(first))]
    page = _RENDER.get(kind.name, run_summary.render)(first)
    text = exports.markdown(first)
    path = _place(out, Path(kind.report).name) if out is not None else first / kind.report
    _write(path, page)
    if out is None:
        exports.write_summary(first)
    return Reported(run_kinds.verdict_of(first), path, _tables(exports.tables(first), csv), text)


def _compared(first: Path, second: Path, out: Path | None, csv: Path | None) -> Reported:
    run_comparison.family_of(first, second)  # before torch is imported
    from preceptor.recipes.comparing.paired_runs import paired

    own = run_comparison.Comparison(first, second, paired(first, second))
    path = _place(out, PAGE) if out is not None else Path(PAGE)
    _write(path, own.html())
    return Reported(own.found.verdict[0], path, _tables(own.tables(), csv), own.markdown())


def refuse_unfinished(folder: Path) -> None:
    """The error about a folder that is no run, or one that has not ended."""
    name = run_kinds.kind_of(folder)
    if name is None:
        raise run_kinds.unknown(folder)
    kind = run_kinds.KINDS[name]
    there = (folder / kind.result).is_file()
    if run_kinds.finished(folder) or (kind.partial and there):
        return
    command = run_kinds.provenance_of(folder).get("command")
    raise RunFolderError(
        "the run is not finished",
        where=str(folder),
        found=f"a begun run of {name}, " + (f"without {kind.result}" if not there else "running"),
        next_step=f"finish it: {command}" if command else "finish it: type its command again",
    )


def _place(out: Path, name: str) -> Path:
    """The file that --out means: a folder, or what cannot be a page, takes `name`."""
    return out / name if out.is_dir() or out.suffix.lower() not in (".html", ".htm") else out


def _write(path: Path, page: str) -> None:
    artifacts.make_folder(path.parent, "--out")
    artifacts.write_bytes(path, page.encode())


def _tables(own: dict[str, Table], folder: Path | None) -> tuple[Path, ...]:
    return () if folder is None else tuple(exports.write_csv(own, folder))
