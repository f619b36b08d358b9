"""What a training brought, on the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from preceptor.core.artifacts import REPORT
from preceptor.reporting.findings.quality import (
    Interval,
    Quality,
    decimals_of,
    read_quality,
    words_of,
)
from preceptor.reporting.terminal.console import wide_console


def print_quality(quality: dict[str, Any], out: Path, console: Console | None = None) -> None:
    """Print models x groups, the differences, and where the report in folder `out` is.

    Args:
        quality: the content of `quality.json`; empty where no quality was measured.

    Raises:
        RunFolderError: `quality` is no quality table.
    """
    console = console or wide_console()
    if quality:
        known = read_quality(quality, str(out))
        console.print(_table(known))
        for line in _difference_lines(known):
            console.print(escape(line), soft_wrap=True, highlight=False)
    console.print(f"report: {escape(str(out / REPORT))}", soft_wrap=True)


def _table(quality: Quality) -> Table:
    title = escape(f"{quality.measure}, {quality.confidence:.0%} intervals")
    table = Table(title=title, box=box.SIMPLE_HEAD)
    table.add_column("model", overflow="fold")
    for group in quality.groups:
        n = f" (n = {quality.n[group]})" if group in quality.n else ""
        table.add_column(escape(group + n), justify="right")
    for row in quality.rows:
        cells = [_plain(row.scores[group], quality.decimals) for group in quality.groups]
        table.add_row(escape(row.model), *map(escape, cells))
    return table


def _difference_lines(quality: Quality) -> Iterable[str]:
    for each in quality.differences:
        decimals = decimals_of(each.interval, quality.decimals)
        reading = {1: "above", -1: "below", 0: "no difference shown: the interval holds 0"}
        yield (
            f"{each.model} - {each.against}, {each.group}: "
            f"{_plain(each.interval, decimals)} {reading[each.interval.side]}"
        )


def _plain(interval: Interval | None, decimals: int) -> str:
    """With ASCII signs alone: a terminal may have no others."""
    return words_of(interval, decimals).replace("−", "-").replace("–", "-")
