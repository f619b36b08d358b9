"""`python -m bench NAME [--json FILE] [--repeats N]`; NAME `all` runs every benchmark."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

NAMES = (
    "measure",
    "criteria",
    "ifd",
    "attention_kl",
    "linear_divergence",
    "routing",
    "step",
    "fleet",
    "scale",
    "plan",
    "race",
)
COLUMNS = ("case", "peer", "time_ratio", "memory_ratio", "max_rel_error")


def main() -> None:
    """Run, print one table a benchmark, and write the rows as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=[*NAMES, "all"])
    parser.add_argument("--json", type=Path, help="file for the rows")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each contender")
    options = parser.parse_args()
    chosen = NAMES if options.name == "all" else (options.name,)
    rows = {}
    for name in chosen:
        rows[name] = importlib.import_module(f"bench.{name}").run(options.repeats)
        Console(width=160).print(as_table(name, rows[name]))
    if options.json:
        found = rows if options.name == "all" else rows[options.name]
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def as_table(title: str, rows: list[dict[str, object]]) -> Table:
    """Rows as a table: the common columns, then whatever else a benchmark says."""
    table = Table(title=title)
    more = [key for key in dict.fromkeys(k for row in rows for k in row) if key not in COLUMNS]
    for column in (*COLUMNS, *more):
        table.add_column(
            column.replace("_", " "), justify="left" if column in COLUMNS[:2] else "right"
        )
    for row in rows:
        values = [row.get(column, "") for column in (*COLUMNS, *more)]
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in values))
    return table


if __name__ == "__main__":
    main()
