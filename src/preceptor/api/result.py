"""What every result is: what was found, its tables as data frames, and how a notebook shows it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pyarrow.parquet as pq
from markupsafe import Markup

from preceptor.core import artifacts
from preceptor.core.errors import PreceptorError, RunFolderError, SettingsError, nearest
from preceptor.reporting.exporting import exports
from preceptor.reporting.findings import run_kinds
from preceptor.reporting.parts.page import visible
from preceptor.reporting.parts.tables import Cell, Table, presented

if TYPE_CHECKING:
    import pandas as pd

ROWS = 12  # of a table that a notebook shows; data frames have all


@dataclass(frozen=True, repr=False, eq=False)
class Shown(ABC):
    """What a verb found.

    Attributes:
        raw: the result as JSON holds it; the reference of the run folder tells every key.
    """

    raw: Mapping[str, Any]

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables of the result, by name: those that `preceptor report --csv` writes."""
        return {name: frame(own) for name, own in self._exports().items()}

    def to_pandas(self, table: str | None = None) -> pd.DataFrame:
        """One of `tables`; the one that tells most where no name is given.

        An interval stands in three columns: `score`, `score_low` and `score_high`.

        Raises:
            SettingsError: no table of this name.
        """
        return frame(self._export(table))

    def _export(self, name: str | None) -> Table:
        known = self._exports()
        if name is None and known:
            return next(iter(known.values()))
        if name is None or name not in known:
            raise SettingsError(
                f"the result has no table {name!r}" if name else "the result has no table",
                where=repr(self),
                found=nearest(name or "", known),
                next_step="`tables` has them all by name",
            )
        return known[name]

    @abstractmethod
    def _exports(self) -> dict[str, Table]:
        """Its tables; the one that tells most first."""

    def _verdict(self) -> str:
        """One plain sentence."""
        return ""

    def _facts(self) -> dict[str, Any]:
        """What `repr` says."""
        return {}

    def _main(self) -> Table | None:
        """The table that a notebook shows."""
        known = self._exports()
        return next(iter(known.values())) if known else None

    def _note(self) -> str:
        """What stands below it."""
        return ""

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}={value!r}" for name, value in self._facts().items())
        return f"{type(self).__name__}({facts})"

    def _repr_html_(self) -> str:
        try:
            return card(self._verdict(), self._main(), self._note())
        except PreceptorError as error:  # a folder that was removed: the notebook goes on
            return card(error.what, None, self._note())


@dataclass(frozen=True, repr=False, eq=False)
class Result(Shown):
    """A finished run. It stands for its folder wherever a path is asked for.

    Attributes:
        folder: of the run, as it was given.
    """

    folder: Path
    file: ClassVar[str]  # holds the result

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The result that a folder holds (raises RunFolderError)."""
        raw = artifacts.read_json(folder / cls.file)
        if raw is None:
            raise missing(folder / cls.file)
        return cls(raw, folder)

    @property
    def report(self) -> Path:
        """The page of the run, to open in a browser (raises RunFolderError where there is none)."""
        name = run_kinds.kind_of(self.folder)
        page = run_kinds.KINDS[name].report if name is not None else None
        if page is None or not (self.folder / page).exists():
            raise missing(self.folder / (page or artifacts.REPORT))
        return self.folder / page

    @property
    def provenance(self) -> dict[str, Any]:
        """What made the run: settings, hashes of inputs and models, versions, times."""
        return run_kinds.provenance_of(self.folder)

    @property
    def verdict(self) -> str:
        """What the run found, in one plain sentence with its confidence."""
        return run_kinds.verdict_of(self.folder)

    def __fspath__(self) -> str:
        return str(self.folder)

    def _exports(self) -> dict[str, Table]:
        return exports.tables(self.folder)

    def _verdict(self) -> str:
        return self.verdict

    def _note(self) -> str:
        return f"run folder: {self.folder}"

    def _facts(self) -> dict[str, Any]:
        return {"folder": str(self.folder)}

    def _parquet(self, name: str) -> pd.DataFrame:
        """A table of the run folder (raises RunFolderError)."""
        if not (self.folder / name).exists():
            raise missing(self.folder / name)
        return pq.read_table(self.folder / name).to_pandas()


def missing(path: Path) -> RunFolderError:
    """The error about a file that a run folder should hold."""
    return RunFolderError(
        "the run folder lacks a file",
        where=str(path),
        found="no such file",
        next_step="call the same function again with this folder: it finishes a begun run",
    )


def frame(own: Table) -> pd.DataFrame:
    """A table as a data frame: numbers are float64, or int64 (Int64 where some are missing)."""
    import pandas as pd

    columns = zip(*own.rows, strict=True) if own.rows else ((),) * len(own.columns)
    named = zip(own.columns, columns, strict=True)
    return pd.DataFrame({name: pd.Series(cells, dtype=_dtype(cells)) for name, cells in named})


def _dtype(cells: tuple[Cell, ...]) -> Any:
    """The dtype of a column; None leaves texts to pandas."""
    known = [cell for cell in cells if cell is not None]
    gaps = len(known) < len(cells)
    if known and all(isinstance(cell, bool) for cell in known):
        return "boolean" if gaps else "bool"
    if known and all(isinstance(cell, int) for cell in known):
        return "Int64" if gaps else "int64"
    return "float64" if all(isinstance(cell, int | float) for cell in known) else None


def card(verdict: str, table: Table | None, note: str) -> str:
    """A sentence, a table and a note as HTML that needs no style sheet and no script.

    So notebooks, editors and code hosts show it in their own colours, light or dark. What came from
    the data is escaped, and kept from turning the text around it.
    """
    parts = [Markup("<p>{}</p>").format(_isolated(verdict))] if verdict else []
    if table is not None:
        shown = presented(table, ROWS)
        head = _line(shown.heads, [False] * len(shown.heads), "th")
        body = [_line(row, own, "td") for row, own in zip(shown.rows, shown.names, strict=True)]
        whole = Markup("<table><thead>{}</thead><tbody>{}</tbody></table>")
        parts.append(whole.format(head, Markup("").join(body)))
        if shown.left:
            parts.append(Markup("<p>and {} more rows</p>").format(f"{shown.left:,}"))
    if note:
        parts.append(Markup("<p><small>{}</small></p>").format(_isolated(note)))
    return str(Markup("<div>{}</div>").format(Markup("").join(parts)))


def _line(cells: tuple[str, ...], texts: Any, tag: str) -> Markup:
    shown = [
        Markup('<{0} style="text-align:{1}">{2}</{0}>').format(
            tag, "left" if text else "right", _isolated(cell)
        )
        for cell, text in zip(cells, texts, strict=True)
    ]
    return Markup("<tr>{}</tr>").format(Markup("").join(shown))


def _isolated(text: str) -> Markup:
    return Markup("<bdi>{}</bdi>").format(visible(text))
