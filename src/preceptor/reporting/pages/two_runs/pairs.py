"""Two runs beside each other: what the pages of every kind of comparison are made of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from preceptor.reporting.findings import run_kinds
from preceptor.reporting.parts.tables import Table, table

Change = tuple[float, float, float]
"""A paired difference, the second run less the first: value and the ends of its interval."""

_SHORT = 48  # characters of a hash or an identity; a difference shows in them
_LONG = 400  # characters of a setting


@dataclass(frozen=True)
class Paired:
    """What two runs say together, on the instructions or items that both have.

    Attributes:
        changes: by what is compared (a teacher; a benchmark, measure and model; ...).
        words: sentences for the top of the page.
        n: instructions or items they are on; 0 where there is no joint statement.
        why: there is no joint statement, in words.
    """

    changes: Mapping[tuple[str, ...], Change] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    n: int = 0
    why: str = ""


@dataclass(frozen=True)
class Panel:
    """One table, and what is drawn of it.

    Attributes:
        chart: None, or a mapping with `kind` (slope, ends, lines) and what `report.js`
            needs for it.
    """

    label: str
    table: Table
    chart: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Section:
    """A part of the page; of several panels one is in sight at a time.

    Attributes:
        of: what the panels are of, as a column: "criterion".
    """

    key: str
    title: str
    note: str
    panels: tuple[Panel, ...]
    of: str

    def table(self) -> Table:
        """The rows of all panels, with the panel's label first."""
        columns = (self.of, *self.panels[0].table.columns)
        rows = ((panel.label, *row) for panel in self.panels for row in panel.table.rows)
        return Table(self.title, columns, tuple(rows))


@dataclass(frozen=True)
class Compared:
    """All that a page of two runs says.

    Attributes:
        verdict: sentences; the first one is the answer.
        names: of the data, in those sentences.
    """

    verdict: tuple[str, ...]
    sections: tuple[Section, ...]
    names: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Side:
    """One of the two runs: its folder, and its result as JSON."""

    letter: str
    folder: Path
    kind: str
    found: Any
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]


def read_side(letter: str, folder: Path, kind: str) -> Side:
    """A finished run of `kind` (raises OSError, ValueError)."""
    path = folder / run_kinds.KINDS[kind].result
    held = None if path.suffix == ".jsonl" else json.loads(path.read_text(encoding="utf-8"))
    return Side(
        letter,
        folder,
        kind,
        held,
        run_kinds.settings_of(folder),
        run_kinds.provenance_of(folder),
    )


def labels(first: Path, second: Path) -> tuple[str, str]:
    """What to call two folders: by so many last parts of their paths that they differ."""
    one, other = first.resolve().parts, second.resolve().parts
    for n in range(1, max(len(one), len(other)) + 1):
        if one[-n:] != other[-n:]:
            return "/".join(one[-n:]), "/".join(other[-n:])
    return str(first), str(second)


def overlap(low: Any, high: Any, other_low: Any, other_high: Any) -> str | None:
    """Whether two intervals share a value: "overlap" or "apart"; None where one is not known."""
    ends = (low, high, other_low, other_high)
    if any(end is None for end in ends):
        return None
    return "overlap" if low <= other_high and other_low <= high else "apart"


def ends_chart(label: str, rows: Sequence[Sequence[Any]]) -> dict[str, Any] | None:
    """A chart of the rows that both runs have; None where there is none.

    Args:
        rows: name; value, low and high of the first run; the same of the second; whatever else.
    """
    keys = ("value", "low", "high")
    drawn = [
        {
            "name": row[0],
            "a": dict(zip(keys, row[1:4], strict=True)),
            "b": dict(zip(keys, row[4:7], strict=True)),
        }
        for row in rows
        if row[1] is not None and row[4] is not None
    ]
    return {"kind": "ends", "label": label, "rows": drawn} if drawn else None


def reading(change: Change | None, direction: str = "higher") -> str | None:
    """What a paired difference says of the second run; None where there is none."""
    if change is None:
        return None
    _, low, high = change
    side = (low > 0) - (high < 0)
    side = side if direction == "higher" else -side
    return {1: "B better", -1: "B worse", 0: "not separable"}[side]


def what_differs(first: Side, second: Side) -> Table:
    """The settings, inputs, models and versions in which two runs differ."""
    rows = [
        (what, name, _shown(one, limit), _shown(other, limit))
        for what, limit, one_tree, other_tree in (
            ("setting", _LONG, first.settings, second.settings),
            *(
                (what, _SHORT, first.provenance.get(key), second.provenance.get(key))
                for what, key in (
                    ("input", "inputs"),
                    ("model", "models"),
                    ("version", "versions"),
                )
            ),
            (
                "version",
                _SHORT,
                {"preceptor": first.provenance.get("preceptor")},
                {"preceptor": second.provenance.get("preceptor")},
            ),
        )
        for name, one, other in differing(one_tree, other_tree)
    ]
    return table("What differs between the runs", ("what", "name", "A", "B"), rows)


def differing(first: Any, second: Any) -> Iterator[tuple[str, Any, Any]]:
    """(dotted name, value of the first, of the second) wherever two trees are not equal."""
    one, other = dict(_leaves(first or {})), dict(_leaves(second or {}))
    for name in dict.fromkeys([*one, *other]):
        values = one.get(name), other.get(name)
        unset = all(value is None or value in ({}, [], "") for value in values)
        if values[0] != values[1] and not unset:
            yield name, *values


def _leaves(tree: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value); items of a list by their name, where each has one."""
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from _leaves(value, f"{before}.{key}" if before else str(key))
        return
    if isinstance(tree, list) and tree and all(isinstance(own, Mapping) for own in tree):
        names = [next((str(own[k]) for k in _KEYS if own.get(k)), "") for own in tree]
        if len(set(names)) == len(names) and all(names):
            for name, own in zip(names, tree, strict=True):
                yield from _leaves(own, f"{before}[{name}]")
            return
    yield before, tree


_KEYS = ("name", "model", "path", "kind")


def _shown(value: Any, limit: int) -> str | None:
    """A value as text: plain where it is text, else JSON; None where it is not set."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
