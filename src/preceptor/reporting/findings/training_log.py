"""The log of a training run, `metrics.jsonl`, read into columns for charts and tables."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preceptor.core.errors import RunFolderError

LOSSES = ("next_token", "divergence", "attention", "hidden")
COLUMNS = (
    *("loss", *LOSSES, "grad_norm", *(f"grad_norm.{name}" for name in LOSSES)),
    *("learning_rate", "tokens_per_second", "peak_memory_mb"),
)
POINTS = 2000  # logged steps that are drawn of one run; more are thinned

Values = list[float | None]


@dataclass(frozen=True)
class Log:
    """One run's logged steps, in order.

    Attributes:
        steps: numbers of the logged steps, each once.
        epochs: passes over the data at each step, None where it was not logged.
        columns: name of `COLUMNS` -> values, None where absent or not finite; a column without
            any value is left out.
        not_finite: column -> steps at which its value was logged as NaN, infinite or null, of
            columns that have values elsewhere and of `loss`.
    """

    steps: list[int]
    epochs: Values
    columns: dict[str, Values]
    not_finite: dict[str, list[int]]

    @property
    def every(self) -> int:
        """Of how many logged steps one is drawn."""
        return max(1, math.ceil(len(self.steps) / POINTS))

    def drawn(self) -> dict[str, Any]:
        """What the charts need: the steps that are drawn, with their values to six digits."""
        kept = thinned(len(self.steps), self.every)
        columns = {"epoch": self.epochs, **self.columns}
        picked = {name: [_short(values[i]) for i in kept] for name, values in columns.items()}
        return {"step": [self.steps[i] for i in kept], **picked}

    def known(self, column: str) -> list[tuple[int, float]]:
        """(step, value) wherever `column` has a value."""
        values = self.columns.get(column, [])
        return [(s, v) for s, v in zip(self.steps, values, strict=False) if v is not None]


def thinned(n: int, every: int) -> list[int]:
    """0, every, 2 every, ... and always n - 1."""
    return sorted({*range(0, n, every), *([n - 1] if n else [])})


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def read_log(path: Path) -> Log | None:
    """The log in `path`, or None where there is no such file.

    Of a step that was logged again after a resume the later line counts. A last line that a kill
    cut off is left out.

    Raises:
        RunFolderError: a line that is no logged step, or a value that is no number.
    """
    if not path.exists():
        return None
    rows = _rows(path)
    steps = sorted(rows)
    columns, not_finite = {}, {}
    for name in ("epoch", *COLUMNS):
        values = [_number(rows[step].get(name), path, name, step) for step in steps]
        bad = [s for s, v in zip(steps, values, strict=True) if v is None and name in rows[s]]
        has_values = any(value is not None for value in values)
        if bad and (has_values or name == "loss"):
            not_finite[name] = bad
        if has_values or name == "epoch":
            columns[name] = values
    return Log(steps, columns.pop("epoch"), columns, not_finite)


def _rows(path: Path) -> dict[int, dict[str, Any]]:
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = text.split("\n")  # a finished log ends in a newline: its last piece is empty
    rows: dict[int, dict[str, Any]] = {}
    for place, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            rows[int(row["step"])] = row
        except (ValueError, KeyError, TypeError) as error:
            if place == len(lines):
                break
            raise RunFolderError(
                "a line of the training log is no logged step",
                where=f"{path}, line {place}",
                found=line[:80],
                next_step="restore the file, or run the training again",
            ) from error
    return rows


def _number(value: Any, path: Path, name: str, step: int) -> float | None:
    """A finite number, or None for null, NaN and infinity."""
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if math.isfinite(value) else None
    raise RunFolderError(
        "a value of the training log is no number",
        where=f"{path}, {name} at step {step}",
        found=repr(value)[:80],
        next_step="restore the file, or run the training again",
    )
