"""An answer store on the terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from preceptor.reporting.terminal.console import wide_console


def print_store(rows: list[dict[str, Any]], console: Console | None = None) -> None:
    """Print what `recipes.store.list_store` gives, a row a teacher."""
    console = console or wide_console()
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("teacher", "decodings"):
        table.add_column(heading, overflow="fold")
    for heading in ("answers", "tokens in", "tokens out", "cost", "shards", "MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        identity = ", ".join(f"{name} {value}" for name, value in row["identity"].items() if value)
        table.add_row(
            escape(row["teacher"] + (f"\n{identity}" if identity else "")),
            escape("\n".join(row["decodings"])),
            f"{row['answers']:,}",
            f"{row['prompt_tokens']:,}",
            f"{row['generated_tokens']:,}",
            f"{row['cost']:,.2f}",
            f"{row['shards']:,}",
            f"{row['bytes'] / 1e6:,.1f}",
        )
    console.print(table)
