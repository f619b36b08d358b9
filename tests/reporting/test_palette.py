"""The colours of the pages, computed from their style sheets: legible, and told apart by all eyes.

Contrast is that of WCAG 2.2 (relative luminance). Dichromacies are simulated with the matrices of
G. Machado, M. Oliveira, L. Fernandes, A Physiologically-based Model for Simulation of Color Vision
Deficiency, IEEE TVCG 15(6), 2009, severity 1.0, in linear RGB; distances are CIE 1976.
"""

from __future__ import annotations

import math
import re
from itertools import combinations
from pathlib import Path

import pytest

from preceptor.reporting.parts import page

REPORTING = Path(page.__file__).parents[1]
SHEETS = sorted(str(file.relative_to(REPORTING)) for file in REPORTING.rglob("*.css"))
DECORATION = {"--line"}  # rules between rows, grids of charts: nothing is read from them
THEMES = ("light", "dark")
COLOUR = r"#[0-9a-f]{6}"
TEXT = {  # ground -> what is written on it
    "--paper": ("--ink", "--muted", "--accent", "--warn", *(f"--series-{n}" for n in range(1, 6))),
    "--raised": ("--ink", "--muted", "--accent"),
    "--accent-soft": ("--ink", "--muted", "--accent"),
    "--warn-soft": ("--ink", "--warn"),
    "--accent": ("--paper",),
    **{f"--shade-{n}": ("--on-strong" if n < 2 else "--on-weak",) for n in range(7)},
    **{f"--heat-{n}": ("--ink",) for n in range(1, 4)},
    **{f"--minus-{n}": ("--on-strong" if n == 3 else "--on-weak",) for n in range(1, 4)},
}
MARKS = {
    "--paper": ("--accent", "--muted", "--quiet", "--edge", "--warn-line", "--ink", "--heat-line"),
    "--accent-soft": ("--accent",),
}
EYES = {
    "common": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}


def variables(theme: str) -> dict[str, str]:
    """Name -> colour, of all style sheets together."""
    found: dict[str, str] = {}
    for sheet in SHEETS:
        text = page.asset(sheet)
        for name, light, dark in re.findall(
            rf"(--[\w-]+): light-dark\(({COLOUR}), ({COLOUR})\)", text
        ):
            found[name] = light if theme == "light" else dark
    return found


def aliases() -> dict[str, str]:
    """Name -> the variable that it stands for."""
    pattern = r"(--[\w-]+): var\((--[\w-]+)\);"
    return {name: own for sheet in SHEETS for name, own in re.findall(pattern, page.asset(sheet))}


def resolved(value: str, theme: str) -> str:
    """A colour as it is written in a rule."""
    both = re.fullmatch(rf"light-dark\(({COLOUR}), ({COLOUR})\)", value)
    if both:
        return both[1] if theme == "light" else both[2]
    named = re.fullmatch(r"var\((--[\w-]+)\)", value)
    return variables(theme)[aliases().get(named[1], named[1])] if named else value


def rules() -> list[tuple[str, str, str]]:
    """(selector, ground, ink) of every rule of the style sheets that sets both."""
    value = rf"var\(--[\w-]+\)|light-dark\({COLOUR}, {COLOUR}\)|{COLOUR}"
    found = []
    for sheet in SHEETS:
        text = re.sub(r"/\*.*?\*/", "", page.asset(sheet), flags=re.DOTALL)
        for selector, body in re.findall(r"([^{}]+)\{([^{}]*)\}", text):
            ground = re.search(rf"background: ({value});", body)
            ink = re.search(rf"(?<![\w-])color: ({value});", body)
            if ground and ink:
                found.append((selector.strip(), ground[1], ink[1]))
    return found


def linear(colour: str) -> tuple[float, ...]:
    """Linear red, green and blue in [0, 1]."""
    parts = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return tuple(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)


def contrast(first: str, second: str) -> float:
    """From 1 (the same) to 21 (black on white)."""
    levels = [
        0.2126 * red + 0.7152 * green + 0.0722 * blue
        for red, green, blue in (linear(first), linear(second))
    ]
    return (max(levels) + 0.05) / (min(levels) + 0.05)


def weak(pairs: dict[str, tuple[str, ...]], theme: str, least: float) -> dict[str, float]:
    """The pairs "ink on ground" whose contrast is below the least."""
    known = variables(theme)
    found = {
        f"{ink} on {ground}": contrast(known[ink], known[ground])
        for ground, inks in pairs.items()
        for ink in inks
    }
    return {pair: round(own, 2) for pair, own in found.items() if own < least}


def lab(colour: str, eyes: str) -> tuple[float, float, float]:
    """CIE L*a*b* (D65) of a colour as these eyes see it."""
    rgb = linear(colour)
    red, green, blue = (
        min(1.0, max(0.0, sum(a * b for a, b in zip(row, rgb, strict=True)))) for row in EYES[eyes]
    )
    x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.95047
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.08883
    fx, fy, fz = (
        t ** (1 / 3) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116 for t in (x, y, z)
    )
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


@pytest.mark.parametrize("theme", THEMES)
def test_text_has_contrast(theme: str) -> None:
    assert weak(TEXT, theme, 4.5) == {}
    found = {
        selector: contrast(resolved(ink, theme), resolved(ground, theme))
        for selector, ground, ink in rules()
    }
    assert len(found) > 15
    assert {selector: round(own, 2) for selector, own in found.items() if own < 4.5} == {}


@pytest.mark.parametrize("theme", THEMES)
def test_marks_and_controls_have_contrast(theme: str) -> None:
    assert weak(MARKS, theme, 3) == {}


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("eyes", EYES)
def test_series_are_told_apart(theme: str, eyes: str) -> None:
    known = variables(theme)
    series = [known[f"--series-{n}"] for n in range(1, 6)]
    seen = [lab(colour, eyes) for colour in series]
    nearest = min(
        (math.dist(seen[a], seen[b]), f"--series-{a + 1}, --series-{b + 1}")
        for a, b in combinations(range(5), 2)
    )
    assert nearest[0] > 15, nearest


@pytest.mark.parametrize("theme", THEMES)
def test_shades_go_one_way(theme: str) -> None:
    """Squares are read by lightness alone: each shade is farther from the ground than the next."""
    known = variables(theme)
    steps = [contrast(known[f"--shade-{n}"], known["--paper"]) for n in range(7)]
    assert steps == sorted(steps, reverse=True)


def test_known_contrasts() -> None:
    """Worked out by hand: black on white, and the grey that WCAG's tools give 4.54."""
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)
    assert lab("#ffffff", "common") == pytest.approx((100, 0, 0), abs=0.02)


def test_every_colour_is_a_variable_that_was_looked_at() -> None:
    """Or stands in a rule that sets ground and ink."""
    seen = {name for grounds in (TEXT, MARKS) for item in grounds.items() for name in
            (item[0], *item[1])}  # fmt: skip
    seen |= {name for own in rules() for name in re.findall(r"--[\w-]+", " ".join(own[1:]))}
    assert set(variables("light")) - seen == DECORATION
    in_rules = " ".join(ink for _, _, ink in rules())
    for sheet in SHEETS:
        text = re.sub(rf"--[\w-]+: light-dark\({COLOUR}, {COLOUR}\);", "", page.asset(sheet))
        others = re.findall(r"#[0-9a-fA-F]{3,8}\b(?![^{}]*\{)|rgba?\(|hsl", text)
        assert [colour for colour in others if colour not in in_rules] == [], sheet
