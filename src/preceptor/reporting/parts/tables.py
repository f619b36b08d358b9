"""Tables that leave a report: as CSV for a spreadsheet, and as text for a page or Markdown.

An interval stands in three columns: `NAME`, `NAME_low` and `NAME_high`. `as_csv` keeps them apart;
`presented` writes them as one: "0.81 [0.78, 0.84]".
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from preceptor.reporting.parts import wording
from preceptor.reporting.parts.page import visible

Cell = str | int | float | bool | None

LOW, HIGH = "_low", "_high"
# columns whose text is of our own words
PLAIN = frozenset(
    "what direction test status kind reading intervals rank_intervals score_intervals".split()
)
SHARES = frozenset("first_in cut_share refused cut_off empty repeated consistency".split())
# What a spreadsheet takes for a formula, or strips before it looks for one; the last four are the
# full-width forms. Source: OWASP, CSV Injection.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


@dataclass(frozen=True)
class Table:
    """Rows under named columns, each number as it was computed.

    Attributes:
        title: what it shows, for a heading.
        columns: names; see the module for intervals.
        rows: cells by column; None where there is no value.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def only(self, columns: Sequence[str], **equal: Cell) -> Table:
        """The same with some columns, of the rows whose cells are `equal`."""
        kept = [self.columns.index(name) for name in columns]
        tests = [(self.columns.index(name), value) for name, value in equal.items()]
        rows = [row for row in self.rows if all(row[i] == value for i, value in tests)]
        return Table(self.title, tuple(columns), tuple(tuple(row[i] for i in kept) for row in rows))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """A `Table`; columns ending in `...` stand for the three of an interval."""
    names: list[str] = []
    for name in columns:
        own = name.removesuffix("...")
        names += [own, own + LOW, own + HIGH] if own != name else [name]
    return Table(title, tuple(names), tuple(tuple(row) for row in rows))


def ends(cell: Mapping[str, Any] | None, value: str = "value") -> tuple[Any, Any, Any]:
    """Value, low and high of an interval in JSON, each None where it is not known."""
    if cell is None:
        return None, None, None
    return cell.get(value), cell.get("low"), cell.get("high")


def as_csv(own: Table) -> str:
    """A table by RFC 4180: lines end in CR LF, a cell is quoted where it must be.

    Text that a spreadsheet would run as a formula gets an apostrophe before it; numbers stay
    numbers. Control characters are written as their visible pictures. Encode it as UTF-8.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([_inert(name) for name in own.columns])
    for row in own.rows:
        writer.writerow([_plain(cell) for cell in row])
    return text.getvalue()


def _plain(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, int):
        return str(cell)
    if isinstance(cell, float):
        return repr(cell) if math.isfinite(cell) else ""
    return _inert(str(cell))


def _inert(text: str) -> str:
    """Text that no spreadsheet runs, and that UTF-8 can hold."""
    kept = visible(text.encode("utf-8", "replace").decode("utf-8"))
    return f"'{kept}" if kept.lstrip(" ").startswith(_FORMULA) else kept


@dataclass(frozen=True)
class Presented:
    """A table as text: numbers rounded to what their intervals show, intervals in one column.

    Attributes:
        heads: of the columns, in words.
        sources: the column that each stands for.
        text: which columns hold text of the data, not numbers of ours.
        rows: texts; `names[i][j]` says whether one is such text.
        left: rows that were left out.
    """

    title: str
    heads: tuple[str, ...]
    sources: tuple[str, ...]
    text: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    names: tuple[tuple[bool, ...], ...]
    left: int


def presented(own: Table, limit: int | None = None) -> Presented:
    """The first `limit` rows of a table as text; columns without any value are left out."""
    rows = own.rows[:limit]
    places = {name: i for i, name in enumerate(own.columns)}
    shown = [
        name
        for name, i in places.items()
        if not _is_end(name, places) and any(row[i] is not None for row in rows)
    ]
    columns = [_column(name, places, rows) for name in shown]
    texts = tuple(zip(*columns, strict=True)) if columns else ()
    names = tuple(tuple(isinstance(row[places[name]], str) for name in shown) for row in rows)
    heads = tuple(words(name) for name in shown)
    text = tuple(any(column) for column in zip(*names, strict=True))
    left = len(own.rows) - len(rows)
    return Presented(own.title, heads, tuple(shown), text, texts, names, left)


def words(column: str) -> str:
    """The name of a column in words: `first_in` is "first in"."""
    return column.replace("_", " ")


def _is_end(name: str, places: Mapping[str, int]) -> bool:
    """Whether a column is an end of the interval of another."""
    return any(name.endswith(e) and name.removesuffix(e) in places for e in (LOW, HIGH))


def _column(
    name: str, places: Mapping[str, int], rows: Sequence[tuple[Cell, ...]]
) -> tuple[str, ...]:
    """The cells of a column as text, with their intervals where it has them."""
    values = [row[places[name]] for row in rows]
    if name in SHARES:
        return tuple(
            wording.percent(v) if isinstance(v, float | int) else text_of(v) for v in values
        )
    if name + LOW not in places:
        return tuple(text_of(value) for value in values)
    low = [row[places[name + LOW]] for row in rows]
    high = [row[places[name + HIGH]] for row in rows]
    if name.endswith("rank"):
        return tuple(_rank(*cell) for cell in zip(values, low, high, strict=True))
    whole = all(isinstance(end, int) or end is None for end in (*values, *low, *high))
    known = [
        {"low": a, "high": b}
        for a, b in zip(low, high, strict=True)
        if isinstance(a, float | int) and isinstance(b, float | int)
    ]
    decimals = 0 if whole else wording.decimals_for(known) if known else 3
    return tuple(
        _interval(value, a, b, decimals) for value, a, b in zip(values, low, high, strict=True)
    )


def _interval(value: Cell, low: Cell, high: Cell, decimals: int) -> str:
    if not isinstance(value, float | int):
        return text_of(value)
    one = wording.number(value, decimals)
    if not isinstance(low, float | int) or not isinstance(high, float | int):
        return one
    return f"{one} [{wording.number(low, decimals)}, {wording.number(high, decimals)}]"


def _rank(value: Cell, low: Cell, high: Cell) -> str:
    if value is None or low is None or high is None or low == high:
        return text_of(value)
    return f"{value} ({low}–{high})"


def text_of(value: Cell) -> str:
    """One cell: numbers to three digits, counts with their thousands apart, a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if isinstance(value, float):
        return _short(value)
    return value


def _short(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    text = f"{round(value):,}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "−")
