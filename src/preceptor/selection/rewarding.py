"""Scoring answers with a reward: planned batches, each committed when it is scored.

Shapes: M teachers, N instructions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import numpy as np
import pyarrow as pa

from preceptor.core.artifacts import read_json, write_json
from preceptor.core.errors import DataError
from preceptor.core.fleet import Fleet, run_here
from preceptor.core.progress import progress
from preceptor.core.stage import Stage
from preceptor.core.types import Answer, RewardSource
from preceptor.data.answer_table import Answers
from preceptor.data.sequences import Lazy

FACTS = "facts.json"  # beside the shards: what a reward counted
VALUES_SCHEMA = pa.schema(
    [
        pa.field("batch", pa.int32(), nullable=False),
        pa.field("item", pa.int64(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
    ]
)


def score_answers(
    name: str,
    source: RewardSource,
    answers: Sequence[Answer],
    stage: Stage | None,
    fleet: Fleet = run_here,
) -> np.ndarray:
    """One number per answer: float64 of shape (len(answers),); finite, or NaN where it may miss.

    Args:
        name: of the reward, for progress and error texts.
        source: the reward.
        answers: to score.
        stage: holds what is scored already; None for rewards that cost nothing.
        fleet: the workers of rewards that can be spread.

    Raises:
        DataError: the reward gave infinity, or NaN though it never misses, or left its range.
    """
    values = np.full(len(answers), np.nan)
    batches = source.batches(answers)
    done: set[int] = set()
    if stage is not None:
        table = stage.table()
        done = set(np.unique(table["batch"].to_numpy()).tolist())
        values[table["item"].to_numpy()] = table["value"].to_numpy()
        source.facts.update(read_json(stage.folder / FACTS, {}))
    todo = [number for number in range(len(batches)) if number not in done]
    groups = Lazy(lambda place: _batch(answers, batches[todo[place]], source.spread), len(todo))
    if stage is None:
        score = source.open()
        for number, group in zip(todo, groups, strict=True):
            values[batches[number]] = score(group)
    elif todo:
        workers = fleet if source.spread else run_here
        n_done = sum(len(batches[number]) for number in done)
        # a reward that scores all at once shows how it goes on by itself
        alone = len(batches) == 1
        shown = progress(f"scoring {name}", len(answers), "answers", n_done)
        with nullcontext(lambda amount: None) if alone else shown as advance:
            for place, found in workers(source.open, groups):
                number, items, scores = todo[place], batches[todo[place]], list(found)
                values[items] = scores
                if source.facts:
                    write_json(stage.folder / FACTS, source.facts)
                stage.add(batch=[number] * len(items), item=items, value=scores)
                advance(len(items))
            stage.commit()
    allowed = np.isnan(values) if source.may_miss else np.zeros(len(values), dtype=bool)
    bad = np.flatnonzero(~(np.isfinite(values) | allowed))
    if bad.size:
        first = answers[int(bad[0])]
        raise DataError(
            "a reward is not a finite number",
            where=f"reward {name!r}, teacher {first.teacher}, instruction {first.instruction_id}",
            found=f"{bad.size} of {values.size} values are NaN or infinite",
            next_step="drop or score those answers",
        )
    _refuse_beyond(name, source, values, answers)
    return values


def _refuse_beyond(
    name: str, source: RewardSource, values: np.ndarray, answers: Sequence[Answer]
) -> None:
    """Rewards outside the range that their source declares, rounding aside."""
    width = source.high - source.low
    slack = 1e-9 * width if np.isfinite(width) else 0.0
    bad = np.flatnonzero((values < source.low - slack) | (values > source.high + slack))
    if bad.size:
        first = answers[int(bad[0])]
        raise DataError(
            "a reward is outside its declared range",
            where=f"reward {name!r}, teacher {first.teacher}, instruction {first.instruction_id}",
            found=f"{values[bad[0]]:g}, declared {source.low:g} to {source.high:g}; "
            f"{bad.size:,} of {values.size:,} values are outside",
            next_step="correct `low` and `high` of the reward, or what gives it",
        )


def _batch(answers: Sequence[Answer], items: Sequence[int], objects: bool) -> Sequence[Answer]:
    """These answers: a view of their columns where there are columns, else (or for workers) a list.

    Args:
        objects: whether the batch may be sent to another process.
    """
    if isinstance(answers, Answers):
        view = answers.pick(items)
        return list(view) if objects else view
    return [answers[item] for item in items]


def left_out(scores: Mapping[str, np.ndarray], teachers: Sequence[str]) -> tuple[np.ndarray, str]:
    """Instructions that every reward scored for every teacher, and what to say of the others.

    The comparison is paired: where one answer has no score, the instruction is left out for all.

    Args:
        scores: name of the reward -> float64 of shape (M * N,), NaN where there is no score.

    Returns:
        kept_N, and a warning ("" where every instruction is kept).
    """
    missing = {name: np.isnan(values).reshape(len(teachers), -1) for name, values in scores.items()}
    kept_N = ~np.any([missing_MN.any(axis=0) for missing_MN in missing.values()], axis=0)
    if kept_N.all():
        return kept_N, ""
    parts = []
    for name, missing_MN in missing.items():
        n_M = missing_MN.sum(axis=1)
        worst = [
            f"{teachers[m]} {n_M[m]:,}"
            for m in np.argsort(-n_M, kind="stable")[:3].tolist()
            if n_M[m]
        ]
        if worst:
            parts.append(
                f"{name} gave no score to {n_M.sum():,} answers (most: {', '.join(worst)})"
            )
    return kept_N, (
        f"{(~kept_N).sum():,} of {kept_N.size:,} instructions were left out: reward "
        + "; reward ".join(parts)
    )


def refuse_too_few(kept_N: np.ndarray, min_share: float, warning: str) -> None:
    """Too few instructions have all their scores (raises DataError)."""
    if kept_N.sum() < max(2, min_share * kept_N.size):
        raise DataError(
            "too few instructions have a score for every answer",
            where="rewards",
            found=warning,
            next_step="look at the replies of that reward, leave it out, or lower min_paired_share",
        )
