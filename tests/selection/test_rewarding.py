"""Scores by batch, scores that are missing, and what is left out then."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from preceptor.core.errors import DataError
from preceptor.core.stage import Stage
from preceptor.core.types import Answer, RewardSource, even_batches
from preceptor.data.answer_table import Answers
from preceptor.data.answers import read_recorded
from preceptor.selection.rewarding import (
    VALUES_SCHEMA,
    left_out,
    refuse_too_few,
    score_answers,
)


@pytest.fixture
def answers(tall: list[dict[str, Any]]) -> Answers:
    return read_recorded(pa.Table.from_pylist(tall), {}, "table")


def lengths(seen: list[Sequence[Answer]], **options: Any) -> RewardSource:
    """A reward of the response's length, which notes the batches it is given."""

    def score(batch: Sequence[Answer]) -> list[float]:
        seen.append(batch)
        return [float(len(answer.response)) for answer in batch]

    return RewardSource(lambda every: even_batches(len(every), 4), lambda: score, **options)


def test_columns_and_objects_are_scored_alike(answers: Answers, tmp_path: Path) -> None:
    seen: list[Sequence[Answer]] = []
    wanted = [float(len(answer.response)) for answer in answers]
    assert score_answers("r", lengths(seen), answers, None).tolist() == wanted
    assert score_answers("r", lengths(seen), list(answers), None).tolist() == wanted
    assert [list(batch) for batch in seen[:5]] == [list(batch) for batch in seen[5:]]
    with Stage(tmp_path / "stage", VALUES_SCHEMA) as stage:
        spread = lengths(seen, spread=True)
        assert score_answers("r", spread, answers, stage).tolist() == wanted
    assert all(isinstance(batch, list) for batch in seen[10:])  # these can be sent to workers


def test_a_resumed_reward_scores_what_is_left(answers: Answers, tmp_path: Path) -> None:
    seen: list[Sequence[Answer]] = []
    with Stage(tmp_path / "stage", VALUES_SCHEMA) as stage:
        stage.add(batch=[1] * 4, item=[4, 5, 6, 7], value=[-1.0, float("nan"), -3.0, -4.0])
        stage.commit()
        values = score_answers("r", lengths(seen, may_miss=True), answers, stage)
    assert len(seen) == 4
    assert np.isnan(values[5]) and values[[4, 6, 7]].tolist() == [-1.0, -3.0, -4.0]
    with Stage(tmp_path / "stage", VALUES_SCHEMA) as stage:
        again = score_answers("r", lengths(seen, may_miss=True), answers, stage)
    assert len(seen) == 4 and again.tobytes() == values.tobytes()


def test_only_a_reward_that_may_miss_may_miss(answers: Answers) -> None:
    def open_with(value: float, may_miss: bool) -> RewardSource:
        values = [1.0] * 17 + [value]
        return RewardSource(
            lambda every: [list(range(len(every)))], lambda: lambda _: values, may_miss=may_miss
        )

    found = score_answers("r", open_with(np.nan, True), answers, None)
    assert np.isnan(found[17]) and np.isfinite(found[:17]).all()
    for value, may_miss in ((np.nan, False), (np.inf, True)):
        with pytest.raises(DataError, match="not a finite number") as caught:
            score_answers("r", open_with(value, may_miss), answers, None)
        assert "teacher cherry" in caught.value.where


def test_an_instruction_without_all_its_scores_is_left_out_for_all() -> None:
    first, second = np.ones((3, 5)), np.ones((3, 5))
    first[1, 0] = first[1, 3] = first[2, 3] = second[0, 3] = np.nan
    kept_N, why = left_out({"judge": first.ravel(), "other": second.ravel()}, ("a", "b", "c"))
    assert kept_N.tolist() == [False, True, True, False, True]
    assert why == (
        "2 of 5 instructions were left out: reward judge gave no score to 3 answers "
        "(most: b 2, c 1); reward other gave no score to 1 answers (most: a 1)"
    )
    refuse_too_few(kept_N, 0.6, why)
    with pytest.raises(DataError, match="too few instructions have a score") as caught:
        refuse_too_few(kept_N, 0.7, why)
    assert caught.value.found == why
    assert left_out({"judge": np.ones(6)}, ("a", "b"))[1] == ""
