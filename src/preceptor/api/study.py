"""What `preceptor.study` gives back: what became of every student, and who knew it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from preceptor.api.comparison import Comparison
from preceptor.api.figures import draw_intervals, toned
from preceptor.api.result import Result
from preceptor.core.errors import SettingsError, nearest
from preceptor.core.study import STUDY

if TYPE_CHECKING:
    import pandas as pd

    from preceptor.api.figures import Axes


@dataclass(frozen=True, repr=False, eq=False)
class Study(Result):
    """Bases trained on the answers of teachers, examined and compared.

    Attributes:
        folder: of the study, as it was given.
        raw: the content of `study.json`.
    """

    file: ClassVar[str] = STUDY

    @property
    def bases(self) -> list[str]:
        """The models that were trained."""
        return list(self.raw["bases"])

    @property
    def matrix(self) -> pd.DataFrame:
        """A row a base, source of answers and arm: the outcome of the students with its interval,
        and the rank of the source among all of the same base and arm."""
        return self.to_pandas("outcomes")

    @property
    def criteria(self) -> Comparison | None:
        """How well each criterion knew the outcomes; None where too few are known."""
        known = self.raw["criteria"]
        return None if known is None else Comparison(known)

    @property
    def findings(self) -> list[str]:
        """What can be said, a sentence each."""
        return [own["text"] for own in self.raw["verdict"]]

    def plot(
        self, base: str | None = None, *, arm: str | None = None, ax: Axes | None = None
    ) -> Axes:
        """Draw the outcome of each source's students on a base with its interval (extra `plot`).

        Args:
            base: its name; the first one where not given.
            arm: way to learn; the first one where not given.
            ax: where to draw; a new figure where not given.

        Raises:
            SettingsError: no such base or arm.
        """
        base = self._one("base", self.bases, base)
        arm = self._one("arm", list(self.raw["arms"]), arm)
        own = [row for row in self.raw["matrix"] if (row["base"], row["arm"]) == (base, arm)]
        known = [row for row in own if row["outcome"]["value"] is not None]
        known.sort(key=lambda row: -row["outcome"]["value"])
        before = {row["base"]: row["outcome"] for row in self.raw["base_scores"]}.get(base)
        return draw_intervals(
            ax,
            toned(
                [(r["source"], r["outcome"]) for r in known], known[0]["source"] if known else None
            ),
            title=f"Students of {base} by the source of their answers",
            label=f"{self.raw['outcome']['title']} · higher is better · "
            f"{self.raw['confidence']:.0%} intervals",
            rule=None if before is None else (before, "the base itself"),
        )

    def _one(self, kind: str, known: list[str], name: str | None) -> str:
        if name is None:
            return known[0]
        if name not in known:
            raise SettingsError(
                f"the study has no {kind} {name!r}",
                where=str(self.folder),
                found=nearest(name, known),
                next_step=f"give one of {', '.join(known)}",
            )
        return name

    def _facts(self) -> dict[str, Any]:
        cells = self.raw["cells"]
        done = sum(cell["status"] == "done" for cell in cells)
        return {"folder": str(self.folder), "bases": self.bases, "done": f"{done} of {len(cells)}"}
