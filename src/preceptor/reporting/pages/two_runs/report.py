"""`comparison.html`: two finished runs of one kind on one page.

Reads the two folders only. Sentences and tables are rendered here and need no script; the charts
are drawn from the embedded JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from preceptor.core import artifacts
from preceptor.core.errors import RunFolderError
from preceptor.reporting.exporting import exports
from preceptor.reporting.findings import run_kinds
from preceptor.reporting.pages.two_runs import evaluate, pairs, select, study, training
from preceptor.reporting.pages.two_runs.pairs import Compared, Paired, Side
from preceptor.reporting.parts import page
from preceptor.reporting.parts.markdown_text import block, code, grid, prose, sentence
from preceptor.reporting.parts.tables import Table, presented

STYLES = ("pages/boards.css", "pages/two_runs/report.css")
SCRIPTS = (
    *page.CHARTS,
    "pages/panels.js",
    "pages/two_runs/report.js",
)
ROWS = 200  # of a table on the page; the CSV has them all
BRIEF = 20  # of a table in Markdown
_NO_PAIR = Paired()
_COMPARE: dict[str, Callable[[Side, Side, Paired], Compared]] = {
    "select": select.compare,
    "evaluate": evaluate.compare,
    "study": study.compare,
    "training": training.compare,
}


class Comparison:
    """Two runs, compared once, for the page and for what leaves it.

    Args:
        paired: what the runs say together (`recipes/comparing/paired_runs.py`).

    Raises:
        RunFolderError: runs of unlike kinds or of kinds that are not compared, or a result that
            cannot be read.
    """

    def __init__(self, first: Path, second: Path, paired: Paired = _NO_PAIR) -> None:
        self.kind = family_of(first, second)
        self.labels = pairs.labels(first, second)
        kinds = [str(run_kinds.kind_of(folder)) for folder in (first, second)]
        try:
            self.sides = (
                pairs.read_side("A", first, kinds[0]),
                pairs.read_side("B", second, kinds[1]),
            )
            self.found = _COMPARE[self.kind](*self.sides, paired)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise RunFolderError(
                "a result of these runs is incomplete or was changed by hand",
                where=f"{first}, {second}",
                found=f"{type(error).__name__}: {error}",
                next_step="run `preceptor report` on each of them alone, to see which one",
            ) from error
        self.differs = pairs.what_differs(*self.sides)

    @property
    def title(self) -> str:
        """What the two runs are, in plain words."""
        return run_kinds.KINDS[self.sides[0].kind].title if self.kind != "training" else "Training"

    def tables(self) -> dict[str, Table]:
        """Name -> table: `differs` (settings), and those of the page."""
        found = {"differs": self.differs} if self.differs.rows else {}
        for section in self.found.sections:
            found[section.key] = section.table()
        return found

    def markdown(self) -> str:
        """The same as a summary for a pull request."""
        names = [*self.found.names, *self.labels]
        parts = [
            f"## {self.title}: two runs",
            f"**{sentence(self.found.verdict[0], names)}**",
            "\n".join(
                f"- {letter}: {code(label)}"
                for letter, label in zip("AB", self.labels, strict=True)
            ),
        ]
        parts += [sentence(words, names) for words in self.found.verdict[1:]]
        parts += [f"Warning: {prose(words)}" for words in self.found.warnings]
        for section in self.found.sections:
            panel = section.panels[0]
            shown = presented(panel.table, BRIEF)
            parts += [f"**{prose(section.title)}: {prose(panel.label)}**", grid(shown)]
            if shown.left:
                parts.append(f"{shown.left:,} more rows are in the CSV.")
        if self.differs.rows:
            parts += [f"**{prose(self.differs.title)}**", grid(presented(self.differs, BRIEF))]
        commands = [str(side.provenance.get("command") or "") for side in self.sides]
        if all(commands):
            parts += ["Made by:", block("\n".join(commands), "sh")]
        return "\n\n".join(parts) + "\n"

    def html(self) -> str:
        """The page; the same folders give the same text."""
        sections = self.found.sections
        context = {
            "title": self.title,
            "labels": self.labels,
            "verdict": [page.marked(words, self.found.names) for words in self.found.verdict],
            "warnings": list(self.found.warnings),
            "sections": [
                {
                    "own": section,
                    "panels": [
                        {"label": panel.label, "shown": presented(panel.table, ROWS)}
                        | {"drawn": panel.chart is not None}
                        for panel in section.panels
                    ],
                }
                for section in sections
            ],
            "differs": presented(self.differs, ROWS),
            "runs": [_run(side) for side in self.sides],
            "take": exports.packed("comparison", self.tables(), self.markdown()),
            "data": page.embed_json(
                {
                    "labels": list(self.labels),
                    "charts": {
                        f"{section.key}-{place}": panel.chart
                        for section in sections
                        for place, panel in enumerate(section.panels)
                        if panel.chart is not None
                    },
                }
            ),
        }
        return page.render_page(
            "pages/two_runs/report.html.j2", context, styles=STYLES, scripts=SCRIPTS
        )


def render(first: Path, second: Path, paired: Paired = _NO_PAIR) -> str:
    """The page of two runs as HTML (raises RunFolderError)."""
    return Comparison(first, second, paired).html()


def family_of(first: Path, second: Path) -> str:
    """What two folders both are: `select`, `evaluate`, `study` or `training`.

    Raises:
        RunFolderError: no runs, the same one twice, runs of unlike kinds, or of kinds that are
            not compared.
    """
    kinds = []
    for folder in (first, second):
        name = run_kinds.kind_of(folder)
        if name is None:
            raise run_kinds.unknown(folder)
        kinds.append(name)
    trained = (*run_kinds.TRAININGS, "tour")
    names = ["training" if name in trained else name for name in kinds]
    where = f"{first}, {second}"
    if first.resolve() == second.resolve():
        raise RunFolderError("a run stands twice", where=where, next_step="give two folders")
    if names[0] != names[1]:
        raise RunFolderError(
            "runs of unlike kinds cannot be compared",
            where=where,
            found=f"{kinds[0]} and {kinds[1]}",
            next_step="give two runs of one verb",
        )
    if names[0] not in _COMPARE:
        raise RunFolderError(
            f"runs of {names[0]} are not compared",
            where=where,
            found=names[0],
            next_step="give two runs of select, evaluate or study, or two trainings; "
            "`--csv` writes the tables of one run",
        )
    return names[0]


def write(path: Path, own: Comparison) -> Path:
    """Write the page (whole or not at all) and return its path."""
    artifacts.write_bytes(path, own.html().encode())
    return path


def _run(side: Side) -> dict[str, Any]:
    """What the provenance section says of one run."""
    return {
        "letter": side.letter,
        "verdict": run_kinds.verdict_of(side.folder),
        "command": side.provenance.get("command"),
    }
