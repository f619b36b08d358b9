"""A finished selection, opened again: its ranking, its criteria, and the scores they recompute.

Nothing but the run folder is read, which may have been copied from another machine: models and
sources of answers need not be there.

Shapes: M teachers, N instructions, R resamples.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import ValidationError

from preceptor.core import artifacts
from preceptor.core.criterion import Criterion, Signals
from preceptor.core.errors import RunFolderError
from preceptor.data.answer_table import Answers
from preceptor.data.paired import Paired
from preceptor.recipes.selecting.measuring import read_signals
from preceptor.recipes.selecting.preparing import open_criteria
from preceptor.recipes.selecting.teacher_facts import teacher_facts
from preceptor.recipes.settings.select import Select
from preceptor.selection.ranking import score_all, views

REPEATED = 1e-6  # relative difference up to which a score is the one that the run found
FILES = (".parquet", ".jsonl", ".json")  # endings of sources, which must be there
UNREAD = ("fleet", "store", "pilot", "race")  # settings that scores do not depend on
LIKELIHOOD = frozenset(
    "nll nll_unconditional nll_question entropy brier similarity local".split()
)  # needs that make a criterion one of what the base's own pass says


@dataclass(frozen=True)
class Scores:
    """One criterion of a run.

    Attributes:
        row: its entry in `ranking.json`.
        kind: `reward`, `likelihood`, `reference`, `other` or `control`.
        score_M: as in `ranking.json`, by the run's teachers.
        resampled_MR: on resampled instructions; None where it could not be computed again.
    """

    row: dict[str, Any]
    kind: str
    score_M: np.ndarray
    resampled_MR: np.ndarray | None

    @property
    def good_M(self) -> np.ndarray:
        """The score, turned so that higher is better."""
        return self._sign * self.score_M

    @property
    def good_MR(self) -> np.ndarray | None:
        """The same on resampled instructions."""
        return None if self.resampled_MR is None else self._sign * self.resampled_MR

    @property
    def _sign(self) -> float:
        return 1.0 if self.row["direction"] == "higher" else -1.0


@dataclass(frozen=True)
class Finished:
    """A finished selection.

    Attributes:
        curves: for each reward that CAR was computed on, `curve(beta) -> score_M`; higher is
            better.
        mean_reward: (M,) and (M, R) of the first reward; None where signals cannot be read.
        warnings: what could not be computed again, and why.
    """

    folder: Path
    ranking: dict[str, Any]
    teachers: tuple[str, ...]
    criteria: dict[str, Scores]
    curves: dict[str, Callable[[float], np.ndarray]]
    mean_reward: Scores | None
    warnings: tuple[str, ...]

    @property
    def base(self) -> str:
        return str(self.ranking["base"])


def open_finished(folder: Path) -> Finished:
    """Read a run folder of `preceptor select`, and score its teachers again with resamples.

    Raises:
        RunFolderError: no finished selection, or one of another version.
    """
    ranking, table = _read(folder)
    measured = tuple(dict.fromkeys(table["teacher"].to_pylist()))
    rows = [{own["teacher"] for own in row["teachers"]} for row in ranking["criteria"].values()]
    kept = [m for m, name in enumerate(measured) if all(name in own for own in rows)]
    teachers = tuple(measured[m] for m in kept)
    warnings: list[str] = []
    curves: dict[str, Callable[[float], np.ndarray]] = {}
    again: dict[str, tuple[Criterion, np.ndarray, np.ndarray]] = {}
    reward: Scores | None = None
    try:
        settings = reopen_settings(folder)
        criteria = open_criteria(settings)
        signals = _signals(settings, criteria, table, measured)
        again = _score(settings, criteria, signals, ranking, kept)
        curves = _curves(settings, criteria, signals, kept)
        reward = _mean_reward(settings, signals, ranking, kept)
    except Exception as error:  # a criterion of the user's own may raise anything
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        warnings.append(
            f"{folder.name}: its criteria cannot be computed again ({why}); there are no intervals "
            "over instructions"
        )
    found = {}
    for name, row in ranking["criteria"].items():
        by_teacher = {own["teacher"]: own["score"] for own in row["teachers"]}
        score_M = np.array([by_teacher[teacher] for teacher in teachers], dtype=np.float64)
        criterion, point_M, resampled_MR = again.get(name, (None, None, None))
        if point_M is not None and not np.allclose(point_M, score_M, rtol=REPEATED, atol=1e-12):
            warnings.append(
                f"{folder.name}: {name} computed again is not what the run found; its intervals "
                "over instructions are left out"
            )
            resampled_MR = None
        elif point_M is None and again:
            warnings.append(f"{folder.name}: {name} could not be computed again")
        found[name] = Scores(row, _kind(name, row, criterion), score_M, resampled_MR)
    return Finished(folder, ranking, teachers, found, curves, reward, tuple(warnings))


def rescored(
    folder: Path, key: str, instructions: Sequence[str], resamples: int, seed: int
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """The teachers of a run, and their scores by one criterion on some of its instructions.

    Resamples depend on the number of instructions and the seed alone: two runs that are scored on
    the same instructions are resampled together.

    Args:
        key: of the criterion in `ranking.json`; one of the user's own is not run.
        instructions: ids, in the order that they are resampled in.

    Returns:
        Teachers, score_M, and score_MS on resamples.

    Raises:
        PreceptorError, ValueError: a folder that cannot be scored again.
    """
    ranking, table = _read(folder)
    teachers = tuple(dict.fromkeys(table["teacher"].to_pylist()))
    settings = reopen_settings(folder)
    ours = tuple(name for name in settings.criteria if ":" not in name)
    options = {k: v for k, v in settings.criterion_options.items() if k in ours}
    settings = settings.model_copy(update={"criteria": ours, "criterion_options": options})
    n = table.num_rows // len(teachers)
    place = {own: i for i, own in enumerate(table["instruction_id"].slice(0, n).to_pylist())}
    kept = [place[own] for own in instructions]
    rows = np.array([m * n + i for m in range(len(teachers)) for i in kept])
    criteria = open_criteria(settings)
    signals = _signals(settings, criteria, table.take(rows), teachers)
    for criterion in criteria:
        for name, _, view in views(criterion, signals, ranking.get("reference") is not None):
            if name == key:
                scored = score_all([(view, _bound(criterion, settings))], resamples, seed)[0]
                return teachers, scored.score_M, scored.resampled_MS
    raise RunFolderError(
        f"{key} is a criterion of the user's own, whose code is not run",
        where=str(folder),
        next_step="compare the ranks of the two runs",
    )


def _read(folder: Path) -> tuple[dict[str, Any], pa.Table]:
    """`ranking.json` and `signals.parquet` of a finished selection (raises RunFolderError)."""

    def refuse(found: str) -> RunFolderError:
        return RunFolderError(
            "this is no folder of a finished `preceptor select`",
            where=str(folder),
            found=found,
            next_step="give the --out of a selection that has ended",
        )

    if not folder.is_dir():
        raise refuse("no such folder")
    missing = [n for n in (artifacts.RANKING, artifacts.SIGNALS) if not (folder / n).exists()]
    if missing:
        raise refuse(f"no {' and no '.join(missing)}")
    try:
        ranking = json.loads((folder / artifacts.RANKING).read_text(encoding="utf-8"))
        table = pq.read_table(folder / artifacts.SIGNALS)
    except (ValueError, pa.ArrowException) as error:
        raise refuse(f"{type(error).__name__}: {error}") from error
    version = ranking.get("version") if isinstance(ranking, dict) else None
    if version != artifacts.RANKING_VERSION:
        raise refuse(f"ranking.json of version {version!r}, not {artifacts.RANKING_VERSION}")
    return ranking, table


def reopen_settings(folder: Path) -> Select:
    """The run's settings, wherever its models and files are now (raises PreceptorError)."""
    text = (folder / artifacts.SETTINGS).read_text(encoding="utf-8")
    try:
        return Select.model_validate(_anywhere(yaml.safe_load(text)))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise RunFolderError(
            "its settings are not those of this release",
            where=str(folder / artifacts.SETTINGS),
            found=str(error).splitlines()[0],
            next_step="run the selection again with this release",
        ) from error


