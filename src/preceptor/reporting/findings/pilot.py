"""What a pilot found (`select --pilot`): for the page and for the terminal."""

from __future__ import annotations

from typing import Any

from preceptor.reporting.findings.groups import signed
from preceptor.reporting.parts.wording import decimals_for, number

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
