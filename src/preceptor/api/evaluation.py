"""What `preceptor.evaluate` gives back: scores of models on benchmarks, and how they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from preceptor.api.figures import draw_intervals, toned
from preceptor.api.result import Result, frame
from preceptor.core import artifacts
from preceptor.core.errors import SettingsError, nearest
from preceptor.reporting.parts.tables import table

if TYPE_CHECKING:
    import pandas as pd

    from preceptor.api.figures import Axes


@dataclass(frozen=True, repr=False, eq=False)
class Evaluation(Result):
    """Models examined on benchmarks.

    Attributes:
        folder: of the run, as it was given.
        raw: the content of `evaluation.json`.
    """

    file: ClassVar[str] = artifacts.EVALUATION

    @property
    def models(self) -> list[str]:
        """Who was examined."""
        return list(self.raw["models"])

    @property
    def benchmarks(self) -> list[str]:
        """Names of the benchmarks."""
        return [own["name"] for own in self.raw["benchmarks"]]

    @property
    def scores(self) -> pd.DataFrame:
        """A row a benchmark, measure and model, best first, with intervals."""
        return self.to_pandas("scores")

    @property
    def differences(self) -> pd.DataFrame:
        """A row a pair of models and a measure, on the same items, with interval and p-value; no
        row where one model was examined."""
        known = self._exports()
        columns = ("benchmark", "measure", "direction", "model", "against", "difference...")
        empty = table("", (*columns, "p_value", "test", "better", "worse"), ())
        return frame(known.get("differences", empty))

    @property
    def gate(self) -> pd.DataFrame:
        """A row a condition of `fail_if` and a model: `condition`, `value`, whether it `fails`."""
        return frame(self._exports().get("gate", table("", ("condition", "value", "fails"), ())))

    @property
    def passed(self) -> bool:
        """Whether no condition of `fail_if` holds."""
        return not any(condition["holds"] for condition in self.raw["gate"])

    def plot(
        self,
        benchmark: str | None = None,
        *,
        measure: str | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw the scores of all models on a benchmark with their intervals (extra `plot`).

        Args:
            benchmark: its name; the first one where not given.
            measure: its name; the one that the benchmark is known by where not given.
            ax: where to draw; a new figure where not given.

        Raises:
            SettingsError: no such benchmark or measure.
        """
        own = self._one("benchmark", self.raw["benchmarks"], benchmark)
        facts = self._one("measure", own["measures"], measure)
        cells = [(score["model"], score["measures"].get(facts["name"])) for score in own["scores"]]
        known = [(model, cell) for model, cell in cells if cell and cell["value"] is not None]
        sign = -1.0 if facts["direction"] == "higher" else 1.0
        known.sort(key=lambda row: sign * row[1]["value"])
        return draw_intervals(
            ax,
            toned(known, known[0][0] if known else None),
            title=f"{own['name']}: {facts['title']}",
            label=f"{facts['title']} · {facts['direction']} is better · "
            f"{self.raw['confidence']:.0%} intervals, {own['n']:,} items",
        )

    def _one(self, kind: str, known: Sequence[Any], name: str | None) -> Any:
        if name is None:
            return known[0]
        for own in known:
            if own["name"] == name:
                return own
        raise SettingsError(
            f"the evaluation has no {kind} {name!r}",
            where=str(self.folder),
            found=nearest(name, [own["name"] for own in known]),
            next_step="`scores` has them all by name",
        )

    def _facts(self) -> dict[str, Any]:
        return {"folder": str(self.folder), "models": self.models, "passed": self.passed}