def _anywhere(value: Any) -> Any:
    """Without what scores do not depend on, and with plain names for paths that lead nowhere."""
    if isinstance(value, dict):
        return {key: _anywhere(inner) for key, inner in value.items() if key not in UNREAD}
    if isinstance(value, list):
        return [_anywhere(inner) for inner in value]
    if isinstance(value, str) and Path(value).is_absolute() and not Path(value).exists():
        path = Path(value)
        return (path.stem if path.suffix in FILES else path.name) or "gone"
    return value


def _signals(
    settings: Select,
    criteria: list[Criterion],
    table: pa.Table,
    teachers: tuple[str, ...],
) -> Signals:
    """`signals.parquet` as arrays; the table is teacher by teacher."""
    n = table.num_rows // len(teachers)
    ids = tuple(table["instruction_id"].slice(0, n).to_pylist())
    if table["teacher"].to_pylist() != [name for name in teachers for _ in range(n)]:
        raise ValueError("signals.parquet is not teacher by teacher")
    paired = Paired(teachers, ids, Answers.join([]))
    facts = teacher_facts(settings, criteria, teachers)
    return read_signals(settings, facts, paired, table)


def _score(
    settings: Select,
    criteria: list[Criterion],
    signals: Signals,
    ranking: dict[str, Any],
    kept: list[int],
) -> dict[str, tuple[Criterion, np.ndarray, np.ndarray]]:
    """Every view of every criterion: scores, and scores on the run's own resamples."""
    chosen = [
        (criterion, name, table)
        for criterion in criteria
        for name, _, table in views(criterion, signals, ranking.get("reference") is not None)
    ]
    formulas = [(table, _bound(criterion, settings)) for criterion, _, table in chosen]
    scored = score_all(formulas, int(ranking["n_resamples"]), int(ranking["seed"]))
    return {
        name: (criterion, own.score_M[kept], own.resampled_MS[kept])
        for (criterion, name, _), own in zip(chosen, scored, strict=True)
    }


