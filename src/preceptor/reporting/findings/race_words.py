"""What is told of a race: how long each teacher lived, what was saved, what would separate more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preceptor.reporting.parts.wording import percent

MOST = 3  # pairs that are named
_ENDS = {
    "one_left": "It ended because one teacher was left.",
    "budget": "It ended at the limit of money.",
    "tokens": "It ended at the limit of tokens.",
    "instructions": "It ended because all instructions were used.",
}


def lives(race: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a teacher: survivors first (the last leader, then by name), then the last dropped.

    Keys: teacher, n (instructions asked), share (of all, in [0, 1]), round (in which it was
    dropped, from 1; None for survivors), difference and bound (then, to the leader; None too).
    """
    n_total = race["n_total"]
    leader = race["rounds"][-1]["leader"]
    asked: dict[str, int] = {}
    outs: dict[str, dict[str, Any]] = {}
    for number, one in enumerate(race["rounds"], 1):
        asked |= dict.fromkeys(one["active"], one["n_asked"])
        for out in reversed(one["eliminated"]):  # the best is the last to go
            outs[out["teacher"]] = {**out, "round": number}
    alive = sorted(set(asked) - set(outs), key=lambda name: (name != leader, name))
    return [
        {
            "teacher": name,
            "n": asked[name],
            "share": asked[name] / n_total,
            "round": outs.get(name, {}).get("round"),
            "difference": outs.get(name, {}).get("difference"),
            "bound": outs.get(name, {}).get("bound"),
        }
        for name in [*alive, *reversed(outs)]
    ]


def surely(race: Mapping[str, Any]) -> str:
    """A clause: what the race's confidence is about; "" where nobody was dropped."""
    n = sum(len(one["eliminated"]) for one in race["rounds"])
    if not n:
        return ""
    dropped = (
        f"the race dropped {n:,} teachers, none of them the best"
        if n > 1
        else ("the race dropped one teacher, which is not the best")
    )
    return f"{dropped} at {percent(race['confidence'])} confidence"


def savings(race: Mapping[str, Any]) -> str:
    """What was asked of what could have been, in answers, tokens and money."""
    used, full = race["answers_used"], race["answers_full"]
    parts = [f"{used:,} of {full:,} answers ({percent(used / full)})"]
    if race["tokens_full"]:
        parts.append(f"{race['tokens_used']:,} of about {race['tokens_full']:,} tokens")
    if race["cost_full"]:
        parts.append(f"{race['cost']:,.2f} of about {race['cost_full']:,.2f} in money")
    return f"Asked for {', '.join(parts)}."


def ending(race: Mapping[str, Any]) -> str:
    """Why the race ended."""
    return _ENDS[race["stopped_because"]]


def wanting(race: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(first, second, what would separate them) of the pairs that are nearest to it."""
    found = []
    for pair in race["needed"][:MOST]:
        n = pair["n_more"]
        words = (
            "are equal so far"
            if n is None
            else f"about {n:,} more instructions would separate them"
            if n
            else "the next look would separate them"
        )
        found.append((pair["first"], pair["second"], words))
    return found
