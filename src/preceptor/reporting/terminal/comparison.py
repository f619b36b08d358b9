"""A comparison of criteria on the terminal: its verdict, the trials, beta, and who agrees."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from preceptor.core.comparison import COMPARE_PAGE
from preceptor.reporting.findings.comparison_words import sorted_trials
from preceptor.reporting.parts.wording import interval_words, short
from preceptor.reporting.terminal.console import wide_console

OF_TRIALS = ("best", "regret", "control")  # sentences that a table of trials tells as well


def print_comparison(
    comparison: Mapping[str, Any], out: Path | None = None, console: Console | None = None
) -> None:
    """Print a comparison, the content of `compare.json`, and where its page is.

    Args:
        out: the folder that holds the page; None where none was written.
    """
    console = console or wide_console()
    confidence = comparison["confidence"]
    tried = [base for base in comparison["bases"] if base["outcomes"]]
    if comparison["mean"]:
        n = len(comparison["mean"]["bases"])
        console.print(_trials(f"mean over {n} bases", comparison["mean"], confidence))
    for base in tried:
        n = len(base["outcomes"]["teachers"])
        console.print(_trials(f"{base['name']}, {n} teachers", base["outcomes"], confidence))
    if not tried:
        for base in comparison["bases"]:
            console.print(_agreement(base))
    fits = comparison["mean"] or (tried[0]["outcomes"] if len(tried) == 1 else None)
    for reward, fit in (fits["beta"] if fits else {}).items():
        _line(console, _beta(reward, fit))
    several = len(comparison["bases"]) > 1
    for sentence in comparison["verdict"]:
        in_table = comparison["mean"] and sentence["base"] and sentence["kind"] in OF_TRIALS
        if sentence["kind"] == "beta" or in_table:
            continue
        about = f"{sentence['base']}: " if several and sentence["base"] else ""
        _line(console, about + sentence["text"])
    if out is not None:
        _line(console, f"report: {out / COMPARE_PAGE}")


def _line(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def _trials(name: str, own: Mapping[str, Any], confidence: float) -> Table:
    """A row per criterion, best first, then the controls."""
    table = Table(title=escape(f"Criteria against outcomes: {name}"), box=box.SIMPLE_HEAD)
    table.add_column("criterion", overflow="fold")
    for heading in (f"rho [{confidence:.0%}]", "tau", "regret", "p"):
        table.add_column(escape(heading), justify="right", no_wrap=True)
    table.add_column("first", overflow="fold")
    for key, trial in sorted_trials(own["criteria"]):
        p = trial["p_value"]
        table.add_row(
            escape(key),
            escape(_plain(interval_words(trial["spearman"], 2))),
            _plain(_number(trial["kendall"]["value"], 2)),
            _plain(_number(trial["regret"]["value"], 3)),
            "-" if p is None else "<.001" if p < 0.001 else f"{p:.3f}",
            escape(_firsts(trial["first"])),
            style="dim" if trial["kind"] == "control" else "",
        )
    return table


def _firsts(names: list[str]) -> str:
    """Who is first; of many that tie, the number."""
    return ", ".join(names) if len(names) < 4 else f"{len(names)} tie"


def _agreement(base: Mapping[str, Any]) -> Table:
    """Spearman's rho of every pair, and whom each criterion puts first."""
    keys = list(base["criteria"])
    rho = {
        frozenset((row["first"], row["second"])): row["spearman"]["value"]
        for row in base["agreement"]
    }
    title = escape(f"Agreement of criteria (Spearman's rho): {base['name']}")
    table = Table(title=title, box=box.SIMPLE_HEAD)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("criterion", overflow="fold")
    table.add_column("first", overflow="fold")
    for place in range(1, len(keys) + 1):
        table.add_column(str(place), justify="right", no_wrap=True)
    for place, key in enumerate(keys, start=1):
        cells = [
            "" if other == key else _plain(_number(rho.get(frozenset((key, other))), 2))
            for other in keys
        ]
        first = _firsts(base["criteria"][key]["first"])
        table.add_row(str(place), escape(key), escape(first), *cells)
    return table


def _beta(reward: str, fit: Mapping[str, Any]) -> str:
    """One line on a fitted beta."""
    if fit["same_everywhere"]:
        return f"beta of CAR ({reward}): every beta is as good"
    left = list(fit["left_out"].values())
    parts = [
        f"beta of CAR ({reward}): fitted {short(fit['beta'])} (rho {fit['rho']:.2f}, the same from "
        f"{short(fit['plateau'][0])} to {short(fit['plateau'][1])})"
    ]
    if left:
        parts.append(f"without one teacher {short(min(left))} to {short(max(left))}")
    if fit["rho_left_out"] is not None:
        parts.append(f"rho of left-out teachers {fit['rho_left_out']:.2f}")
    if fit["rho_at_run_beta"] is not None:
        parts.append(f"rho {fit['rho_at_run_beta']:.2f} at this run's {short(fit['run_beta'])}")
    parts.append(f"suggested: {short(fit['suggested'])}")
    return "; ".join(parts)


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def _plain(text: str) -> str:
    """With ASCII signs alone: a terminal may have no others."""
    return text.replace("−", "-").replace("–", "-")
