"""Verifiers by hand: mathematics, exact match, IFEval's constraints; options and ranges."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preceptor.core.errors import DataError, SettingsError
from preceptor.core.types import Answer, Runtime
from preceptor.recipes.inputs.respondents import open_reward
from preceptor.recipes.settings.rewards import ColumnReward, OwnReward, VerifierReward
from preceptor.rewards.verifiers.constraints import CHECKS, constraints
from preceptor.rewards.verifiers.exact_match import exact_match
from preceptor.rewards.verifiers.math_equality import Calculator, math
from preceptor.selection.rewarding import score_answers


def verifier(function: str, **setting: Any) -> VerifierReward:
    return VerifierReward.model_validate(
        {"kind": "verifier", "name": "v", "function": function, **setting}
    )


def grade(function: str, response: str, row: dict[str, Any], **setting: Any) -> float:
    source = open_reward(verifier(function, **setting), Runtime("cpu"))
    return score_answers("v", source, [Answer("i", "?", "ash", response, row=row)], None)[0]


@pytest.mark.parametrize(
    ("right", "response", "value"),
    [
        ("42", "So the answer is 42.", 1.0),
        ("42", "So the answer is 43.", 0.0),
        ("42", "", 0.0),
        ("42", "I do not know.", 0.0),
        (r"\frac{1}{2}", "which gives $0.5$", 1.0),
        (r"\frac{1}{2}", r"which gives \boxed{\frac{2}{4}}", 1.0),
        (r"\sqrt{2}+x", r"$x+\sqrt{2}$", 1.0),
        (r"\sqrt{2}+x", "$2$", 0.0),
        ("(x+1)^2", "$x^2+2x+1$", 1.0),
        (r"\{1, 2\}", r"$\{2, 1\}$", 1.0),
        ("She has 3 + 4 = 7 cats.\n#### 1,007", "In all, 1007 cats", 1.0),
        (r"Since 2 + 2 = 4, it is \boxed{4}.", r"First 5, but then \boxed{4}", 1.0),
        (r"Since 2 + 2 = 4, it is \boxed{4}.", r"First \boxed{4}, but then \boxed{5}", 0.0),
        (r"50\%", r"\boxed{0.5}", 1.0),
    ],
)
def test_mathematics(right: str, response: str, value: float) -> None:
    assert math("?", response, {"answer": right}) == value


def test_mathematics_by_its_name_and_column() -> None:
    row = {"answer": "1", "key": "2", "solution": "3"}
    assert grade("math", "2", row) == 0.0
    assert grade("math", "2", row, options={"column": "key"}) == 1.0
    assert grade("math", "3", {"solution": "3"}) == 1.0
    assert grade("math", "3", {"answer": None, "reference": 3}) == 1.0
    with pytest.raises(DataError, match="cannot grade") as caught:
        grade("math", "2", {"other": "1"})
    assert "no right answer in answer / reference / solution" in caught.value.found
    with pytest.raises(DataError, match="cannot grade") as caught:
        grade("math", "2", {"answer": "no mathematics at all"})
    assert "holds no mathematics" in caught.value.found


def test_an_endless_computation_is_stopped_and_the_next_one_goes_on() -> None:
    started = time.process_time()
    assert math("?", r"\boxed{9^{9^{9}}}", {"answer": "3"}, seconds=0.5) == 0.0
    assert math("?", r"\boxed{9^{9^{9}}}", {"answer": "9^{9^{9}}"}, seconds=0.5) == 1.0
    assert math("?", "3", {"answer": "3"}) == 1.0
    assert time.process_time() - started < 2  # the computing was another process's


def test_mathematics_from_threads() -> None:
    found: dict[int, float] = {}

    def work(number: int) -> None:
        found[number] = math("?", f"$ {number} + 1 $", {"answer": str(number + 1)})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(4), 1.0)


def test_a_calculator_that_dies_is_an_error_not_a_score(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calculator = Calculator()
    assert calculator.equal("3", "3", 5.0) == 1.0
    process = calculator._process
    assert process is not None
    process.kill()
    process.wait()
    with pytest.raises(RuntimeError, match="status -9"):
        calculator.equal("3", "3", 5.0)
    assert calculator.equal("3", "3", 5.0) == 1.0
    calculator.close()
    assert calculator._process is None


def test_a_missing_library_is_named() -> None:
    """In an interpreter that cannot see math-verify."""
    code = (
        "import importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'math_verify' else find(name, *rest)\n"
        "from preceptor.core.plugs import plug\n"
        "from preceptor.rewards import VERIFIERS\n"
        "plug('verifier', VERIFIERS, 'math')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "needs the library math-verify" in done.stderr
    assert "pip install 'preceptor[verify]'" in done.stderr


@pytest.mark.parametrize(
    ("response", "options", "value"),
    [
        ("The Answer", {}, 1.0),
        ("  the\n answer ", {}, 1.0),
        ("the answer.", {}, 0.0),
        ("“the, answer”.", {"ignore_punctuation": True}, 1.0),
        ("The Answer", {"ignore_case": False}, 0.0),
        ("the answer", {"ignore_case": False}, 1.0),
        ("theanswer", {}, 0.0),
        ("", {}, 0.0),
    ],
)
def test_exact_match(response: str, options: dict[str, Any], value: float) -> None:
    assert exact_match("?", response, {"reference": "the answer"}, **options) == value


def test_exact_match_is_of_characters_not_of_code_points() -> None:
    assert exact_match("?", "cafe\u0301", {"answer": "caf\u00e9"}) == 1.0
    assert exact_match("?", "STRASSE", {"answer": "straße"}) == 1.0
    assert exact_match("?", "4", {"answer": 4}) == 1.0


TEXT = "One two, three. Four five six! Is it seven? Yes.\n\nThe second part: AI and NASA said so."
CONSTRAINTS: list[tuple[str, dict[str, Any], str, bool]] = [
    ("keywords:existence", {"keywords": ["four", "NASA"]}, TEXT, True),
    ("keywords:existence", {"keywords": ["four", "eight"]}, TEXT, False),
    ("keywords:existence", {"keywords": ["c++"]}, "I write C++ code", True),
    ("keywords:frequency", {"keyword": "o", "frequency": 8, "relation": "at least"}, TEXT, False),
    ("keywords:frequency", {"keyword": "is", "frequency": 2, "relation": "less than"}, TEXT, True),
    ("keywords:forbidden_words", {"forbidden_words": ["hre", "eight"]}, TEXT, True),
    ("keywords:forbidden_words", {"forbidden_words": ["THREE"]}, TEXT, False),
    (
        "keywords:letter_frequency",
        {"letter": "z", "let_frequency": 1, "let_relation": "less than"},
        TEXT,
        True,
    ),
    (
        "keywords:letter_frequency",
        {"letter": "n", "let_frequency": 6, "let_relation": "at least"},
        "Nine new nannies",
        True,
    ),
    (
        "keywords:letter_frequency",
        {"letter": "n", "let_frequency": 7, "let_relation": "at least"},
        "Nine new nannies",
        False,
    ),
    ("length_constraints:number_sentences", {"num_sentences": 5, "relation": "at least"}, TEXT,
     True),
    ("length_constraints:number_sentences", {"num_sentences": 5, "relation": "less than"}, TEXT,
     False),
    ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "less than"},
     "Dr. Jones paid 3.50 for it, e.g. in May. “Did she?”", True),
    ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "at least"},
     "一。二！三？", True),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "a b c", True),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, "a b c", False),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", True),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "***\na\n***\nb\n***", True),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\n***\nb", False),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n\nb", False),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "the"},
        TEXT,
        True,
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "the"},
        TEXT,
        False,
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 3, "nth_paragraph": 2, "first_word": "the"},
        TEXT,
        False,
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "Dear [name], [city]",
     True),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "Dear [name]", False),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\np.s. more", True),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\nP. P. S: more", True),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\nP.S. more", False),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n* b", True),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "- a\n * b\nc", True),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n* b\n* c", False),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "**bold** is no bullet\n* a",
     True),
    ("detectable_format:constrained_response", {}, "My answer is maybe.", True),
    ("detectable_format:constrained_response", {}, "Maybe.", False),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and **b c**",
     True),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and ** **",
     False),
    ("detectable_format:multiple_sections", {"section_spliter": "Section", "num_sections": 2},
     "Section 1\nx\nSection 2\ny", True),
    ("detectable_format:multiple_sections", {"section_spliter": "Section", "num_sections": 2},
     "Section 1\nx\nSection", False),
    ("detectable_format:json_format", {}, '```json\n{"a": [1]}\n```', True),
    ("detectable_format:json_format", {}, "{'a': 1}", False),
    ("detectable_format:title", {}, "<<A title>>\ntext", True),
    ("detectable_format:title", {}, "<< >> text", False),
    ("combination:two_responses", {}, "a\n******\nb", True),
    ("combination:two_responses", {}, "a\n******\na", False),
    ("combination:two_responses", {}, "a\n******\nb\n******\nc", False),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "say it.\nIt.", True),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "It. Say it.", False),
    ("startend:end_checker", {"end_phrase": "Any other questions?"},
     'So. any other questions?"', True),
    ("startend:end_checker", {"end_phrase": "Any other questions?"},
     "Any other questions? No.", False),
    ("startend:quotation", {}, ' "quoted" ', True),
    ("startend:quotation", {}, '"', False),
    ("change_case:capital_word_frequency",
     {"capital_frequency": 2, "capital_relation": "at least"}, TEXT, True),
    ("change_case:capital_word_frequency",
     {"capital_frequency": 2, "capital_relation": "less than"}, TEXT, False),
    ("change_case:english_capital", {}, "ALL OF IT, 1!", True),
    ("change_case:english_capital", {}, "ALL OF it", False),
    ("change_case:english_lowercase", {}, "all of it, 1!", True),
    ("change_case:english_lowercase", {}, "All of it", False),
    ("punctuation:no_comma", {}, "a; b", True),
    ("punctuation:no_comma", {}, "a, b", False),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "response", "kept"), CONSTRAINTS)
def test_a_constraint(name: str, arguments: dict[str, Any], response: str, kept: bool) -> None:
    padded = arguments | {"some_other_argument": None}  # as tables of all arguments have it
    row = {"instruction_id_list": [name], "kwargs": [padded]}
    assert constraints("?", response, row) == float(kept)


def test_every_constraint_has_an_example_of_either_kind() -> None:
    """Language aside, which has a test of its own."""
    for kept in (True, False):
        found = {name for name, _, _, each in CONSTRAINTS if each is kept}
        assert {*CHECKS} - found == {"language:response_language"}
    assert len(CHECKS) == 25


def test_constraints_are_averaged_or_all_asked_for() -> None:
    row = {
        "instruction_id_list": ["punctuation:no_comma", "startend:quotation"],
        "kwargs": [None, {}],
    }
    assert grade("constraints", "no comma", row) == 0.5
    assert grade("constraints", '"no comma"', row) == 1.0
    assert grade("constraints", "  ", row) == 0.0
    assert grade("constraints", "no comma", row, options={"reduce": "all"}) == 0.0
    assert grade("constraints", '"no comma"', row, options={"reduce": "all"}) == 1.0
    assert grade("constraints", '"no"', {**row, "kwargs": "[{}, {}]"}) == 1.0


@pytest.mark.parametrize(
    ("names", "arguments", "found"),
    [
        (["punctuation:no_coma"], [{}], "unknown constraint 'punctuation:no_coma'"),
        (["startend:end_checker"], [{}], "startend:end_checker: "),
        (["startend:quotation"], [{"end_phrase": "x"}], "startend:quotation: "),
        (["startend:quotation"], [], "1 constraints with 0 sets of arguments"),
        (
            ["length_constraints:number_words"],
            [{"num_words": 3, "relation": "at most"}],
            "relation 'at most'",
        ),
    ],
)
def test_constraints_that_cannot_be_checked(
    names: list[str], arguments: list[Any], found: str
) -> None:
    with pytest.raises(DataError, match="cannot grade") as caught:
        grade("constraints", "x", {"instruction_id_list": names, "kwargs": arguments})
    assert found in caught.value.found


def test_the_language_of_a_response() -> None:
    pytest.importorskip("langdetect")
    german = "Das ist ein ganz gewöhnlicher deutscher Satz über das Wetter."
    row = {"instruction_id_list": ["language:response_language"], "kwargs": [{"language": "de"}]}
    assert constraints("?", german, row) == 1.0
    assert constraints("?", "This is a plain English sentence on the weather.", row) == 0.0


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_rewards.py").write_text(
        "from preceptor.core.types import RewardSource, even_batches\n"
        "def scaled(instruction, response, row, *, factor=1.0):\n"
        "    return factor * len(response)\n"
        "def plain(instruction, response, row):\n"
        "    return len(response)\n"
        "def open_reward(setting, runtime):\n"
        "    def score(answers):\n"
        "        return [setting.options['per_letter'] * len(a.response) for a in answers]\n"
        "    return RewardSource(\n"
        "        lambda answers: even_batches(len(answers), 2), lambda: score, low=0.0)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "own_rewards"


def test_options_go_to_the_function(own: str) -> None:
    assert grade(f"{own}:scaled", "four", {}) == 4.0
    assert grade(f"{own}:scaled", "four", {}, options={"factor": 0.5}) == 2.0
    for function, found in (("scaled", "its options: factor"), ("plain", "its options: none")):
        with pytest.raises(SettingsError, match="cannot be called with these options") as caught:
            open_reward(verifier(f"{own}:{function}", options={"facter": 1}), Runtime("cpu"))
        assert "facter" in caught.value.found and found in caught.value.found


def test_ranges_are_declared_and_kept(own: str) -> None:
    named = open_reward(verifier("exact_match"), Runtime("cpu"))
    assert (named.low, named.high) == (0.0, 1.0)
    free = open_reward(verifier(f"{own}:plain"), Runtime("cpu"))
    assert (free.low, free.high) == (-np.inf, np.inf)
    assert grade(f"{own}:plain", "four", {}, low=0, high=4) == 4.0
    with pytest.raises(DataError, match="outside its declared range") as caught:
        grade(f"{own}:plain", "five!", {}, low=0, high=4)
    assert caught.value.where == "reward 'v', teacher ash, instruction i"
    assert caught.value.found == "5, declared 0 to 4; 1 of 1 values are outside"
    column = ColumnReward.model_validate({"name": "r", "low": 0})
    source = open_reward(column, Runtime("cpu"))
    answers = [Answer("i", "?", "ash", "x", row={"r": r}) for r in (0.0, 3.0, -0.5)]
    assert score_answers("r", source, answers[:2], None).tolist() == [0.0, 3.0]
    with pytest.raises(DataError, match="outside its declared range") as caught:
        score_answers("r", source, answers, None)
    assert caught.value.found.startswith("-0.5, declared 0 to inf")


def test_a_reward_of_the_user(own: str) -> None:
    setting = OwnReward.model_validate(
        {"kind": f"{own}:open_reward", "name": "own", "options": {"per_letter": 0.5}}
    )
    source = open_reward(setting, Runtime("cpu"))
    answers = [Answer("i", "?", "ash", text) for text in ("a", "four", "xx")]
    assert score_answers("own", source, answers, None).tolist() == [0.5, 2.0, 1.0]
    assert source.low == 0.0
