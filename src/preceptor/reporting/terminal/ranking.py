"""A ranking on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from preceptor.core.artifacts import REPORT
from preceptor.reporting.terminal.console import wide_console
from preceptor.reporting.terminal.groups import print_groups
from preceptor.reporting.terminal.pilot import print_pilot
from preceptor.reporting.terminal.race import print_race


def print_ranking(ranking: dict[str, Any], folder: Path, console: Console | None = None) -> None:
    """Print the leaderboard of the deciding criterion, and where the report is."""
    console = console or wide_console()
    name = ranking["recommended_by"]
    chosen = ranking["criteria"][name]
    console.print(_leaderboard(ranking, name))
    console.print(f"recommended: {ranking['recommended']}", soft_wrap=True)
    if chosen["tied_with_first"]:
        tied = ", ".join(chosen["tied_with_first"])
        console.print(f"not separable from it here: {tied}", soft_wrap=True)
    if "race" in ranking:
        print_race(ranking["race"], console)
    print_pilot(ranking, console)
    print_groups(ranking, console)
    console.print(f"report: {folder / REPORT}", soft_wrap=True)


def _leaderboard(ranking: dict[str, Any], name: str) -> Table:
    chosen = ranking["criteria"][name]
    reward = chosen["reward"] or next(iter(ranking["rewards"]))
    table = Table(title=f"Teachers for {ranking['base']} by {name}", box=box.SIMPLE_HEAD)
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("teacher", overflow="fold")
    interval = f"{name} [{ranking['confidence']:.0%} interval]"
    for heading in (interval, "p(best)", reward, "loss", "tokens"):
        table.add_column(escape(heading), justify="right", no_wrap=True)
    for row in chosen["teachers"]:
        profile = ranking["teachers"][row["teacher"]]
        wide = row["rank_low"] != row["rank_high"]
        table.add_row(
            f"{row['rank']}" + (f" ({row['rank_low']}-{row['rank_high']})" if wide else ""),
            escape(row["teacher"]),
            escape(f"{row['score']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"),
            f"{row['p_best']:.2f}",
            f"{profile['rewards'][reward]:.3f}",
            "-" if profile["loss"] is None else f"{profile['loss']:.3f}",
            f"{profile['n_tokens_mean']:.1f}",
        )
    return table
