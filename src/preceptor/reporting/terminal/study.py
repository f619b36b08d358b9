"""A study on the terminal: outcomes of every source and base, how the criteria did, the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from preceptor.core.study import STUDY_PAGE
from preceptor.reporting.findings.comparison_words import sorted_trials
from preceptor.reporting.findings.study_words import decimals_of
from preceptor.reporting.parts.wording import interval_words
from preceptor.reporting.terminal.console import wide_console

SHOWN = 20  # criteria
REASONS = 5  # failures that are told


def print_study(
    study: Mapping[str, Any], out: Path | None = None, console: Console | None = None
) -> None:
    """Print a study, the content of `study.json`, and where its page is.

    Args:
        out: the folder that holds the page; None where none was written.
    """
    console = console or wide_console()
    for arm in study["arms"]:
        if any(row["arm"] == arm for row in study["matrix"]):
            console.print(_matrix(study, arm))
    if study["criteria"] is not None:
        console.print(_trials(study["criteria"]))
    for sentence in study["verdict"]:
        _line(console, sentence["text"])
    failed = [cell for cell in study["cells"] if cell["status"] == "failed"]
    reasons: dict[str, int] = {}
    for cell in failed:
        reasons[cell["reason"]] = reasons.get(cell["reason"], 0) + 1
    for reason, n in sorted(reasons.items(), key=lambda item: -item[1])[:REASONS]:
        _line(console, f"failed ({n}): {reason}")
    if out is not None:
        _line(console, f"report: {out / STUDY_PAGE}")


def _line(console: Console, text: str) -> None:
    console.print(_plain(text), soft_wrap=True, highlight=False, markup=False)


def _matrix(study: Mapping[str, Any], arm: str) -> Table:
    """A row per source, a column per base; the best mean rank first."""
    of_arm = f", {arm}" if len(study["arms"]) > 1 else ""
    title = f"{study['outcome']['title']}{of_arm}, {study['confidence']:.0%} intervals, (rank)"
    table = Table(title=escape(title), box=box.SIMPLE_HEAD)
    table.add_column("learned from", overflow="fold")
    for base in study["bases"]:
        table.add_column(escape(base), justify="right", overflow="fold")
    table.add_column("seeds", justify="right", no_wrap=True)
    own = {(row["source"], row["base"]): row for row in study["matrix"] if row["arm"] == arm}
    decimals = decimals_of(list(own.values()))
    ranks = {
        source["name"]: [
            own[source["name"], base]["rank"]
            for base in study["bases"]
            if (source["name"], base) in own
        ]
        for source in study["sources"]
    }
    known = [name for name, found in ranks.items() if found]
    for name in sorted(known, key=lambda name: sum(ranks[name]) / len(ranks[name])):
        cells = [_cell(own.get((name, base)), decimals) for base in study["bases"]]
        counts = {own[name, base]["seeds"] for base in study["bases"] if (name, base) in own}
        low, high = min(counts), max(counts)
        table.add_row(escape(name), *cells, str(low) if low == high else f"{low}-{high}")
    bases = {row["base"]: row for row in study["base_scores"]}
    if bases:
        row = [_outcome(bases.get(base), decimals) for base in study["bases"]]
        table.add_row("the base itself", *row, "", style="dim")
    return table


def _cell(row: Mapping[str, Any] | None, decimals: int) -> str:
    if row is None:
        return "-"
    return _plain(escape(interval_words(row["outcome"], decimals))) + f" ({row['rank']})"


def _outcome(row: Mapping[str, Any] | None, decimals: int) -> str:
    if row is None:
        return "-"
    own = {"value": row["outcome"], "low": row["low"], "high": row["high"]}
    return _plain(escape(interval_words(own, decimals)))


def _trials(comparison: Mapping[str, Any]) -> Table:
    """A row per criterion: how it orders the sources, as the outcomes do; best first."""
    tried = [base for base in comparison["bases"] if base["outcomes"]]
    over_all = comparison["mean"]
    whole = over_all or tried[0]["outcomes"]
    name = f"mean over {len(over_all['bases'])} bases" if over_all else tried[0]["name"]
    table = Table(title=escape(f"Criteria against outcomes: {name}"), box=box.SIMPLE_HEAD)
    table.add_column("criterion", overflow="fold")
    heading = escape(f"rho [{comparison['confidence']:.0%}]")
    table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("regret", justify="right", no_wrap=True)
    for base in tried if over_all else []:
        table.add_column(escape(base["name"]), justify="right", overflow="fold")
    for key, trial in sorted_trials(whole["criteria"])[:SHOWN]:
        of_bases = [
            _number(base["outcomes"]["criteria"].get(key)) for base in (tried if over_all else [])
        ]
        table.add_row(
            escape(key),
            _plain(escape(interval_words(trial["spearman"], 2))),
            _plain(
                interval_words({"value": trial["regret"]["value"], "low": None, "high": None}, 2)
            ),
            *of_bases,
            style="dim" if trial["kind"] == "control" else "",
        )
    return table


def _number(trial: Mapping[str, Any] | None) -> str:
    value = None if trial is None else trial["spearman"]["value"]
    return "-" if value is None else f"{value:.2f}"


def _plain(text: str) -> str:
    """With ASCII signs alone: a terminal may have no others."""
    return text.replace("−", "-").replace("–", "-")
