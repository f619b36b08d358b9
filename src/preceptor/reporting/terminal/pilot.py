"""What a pilot found, on the terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from preceptor.reporting.findings import pilot


def print_pilot(ranking: dict[str, Any], console: Console) -> None:
    """Print the students' scores and the verdict; nothing where the run has no pilot."""
    shown = pilot.section(ranking)
    if shown is None:
        return
    title = f"Pilot: {shown['n_held_out']} held-out instructions, scored by {shown['reward']}"
    table = Table(title=escape(title), box=box.SIMPLE_HEAD)
    table.add_column("student of", overflow="fold")
    for heading in ("score", "over the base", "tokens learned"):
        table.add_column(heading, justify="right")
    for row in shown["rows"]:
        gap = f"{row['gap']} {row['gap_range']}" if row["gap"] else ""
        name = "(base)" if row["teacher"] is None else row["teacher"]
        score = f"{row['score']} {row['range']}"
        table.add_row(escape(name), escape(score), escape(gap), row["tokens"])
    console.print(table)
    rival = "" if shown["rival"] is None else f"{shown['rival']}."
    words = f"{shown['before']}{shown['best']}{shown['after']}{rival}"
    console.print(escape(words), soft_wrap=True)
    if not shown["helps"]:
        console.print("no student is separably better than the base", soft_wrap=True)
