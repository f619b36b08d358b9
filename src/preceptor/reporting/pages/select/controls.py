"""What else would explain the order: length, family and size, for the page of a selection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from preceptor.reporting.parts.wording import label, number, percent

SERIES = 5  # families with a colour of their own
SLIGHT = 0.1  # |rho| below which length hardly matters


def section(ranking: Mapping[str, Any], teachers: Sequence[str]) -> dict[str, Any] | None:
    """What the page shows of `controls`; None where the run has none, or one teacher alone.

    `words` (sentences about the recommending criterion), `within` (sentences about answers to one
    instruction), `rows` (a criterion each, numbers as texts), `families` (name and members of those
    with a colour, the largest first), `of` (parallel to `teachers`: family, its colour, size).
    """
    controls = ranking.get("controls")
    if not controls or len(teachers) < 3:
        return None
    main = ranking["recommended_by"]
    facts = [controls["teachers"].get(teacher) or {} for teacher in teachers]
    names = [fact.get("family") for fact in facts if fact.get("family") is not None]
    sizes = {name: names.count(name) for name in names}
    shown = sorted((n for n in sizes if sizes[n] > 1), key=lambda n: (-sizes[n], n))[:SERIES]
    return {
        "main": label(main),
        "words": _words(controls["criteria"][main], ranking["recommended"]),
        "within": _within(controls.get("within") or {}),
        "rows": [
            {"key": key, "label": label(key), "main": key == main, **_row(own)}
            for key, own in controls["criteria"].items()
        ],
        "has_size": any(own["size"] for own in controls["criteria"].values()),
        "has_family": any(own["family"] for own in controls["criteria"].values()),
        "families": [{"name": name, "n": sizes[name]} for name in shown],
        "of": [
            {
                "family": fact.get("family"),
                "colour": shown.index(fact["family"]) if fact.get("family") in shown else None,
                "size": fact.get("size"),
            }
            for fact in facts
        ],
    }


def _row(own: Mapping[str, Any]) -> dict[str, Any]:
    size, family = own["size"] or {}, own["family"] or {}
    return {
        "n": own["n"],
        "length": number(own["length"]["spearman"], 2),
        "length_p": chance(own["length"]["p_value"]),
        "size": number(size.get("spearman"), 2),
        "size_p": chance(size.get("p_value")),
        "size_alone": number(size.get("without_length"), 2),
        "length_alone": number(size.get("length_without_size"), 2),
        "family": percent(family.get("share")),
        "family_chance": percent(family.get("chance")),
        "family_p": chance(family.get("p_value")),
        "first": own["first_without_length"],
    }


def chance(p_value: float | None) -> str:
    """A p-value in words of a table: "p = 0.03"; "" where there is none."""
    if p_value is None:
        return ""
    return "p < 0.001" if p_value < 0.001 else f"p = {number(p_value, 2 if p_value >= 0.1 else 3)}"


def _words(own: Mapping[str, Any], recommended: str) -> list[tuple[str, str]]:
    """(sentence, name that follows it) about the recommending criterion."""
    found = []
    rho, p_value = own["length"]["spearman"], own["length"]["p_value"]
    if rho is not None:
        more = "longer" if rho > 0 else "shorter"
        told = "" if p_value is None or p_value < 0.05 else ", which may be chance"
        found.append(
            (
                f"Teachers with {more} answers rank better by ρ = {number(abs(rho), 2)} "
                f"({chance(p_value)}{told}): length explains {percent(rho * rho)} of the order.",
                "",
            )
        )
        if own["first_without_length"] == recommended:
            text = "The recommended teacher is also the furthest above what its length predicts."
            found.append((text, ""))
        else:
            text = "Furthest above what its length predicts is"
            found.append((text, own["first_without_length"]))
    size, family = own["size"], own["family"]
    if size and size["spearman"] is not None:
        told = "larger" if size["spearman"] > 0 else "smaller"
        found.append(
            (
                f"Among the {size['n']} teachers whose size is known, {told} ones rank better by "
                f"ρ = {number(abs(size['spearman']), 2)} ({chance(size['p_value'])}).",
                "",
            )
        )
    if family:
        found.append(
            (
                f"The {family['families']} families explain {percent(family['share'])} of the "
                f"order, where chance alone explains {percent(family['chance'])} "
                f"({chance(family['p_value'])}).",
                "",
            )
        )
    return found


def _within(within: Mapping[str, float | None]) -> list[dict[str, str]]:
    """Of answers to one and the same instruction: who earns more, the longer or the shorter."""
    found = []
    for key, rho in within.items():
        if rho is None:
            continue
        reward = key.removeprefix("reward.") if key.startswith("reward.") else ""
        more = "longer" if rho > 0 else "shorter"
        words = (
            f"the {more} ones score higher by"
            if reward
            else f"the {more} ones have the higher loss"
        )
        if abs(rho) < SLIGHT:
            words = "length hardly matters to" if reward else "length hardly matters to the loss"
        found.append({"reward": reward, "words": words, "rho": number(rho, 2)})
    return found
