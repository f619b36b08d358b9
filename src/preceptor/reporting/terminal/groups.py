"""Who is first for each value of a column, on the terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from preceptor.reporting.findings import groups


def print_groups(ranking: dict[str, Any], console: Console) -> None:
    """Print the first teacher of each value; nothing where the run has no groups."""
    shown = groups.section(ranking)
    if shown is None:
        return
    title = f"First by {ranking['recommended_by']}, for each value of {shown['column']}"
    table = Table(title=escape(title), box=box.SIMPLE_HEAD)
    table.add_column(escape(shown["column"]), overflow="fold")
    table.add_column("instructions", justify="right")
    table.add_column("teacher", overflow="fold")
    table.add_column("score", justify="right")
    table.add_column(escape(f"against {shown['overall']}"), overflow="fold")
    for row in shown["rows"]:
        if row["teacher"] is None:
            table.add_row(escape(row["value"]), row["n"], "-", "", escape(row["why"]))
            continue
        gap = f"{row['gap']} {row['gap_range']}" if row["gap"] else "the same"
        doubt = "" if row["is_overall"] or row["separable"] else ": not separable"
        score = escape(f"{row['score']} {row['range']}")
        value, teacher = escape(row["value"]), escape(row["teacher"])
        table.add_row(value, row["n"], teacher, score, escape(gap + doubt))
    console.print(table)
    if shown["fragment"]:
        console.print(f"settings for align: {shown['fragment']} in the run folder")
