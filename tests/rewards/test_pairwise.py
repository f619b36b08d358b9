"""Games against a baseline, worked out by hand; judges of known bias."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from preceptor.core.errors import DataError, SettingsError
from preceptor.core.types import Answer, Reply, Runtime
from preceptor.data.asking import Asker
from preceptor.recipes.inputs.respondents import open_reward
from preceptor.recipes.settings.rewards import Baseline, PairwiseReward
from preceptor.rewards.pairwise import read_verdict, value_of
from preceptor.selection.rewarding import score_answers

Make = Callable[..., Answer]


def pairwise(rule: str, baseline: Any = "rival", **setting: Any) -> PairwiseReward:
    teacher = {"kind": f"own_judges:open_{rule}"}
    return PairwiseReward.model_validate(
        {"kind": "pairwise", "name": "duel", "teacher": teacher, "baseline": baseline, **setting}
    )


def scored(source: Any, answers: list[Answer]) -> list[float]:
    return score_answers("duel", source, answers, None).tolist()


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("[[A]]", "A"),
        ("Not [[A]] but [[B]].", "B"),
        ("[[ C ]]", "C"),
        ("[[a]]", None),
        ("[[D]]", None),
        ("[A]", None),
        ("A", None),
        ("", None),
    ],
)
def test_a_verdict_is_the_last_label(
    reply: Callable[..., Reply], text: str, verdict: str | None
) -> None:
    assert read_verdict(reply(text)) == verdict


@pytest.mark.parametrize(
    ("first", "second", "value"),
    [
        ("A", "B", 1.0),  # wins where it stands first, and where it stands second
        ("B", "A", 0.0),
        ("A", "A", 0.5),  # the first position wins both: no verdict on the answers
        ("B", "B", 0.5),
        ("C", "C", 0.5),
        ("A", "C", 0.75),
        ("C", "B", 0.75),
        ("B", "C", 0.25),
        ("C", "A", 0.25),
        ("A", None, None),
        (None, "B", None),
        (None, None, None),
    ],
)
def test_the_value_of_two_games(first: str | None, second: str | None, value: float | None) -> None:
    found = value_of(first, second)
    assert math.isnan(found) if value is None else found == value


def test_games_in_both_orders(plugs: Any, runtime: Runtime, asker: Asker, answer: Make) -> None:
    source = open_reward(pairwise("longer"), runtime)
    assert (source.low, source.high, source.may_miss) == (0.0, 1.0, True)
    answers = [
        answer("long words", rival="short"),
        answer("x", rival="short"),
        answer("as it", rival="short"),  # as long as the baseline
        answer("short", rival="short"),  # the baseline itself
    ]
    assert scored(source, answers) == [1.0, 0.0, 0.5, 0.5]
    assert source.facts == {
        "comparisons": 3,
        "identical": 1,
        "games": 6,
        "parse_failures": 0,
        "ties": 2,
        "contradictions": 0,
        "first_position_wins": 0.5,
    }
    shown = [
        (plugs.section(text, "answer A"), plugs.section(text, "answer B"))
        for text in (request.messages[0][1] for request in plugs.asked)
    ]
    assert shown[:2] == [("long words", "short"), ("short", "long words")]
    assert len(shown) == 6 and asker.facts["judge:duel"]["answers"] == 6


def test_the_bias_of_a_judge_cancels_and_is_reported(
    plugs: Any, runtime: Runtime, answer: Make
) -> None:
    answers = [answer("good", rival="bad"), answer("bad", rival="good"), answer("x", rival="y")]
    biased = open_reward(pairwise("always_first"), runtime)
    assert scored(biased, answers) == [0.5, 0.5, 0.5]
    assert biased.facts["first_position_wins"] == 1.0
    assert (biased.facts["contradictions"], biased.facts["comparisons"]) == (3, 3)
    tied = open_reward(pairwise("always_tie"), runtime)
    assert scored(tied, answers) == [0.5, 0.5, 0.5]
    assert (tied.facts["ties"], tied.facts["contradictions"]) == (6, 0)
    assert "first_position_wins" not in tied.facts


def test_one_unreadable_reply_leaves_no_score(plugs: Any, runtime: Runtime, answer: Make) -> None:
    """The judge says nothing where the first answer is one letter, and prefers the first else."""
    source = open_reward(pairwise("mute_if_first_is_short"), runtime)
    values = scored(source, [answer("x", rival="long"), answer("long", rival="other")])
    assert math.isnan(values[0]) and values[1] == 0.5
    assert (source.facts["games"], source.facts["parse_failures"]) == (4, 1)
    assert source.facts["first_position_wins"] == 1.0
    assert source.facts["contradictions"] == 1
    with pytest.raises(DataError, match="no reply of the judge holds a verdict"):
        scored(open_reward(pairwise("mute"), runtime), [answer("a", rival="b")])


def test_a_baseline_that_is_a_teacher_of_the_pool(
    plugs: Any, runtime: Runtime, answer: Make
) -> None:
    setting = pairwise("longer", {"teacher": "elm"})
    answers = [
        answer("a long one", "ash", "1"),
        answer("a", "ash", "2"),
        answer("short", "elm", "1"),
        answer("short", "elm", "2"),
    ]
    source = open_reward(setting, runtime, pool=("ash", "elm"))
    assert scored(source, answers) == [1.0, 0.0, 0.5, 0.5]
    assert (source.facts["identical"], source.facts["games"]) == (2, 4)
    with pytest.raises(DataError, match="no answer to an instruction") as caught:
        scored(source, answers[:3])
    assert caught.value.found.startswith("1 of 3 answers without one, the first to instruction 2")
    with pytest.raises(SettingsError, match="not one of the teachers") as refused:
        open_reward(setting, runtime, pool=("ash", "elms"))
    assert refused.value.found == "did you mean 'elms'?"
    with pytest.raises(SettingsError, match="not one of the teachers"):
        open_reward(setting, runtime)


def test_a_baseline_in_a_table(plugs: Any, runtime: Runtime, answer: Make, tmp_path: Path) -> None:
    file = tmp_path / "baseline.jsonl"
    rows = [{"prompt": "One?", "output": "short"}, {"prompt": "Two?", "output": "a longer one"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = open_reward(pairwise("longer", {"table": str(file)}), runtime)
    answers = [
        answer("longer", key="own id", instruction="One?"),  # found by its text
        answer("longer", key="2", instruction="Two?"),
    ]
    assert scored(source, answers) == [1.0, 0.0]
    fingerprint = source.fingerprint
    with pytest.raises(DataError, match="no answer to an instruction"):
        scored(source, [answer("x", instruction="Three?")])
    file.write_text(json.dumps({"prompt": "One?", "output": "other"}) + "\n")
    changed = open_reward(pairwise("longer", {"table": str(file)}), runtime)
    assert changed.fingerprint != fingerprint
    columns = {"path": str(file), "columns": {"response": "outputs"}}
    with pytest.raises(DataError, match="no column for the response"):
        open_reward(pairwise("longer", {"table": columns}), runtime)


def test_the_baseline_of_a_setting() -> None:
    assert pairwise("longer", "gpt4_answer").baseline == Baseline(column="gpt4_answer")
    for wrong in ({}, {"column": "a", "teacher": "b"}):
        with pytest.raises(ValidationError, match="give one of"):
            pairwise("longer", wrong)


def test_a_missing_baseline_column_is_named(plugs: Any, runtime: Runtime, answer: Make) -> None:
    with pytest.raises(DataError, match="no text in the column 'rival'") as caught:
        scored(open_reward(pairwise("longer"), runtime), [answer("a", rivals="b")])
    assert caught.value.found == "did you mean 'rivals'?"
    assert plugs.asked == []
