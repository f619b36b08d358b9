"""Numbers, labels and lists as every page and table writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

_LABELS = {
    "car": "CAR",
    "mean_reward": "Mean reward",
    "perplexity": "Perplexity",
    "perplexity_reference": "Perplexity (reference)",
    "ifd": "IFD",
    "ifd_reference": "IFD (reference)",
    "length": "Length",
    "grape": "GRAPE",
    "local_naturalness": "Local naturalness",
    "aslec_drop": "ASLEC-drop",
    "aslec_casl": "ASLEC-casl",
    "rank_surprisal": "Rank-surprisal ratio",
    "grace": "GRACE",
    "scas": "SCAS",
    "lark": "LARK",
    "persyn": "PerSyn",
    "ic_ifd": "IC-IFD",
    "family_prior": "Family prior",
}


def label(criterion: str) -> str:
    """A criterion's key in plain words: `car.armo` → "CAR · armo"."""
    kind, _, reward = criterion.partition(".")
    words = _LABELS.get(kind) or kind.replace("_", " ").capitalize()
    return f"{words} · {reward}" if reward else words


def number(value: float | None, decimals: int = 2) -> str:
    """`value` with fixed decimals, thousands set apart and a true minus; None is a dash.

    Halves of the shortest decimal form round away from zero, as browsers do: the page's script
    rewrites the same cells and must not change a digit.
    """
    if value is None or not math.isfinite(value):
        return "–"
    step = Decimal(1).scaleb(-decimals)
    rounded = Decimal(repr(float(value))).quantize(step, ROUND_HALF_UP)
    return f"{rounded if rounded else abs(rounded):,f}".replace("-", "−")


def percent(share: float | None) -> str:
    """A share in [0, 1] as a whole per cent, without rounding up to certainty or down to never."""
    if share is None:
        return "–"
    if 0 < share < 0.01:
        return "< 1%"
    if 0.99 < share < 1:
        return "> 99%"
    return f"{math.floor(100 * share + 0.5)}%"


def decimals_for(rows: Sequence[dict[str, Any]]) -> int:
    """Decimals (0..4) at which a typical interval of `rows` shows two digits."""
    widths = sorted(row["high"] - row["low"] for row in rows if row["high"] > row["low"])
    step = widths[len(widths) // 2] if widths else 0.02
    return min(4, max(0, 1 - math.floor(math.log10(step))))


def listing(names: Sequence[str], limit: int = 3) -> list[tuple[str, str]]:
    """(joining words, name) pairs for a list in prose; names past `limit` become a number."""
    shown = list(names) if len(names) <= limit + 1 else list(names[:limit])
    rest = len(names) - len(shown)
    parts = []
    for index, name in enumerate(shown):
        last = index == len(shown) - 1 and not rest
        parts.append(("" if index == 0 else " and " if last else ", ", name))
    return parts + ([(f" and {rest} others", "")] if rest else [])


def short(value: float) -> str:
    """A value to three digits: 0.0123, 1.5, 1,000."""
    return f"{round(value):,}" if abs(value) >= 1000 else f"{value:.3g}"


def interval_words(own: Mapping[str, Any], decimals: int) -> str:
    """ "0.81 [0.70, 0.90]"; the value alone where there is no interval, else a dash."""
    value = number(own["value"], decimals)
    if own["value"] is None or own["low"] is None or own["high"] is None:
        return value
    ends = (number(own[key], decimals) for key in ("low", "high"))
    return "{} [{}, {}]".format(value, *ends)


def hours_words(hours: float) -> str:
    """ "3.2 hours", "12 minutes", "40 seconds"."""
    if hours >= 1:
        return f"{hours:,.1f} hours"
    minutes = 60 * hours
    return f"{minutes:.0f} minutes" if minutes >= 2 else f"{60 * minutes:.0f} seconds"


def in_bytes(count: float) -> str:
    """A number of bytes for readers: 12.3 GB."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"
