"""The figures that are no rows of intervals: reward against loss, order by β, losses by step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from preceptor.api.figures import (
    ACCENT,
    INK,
    LINE,
    MUTED,
    QUIET,
    SERIES,
    named,
    new_axes,
    over_steps,
    told,
)
from preceptor.core.errors import SettingsError

if TYPE_CHECKING:
    from preceptor.api.figures import Axes

Line = tuple[str, Sequence[float], Sequence[float]]  # name, xs, ys


def draw_scatter(ax: Axes | None, ranking: Mapping[str, Any]) -> Axes:
    """Mean reward against mean loss, a dot a teacher; with CAR, lines of equal CAR.

    CAR is r / (1 + β L), so teachers of equal CAR lie on a straight line; the solid one goes
    through the best.
    """
    own = ranking["criteria"][ranking["recommended_by"]]
    reward = own["reward"] or next(iter(ranking["rewards"]))
    points = {
        name: (facts["loss"], facts["rewards"][reward])
        for name, facts in ranking["teachers"].items()
        if facts["loss"] is not None and reward in facts["rewards"]
    }
    if not points:
        raise SettingsError(
            "there are no losses to draw",
            where="criteria",
            found=", ".join(ranking["criteria"]),
            next_step="add `perplexity` or `car` to `criteria`, and select again",
        )
    ax = new_axes(ax, 4.6)
    best = _best_by_car(ranking, reward, points)
    xs, ys = (np.array(values) for values in zip(*points.values(), strict=True))
    ax.set_xlim(*_padded(xs))
    ax.set_ylim(*_padded(ys))
    if best is not None:
        _draw_equal_car(ax, points, best, float(ranking["beta"]))
    first = best or ranking["recommended"]
    for name, (loss, value) in points.items():
        ahead = name == first
        ax.plot(
            [loss], [value], marker="o", linestyle="none", markersize=8.5 if ahead else 6.0,
            color=ACCENT if ahead else MUTED, markeredgecolor="white", zorder=3,
        )  # fmt: skip
    ax.grid(color=LINE, linewidth=0.8)
    told(
        ax,
        f"Reward and loss of the teachers for {ranking['base']}",
        "loss of the base, nats per token · lower is more compatible",
        f"mean reward ({reward})",
    )
    order = sorted(points, key=lambda name: name != first)
    _label_points(ax, {name: points[name] for name in order}, first)
    return ax


def _best_by_car(
    ranking: Mapping[str, Any], reward: str, points: Mapping[str, tuple[float, float]]
) -> str | None:
    """The first by the run's CAR of a reward; None where it was not computed."""
    for key, own in ranking["criteria"].items():
        if key.partition(".")[0] == "car" and own["reward"] == reward:
            return next(
                (row["teacher"] for row in own["teachers"] if row["teacher"] in points), None
            )
    return None


def _draw_equal_car(
    ax: Axes, points: Mapping[str, tuple[float, float]], best: str, beta: float
) -> None:
    cars = [value / (1 + beta * loss) for loss, value in points.values()]
    loss, value = points[best]
    span = np.array(ax.get_xlim())
    step = _round_step(max(cars) - min(cars))
    low, high = (
        (math.floor(min(cars) / step) - 2, math.ceil(max(cars) / step) + 2) if step else (0, 0)
    )
    for level in np.arange(low, high) * step:
        ax.plot(span, level * (1 + beta * span), color=QUIET, linewidth=0.8, alpha=0.6,
                linestyle=(0, (3, 4)), zorder=1)  # fmt: skip
    ax.plot(
        span, value / (1 + beta * loss) * (1 + beta * span), color=ACCENT, linewidth=1.4,
        alpha=0.8, zorder=2,
    )  # fmt: skip
    ax.annotate(
        f"lines of equal CAR, β = {beta:g}", (0.99, 0.02), xycoords="axes fraction", ha="right",
        va="bottom", color=MUTED, fontsize=8.5,
    )  # fmt: skip


def _round_step(width: float) -> float:
    """About an eighth of a width, as 1, 2 or 5 of its decade; 0 of no width."""
    if width <= 0:
        return 0.0
    decade = 10.0 ** math.floor(math.log10(width / 8))
    return decade * min((1, 2, 5, 10), key=lambda factor: abs(factor * decade - width / 8))


