"""What `preceptor.ask` gives back: every sample, and what each decoding was worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from preceptor.api.figures import Interval, draw_intervals
from preceptor.api.result import Result
from preceptor.core import artifacts
from preceptor.core.errors import SettingsError, nearest

if TYPE_CHECKING:
    import pandas as pd

    from preceptor.api.figures import Axes


@dataclass(frozen=True, repr=False, eq=False)
class Samples(Result):
    """Answers of teachers over a grid of decodings, with their rewards.

    Attributes:
        folder: of the run, as it was given.
        raw: the content of `ask.json`.
    """

    file: ClassVar[str] = artifacts.ASK

    @property
    def samples(self) -> pd.DataFrame:
        """A row a sample: instruction, teacher, decoding, response and rewards."""
        return self._parquet(artifacts.SAMPLES)

    @property
    def points(self) -> pd.DataFrame:
        """A row a teacher at a decoding point: how many answers, how long, how many cut off."""
        return self.to_pandas("points")

    def plot(self, reward: str | None = None, *, ax: Axes | None = None) -> Axes:
        """Draw the mean reward of each teacher at each decoding with its interval (extra `plot`).

        Args:
            reward: its name; the first one where not given.
            ax: where to draw; a new figure where not given.

        Raises:
            SettingsError: no such reward, or none at all.
        """
        known = list(self.raw["rewards"])
        if not known or (reward is not None and reward not in known):
            raise SettingsError(
                f"the samples have no reward {reward!r}"
                if reward
                else "the samples have no reward",
                where=str(self.folder),
                found=nearest(reward or "", known) if known else "none",
                next_step="name one of `rewards` in the settings",
            )
        name = reward or known[0]
        cells = [(_point(own), own["rewards"][name]) for own in self.raw["points"]]
        scored = [(point, cell) for point, cell in cells if cell["mean"] is not None]
        best = max((cell["mean"] for _, cell in scored), default=None)
        rows = [
            Interval(
                point, cell["mean"], cell["low"], cell["high"],
                "first" if cell["mean"] == best else "rest",
            )
            for point, cell in scored
        ]  # fmt: skip
        return draw_intervals(
            ax,
            rows,
            title="Reward of the samples by teacher and decoding",
            label=f"mean {name} · {self.raw['confidence']:.0%} intervals",
        )

    def _facts(self) -> dict[str, Any]:
        n, asked = self.raw["n_answers"], self.raw["n_instructions"]
        return {"folder": str(self.folder), "n_answers": n, "n_instructions": asked}


def _point(own: Mapping[str, Any]) -> str:
    """A teacher and how it decoded, in a few signs."""
    if own["temperature"] is None:
        return str(own["teacher"])
    if own["temperature"] == 0:
        return f"{own['teacher']}, greedy"
    nucleus = "" if own["top_p"] in (None, 1.0) else f", p {own['top_p']:g}"
    return f"{own['teacher']}, T {own['temperature']:g}{nucleus}"
