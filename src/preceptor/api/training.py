"""What `distill`, `align` and `sft` give back: a model, what it became, and how it went."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from preceptor.api.charts import draw_lines
from preceptor.api.figures import Interval, draw_intervals
from preceptor.api.result import Result, missing
from preceptor.core import artifacts
from preceptor.core.errors import SettingsError, nearest
from preceptor.core.progress import settle_notebook
from preceptor.recipes.settings.evaluation import TRAINED
from preceptor.reporting.findings.training_log import COLUMNS, LOSSES, Log, read_log

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from preceptor.api.figures import Axes


@dataclass(frozen=True, repr=False, eq=False)
class Training(Result):
    """A trained student.

    Attributes:
        folder: of the run, as it was given.
        raw: the content of `quality.json`; empty where no quality was asked for.
    """

    file: ClassVar[str] = artifacts.QUALITY

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The training that a folder holds (raises RunFolderError)."""
        if not (folder / TRAINED).is_dir():
            raise missing(folder / TRAINED)
        return cls(artifacts.read_json(folder / artifacts.QUALITY, {}), folder)

    @property
    def model(self) -> Path:
        """The folder of the student: a plain checkpoint with its tokenizer."""
        return self.folder / TRAINED

    def load(
        self, device: str = "auto", dtype: str = "auto", *, trust_remote_code: bool = False
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The student and its tokenizer, in eval mode, as every run of preceptor loads models.

        Args:
            device: `auto`, `cpu`, `cuda` ...
            dtype: `auto` (bfloat16 on an accelerator, float32 on a CPU), `float32`, `bfloat16` or
                `float16`.

        Raises:
            ModelError: no such device, or weights that cannot be loaded.
        """
        settle_notebook()
        from preceptor.models.load import load_causal_lm, open_card, pick_device, pick_dtype

        place = pick_device(device)
        card = open_card(str(self.model), trust_remote_code, fingerprinted=False)
        kind = pick_dtype(dtype, place)
        return load_causal_lm(card, kind, place, trust_remote_code), card.tokenizer

    @property
    def quality(self) -> pd.DataFrame:
        """Score of the base and of every student in each group of instructions, with intervals.

        Raises:
            SettingsError: no quality was asked for (the setting `quality`).
        """
        return self.to_pandas("quality")

    @property
    def metrics(self) -> pd.DataFrame:
        """A row a logged step: `step`, `epoch`, the losses and the norms of their gradients, the
        learning rate, tokens a second, peak memory in MB; NaN where a value was not logged."""
        import pandas as pd

        log = self._log()
        columns = {"epoch": log.epochs, **log.columns}
        own = {name: columns[name] for name in ("epoch", *COLUMNS) if name in columns}
        values = {name: pd.Series(own[name], dtype="float64") for name in own}
        return pd.DataFrame({"step": pd.Series(log.steps, dtype="int64"), **values})

    def plot(
        self,
        kind: Literal["loss", "quality"] | None = None,
        *,
        group: str | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw the training (extra `plot`).

        Args:
            kind: `quality`, the scores of base and students with their intervals; `loss`, every
                loss over the steps. Where not given, quality if it was measured.
            group: of the instructions; the first one where not given.
            ax: where to draw; a new figure where not given.

        Raises:
            SettingsError: no such kind or group, or quality that was not measured.
        """
        kind = kind or ("quality" if self.raw else "loss")
        if kind == "loss":
            return self._losses(ax)
        if kind == "quality":
            return self._quality(group, ax)
        raise SettingsError(
            f"a training has no plot {kind!r}",
            found=nearest(str(kind), ("loss", "quality")),
            next_step="give one of loss and quality",
        )

    def _losses(self, ax: Axes | None) -> Axes:
        log = self._log()
        parts = [name for name in LOSSES if name in log.columns] or ["loss"]
        lines = [
            (
                name.replace("_", " "),
                log.steps,
                [math.nan if value is None else value for value in log.columns.get(name, [])],
            )
            for name in parts
            if name in log.columns
        ]
        title = "Losses of the student" if len(lines) > 1 else "Loss of the student"
        return draw_lines(ax, lines, title=title, x_label="step", y_label="mean over the batch")

    def _quality(self, group: str | None, ax: Axes | None) -> Axes:
        if not self.raw:
            self.to_pandas("quality")  # says what is missing
        groups = list(self.raw["groups"])
        wanted = str(group or groups[0])
        if wanted not in groups:
            raise SettingsError(
                f"no group {wanted!r} of instructions was graded",
                where=str(self.folder),
                found=nearest(wanted, groups),
                next_step=f"give one of {', '.join(groups)}",
            )
        rows = [(row["model"], row.get(wanted)) for row in self.raw["rows"]]
        intervals = [
            Interval(
                name, cell["score"], cell["low"], cell["high"], "first" if place == 1 else "near"
            )
            for place, (name, cell) in enumerate(rows)
            if cell
        ]
        of = "" if groups == ["all"] else f", {wanted}"
        return draw_intervals(
            ax,
            intervals,
            title=f"Quality of base and students{of}",
            label=f"{self.raw['measure']} · {self.raw['confidence']:.0%} intervals",
        )

    def _log(self) -> Log:
        log = read_log(self.folder / artifacts.METRICS)
        if log is None:
            raise missing(self.folder / artifacts.METRICS)
        return log

    def _facts(self) -> dict[str, Any]:
        return {"folder": str(self.folder), "model": str(self.model)}