def _padded(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = (high - low or abs(high) or 1.0) * 0.14
    return low - margin, high + margin


_SPOTS = ((8, 0, "left"), (-8, 0, "right"), (0, 10, "center"), (0, -10, "center"),
          (7, 9, "left"), (7, -9, "left"), (-7, 9, "right"), (-7, -9, "right"))  # fmt: skip


def _label_points(ax: Axes, points: Mapping[str, tuple[float, float]], first: str) -> None:
    """Names beside their dots, where no other name or dot is in the way; the rest go bare."""
    ax.figure.canvas.figure.draw_without_rendering()  # so that places are known
    dots = [ax.transData.transform(point) for point in points.values()]
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in dots]
    frame = ax.get_window_extent()
    for name, point in points.items():
        for dx, dy, side in _SPOTS:
            text = ax.annotate(
                named(name, 26), point, xytext=(dx, dy), textcoords="offset points", ha=side,
                va="center", fontsize=9.0, color=ACCENT if name == first else INK,
                fontweight="bold" if name == first else "normal", zorder=4,
            )  # fmt: skip
            box = text.get_window_extent()
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0
            clash = any(
                box.x0 < right and left < box.x1 and box.y0 < top and bottom < box.y1
                for left, bottom, right, top in taken
            )
            if inside and box.y1 <= frame.y1 and not clash:
                taken.append((box.x0, box.y0, box.x1, box.y1))
                break
            text.remove()


def draw_beta(ax: Axes | None, ranking: Mapping[str, Any]) -> Axes:
    """The order of the teachers by CAR at each β of the grid; the first five are in colour."""
    known = ranking["beta_sensitivity"]
    if not known:
        raise SettingsError(
            "there is no order by β to draw",
            where="criteria",
            found=", ".join(ranking["criteria"]),
            next_step="β belongs to CAR: add `car` to `criteria`, and select again",
        )
    reward = next(iter(known))
    grid = known[reward]
    ranks = {
        row["teacher"]: [_rank_at(step, row["teacher"]) for step in grid]
        for row in grid[0]["teachers"]
    }
    near = min(range(len(grid)), key=lambda place: abs(grid[place]["beta"] - ranking["beta"]))
    top = sorted(ranks, key=lambda name: (ranks[name][near], name))[: len(SERIES)]
    ax = new_axes(ax, 1.3 + 0.3 * max(len(ranks), 4))
    places = range(len(grid))
    ax.axvspan(near - 0.16, near + 0.16, color=LINE, zorder=0)
    for name in sorted(ranks, key=lambda name: name in top):
        ahead = name in top
        colour = SERIES[top.index(name)] if ahead else QUIET
        ax.plot(
            places, ranks[name], color=colour, linewidth=2.4 if ahead else 1.1,
            marker="o", markersize=5.5 if ahead else 3.0, zorder=3 if ahead else 2,
        )  # fmt: skip
        ax.annotate(
            named(name), (len(grid) - 1, ranks[name][-1]), xytext=(9, 0),
            textcoords="offset points", va="center", color=colour if ahead else MUTED,
            fontsize=9.0, annotation_clip=False,
        )  # fmt: skip
    ax.set_xticks(list(places), [f"{step['beta']:g}" for step in grid])
    ax.set_yticks(range(1, len(ranks) + 1))
    ax.set_ylim(len(ranks) + 0.6, 0.4)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    ax.tick_params(length=0)
    steps = f"β (steps of the grid; this run's is {ranking['beta']:g})"
    return told(ax, f"Rank by CAR ({reward}) at each β", steps)


def _rank_at(step: Mapping[str, Any], teacher: str) -> float:
    return next((row["rank"] for row in step["teachers"] if row["teacher"] == teacher), math.nan)


def draw_lines(
    ax: Axes | None, lines: Sequence[Line], *, title: str, x_label: str, y_label: str
) -> Axes:
    """Lines over steps, each named at its end; a logarithmic scale where all values allow it."""
    ax = new_axes(ax, 3.6)
    values = [y for _, _, ys in lines for y in ys if not math.isnan(y)]
    over_steps(ax, log=bool(values) and min(values) > 0 and max(values) > 4 * min(values))
    for place, (name, xs, ys) in enumerate(lines):
        colour = SERIES[place % len(SERIES)]
        ax.plot(xs, ys, color=colour, linewidth=2.0, label=named(name),
                linestyle=("-", "--", ":")[place // len(SERIES) % 3])  # fmt: skip
    if len(lines) > 1:
        ax.legend(frameon=False, fontsize=9.0, labelcolor="linecolor")
    ax.grid(axis="y", color=LINE, linewidth=0.8)
    return told(ax, title, x_label, y_label)
