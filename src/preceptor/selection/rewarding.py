"""Scoring answers with a reward: planned batches, each committed when it is scored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from preceptor.core.errors import DataError
from preceptor.core.fleet import Fleet, run_here
from preceptor.core.progress import progress
from preceptor.core.stage import Stage
from preceptor.core.types import Answer, RewardSource

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
        done = set(table["batch"].to_pylist())
        values[table["item"].to_numpy()] = table["value"].to_numpy()
    todo = [number for number in range(len(batches)) if number not in done]
    workers = fleet if source.spread else run_here
    if stage is None:
        score = source.open()
        for number in todo:
            values[batches[number]] = score([answers[item] for item in batches[number]])
    elif todo:
        n_done = sum(len(batches[number]) for number in done)
        with progress(f"scoring {name}", len(answers), "answers", n_done) as advance:
            groups = [[answers[item] for item in batches[number]] for number in todo]
            for place, found in workers(source.open, groups):
                number, items, scores = todo[place], batches[todo[place]], list(found)
                values[items] = scores
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
    return values
