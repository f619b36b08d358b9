"""Rewards that were recorded, rewards that a program gives, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preceptor.core.errors import DataError, SettingsError
from preceptor.core.stage import Stage
from preceptor.core.types import Answer, RewardSource, Runtime
from preceptor.lab import verifier as lab_verifier
from preceptor.recipes.settings.rewards import ColumnReward, VerifierReward
from preceptor.rewards import column, verifier
from preceptor.selection.rewarding import VALUES_SCHEMA, score_answers


def answer(teacher: str = "ash", key: str = "i1", **row: Any) -> Answer:
    return Answer(key, "One?", teacher, "1", row=row)


def of_column(answers: list[Answer], **setting: str) -> np.ndarray:
    reward = ColumnReward.model_validate({"name": "r", **setting})
    return score_answers(reward.name, column.open_reward(reward, Runtime()), answers, None)


def of_program(answers: list[Answer], function: str) -> np.ndarray:
    reward = VerifierReward.model_validate({"kind": "verifier", "name": "v", "function": function})
    return score_answers("v", verifier.open_reward(reward, Runtime()), answers, None)


def test_a_column_by_its_name_or_another() -> None:
    answers = [answer(r=1, s=0.5), answer(r=-2.5, s=2)]
    assert of_column(answers).tolist() == [1.0, -2.5]
    assert of_column(answers, column="s").tolist() == [0.5, 2.0]


@pytest.mark.parametrize("value", [None, "1.0", True, [1.0]])
def test_a_reward_that_is_no_number_is_named(value: Any) -> None:
    with pytest.raises(DataError, match="a reward is not a number") as caught:
        of_column([answer(r=1), answer("beech", "i7", r=value)])
    assert caught.value.where == "column 'r', teacher beech, instruction i7"
    assert caught.value.found == repr(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_reward_that_is_not_finite_is_named(value: float) -> None:
    with pytest.raises(DataError, match="a reward is not a finite number") as caught:
        of_column([answer(r=1), answer("beech", "i7", r=value)])
    assert caught.value.where == "reward 'r', teacher beech, instruction i7"
    assert caught.value.found == "1 of 2 values are NaN or infinite"


def test_a_missing_column_names_the_nearest() -> None:
    with pytest.raises(DataError, match="no such reward column") as caught:
        of_column([answer(reward=1)], column="rewrad")
    assert caught.value.found == "did you mean 'reward'?"


@pytest.fixture
def graders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_graders.py").write_text(
        "def words(instruction, response, row):\n"
        "    return len(instruction) + len(response) / 2 + row['bonus']\n"
        "def nothing(instruction, response, row):\n"
        "    pass\n"
        "def broken(instruction, response, row):\n"
        "    return [].pop()\n"
        "def nan(instruction, response, row):\n"
        "    return float('nan')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "own_graders"


def test_a_verifier_of_the_user(graders: str) -> None:
    found = of_program([answer(bonus=1), answer(bonus=10)], f"{graders}:words")
    assert found.tolist() == [5.5, 14.5]


def test_the_lab_verifier_by_name() -> None:
    row = {"kind": "add", "constraint": "none", "answer": "1"}
    wrong = {"kind": "add", "constraint": "none", "answer": "2"}
    expected = [lab_verifier.grade("One?", "1", row), lab_verifier.grade("One?", "1", wrong)]
    assert of_program([answer(**row), answer(**wrong)], "lab").tolist() == expected
    assert expected == [1.0, pytest.approx(0.15)]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("words", "KeyError: 'bonus'"),
        ("nothing", "TypeError: float() argument must be"),
        ("broken", "IndexError: pop from empty list"),
    ],
)
def test_a_verifier_that_fails_is_named(graders: str, name: str, found: str) -> None:
    with pytest.raises(DataError, match="the verifier cannot grade an answer") as caught:
        of_program([answer("beech", "i7")], f"{graders}:{name}")
    assert caught.value.where == f"verifier '{graders}:{name}', teacher beech, instruction i7"
    assert caught.value.found.startswith(found)


def test_a_verifier_that_gives_nan_is_refused(graders: str) -> None:
    with pytest.raises(DataError, match="a reward is not a finite number"):
        of_program([answer()], f"{graders}:nan")


def test_an_unknown_verifier_is_refused_at_once() -> None:
    with pytest.raises(SettingsError, match="unknown verifier 'labb'") as caught:
        of_program([], "labb")
    assert caught.value.found == "did you mean 'lab'?"


def test_scoring_goes_on_where_it_was_left(tmp_path: Path) -> None:
    """Only what the stage does not hold is scored; the values are the same."""
    answers = [answer(key=str(n), r=n * 0.5) for n in range(5)]
    seen: list[str] = []

    def score(group: Any) -> list[float]:
        seen.extend(a.instruction_id for a in group)
        return [a.row["r"] for a in group]

    source = RewardSource(lambda _: [[4, 0], [1, 3], [2]], lambda: score)
    with Stage(tmp_path, VALUES_SCHEMA) as stage:
        stage.add(batch=[1, 1], item=[1, 3], value=[0.5, 1.5])
    with Stage(tmp_path, VALUES_SCHEMA) as stage:
        values = score_answers("r", source, answers, stage)
    assert seen == ["4", "0", "2"]
    assert values.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    with Stage(tmp_path, VALUES_SCHEMA) as stage:
        again = score_answers("r", source, answers, stage)
    assert again.tolist() == values.tolist() and len(seen) == 3


def test_a_nan_that_was_committed_is_refused_again(tmp_path: Path) -> None:
    source = RewardSource(lambda _: [[0]], lambda: lambda group: [float("nan")] * len(group))
    for _ in range(2):
        with (
            pytest.raises(DataError, match="a reward is not a finite number"),
            Stage(tmp_path, VALUES_SCHEMA) as stage,
        ):
            score_answers("r", source, [answer()], stage)
