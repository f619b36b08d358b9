"""What routing is worth, on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from preceptor.reporting.terminal.console import wide_console

WAYS = {
    "routed": "routed, a teacher for each prompt",
    "single": "{single} for all",
    "oracle": "best of each prompt (hindsight)",
    "random": "drawn at random",
}
HEADINGS = {"score": "PerSyn score", "reward": "reward", "log_p": "log p / token"}


def print_route(found: Mapping[str, Any], out: Path, console: Console | None = None) -> None:
    """Print what routing is worth on held-out prompts, and who is to be asked what.

    Args:
        found: the content of `route.json`.
        out: the run folder.
    """
    console = console or wide_console()
    console.print(_worth(found))
    for line in (*_words(found), *_asking(found, out)):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _worth(found: Mapping[str, Any]) -> Table:
    """A row for each way to choose a teacher; differences of routing from the others."""
    held_out, confidence = found["held_out"], found["confidence"]
    title = f"Held out: {held_out['n_prompts']:,} prompts for {found['base']}"
    table = Table(title=escape(title), box=box.SIMPLE_HEAD)
    table.add_column("teacher", overflow="fold")
    for heading in (HEADINGS["score"], f"routed less this [{confidence:.0%}]"):
        table.add_column(escape(heading), justify="right", no_wrap=True)
    for heading in (found["reward"], HEADINGS["log_p"]):
        table.add_column(escape(heading), justify="right", no_wrap=True)
    for way, words in WAYS.items():
        gap = held_out["means"]["score"]["routed_minus"].get(way)
        table.add_row(
            escape(words.format(single=held_out["single"])),
            f"{held_out['means']['score'][way]['mean']:.4f}",
            "-" if gap is None else escape(_signed(gap)),
            *(f"{held_out['means'][name][way]['mean']:.3f}" for name in ("reward", "log_p")),
        )
    return table


def _signed(cell: Mapping[str, float]) -> str:
    return "{mean:+.4f} [{low:+.4f}, {high:+.4f}]".format(**cell)


def _words(found: Mapping[str, Any]) -> list[str]:
    held_out, single = found["held_out"], found["held_out"]["single"]
    told = held_out["pair_accuracy"]
    share = found["share_of_room"]
    lines = [
        f"pairs of teachers told right: {told['router']['mean']:.1%}, without a look at the prompt "
        f"{told['without_prompt']['mean']:.1%} (difference {_signed(told['difference'])})"
    ]
    if found["verdict"] == "gain":
        part = "" if share is None else f": {share:.0%} of the way to the best of each prompt"
        lines.append(f"routing is better than {single} for all{part}")
    elif found["verdict"] == "loss":
        lines.append(f"routing is worse than {single} for all: ask {single} alone")
    else:
        lines.append(f"routing cannot be told from {single} for all")
    return lines


def _asking(found: Mapping[str, Any], out: Path) -> list[str]:
    routed = found["routed"]
    n, m = routed["n_instructions"], len(found["teachers"])
    by_count = sorted(routed["teachers"].items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{name} {count:,}" for name, count in by_count if count)
    lines = [
        f"{n:,} instructions routed: {shown}",
        f"asks for {n:,} answers, where all teachers would give {n * m:,}",
    ]
    if found["fill_in"]:
        lines.append(f"fill in the models in ask.yaml: {', '.join(found['fill_in'])}")
    lines.append(f"next: preceptor ask {out / 'ask.yaml'} --out FOLDER")
    return lines
