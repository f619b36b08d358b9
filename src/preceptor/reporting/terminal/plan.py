"""A plan on the terminal: its stages, memory, disk, tokenizers, and what stands against it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from preceptor.core.progress import clock
from preceptor.reporting.parts.wording import in_bytes
from preceptor.reporting.terminal.console import wide_console

WIDTH = 130  # of its widest table, where it does not go to a terminal


def print_plan(plan: Mapping[str, Any], console: Console | None = None) -> None:
    """Print a plan, the content of its JSON form, as tables and a line for each note."""
    console = console or wide_console(WIDTH)
    if plan["stages"]:
        console.print(_stages(plan))
    if plan["tokenizers"]:
        console.print(_tokenizers(plan))
    for row in plan["memory"]:
        console.print(
            f"memory of {row['device']}: peak {in_bytes(row['peak_bytes'])} of "
            f"{in_bytes(row['total_bytes'])} ({in_bytes(row['process_bytes'])} before a weight is "
            "loaded)",
            highlight=False,
            soft_wrap=True,
        )
    for row in plan["disk"]:
        console.print(
            f"disk, {row['what']}: {in_bytes(row['bytes'])} below {row['folder']}, "
            f"{in_bytes(row['free'])} free",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
    for line in _totals(plan["totals"]):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    for note in plan["notes"]:
        console.print(f"note: {note}", highlight=False, soft_wrap=True, markup=False)
    verdict = "the run fits" if plan["fits"] else "the run does not fit"
    console.print(verdict, highlight=False)


def _stages(plan: Mapping[str, Any]) -> Table:
    table = Table(title=f"Plan of {plan['recipe']} on {plan['device']}", box=box.SIMPLE_HEAD)
    table.add_column("stage", overflow="fold")
    for heading in ("items", "stored", "prompt tokens", "tokens"):
        table.add_column(heading, justify="right")
    table.add_column("known from", overflow="fold")
    for heading in ("memory", "rate", "time", "cost"):
        table.add_column(heading, justify="right")
    for stage in plan["stages"]:
        kind = {"generated tokens": " out", "answers": " answers"}.get(stage["unit"], "")
        memory = sum(stage["memory"].values())
        table.add_row(
            escape(stage["stage"]),
            f"{stage['items']:,}",
            f"{stage['reused']:,}" if stage["reused"] else "",
            f"{stage['prompt_tokens']:,}" if stage["prompt_tokens"] else "",
            f"{stage['tokens']:,}{kind}",
            escape(stage["tokens_from"]),
            in_bytes(memory) if memory else "",
            f"{stage['rate']:,.0f}/s" if stage["rate"] else "",
            "?" if stage["seconds"] is None else clock(stage["seconds"]),
            f"{stage['money']:,.2f}" if stage["money"] else "",
        )
    return table


def _tokenizers(plan: Mapping[str, Any]) -> Table:
    table = Table(title="Tokenizers", box=box.SIMPLE_HEAD)
    for heading in ("role", "model", "verdict", "detail"):
        table.add_column(heading, overflow="fold")
    for row in plan["tokenizers"]:
        table.add_row(*(escape(row[name]) for name in ("role", "model", "verdict", "detail")))
    return table


def _totals(totals: Mapping[str, Any]) -> list[str]:
    lines = [
        f"in all: {totals['prompt_tokens']:,} prompt tokens, {totals['generated_tokens']:,} to "
        f"generate, {totals['read_tokens']:,} to score and to train on"
    ]
    if totals["seconds"] is not None:
        lines.append(f"time: {clock(totals['seconds'])} ({totals['seconds'] / 3600:,.2f} hours)")
    else:
        unknown = totals["without_rate"]
        more = f" and {len(unknown) - 2} more" if len(unknown) > 2 else ""
        lines.append(
            f"time: no rate is known for {', '.join(unknown[:2])}{more}; measure them with "
            "--probe N, or give --rate or --like"
        )
    if totals["money"]:
        lines.append(f"cost: {totals['money']:,.2f} at the settings' prices")
    return lines
