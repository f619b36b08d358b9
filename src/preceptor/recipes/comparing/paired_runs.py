"""What two finished runs say together: on the instructions or items that both have.

Two intervals that overlap are no test of a difference. Where both folders hold values of the same
instructions, these are resampled together, so that their difference has an interval of its own.
Where they do not, or what is computed again is not what the runs recorded, nothing is said.

Nothing but the folders is read, and no code that a folder names is run. Shapes: M teachers, N
instructions, S resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from preceptor.core import artifacts
from preceptor.core.errors import PreceptorError, RunFolderError
from preceptor.recipes.comparing.finished import rescored
from preceptor.reporting.findings import run_kinds
from preceptor.reporting.findings.quality import read_quality
from preceptor.reporting.pages.two_runs.pairs import Change, Paired
from preceptor.reporting.pages.two_runs.report import family_of
from preceptor.reporting.pages.two_runs.training import MAIN
from preceptor.reporting.parts import wording
from preceptor.selection.ranking import interval, ranks, resample_weights

REPEATED = 1e-6  # relative difference up to which a score is the one that a run recorded
FEWEST = 2  # instructions or items that both runs must have
SCALES = (1.0, 100.0)  # of a score, against its marks
_compute: Any = pyarrow.compute  # its functions are made at import and have no stubs


def paired(first: Path, second: Path) -> Paired:
    """The joint statement of two runs; with `why` where there is none.

    Raises:
        RunFolderError: runs that are not compared.
    """
    of: Mapping[str, Callable[[Path, Path], Paired]] = {
        "select": _selections,
        "evaluate": _evaluations,
        "training": _trainings,
    }
    family = family_of(first, second)
    if family not in of:
        return Paired()
    try:
        return of[family](first, second)
    except PreceptorError as error:
        return Paired(why=error.what)
    except (OSError, ValueError, KeyError, TypeError, IndexError, pa.ArrowException) as error:
        return Paired(why=f"a folder cannot be read for it ({type(error).__name__}: {error})")


def _selections(first: Path, second: Path) -> Paired:
    """Places that each teacher gained, by the deciding criterion of each run."""
    folders = (first, second)
    rankings = [artifacts.read_json(folder / artifacts.RANKING) for folder in folders]
    if any("race" in ranking for ranking in rankings):
        return Paired(why="a race asks its teachers different instructions")
    texts = [_texts(folder) for folder in folders]
    kept = [key for key in texts[0] if texts[1].get(key) == texts[0][key]]
    if len(kept) < FEWEST:
        return Paired(why="the runs have no instructions in common")
    resamples = min(int(ranking["n_resamples"]) for ranking in rankings)
    seed, confidence = int(rankings[0]["seed"]), float(rankings[0]["confidence"])
    scored = [
        rescored(folder, ranking["recommended_by"], kept, resamples, seed)
        for folder, ranking in zip(folders, rankings, strict=True)
    ]
    shared = [name for name in scored[0][0] if name in scored[1][0]]
    if len(shared) < FEWEST:
        return Paired(why="the runs have no two teachers in common")
    points, draws = [], []
    for ranking, (teachers, score_M, resampled_MS) in zip(rankings, scored, strict=True):
        row = ranking["criteria"][ranking["recommended_by"]]
        if len(kept) == ranking["n_instructions"]:
            _refuse_others(row, teachers, score_M)
        own = [teachers.index(name) for name in shared]
        higher = row["direction"] == "higher"
        points.append(ranks(score_M[own][:, None], higher)[:, 0])
        draws.append(ranks(resampled_MS[own], higher))
    gained_M, gained_MS = points[0] - points[1], draws[0] - draws[1]
    low_M, high_M = interval(gained_MS, confidence)
    changes: dict[tuple[str, ...], Change] = {
        (name,): (int(gained_M[m]), int(np.floor(low_M[m])), int(np.ceil(high_M[m])))
        for m, name in enumerate(shared)
    }
    same = float(((draws[0] == 1) & (draws[1] == 1)).any(axis=0).mean())
    words = (
        f"On the same {len(kept):,} instructions, both put the same teacher first in "
        f"{wording.percent(same)} of {resamples:,} joint resamples (of the teachers of both)."
    )
    return Paired(changes, (words,), len(kept))


def _texts(folder: Path) -> dict[str, str]:
    """Instruction -> its text, of those that were ranked on; every teacher has the same ones."""
    ranked = pq.read_table(folder / artifacts.SIGNALS, columns=["teacher", "instruction_id"])
    first = ranked["teacher"][0].as_py()
    ids = ranked.filter(_compute.equal(ranked["teacher"], first))["instruction_id"].to_pylist()
    columns = ["instruction_id", "instruction"]
    own = [("teacher", "=", first)]
    table = pq.read_table(folder / artifacts.ANSWERS, columns=columns, filters=own)
    texts = dict(zip(*(table[name].to_pylist() for name in columns), strict=True))
    return {key: texts[key] for key in ids}


def _refuse_others(row: Mapping[str, Any], teachers: Iterable[str], score_M: np.ndarray) -> None:
    """Scores computed again must be those of `ranking.json` (raises RunFolderError)."""
    recorded = {own["teacher"]: own["score"] for own in row["teachers"]}
    then_M = np.array([recorded[name] for name in teachers])
    if not np.allclose(then_M, score_M, rtol=REPEATED, atol=1e-12):
        raise RunFolderError(
            "scores computed again are not those of ranking.json",
            next_step="compare runs of the version that made them",
        )


def _evaluations(first: Path, second: Path) -> Paired:
    """Differences of scores that are means of marks, on the items that both marked."""
    folders = (first, second)
    found = [artifacts.read_json(folder / artifacts.EVALUATION) for folder in folders]
    known = [run_kinds.provenance_of(folder).get("models") or {} for folder in folders]
    marks = [pq.read_table(folder / artifacts.MARKS) for folder in folders]
    held = [{own["name"]: own for own in each["benchmarks"]} for each in found]
    changes: dict[tuple[str, ...], Change] = {}
    other_questions, most = [], 0
    for name in (name for name in held[0] if name in held[1]):
        key = f"benchmark {name}"
        if known[0].get(key) != known[1].get(key):
            other_questions.append(name)
            continue
        own = [_marks_of(table, name) for table in marks]
        for measure in held[0][name]["measures"]:
            scores = [_scores_of(each[name], measure["name"]) for each in held]
            shared = [model for model in scores[0] if model in scores[1]]
            made = _means(own, scores, shared)
            for model, (value_N, scale) in made.items():
                most = max(most, len(value_N))
                change = _change(value_N, found[0], scale)
                changes[name, measure["name"], model] = change
    if not changes:
        why = "no score of a shared model is a mean of marks that both folders hold"
        if other_questions:
            listed = ", ".join(other_questions)
            why = f"questions, prompts or judge of {listed} are not the same in both"
        return Paired(why=why)
    return Paired(changes, (), most)


def _marks_of(table: pa.Table, benchmark: str) -> dict[tuple[str, str], dict[str, float]]:
    """(mark, model) -> item -> value, of one benchmark; without items that have none."""
    rows: dict[tuple[str, str], dict[str, float]] = {}
    table = table.filter(_compute.equal(table["benchmark"], benchmark))
    columns = (table[name].to_pylist() for name in ("model", "item", "name", "value"))
    for model, item, mark, value in zip(*columns, strict=True):
        if value is not None and np.isfinite(value):
            rows.setdefault((mark, model), {})[item] = value
    return rows


def _scores_of(benchmark: Mapping[str, Any], measure: str) -> dict[str, float]:
    cells = {own["model"]: own["measures"].get(measure) for own in benchmark["scores"]}
    return {m: c["value"] for m, c in cells.items() if c and c["value"] is not None}


def _means(
    marks: list[dict[tuple[str, str], dict[str, float]]],
    scores: list[dict[str, float]],
    shared: list[str],
) -> dict[str, tuple[np.ndarray, float]]:
    """Model -> (mark of B less mark of A)_N and the scale, where means of one mark are the scores.

    A mark and a scale count only if they give the recorded scores of all shared models in both.
    """
    for mark in dict.fromkeys(mark for mark, _ in marks[0]):
        for scale in SCALES:
            own = [[held.get((mark, model), {}) for model in shared] for held in marks]
            fits = all(
                values
                and np.isclose(scale * np.mean(list(values.values())), score[m], rtol=REPEATED)
                for held, score in zip(own, scores, strict=True)
                for m, values in zip(shared, held, strict=True)
            )
            if not (fits and shared):
                continue
            found = {}
            for model, one, other in zip(shared, *own, strict=True):
                items = [item for item in one if item in other]
                if len(items) >= FEWEST:
                    found[model] = np.array([other[i] - one[i] for i in items]), scale
            return found
    return {}


def _trainings(first: Path, second: Path) -> Paired:
    """Differences of mean rewards, on the instructions that were graded in both."""
    folders = (first, second)
    if not all((folder / artifacts.GRADES).is_file() for folder in folders):
        return Paired(why="a folder holds no grades")
    settings = [run_kinds.settings_of(folder).get("quality") for folder in folders]
    graded = [run_kinds.provenance_of(folder) for folder in folders]
    rewards = [(own.get("models") or {}).get("reward") for own in graded]
    if settings[0] != settings[1] or rewards[0] != rewards[1]:
        return Paired(why="the runs do not measure quality by the same settings and reward")
    path = str(((settings[0] or {}).get("instructions") or {}).get("path"))
    if (graded[0].get("inputs") or {}).get(path) != (graded[1].get("inputs") or {}).get(path):
        return Paired(why="the instructions of the exam are not the same")
    found = [artifacts.read_json(folder / artifacts.QUALITY) for folder in folders]
    grades = [_grades(folder) for folder in folders]
    mains = [_main(each) for each in found]
    pairs = [((m,), m, m) for m in dict.fromkeys(m for m, _ in grades[0])]
    pairs += [(MAIN, *mains)] if mains[0] != mains[1] else []
    changes: dict[tuple[str, ...], Change] = {}
    most = 0
    for group in found[0]["groups"]:
        for key, one, other in pairs:
            a, b = grades[0].get((one, group)), grades[1].get((other, group))
            items = [item for item in a if item in b] if a and b else []
            if len(items) >= FEWEST and a and b:
                change = _change(np.array([b[i] - a[i] for i in items]), found[0], 1.0)
                changes[*key, group] = change
                most = max(most, len(items))
    if not changes:
        return Paired(why="no model of both was graded on the same instructions")
    return Paired(changes, (), most)


def _grades(folder: Path) -> dict[tuple[str, str], dict[str, float]]:
    """(model, group) -> instruction -> mean reward over seeds; the group "all" holds them all."""
    rows: dict[tuple[str, str], dict[str, list[float]]] = {}
    for own in pq.read_table(folder / artifacts.GRADES).to_pylist():
        if np.isfinite(own["reward"]):
            for group in dict.fromkeys((own["group"], "all")):
                held = rows.setdefault((own["model"], group), {})
                held.setdefault(own["instruction_id"], []).append(own["reward"])
    return {k: {i: float(np.mean(v)) for i, v in held.items()} for k, held in rows.items()}


def _main(quality: Mapping[str, Any]) -> str:
    return read_quality(quality, artifacts.QUALITY).main


def _change(difference_N: np.ndarray, found: Mapping[str, Any], scale: float) -> Change:
    """The mean with its percentile interval over resampled items."""
    n, resamples = len(difference_N), int(found.get("n_resamples", 2000))
    seed, confidence = int(found.get("seed", 0)), float(found["confidence"])
    parts = [difference_N @ w_NS for w_NS in resample_weights(n, resamples, seed)]
    low, high = interval(np.concatenate(parts), confidence)
    return tuple(scale * float(end) for end in (difference_N.mean(), low, high))  # type: ignore[return-value]
