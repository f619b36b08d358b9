"""Constraints and right answers, by hand: strict and loose, with constraints and without."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preceptor.benchmarks.verifiable import loosened, without_thought
from preceptor.core.benchmark import Benchmark, Examinee, Exchange, Graded
from preceptor.core.errors import DataError, PreceptorError, SettingsError
from preceptor.core.types import Answer, Reply, Runtime
from preceptor.recipes.examining.examinees import Candidate, examine, open_benchmark, open_candidate
from preceptor.recipes.inputs.respondents import open_asker
from preceptor.recipes.settings.benchmarks import Verifiable
from preceptor.recipes.settings.shared import TransformersTeacher
from preceptor.rewards.verifiers.constraints import constraints

ADA = Examinee("ada")
IFEVAL = [
    {
        "key": 1000,
        "prompt": "Name two things in two bullets, without commas.",
        "instruction_id_list": ["punctuation:no_comma", "detectable_format:number_bullet_lists"],
        "kwargs": [{}, {"num_bullets": 2}],
    },
    {
        "key": 1001,
        "prompt": "Greet me in quotes and end with Bye.",
        "instruction_id_list": ["startend:quotation", "startend:end_checker"],
        "kwargs": [{}, {"end_phrase": "Bye."}],
    },
    {
        "key": 1002,
        "prompt": "Write of a cat in small letters and five words.",
        "instruction_id_list": [
            "change_case:english_lowercase",
            "keywords:existence",
            "length_constraints:number_words",
        ],
        "kwargs": [{}, {"keywords": ["cat"]}, {"num_words": 5, "relation": "at least"}],
    },
]
REPLIES = {
    "1000": "Here, as you wish:\n* one\n* two",  # a comma in the first line alone
    "1001": '"Hello. Bye."',
    "1002": "the *cat* sat",
}
MATHIF = [
    {
        "source": "gsm8k",
        "id": "m0",
        "question": "What is six times seven?",
        "answer": "42",
        "constraint_desc": ["Use no commas.", "Answer with less than 3 words."],
        "constraint_name": ["punctuation:no_comma", "length_constraint_checkers:number_words"],
        "constraint_args": [None, {"num_words": 3, "relation": "less than"}],
    },
    {
        "source": "aime",
        "id": "m1",
        "question": "What is one and one? Use no commas.",
        "answer": "2",
        "constraint_desc": ["Use no commas."],
        "constraint_name": ["punctuation:no_comma"],
        "constraint_args": [None],
    },
]


def written(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def opened(folder: Path, rows: Sequence[Mapping[str, Any]], **setting: Any) -> Benchmark:
    path = str(written(folder, rows))
    whole = {"kind": "verifiable", "questions": path, **setting}
    return open_benchmark(Verifiable.model_validate(whole), Runtime("cpu"))


def graded(benchmark: Benchmark, replies: Mapping[str, str]) -> Graded:
    exchanges = [
        Exchange(own, (Reply(replies[own.key], "stop", 3),))
        for own in benchmark.questions
        if own.key in replies
    ]
    return benchmark.grade(ADA, exchanges)


def scores(benchmark: Benchmark, grades: Graded, *weights: Sequence[float]) -> dict[str, list]:
    weight_RN = np.array(weights or [[1.0] * len(grades.marks.keys)], dtype=np.float64)
    found = benchmark.score({"ada": grades.marks})("ada", weight_RN)
    return {name: value_R.tolist() for name, value_R in found.items()}


def test_strict_and_loose_at_both_levels(tmp_path: Path) -> None:
    """Strictly 1 of 2, 2 of 2 and 2 of 3 constraints are kept; loosely 2, 2 and 2."""
    benchmark = opened(tmp_path, IFEVAL)
    grades = graded(benchmark, REPLIES)
    assert grades.marks.keys == ("1000", "1001", "1002")
    found = scores(benchmark, grades, [1, 1, 1], [2, 0, 1], [0, 0, 0])
    assert found["prompt_strict"] == pytest.approx([100 / 3, 0, math.nan], nan_ok=True)
    assert found["instruction_strict"] == pytest.approx(
        [100 * 5 / 7, 100 * 4 / 7, math.nan], nan_ok=True
    )
    assert found["prompt_loose"] == pytest.approx([200 / 3, 200 / 3, math.nan], nan_ok=True)
    assert found["instruction_loose"] == pytest.approx(
        [100 * 6 / 7, 100 * 6 / 7, math.nan], nan_ok=True
    )
    assert found["soft"] == pytest.approx(
        [100 * (1 / 2 + 1 + 2 / 3) / 3, 100 * (2 * 1 / 2 + 2 / 3) / 3, math.nan], nan_ok=True
    )
    assert [measure.name for measure in benchmark.measures] == list(found)
    by_item = {measure.name: measure.item for measure in benchmark.measures}
    for name, item in by_item.items():  # those that are means of marks
        if item:
            assert found[name][0] == pytest.approx(100 * grades.marks.values[item].mean())
    assert by_item["prompt_strict"] and not by_item["instruction_strict"]


def test_the_eight_readings() -> None:
    assert loosened("a\n*b*\nc") == [
        *("a\n*b*\nc", "*b*\nc", "a\n*b*", "*b*"),
        *("a\nb\nc", "b\nc", "a\nb", "b"),
    ]
    assert loosened("one line") == ["one line", "", "", ""] * 2


def test_a_loose_check_is_never_the_harder_one(tmp_path: Path) -> None:
    benchmark = opened(tmp_path, IFEVAL)
    rng = random.Random(0)
    pieces = ["cat", "*", ",", "\n", "* one", '"', "Bye.", " ", "A", "sat on it"]
    kept = np.zeros(2)
    for _ in range(200):
        replies = {str(row["key"]): "".join(rng.choices(pieces, k=9)) for row in IFEVAL}
        values = graded(benchmark, replies).marks.values
        assert (values["prompt_loose"] >= values["prompt_strict"]).all()
        assert (values["kept_loose"] >= values["kept_strict"]).all()
        kept += values["kept_strict"].sum(), values["kept_loose"].sum()
    assert 0 < kept[0] < kept[1]


def test_items_without_a_reply_or_without_constraints_count_nowhere(tmp_path: Path) -> None:
    rows = [*IFEVAL, {"key": 1003, "prompt": "Say anything."}]
    benchmark = opened(tmp_path, rows)
    grades = graded(benchmark, {key: REPLIES[key] for key in ("1000", "1001")} | {"1003": "a"})
    assert grades.facts["answered"] == 3
    assert np.isnan(grades.marks.values["n_constraints"]).tolist() == [False, False, True, True]
    found = scores(benchmark, grades)
    assert found["prompt_strict"] == [50.0]
    assert found["instruction_strict"] == [75.0]
    empty = graded(benchmark, {"1000": " "})
    assert scores(benchmark, empty)["instruction_loose"] == [0.0]


def test_what_was_thought_is_no_part_of_the_reply(tmp_path: Path) -> None:
    assert without_thought("<think>a, b</think>\n\nc </think> d") == "d"
    assert without_thought("<think>a, b") == "<think>a, b"
    benchmark = opened(tmp_path, IFEVAL)
    thinking = {key: f"<think>\nwell, well\n</think>\n\n{text}" for key, text in REPLIES.items()}
    grades = graded(benchmark, thinking)
    assert scores(benchmark, grades) == scores(benchmark, graded(benchmark, REPLIES))
    assert grades.facts["thought"] == 3


def test_hard_and_soft_accuracy_and_what_constraints_cost(tmp_path: Path) -> None:
    benchmark = opened(
        tmp_path, MATHIF, answer="answer", equality="exact_match", unconstrained="question"
    )
    assert {own.key: own.turns[0] for own in benchmark.questions} == {
        "m0": "What is six times seven? Use no commas. Answer with less than 3 words.",
        "m1": "What is one and one? Use no commas.",
        "m0:unconstrained": "What is six times seven?",
        "m1:unconstrained": "What is one and one? Use no commas.",
    }
    assert [own.category for own in benchmark.questions] == ["gsm8k", "aime"] * 2
    replies = {"m0": "It is forty-two.", "m1": "2"}
    grades = graded(benchmark, replies | {"m0:unconstrained": "42", "m1:unconstrained": "2"})
    assert grades.marks.keys == ("m0", "m1") and grades.marks.categories == ("gsm8k", "aime")
    found = scores(benchmark, grades, [1, 1], [3, 1], [1, 0])
    assert found["prompt_strict"] == [50.0, 25.0, 0.0]  # HAcc: "no commas" alone is kept by m0
    assert found["soft"] == [75.0, 62.5, 50.0]  # SAcc
    assert found["instruction_strict"] == pytest.approx([200 / 3, 400 / 7, 50.0])
    assert found["correct"] == [50.0, 25.0, 0.0]
    assert found["correct_unconstrained"] == [100.0, 100.0, 100.0]
    assert found["correct_change"] == [-50.0, -75.0, -100.0]
    # of an item without its second answer, the change says nothing
    half = graded(benchmark, replies | {"m1:unconstrained": "2"})
    assert scores(benchmark, half)["correct_change"] == [0.0]
    none = graded(benchmark, replies | {"m0:unconstrained": "1", "m1:unconstrained": "1"})
    assert np.isnan(scores(benchmark, none)["correct_change"]).all()


def test_recorded_answers_are_to_the_question_of_their_id(tmp_path: Path) -> None:
    """The text of a recorded row may be the bare question: it is no answer to that one."""
    benchmark = opened(
        tmp_path, MATHIF, answer="answer", equality="exact_match", unconstrained="question"
    )
    asked = {"m0": "What is six times seven?", "x": "What is one and one? Use no commas."}
    recorded = {key: Answer(key, text, "ada", "42") for key, text in asked.items()}
    exchanges, grades = examine(benchmark, Candidate(ADA, answers=recorded), Runtime("cpu"))
    assert [own.question.key for own in exchanges] == ["m0", "m1", "m1:unconstrained"]
    assert grades.marks.values["correct"].tolist() == [1.0, 0.0]
    assert np.isnan(grades.marks.values["correct_unconstrained"]).tolist() == [True, False]


def test_right_answers_alone(tmp_path: Path) -> None:
    pytest.importorskip("math_verify")
    rows = [
        {"id": "a", "question": "1/2?", "gold": r"\frac{1}{2}"},
        {"id": "b", "question": "2+2?", "gold": "4"},
        {"id": "c", "question": "And?", "gold": None},
    ]
    benchmark = opened(tmp_path, rows, answer="gold", max_questions=3)
    assert [measure.name for measure in benchmark.measures] == ["correct"]
    grades = graded(benchmark, {"a": "So it is $0.5$", "b": "It is 5", "c": "It is 6"})
    assert scores(benchmark, grades) == {"correct": [50.0]}


def test_an_equality_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_equality.py").write_text(
        "def ends(instruction, response, row):\n"
        "    return float(response.endswith(row['gold']))\n"
        "def doubles(instruction, response, row):\n"
        "    return 2.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    rows = [{"id": "a", "question": "?", "gold": "x"}, {"id": "b", "question": "!", "gold": "y"}]
    benchmark = opened(tmp_path, rows, answer="gold", equality="own_equality:ends")
    assert scores(benchmark, graded(benchmark, {"a": "ax", "b": "bz"})) == {"correct": [50.0]}
    with pytest.raises(DataError, match="gives a number from 0"):
        opened(tmp_path, rows, answer="gold", equality="own_equality:doubles")


@pytest.mark.parametrize(
    ("change", "setting", "kind", "told"),
    [
        (
            {"instruction_id_list": ["punctuation:no_coma"], "kwargs": [{}]},
            {},
            DataError,
            "did you mean 'punctuation:no_comma'",
        ),
        (
            {"instruction_id_list": ["startend:end_checker"], "kwargs": [{}]},
            {},
            DataError,
            "end_phrase",
        ),
        (
            {"instruction_id_list": ["startend:quotation"], "kwargs": []},
            {},
            DataError,
            "1 constraints with 0",
        ),
        ({}, {"answer": "gold"}, DataError, "no column 'gold'"),
        ({}, {"unconstrained": "prompt"}, SettingsError, "there is no `answer`"),
        (
            {"gold": "4"},
            {"answer": "gold", "equality": "exact_match", "unconstrained": "prompt"},
            DataError,
            "are the questions themselves",
        ),
        ({"instruction_id_list": None, "kwargs": None}, {}, DataError, "no question has a"),
        ({"gold": "no mathematics"}, {"answer": "gold"}, DataError, "holds no mathematics"),
    ],
)
def test_what_cannot_be_checked_is_refused_before_anything_is_asked(
    tmp_path: Path,
    change: dict[str, Any],
    setting: dict[str, Any],
    kind: type[PreceptorError],
    told: str,
) -> None:
    rows = [{**row, **change} for row in IFEVAL[:1]]
    with pytest.raises(kind) as caught:
        opened(tmp_path, rows, **setting)
    assert told in str(caught.value)
    assert caught.value.where and caught.value.found and caught.value.next_step


def test_a_table_with_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to check"):
        opened(tmp_path, [{"id": "a", "question": "?"}, {"id": "b", "question": "!"}])


def test_keys_that_would_stand_for_two_questions(tmp_path: Path) -> None:
    rows = [MATHIF[0], {**MATHIF[1], "id": "m0:unconstrained"}]
    with pytest.raises(DataError, match="more than once") as caught:
        opened(tmp_path, rows, answer="answer", equality="exact_match", unconstrained="question")
    assert "m0:unconstrained" in caught.value.found


def test_the_fingerprint_is_of_what_marks_depend_on(tmp_path: Path) -> None:
    def print_of(rows: Sequence[Mapping[str, Any]], **setting: Any) -> str:
        return opened(tmp_path, rows, **setting).fingerprint

    assert print_of(IFEVAL) == print_of(IFEVAL, max_new_tokens=7)
    assert print_of(IFEVAL) != print_of(IFEVAL[:2])
    whole = print_of(MATHIF, answer="answer", equality="exact_match")
    assert whole != print_of(MATHIF)
    assert whole != print_of(
        MATHIF, answer="answer", equality="exact_match", unconstrained="question"
    )


def test_a_live_model(tmp_path: Path, chatter: Path) -> None:
    """Asked through the answer store; what is kept agrees with the verifier of that name."""
    rows = [
        {
            "id": f"q{number}",
            "question": f"Name {number} things.",
            "instruction_id_list": [*(["punctuation:no_comma"] * (number % 2)), name],
            "kwargs": [*([{}] * (number % 2)), arguments],
            "gold": "blue",
            "bare": f"Things {number}?",
        }
        for number, (name, arguments) in enumerate(
            [
                ("punctuation:no_comma", {}),
                ("change_case:english_lowercase", {}),
                ("length_constraints:number_words", {"num_words": 4, "relation": "at least"}),
                ("length_constraints:number_words", {"num_words": 9, "relation": "less than"}),
                ("keywords:letter_frequency",
                 {"letter": "e", "let_frequency": 1, "let_relation": "at least"}),
            ]
        )
    ]  # fmt: skip
    benchmark = opened(
        tmp_path,
        rows,
        answer="gold",
        equality="exact_match",
        unconstrained="bare",
        max_new_tokens=12,
    )
    asker = open_asker(None, tmp_path / "run")
    runtime = Runtime("cpu", ask=asker)
    candidate = open_candidate(TransformersTeacher(model=str(chatter)), runtime)
    exchanges, grades = examine(benchmark, candidate, runtime)
    assert len(exchanges) == 10 and grades.facts["answered"] == 5
    values = grades.marks.values
    by_key = {own.question.key: own.response for own in exchanges}
    for place, row in enumerate(rows):
        reply = by_key[f"q{place}"]
        assert values["share_strict"][place] == constraints("?", reply, row)
        assert values["prompt_strict"][place] == constraints("?", reply, row, reduce="all")
    found = scores(benchmark, grades)
    assert 0 < found["instruction_strict"][0] <= found["instruction_loose"][0] <= 100
    assert found["correct"] == found["correct_unconstrained"] == [0.0]
    again, _ = examine(benchmark, candidate, runtime)
    assert [own.response for own in again] == [own.response for own in exchanges]
