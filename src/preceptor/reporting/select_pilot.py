"""What a pilot found (`select --pilot`): for the page and for the terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from preceptor.reporting.select_groups import signed
from preceptor.reporting.select_words import decimals_for, number

VERDICTS = {  # the parts of a sentence: names stay apart, so that a page can isolate them
    "confirmed": (
        "The pilot agrees: the student of ",
        " is the best, and separable from all others.",
    ),
    "overturned": ("The pilot disagrees: the student of ", " is separably better than that of "),
    "open": ("The pilot does not decide: the student of ", " has the highest score, within doubt."),
}


def section(ranking: dict[str, Any]) -> dict[str, Any] | None:
    """What the page shows of the pilot; None where the run has none.

    `rows` are the students, best first: teacher, score, range, gap (over the base), gap_range,
    helps (the gap's interval lies above 0), tokens; then the base, with teacher None. Numbers are
    texts.
    """
    pilot = ranking.get("pilot")
    if pilot is None:
        return None
    decimals = decimals_for([*pilot["rows"], pilot["base"]])
    best, recommended = ranking["pilot_recommended"], ranking["recommended"]
    before, after = VERDICTS[pilot["verdict"]]
    return {
        "before": before,
        "best": best,
        "after": after,
        "rival": recommended if pilot["verdict"] == "overturned" else None,
        "n_train": number(pilot["n_train"], 0),
        "n_held_out": number(pilot["n_held_out"], 0),
        "reward": pilot["reward"],
        "seeds": len(pilot["rows"][0]["seeds"]),
        "helps": any(row["over_base"]["low"] > 0 for row in pilot["rows"]),
        "rows": [
            {
                "teacher": row["teacher"],
                **_numbers(row, decimals),
                "gap": signed(row["over_base"]["difference"], decimals),
                "gap_range": _range(row["over_base"], decimals),
                "helps": row["over_base"]["low"] > 0,
                "tokens": number(row["n_tokens"], 0),
            }
            for row in pilot["rows"]
        ]
        + [{"teacher": None, **_numbers(pilot["base"], decimals), "gap": "", "tokens": ""}],
        "differences": [
            {
                "teacher": gap["teacher"],
                "against": gap["against"],
                "gap": signed(gap["difference"], decimals),
                "gap_range": _range(gap, decimals),
                "separable": gap["separable"],
            }
            for gap in pilot["differences"]
        ],
    }


def _numbers(row: dict[str, Any], decimals: int) -> dict[str, str]:
    return {"score": number(row["score"], decimals), "range": _range(row, decimals)}


def _range(row: dict[str, Any], decimals: int) -> str:
    return f"[{number(row['low'], decimals)}, {number(row['high'], decimals)}]"


def print_pilot(ranking: dict[str, Any], console: Console) -> None:
    """Print the students' scores and the verdict; nothing where the run has no pilot."""
    shown = section(ranking)
    if shown is None:
        return
    title = f"Pilot: {shown['n_held_out']} held-out instructions, scored by {shown['reward']}"
    table = Table(title=escape(title), box=box.SIMPLE_HEAD)
    table.add_column("student of", overflow="fold")
    for heading in ("score", "over the base", "tokens learned"):
        table.add_column(heading, justify="right")
    for row in shown["rows"]:
        gap = f"{row['gap']} {row['gap_range']}" if row["gap"] else ""
        name = "(base)" if row["teacher"] is None else row["teacher"]
        score = f"{row['score']} {row['range']}"
        table.add_row(escape(name), escape(score), escape(gap), row["tokens"])
    console.print(table)
    rival = "" if shown["rival"] is None else f"{shown['rival']}."
    words = f"{shown['before']}{shown['best']}{shown['after']}{rival}"
    console.print(escape(words), soft_wrap=True)
    if not shown["helps"]:
        console.print("no student is separably better than the base", soft_wrap=True)
