"""What `preceptor.compare_criteria` gives back: which criterion to trust."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from preceptor.api.figures import draw_intervals, toned
from preceptor.api.result import Shown, frame, missing
from preceptor.core import artifacts
from preceptor.core.comparison import COMPARE, COMPARE_PAGE
from preceptor.core.errors import SettingsError, nearest
from preceptor.reporting.exporting import study_tables
from preceptor.reporting.parts.tables import Table

if TYPE_CHECKING:
    import pandas as pd

    from preceptor.api.figures import Axes


@dataclass(frozen=True, repr=False, eq=False)
class Comparison(Shown):
    """Criteria of finished selections against each other, and against known outcomes.

    Attributes:
        raw: the content of `compare.json`.
        folder: where it was written; None where it was not.
    """

    folder: Path | None = None

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The comparison that a folder holds (raises RunFolderError)."""
        raw = artifacts.read_json(folder / COMPARE)
        if raw is None:
            raise missing(folder / COMPARE)
        return cls(raw, folder)

    @property
    def report(self) -> Path:
        """The page of the comparison (raises RunFolderError where it was not written)."""
        path = (self.folder or Path()) / COMPARE_PAGE
        if self.folder is None or not path.exists():
            raise missing(path)
        return path

    @property
    def verdict(self) -> str:
        """The first of the findings."""
        return self.findings[0] if self.findings else ""

    @property
    def findings(self) -> list[str]:
        """What can be said, a sentence each."""
        named = len(self.raw["bases"]) > 1
        return [
            f"{own['base']}: {own['text']}" if named and own["base"] else own["text"]
            for own in self.raw["verdict"]
        ]

    @property
    def agreement(self) -> pd.DataFrame:
        """A row a pair of criteria on a base: rank correlations with intervals."""
        return frame(study_tables.agreement(self.raw))

    @property
    def outcomes(self) -> pd.DataFrame:
        """A row a criterion on a base, controls too: how it orders the teachers as the known
        outcomes do, and the regret of its first; no row without outcomes."""
        return frame(study_tables.trials(self.raw))

    def plot(self, base: str | None = None, *, ax: Axes | None = None) -> Axes:
        """Draw how well each criterion orders the teachers (extra `plot`).

        With outcomes, Spearman's ρ with them, controls in grey; without, ρ with the deciding
        criterion.

        Args:
            base: its name; the mean over bases, or the first base, where not given.
            ax: where to draw; a new figure where not given.

        Raises:
            SettingsError: no such base.
        """
        own, controls = self._base(base), set[str]()
        if own["outcomes"] is None:
            title, rows = f"Agreement with {own['deciding']}: {own['name']}", _agreement(own)
        else:
            title = f"Criteria against outcomes: {own['name']}"
            tried = own["outcomes"]["criteria"]
            rows = [(key, one["spearman"]) for key, one in tried.items()]
            controls = {key for key, one in tried.items() if one["kind"] == "control"}
        rows = [row for row in rows if row[1]["value"] is not None]
        rows.sort(key=lambda row: -row[1]["value"])
        best = next((key for key, _ in rows if key not in controls), None)
        return draw_intervals(
            ax,
            toned(rows, best if own["outcomes"] else None, controls),
            title=title,
            label=f"Spearman's ρ of the ranks · {self.raw['confidence']:.0%} intervals",
            rule=(0.0, "unrelated"),
        )

    def _base(self, name: str | None) -> Mapping[str, Any]:
        known = {own["name"]: own for own in self.raw["bases"]}
        if name is None and self.raw["mean"]:
            n = len(self.raw["mean"]["bases"])
            return {"name": f"mean over {n} bases", "outcomes": self.raw["mean"]}
        if name is None:
            tried = [own for own in known.values() if own["outcomes"]]
            return (tried or list(known.values()))[0]
        if name not in known:
            raise SettingsError(
                f"the comparison has no base {name!r}",
                found=nearest(name, known),
                next_step=f"give one of {', '.join(known)}",
            )
        return known[name]

    def _exports(self) -> dict[str, Table]:
        return study_tables.of_comparison(self.raw)

    def _verdict(self) -> str:
        return " ".join(self.findings)

    def _note(self) -> str:
        return "" if self.folder is None else f"folder: {self.folder}"

    def _facts(self) -> dict[str, Any]:
        own = {} if self.folder is None else {"folder": str(self.folder)}
        return {**own, "bases": [base["name"] for base in self.raw["bases"]]}


def _agreement(base: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Every other criterion, and its agreement with the deciding one."""
    pairs = [((row["first"], row["second"]), row["spearman"]) for row in base["agreement"]]
    own = base["deciding"]
    return [(pair[1 - pair.index(own)], rho) for pair, rho in pairs if own in pair]
