"""The labels, numbers and shades of a comparison of criteria, for the page and the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preceptor.reporting.parts import wording

_CONTROLS = {
    "control.other_bases": "Outcomes on other bases",
    "control.all_bases": "Outcomes on all bases",
    "control.chance": "Blind choice",
}
_KINDS = {
    "reward": "a reward",
    "likelihood": "the base's likelihood",
    "reference": "the reference's likelihood",
    "other": "neither",
    "control": "a control",
}
SHADES = 6  # of page.css: 0 is the strongest
MINUS = 3  # of compare.css: 3 is the strongest


def label(key: str) -> str:
    """A criterion or a control in plain words."""
    return _CONTROLS.get(key) or wording.label(key)


def kind_words(kind: str) -> str:
    """What a criterion reads, in plain words."""
    return _KINDS.get(kind, kind)


def shade(value: float | None) -> str:
    """The class of a cell that holds a coefficient: strong blue at 1, strong orange at -1."""
    if value is None:
        return ""
    if value < 0:
        steps = round(MINUS * min(1.0, -value))
        return f"minus-{steps}" if steps else f"shade-{SHADES}"
    return f"shade-{round(SHADES * (1.0 - min(1.0, value)))}"


def sorted_trials(criteria: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Criteria by falling rho, then the controls; those without a rho last in their group."""

    def place(item: tuple[str, Any]) -> tuple[bool, bool, float]:
        rho = item[1]["spearman"]["value"]
        return item[1]["kind"] == "control", rho is None, -(rho or 0.0)

    return sorted(criteria.items(), key=place)
