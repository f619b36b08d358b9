"""A race on the terminal: who was asked how much, and what was saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from preceptor.reporting.findings import race_words


def print_race(race: Mapping[str, Any], console: Console) -> None:
    """Print the part `race` of a ranking."""
    title = f"Race by {race['criterion']}, {race['confidence']:.4g} confidence"
    table = Table(title=title, box=box.SIMPLE_HEAD)
    table.add_column("teacher", overflow="fold")
    for heading in ("instructions", "of all", "dropped in round", "behind by", "bound"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in race_words.lives(race):
        gone = row["round"] is not None
        table.add_row(
            escape(row["teacher"]),
            f"{row['n']:,}",
            f"{row['share']:.0%}",
            str(row["round"]) if gone else "-",
            f"{row['difference']:.4g}" if gone else "-",
            f"{row['bound']:.4g}" if gone else "-",
        )
    console.print(table)
    lines = [f"{race_words.savings(race)} {race_words.ending(race)}"]
    lines += [f"{first} and {second}: {words}" for first, second, words in race_words.wanting(race)]
    for line in lines:
        console.print(escape(line), highlight=False, soft_wrap=True)
