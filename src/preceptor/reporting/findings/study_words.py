"""The words, numbers and shades of a study's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from preceptor.reporting.parts import wording

SHADES = 6  # of page.css: 0 is the strongest


def shade(value: float | None, low: float | None, high: float | None) -> str:
    """The class of a cell whose value stands between the worst and the best of its column."""
    if value is None or low is None or high is None:
        return ""
    share = (high - value) / (high - low) if high > low else 0.5
    return f"shade-{round(SHADES * min(1.0, max(0.0, share)))}"


def size_words(billions: float | None) -> str:
    """ "7 B", "1.5 B", "405 B", "450 k"; "" where it is not known."""
    if billions is None:
        return ""
    for unit, one in (("T", 1e3), ("B", 1.0), ("M", 1e-3)):
        if billions >= one:
            return f"{billions / one:.3g} {unit}"
    return f"{billions * 1e6:.3g} k"


def rank_words(row: Mapping[str, Any]) -> str:
    """ "2 (1–4)", "1" where the interval is one rank, "–" where there is none."""
    if row.get("rank") is None:
        return "–"
    low, high = row.get("rank_low"), row.get("rank_high")
    if low is None or high is None or low == high:
        return str(row["rank"])
    return f"{row['rank']} ({low}–{high})"


def interval(own: Mapping[str, Any], decimals: int) -> str:
    """ "[5.1, 6.2]"; "" where there is none."""
    if own.get("low") is None or own.get("high") is None:
        return ""
    ends = (wording.number(own[key], decimals) for key in ("low", "high"))
    return "[{}, {}]".format(*ends)


def decimals_of(rows: Sequence[Mapping[str, Any]]) -> int:
    """Decimals at which a typical interval shows two digits; of outcomes without one, 2."""
    known = [row["outcome"] for row in rows if row["outcome"]["low"] is not None]
    wide = [{"low": own["low"], "high": own["high"]} for own in known if own["high"] > own["low"]]
    return max(1, wording.decimals_for(wide)) if wide else 2


def pick_words(source: Mapping[str, Any]) -> str:
    """How one of several samples was picked: "best of 8", "one sample", "greedy"."""
    pick, samples = str(source["pick"]), source.get("samples") or 1
    if pick in ("best", "worst"):
        return f"{pick} of {samples}" if samples > 1 else f"{pick} of the samples"
    return {"one": "one sample"}.get(pick, pick)


def point_words(source: Mapping[str, Any]) -> str:
    """How a source's answers were decoded and picked, in a few words."""
    temperature, top_p = source["temperature"], source["top_p"]
    parts = []
    if source["pick"] != "greedy" and temperature is not None:
        parts.append(f"temperature {temperature:g}")
        if top_p is not None and top_p < 1:
            parts.append(f"top-p {top_p:g}")
    return ", ".join([*parts, pick_words(source)])


def percent_between(value: float | None, low: float, high: float) -> float | None:
    """Where a value stands between two ends, in per cent."""
    if value is None:
        return None
    return 100.0 * (value - low) / (high - low) if high > low else 50.0
