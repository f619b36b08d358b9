"""Two training runs beside each other: what the students are worth, and their losses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from preceptor.core import artifacts
from preceptor.reporting.findings.quality import Interval, Quality, read_quality, words_of
from preceptor.reporting.findings.training_log import LOSSES, Log, read_log
from preceptor.reporting.pages.two_runs.pairs import (
    Change,
    Compared,
    Paired,
    Panel,
    Section,
    Side,
    ends_chart,
    overlap,
    reading,
)
from preceptor.reporting.parts.tables import table

_COLUMNS = ("model", "A_score...", "B_score...", "intervals", "B_less_A...", "reading")
_TITLES = {
    "loss": "Weighted sum of the losses",
    "next_token": "Next-token loss",
    "divergence": "Prediction loss",
    "attention": "Attention loss",
    "hidden": "Hidden-state loss",
}
MAIN = ("main", "")  # before a group: the change from the main model of A to that of B


def compare(first: Side, second: Side, paired: Paired) -> Compared:
    """The page of two finished trainings.

    `paired.changes` are differences of scores, by model and group, and by `MAIN` and group.
    """
    one, other = _quality(first), _quality(second)
    panels = tuple(_panels(one, other, paired)) if one and other else ()
    logs = (read_log(first.folder / artifacts.METRICS), read_log(second.folder / artifacts.METRICS))
    losses = tuple(_losses(logs[0], logs[1])) if logs[0] and logs[1] else ()
    note = (
        "Scores with the intervals of their own run. B less A is paired where it has an interval: "
        "the same instructions, resampled together; the seeds stay as they are."
    )
    sections = (
        Section("quality", "Quality in both runs", note, panels, "group"),
        Section(
            "losses",
            "Losses of both runs",
            "As logged. Losses of runs with other losses, weights or data are not on one scale.",
            losses,
            "loss",
        ),
    )
    names = tuple(row.model for own in (one, other) if own for row in own.rows)
    why = [f"There is no joint statement: {paired.why}."] if paired.why else []
    if not panels:
        why = ["No quality was measured in both runs, for the same groups of instructions."]
    return Compared(
        tuple(_verdict(one, other, paired, panels, losses)),
        tuple(section for section in sections if section.panels),
        names,
        tuple(why),
    )


def _quality(side: Side) -> Quality | None:
    path = side.folder / artifacts.QUALITY
    raw = artifacts.read_json(path)
    return None if raw is None else read_quality(raw, str(path))


def _panels(one: Quality, other: Quality, paired: Paired) -> Iterator[Panel]:
    """A panel for each group of instructions that both have."""
    cells = [{row.model: row.scores for row in own.rows} for own in (one, other)]
    for group in (group for group in one.groups if group in other.groups):
        rows = []
        for model in dict.fromkeys([*cells[0], *cells[1]]):
            own = [held.get(model, {}).get(group) for held in cells]
            rows.append(_row(model, own[0], own[1], paired.changes.get((model, group))))
        if one.main != other.main:
            mains = [held[q.main][group] for held, q in zip(cells, (one, other), strict=True)]
            label = f"{one.main} (A), {other.main} (B)"
            rows.append(_row(label, mains[0], mains[1], paired.changes.get((*MAIN, group))))
        yield Panel(
            group, table(f"Quality: {group}", _COLUMNS, rows), ends_chart(one.measure, rows)
        )


def _row(
    model: str, one: Interval | None, other: Interval | None, change: Change | None
) -> tuple[Any, ...]:
    left = (one.value, one.low, one.high) if one else (None,) * 3
    right = (other.value, other.low, other.high) if other else (None,) * 3
    plain = other.value - one.value if one and other else None
    near = overlap(*left[1:], *right[1:])
    return (model, *left, *right, near, *(change or (plain, None, None)), reading(change))


def _losses(first: Log, second: Log) -> Iterator[Panel]:
    """A panel for each loss that both logged: both lines over the steps, and the last values."""
    for name in ("loss", *LOSSES):
        known = [log.known(name) for log in (first, second)]
        if not all(known):
            continue
        ends = [(letter, values[-1]) for letter, values in zip("AB", known, strict=True)]
        lines = []
        for letter, log in zip("AB", (first, second), strict=True):
            drawn = log.drawn()
            points = zip(drawn["step"], drawn[name], strict=True)
            lines.append({"run": letter, "points": [p for p in points if p[1] is not None]})
        yield Panel(
            _TITLES[name],
            table(
                f"{_TITLES[name]}: last logged",
                ("run", "step", "value"),
                [(letter, step, value) for letter, (step, value) in ends],
            ),
            {"kind": "lines", "label": _TITLES[name], "lines": lines},
        )


def _verdict(
    one: Quality | None,
    other: Quality | None,
    paired: Paired,
    panels: tuple[Panel, ...],
    losses: tuple[Panel, ...],
) -> Iterator[str]:
    if one is None or other is None or not panels:
        for panel in losses[:1]:
            values = [row[2] for row in panel.table.rows]
            yield (
                f"{panel.label}: A ended at {values[0]:.3g}, B at {values[1]:.3g}; without quality "
                "measured in both runs, nothing is said of what the students can do."
            )
        if not losses:
            yield "The runs have neither quality nor losses in common."
        return
    for group in (group for group in one.groups if group in other.groups):
        scores = [next(r for r in q.rows if r.model == q.main).scores[group] for q in (one, other)]
        words = [
            f"{q.main} ({letter}) {words_of(score, q.decimals)}"
            for letter, q, score in zip("AB", (one, other), scores, strict=True)
        ]
        key = (one.main, group) if one.main == other.main else (*MAIN, group)
        told = reading(paired.changes.get(key))
        end = {
            "B better": "B is better beyond chance",
            "B worse": "B is worse beyond chance",
            "not separable": "the instructions cannot tell them apart",
            None: "each with the interval of its own run",
        }[told]
        yield f"On {group}: {words[0]}, {words[1]}; {end}."
    yield from paired.words
