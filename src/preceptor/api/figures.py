"""Figures for notebooks and papers, in the look of the HTML pages: one file draws all intervals.

matplotlib comes with the extra `plot`, and is imported when something is drawn. Colours are those
of the pages on paper; none of them carries what a label or a place does not say too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal

from preceptor.core.errors import PreceptorError
from preceptor.reporting.parts.page import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes  # here alone, for all who draw

INK, MUTED, LINE, QUIET, ACCENT = "#17202a", "#566270", "#dfe3e8", "#868f99", "#0067a3"
SERIES = ("#0072b2", "#c44f00", "#00523f", "#a8307f", "#5e4600")  # of Okabe and Ito's hues
WIDTH, DPI = 7.2, 110  # inches: a column of a notebook, or of a page
LONGEST = 34  # characters of a name
Tone = Literal["first", "near", "rest"]
_TONES: dict[str, tuple[str, float]] = {
    "first": (ACCENT, 2.6),
    "near": (INK, 2.0),
    "rest": (QUIET, 2.0),
}


@dataclass(frozen=True)
class Interval:
    """One line of a figure: a name, a value and the ends of its interval.

    `tone` says whether it is the first, not separable from it (`near`), or another.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    tone: Tone = "rest"


def new_axes(ax: Axes | None, height: float) -> Axes:
    """`ax`, or the axes of a new figure of `height` inches in the look of this file.

    Raises:
        PreceptorError: matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise PreceptorError(
            "drawing needs a package that is not installed",
            found=f"no {error.name}",
            next_step="pip install 'preceptor[plot]'",
        ) from error
    if ax is not None:
        return ax
    # said of this figure alone: a context of settings would switch off a notebook's display
    _, made = plt.subplots(
        figsize=(WIDTH, height), dpi=DPI, facecolor="white", layout="constrained"
    )
    made.set_facecolor("white")
    made.spines[["top", "right"]].set_visible(False)
    made.spines[["left", "bottom"]].set_color(LINE)
    made.tick_params(axis="x", color=LINE, labelcolor=MUTED, labelsize=9.0)
    made.tick_params(axis="y", which="both", color=LINE, labelcolor=INK, labelsize=9.5)
    return made


def named(text: str, limit: int = LONGEST) -> str:
    """A name of the data as matplotlib may draw it: one line, not too long, no mathematics."""
    line = " ".join(visible(text).split())
    short = line if len(line) <= limit else line[: limit - 1] + "…"
    return short.replace("$", r"\$")


def draw_intervals(
    ax: Axes | None,
    rows: Sequence[Interval],
    *,
    title: str,
    label: str,
    rule: tuple[float, str] | None = None,
) -> Axes:
    """Dots with their intervals, a line a name, the first one on top.

    Args:
        label: of the scale.
        rule: a value to draw across, and what it is.
    """
    ax = new_axes(ax, 1.15 + 0.3 * max(len(rows), 2))
    for place, row in enumerate(rows):
        colour, width = _TONES[row.tone]
        if row.value is None:
            continue
        if row.low is not None and row.high is not None:
            ax.plot(
                [row.low, row.high], [place, place], color=colour, linewidth=width,
                solid_capstyle="round",
            )  # fmt: skip
        ax.plot(
            [row.value], [place], marker="o", markersize=6.5, color=colour,
            markeredgecolor="white", markeredgewidth=0.8, linestyle="none",
        )  # fmt: skip
    if rule is not None:
        ax.axvline(rule[0], color=MUTED, linewidth=1.0, linestyle=(0, (3, 3)), zorder=0)
        ax.annotate(
            rule[1], (rule[0], 1.0), xycoords=("data", "axes fraction"), xytext=(4, -1),
            textcoords="offset points", color=MUTED, fontsize=8.5, va="bottom",
        )  # fmt: skip
    ax.set_yticks(range(len(rows)), [named(row.name) for row in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    for tick, row in zip(ax.get_yticklabels(), rows, strict=True):
        tick.set_color({"first": ACCENT, "near": INK, "rest": MUTED}[row.tone])
        tick.set_fontweight("bold" if row.tone == "first" else "normal")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x", color=LINE, linewidth=0.8)
    return told(ax, title, label)


def told(ax: Axes, title: str, x_label: str, y_label: str = "") -> Axes:
    """Title and labels, in the look of this file also on axes that it did not make."""
    lines = fill(named(title, 120), 60)
    ax.set_title(lines, loc="left", fontsize=11.5, fontweight="bold", color=INK, pad=12)
    ax.set_xlabel("\n".join(_lines(named(x_label, 160))), fontsize=9.0, color=MUTED)
    ax.set_ylabel(named(y_label, 60), fontsize=9.0, color=MUTED)
    ax.set_axisbelow(True)
    return ax


def _lines(text: str, width: int = 78) -> list[str]:
    """A text of parts between middle dots, broken between parts where it is too long."""
    lines = [""]
    for part in text.split(" · "):
        longer = f"{lines[-1]} · {part}" if lines[-1] else part
        lines = [*lines[:-1], longer] if len(longer) <= width else [*lines, part]
    return [line for line in lines if line]


def over_steps(ax: Axes, log: bool) -> None:
    """Whole numbers on the scale of the steps; plain ones on a logarithmic scale of values."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if log:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())


def toned(
    rows: Sequence[tuple[str, Any]], best: str | None, quiet: Collection[str] | None = None
) -> list[Interval]:
    """Intervals of (name, `{value, low, high}`) pairs.

    Args:
        best: is drawn as the first.
        quiet: names that stand back; all others where not given.
    """

    def tone(name: str) -> Tone:
        back = quiet is None or name in quiet
        return "first" if name == best else "rest" if back else "near"

    return [Interval(n, cell["value"], cell["low"], cell["high"], tone(n)) for n, cell in rows]