def _bound(criterion: Criterion, settings: Select, **more: Any) -> Callable[..., np.ndarray]:
    return criterion.formula(settings.parameters | more)


def _curves(
    settings: Select, criteria: list[Criterion], signals: Signals, kept: list[int]
) -> dict[str, Callable[[float], np.ndarray]]:
    """Of the first criterion that takes beta and reads a reward (CAR), for every reward."""
    own = [c for c in criteria if "beta" in c.parameters and "reward" in c.needs][:1]
    curves: dict[str, Callable[[float], np.ndarray]] = {}
    for criterion in own:
        for _, reward, table in views(criterion, signals, with_reference=False):
            sign = 1.0 if criterion.direction == "higher" else -1.0

            def curve(
                beta: float,
                criterion: Criterion = criterion,
                table: Signals = table,
                sign: float = sign,
            ) -> np.ndarray:
                formula = _bound(criterion, settings, beta=beta)
                return (sign * formula(table, lambda values: values.mean(axis=1)))[kept]

            curves[str(reward)] = curve
    return curves


def _mean_reward(
    settings: Select, signals: Signals, ranking: dict[str, Any], kept: list[int]
) -> Scores:
    """Of the first reward: the student-agnostic control where the run did not rank by it."""
    table = signals.with_reward(settings.rewards[0].name)
    size = int(ranking["n_resamples"]), int(ranking["seed"])
    scored = score_all([(table, lambda own, mean: mean(own.reward_MN))], *size)[0]
    row = {"direction": "higher"}
    return Scores(row, "control", scored.score_M[kept], scored.resampled_MS[kept])


def _kind(name: str, row: dict[str, Any], criterion: Criterion | None) -> str:
    """What a criterion reads."""
    if row.get("reward") is not None:
        return "reward"
    if criterion is None:
        return "other"
    if criterion.needs & {"family", "size", "price"}:
        return "control"
    if name == f"{criterion.name}_reference":
        return "reference"
    reads_base = criterion.needs & LIKELIHOOD or getattr(criterion, "features", None)
    return "likelihood" if reads_base else "other"
