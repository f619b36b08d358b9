"""What an asking brought, on the terminal: a row per teacher and decoding point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from preceptor.core.artifacts import REPORT, SAMPLES
from preceptor.reporting.terminal.console import wide_console

SHOWN = 3  # rewards in the table; `ask.json` has them all


def print_samples(asked: dict[str, Any], folder: Path, console: Console | None = None) -> None:
    """Print the points with their first reward, and where the samples are.

    Args:
        asked: the content of `ask.json`.
        folder: the run folder.
    """
    console = console or wide_console()
    console.print(_points(asked))
    missing = {
        name: sum(point["rewards"][name]["n_missing"] for point in asked["points"])
        for name in asked["rewards"]
    }
    for name, count in missing.items():
        if count:
            line = f"{name}: {count:,} of {asked['n_answers']:,} answers have no score"
            console.print(escape(line), soft_wrap=True, highlight=False)
    cost = sum(point["cost"] for point in asked["points"])
    if cost:
        console.print(f"cost: {cost:,.2f}", soft_wrap=True, highlight=False)
    console.print(f"samples: {escape(str(folder / SAMPLES))}", soft_wrap=True)
    console.print(f"report: {escape(str(folder / REPORT))}", soft_wrap=True)
    if asked["answers"]:
        console.print(f"for select: {escape(str(folder / asked['answers']))}", soft_wrap=True)


def _points(asked: dict[str, Any]) -> Table:
    """A row per point: the first reward with its interval, others by their mean alone."""
    names = list(asked["rewards"])[:SHOWN]
    first, others = "".join(names[:1]), names[1:]
    sampled = any(point["samples"] > 1 for point in asked["points"])
    title = f"{asked['n_answers']:,} answers to {asked['n_instructions']:,} instructions"
    table = Table(title=title, box=box.SIMPLE_HEAD)
    table.add_column("teacher", overflow="fold", min_width=12)
    headings = ["T/top-p", "n", *([f"{first} [{asked['confidence']:.0%}]"] if first else [])]
    headings += ["best", "worst"] if first and sampled else []
    for heading in (*headings, *others, "tokens", "cut"):
        table.add_column(escape(heading), justify="right", no_wrap=True)
    for point in asked["points"]:
        cells = [_decoding(point), str(point["samples"])]
        if first:
            reward = point["rewards"][first]
            cells.append(_interval(reward))
            cells += [_last(reward["best_of"]), _last(reward["worst_of"])] if sampled else []
        cells += [_number(point["rewards"][name]["mean"], 3) for name in others]
        cells += [_number(point["n_tokens_mean"], 1), _percent(point["cut_share"])]
        table.add_row(escape(point["teacher"]), *map(escape, cells))
    return table


def _decoding(point: dict[str, Any]) -> str:
    if point["temperature"] is None:
        return "-"
    if point["temperature"] == 0:
        return "greedy"
    return f"{point['temperature']:g}/{_short(point['top_p'])}"


def _interval(cell: dict[str, Any]) -> str:
    if cell["mean"] is None:
        return "-"
    return "{mean:.3f} [{low:.3f}, {high:.3f}]".format(**cell)


def _last(cells: list[dict[str, Any]]) -> str:
    return _number(cells[-1]["mean"], 3) if cells else "-"


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
