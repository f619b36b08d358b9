"""A ranking on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from preceptor.core.artifacts import REPORT


def print_ranking(ranking: dict[str, Any], folder: Path, console: Console | None = None) -> None:
    """Print the leaderboard of the deciding criterion, and where the report is."""
    console = console or Console(soft_wrap=False)
    name = ranking["recommended_by"]
    chosen = ranking["criteria"][name]
    table = Table(title=f"Teachers for {ranking['base']} by {name} ({chosen['unit']})")
    percent = f"{ranking['confidence']:.0%}"
    for heading in (
        "rank",
        "teacher",
        name,
        f"{percent} interval",
        "p(best)",
        "reward",
        "loss",
        "tokens",
    ):
        table.add_column(heading, justify="left" if heading == "teacher" else "right")
    reward = chosen["reward"] or next(iter(ranking["rewards"]))
    for row in chosen["teachers"]:
        profile = ranking["teachers"][row["teacher"]]
        rank = str(row["rank"])
        if row["rank_low"] != row["rank_high"]:
            rank += f" ({row['rank_low']}-{row['rank_high']})"
        table.add_row(
            rank,
            row["teacher"],
            f"{row['score']:.4g}",
            f"{row['low']:.4g} .. {row['high']:.4g}",
            f"{row['p_best']:.2f}",
            f"{profile['rewards'][reward]:.3f}",
            f"{profile['loss']:.3f}",
            f"{profile['n_tokens_mean']:.1f}",
        )
    console.print(table)
    console.print(f"recommended: {ranking['recommended']}")
    if chosen["tied_with_first"]:
        console.print(f"not separable from it here: {', '.join(chosen['tied_with_first'])}")
    console.print(f"report: {folder / REPORT}", soft_wrap=True)
