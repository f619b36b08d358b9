"""What `preceptor.select` gives back: the teachers in their order, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from preceptor.api import charts
from preceptor.api.figures import Interval, draw_intervals
from preceptor.api.result import Result, frame
from preceptor.core import artifacts
from preceptor.core.errors import SettingsError, nearest
from preceptor.reporting.parts import wording
from preceptor.reporting.parts.tables import Table

if TYPE_CHECKING:
    import pandas as pd

    from preceptor.api.figures import Axes

_SHOWN = (
    *("rank", "rank_low", "rank_high", "teacher", "score", "score_low", "score_high"),
    *("first_in", "tied_with_first"),
)


@dataclass(frozen=True, repr=False, eq=False)
class Selection(Result):
    """Teachers ranked for a base model.

    Attributes:
        folder: of the run, as it was given.
        raw: the content of `ranking.json`.
    """

    file: ClassVar[str] = artifacts.RANKING

    @property
    def base(self) -> str:
        """Short name of the model that is to be trained."""
        return self.raw["base"]

    @property
    def recommended(self) -> str:
        """The teacher that the deciding criterion puts first."""
        return self.raw["recommended"]

    @property
    def tied(self) -> list[str]:
        """The teachers that the deciding criterion cannot separate from the recommended one."""
        return list(self._criterion(None)["tied_with_first"])

    @property
    def criteria(self) -> list[str]:
        """Names of the criteria that were computed; the deciding one first."""
        first = self.raw["recommended_by"]
        return [first, *(name for name in self.raw["criteria"] if name != first)]

    def ranking(self, criterion: str | None = None) -> list[dict[str, Any]]:
        """A row a teacher, best first: `teacher`, `score` with `low` and `high`, `rank` with
        `rank_low` and `rank_high`, and `p_best`, the share of resamples in which it came first.

        Args:
            criterion: one of `criteria`; the deciding one where not given.

        Raises:
            SettingsError: a criterion that was not computed.
        """
        return [dict(row) for row in self._criterion(criterion)["teachers"]]

    def to_pandas(self, table: str | None = None, *, criterion: str | None = None) -> pd.DataFrame:
        """One of `tables`; where none is named, the leaderboard of a criterion.

        Args:
            criterion: one of `criteria`; the deciding one where not given.

        Raises:
            SettingsError: no such table, or a criterion that was not computed.
        """
        own = self._export(table)
        if table is not None and criterion is None:
            return frame(own)
        if "criterion" not in own.columns:
            raise SettingsError(
                f"the table {table!r} is not by criterion",
                where=str(self.folder),
                found=", ".join(own.columns),
                next_step="leave `criterion` out, or name the leaderboard",
            )
        self._criterion(criterion)
        return frame(own.only(own.columns, criterion=criterion or self.criteria[0]))

    @property
    def signals(self) -> pd.DataFrame:
        """A row an answer: its tokens, losses in nats, and rewards (`signals.parquet`)."""
        return self._parquet(artifacts.SIGNALS)

    @property
    def answers(self) -> pd.DataFrame:
        """A row an answer, as it was measured (`answers.parquet`)."""
        return self._parquet(artifacts.ANSWERS)

    def plot(
        self,
        kind: Literal["leaderboard", "scatter", "beta"] = "leaderboard",
        *,
        criterion: str | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw the selection (extra `plot`).

        Args:
            kind: `leaderboard`, every teacher's score with its interval; `scatter`, mean reward
                against loss, with the line of equal CAR through the best; `beta`, the order of the
                teachers by CAR at each β of the grid.
            criterion: of the leaderboard; the deciding one where not given.
            ax: where to draw; a new figure where not given.

        Raises:
            SettingsError: no such kind, or nothing to draw (β belongs to CAR, the scatter to
                losses).
        """
        if kind == "leaderboard":
            return self._leaderboard(criterion, ax)
        if kind == "scatter":
            return charts.draw_scatter(ax, self.raw)
        if kind == "beta":
            return charts.draw_beta(ax, self.raw)
        raise SettingsError(
            f"a selection has no plot {kind!r}",
            found=nearest(str(kind), ("leaderboard", "scatter", "beta")),
            next_step="give one of leaderboard, scatter and beta",
        )

    def _leaderboard(self, criterion: str | None, ax: Axes | None) -> Axes:
        name, own = criterion or self.criteria[0], self._criterion(criterion)
        tied = set(own["tied_with_first"])
        rows = [
            Interval(
                row["teacher"],
                row["score"],
                row["low"],
                row["high"],
                "first" if place == 0 else "near" if row["teacher"] in tied else "rest",
            )
            for place, row in enumerate(own["teachers"])
        ]
        label = wording.label(name)
        unit = f", {own['unit']}" if own["unit"] else ""
        return draw_intervals(
            ax,
            rows,
            title=f"Teachers for {self.base} by {label}",
            label=f"{label}{unit} · {own['direction']} is better · "
            f"{self.raw['confidence']:.0%} intervals",
        )

    def _criterion(self, name: str | None) -> dict[str, Any]:
        known, wanted = self.raw["criteria"], str(name or self.raw["recommended_by"])
        if wanted not in known:
            raise SettingsError(
                f"the selection did not compute {wanted!r}",
                where=str(self.folder),
                found=nearest(wanted, known),
                next_step="give one of `criteria`, or select again with it",
            )
        return known[wanted]

    def _main(self) -> Table:
        return self._export("leaderboard").only(_SHOWN, criterion=self.criteria[0])

    def _facts(self) -> dict[str, Any]:
        return {"folder": str(self.folder), "recommended": self.recommended, "tied": self.tied}
