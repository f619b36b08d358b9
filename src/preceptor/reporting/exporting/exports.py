"""What leaves a report: its tables as CSV, and a summary as Markdown.

Reads a folder of any kind of run, which may have come from strangers: `parts.tables` and
`parts.markdown_text` say what keeps their text inert in spreadsheets, pull requests and model
cards.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from preceptor.core import artifacts
from preceptor.core.comparison import COMPARE
from preceptor.core.errors import RunFolderError
from preceptor.core.study import STUDY
from preceptor.reporting.exporting import (
    evaluation_tables,
    run_tables,
    selection_tables,
    study_tables,
    summaries,
)
from preceptor.reporting.findings import run_kinds
from preceptor.reporting.parts import origins, page
from preceptor.reporting.parts.tables import Table, as_csv

__all__ = [
    "Table",
    "as_csv",
    "markdown",
    "tables",
    "take_along",
    "write_csv",
    "write_page",
    "write_summary",
]

EMBEDDED = 400_000  # characters of CSV that a page carries at most
_READ = {  # verb -> its result file, and the tables of what that holds
    "select": (artifacts.RANKING, selection_tables.tables),
    "evaluate": (artifacts.EVALUATION, evaluation_tables.tables),
    "study": (STUDY, study_tables.tables),
    "compare": (COMPARE, study_tables.of_comparison),
    "ask": (artifacts.ASK, run_tables.of_asking),
    "route": (run_kinds.ROUTE, run_tables.of_routing),
    "cache": (run_kinds.STORE, run_tables.of_store),
}


def tables(folder: Path) -> dict[str, Table]:
    """Name -> table of a finished run, the most telling one first.

    Raises:
        RunFolderError: no run, one that is not finished, or a result that cannot be read.
    """
    kind = _known(folder)
    if kind.name in _READ and not (folder / kind.result).is_file():
        raise RunFolderError(
            "the run is not finished",
            where=str(folder),
            found=f"no {kind.result}",
            next_step="type its command again: it goes on where it was",
        )
    try:
        if kind.name in _READ:
            file, made = _READ[kind.name]
            return made(json.loads((folder / file).read_text(encoding="utf-8")))
        if kind.name == "export":
            return run_tables.of_sets(run_kinds.provenance_of(folder))
        return run_tables.of_training(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise origins.changed_by_hand(folder / kind.result, kind.result, error) from error


def markdown(folder: Path) -> str:
    """A summary of a run, for a pull request or a model card.

    The verdict, the tables that tell most with their intervals, the settings that matter, the
    command that makes the run again, and versions.

    Raises:
        RunFolderError: no run, or a result file that cannot be read.
    """
    kind = _known(folder)
    made, warnings = tables(folder), _field(folder, kind, "warnings") or []
    provenance = run_kinds.provenance_of(folder)
    if kind.name == "compare":
        provenance = {"command": _field(folder, kind, "command")} | provenance
    return summaries.summary(
        kind,
        run_kinds.verdict_of(folder),
        made,
        run_kinds.settings_of(folder),
        provenance,
        [str(warning) for warning in warnings],
    )


def take_along(folder: Path) -> dict[str, Any] | None:
    """What the macro of this name in `page.html.j2` offers; None where the folder is no run.

    Keys: `tables` (`title` and number of `rows` of each that the page carries), `left_out` (titles
    of those that are too large for it), `markdown`, and `data`: files and their text as JSON for
    the script.
    """
    name = run_kinds.kind_of(folder)
    return None if name is None else packed(name, tables(folder), markdown(folder))


def packed(stem: str, own: dict[str, Table], text: str) -> dict[str, Any]:
    """The same of tables that are there: files are called `STEM-NAME.csv` and `STEM.md`."""
    offered, left_out, files, room = [], [], [], EMBEDDED
    for key, each in own.items():
        csv = as_csv(each)
        if len(csv) > room:
            left_out.append(each.title)
            continue
        room -= len(csv)
        offered.append({"title": each.title, "rows": len(each.rows)})
        files.append({"file": f"{stem}-{key}.csv", "text": csv})
    data = page.embed_json({"csv": files, "markdown": f"{stem}.md"})
    return {"tables": offered, "left_out": left_out, "markdown": text, "data": data}


def write_csv(own: dict[str, Table], folder: Path) -> list[Path]:
    """Write `NAME.csv` for every table; the folder is made if missing.

    Raises:
        RunFolderError: a folder or file that cannot be written.
    """
    artifacts.make_folder(folder, "--csv")
    written = []
    for name, each in own.items():
        written.append(folder / f"{name}.csv")
        artifacts.write_bytes(written[-1], as_csv(each).encode("utf-8"))
    return written


def write_page(path: Path, html: str) -> Path:
    """Write the page of a run, whole or not at all, and the summary beside it; returns `path`."""
    artifacts.write_bytes(path, html.encode())
    write_summary(path.parent)
    return path


def write_summary(folder: Path) -> Path | None:
    """Write the summary beside the page of a run, ending in `.md`, and return its path.

    A folder with a page that is no run (logs alone, say) gets none.
    """
    name = run_kinds.kind_of(folder)
    if name is None:
        return None
    path = folder / Path(run_kinds.KINDS[name].report).with_suffix(".md")
    artifacts.write_bytes(path, markdown(folder).encode("utf-8", "replace"))
    return path


def _known(folder: Path) -> run_kinds.Kind:
    name = run_kinds.kind_of(folder)
    if name is None:
        raise run_kinds.unknown(folder)
    return run_kinds.KINDS[name]


def _field(folder: Path, kind: run_kinds.Kind, name: str) -> Any:
    """A field of a result that is one JSON object; None where there is none."""
    if kind.name not in _READ:
        return None
    return json.loads((folder / kind.result).read_text(encoding="utf-8")).get(name)
