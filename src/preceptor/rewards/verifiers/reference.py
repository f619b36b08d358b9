"""The right answer that comes with an instruction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

USUAL = ("answer", "reference", "solution")  # columns that hold a right answer


def reference_of(row: Mapping[str, Any], column: str | None) -> str:
    """The right answer of a row, as text.

    Args:
        row: the columns that came with the answer or the instruction.
        column: which of them; if None, the first of `answer`, `reference`, `solution` that is
            there.

    Raises:
        KeyError: no such column, or nothing in it.
    """
    names = USUAL if column is None else (column,)
    found = next((row[name] for name in names if row.get(name) is not None), None)
    if found is None:
        raise KeyError(f"no right answer in {' / '.join(names)}; columns {', '.join(row)}")
    return str(found)
