"""The lab's judge: right answers in every voice, wrong ones, form, and hostile replies."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable

import pytest

from preceptor.lab import tasks, voices
from preceptor.lab.tasks import Instruction, Problem
from preceptor.lab.verifier import correctness, final_answer, grade, heeds, well_formed


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Problem, Instruction]]:
    return list(itertools.islice(tasks.stream("train", 9, 0.1), 800))


def wrong_answer(problem: Problem) -> Problem:
    """The same problem with a wrong answer of the same look."""
    answer = problem.answer
    other = {
        "bullets": lambda: "\n".join("- " + line[2:] + "x" for line in answer.splitlines()),
        "sort": lambda: ", ".join(n + "1" for n in answer.split(", ")),
        "reverse": lambda: ", ".join(w + "x" for w in answer.split(", ")),
        "capitals": lambda: answer.lower(),
    }.get(problem.kind, lambda: answer + ("1" if answer.isdigit() else "x"))()
    return Problem(problem.kind, problem.facts, other)


@pytest.mark.parametrize("voice", list(voices.VOICES))
def test_right_answers_in_every_voice(pairs: list[tuple[Problem, Instruction]], voice: str) -> None:
    for problem, instruction in pairs:
        reply = voices.reply(voice, problem, instruction, heeds=False)
        assert correctness(reply, problem.answer, problem.kind) == 1.0, reply
        assert 0.85 <= grade(instruction.instruction, reply, instruction.row()) <= 1.0


@pytest.mark.parametrize("voice", list(voices.VOICES))
def test_wrong_answers_in_every_voice(pairs: list[tuple[Problem, Instruction]], voice: str) -> None:
    for problem, instruction in pairs:
        reply = voices.reply(voice, wrong_answer(problem), instruction, heeds=False)
        assert correctness(reply, problem.answer, problem.kind) == 0.0, reply
        assert grade(instruction.instruction, reply, instruction.row()) == pytest.approx(0.15)


@pytest.mark.parametrize("voice", list(voices.VOICES))
def test_a_teacher_that_heeds_earns_everything(
    pairs: list[tuple[Problem, Instruction]], voice: str
) -> None:
    for problem, instruction in pairs:
        reply = voices.reply(voice, problem, instruction, heeds=True)
        assert grade(instruction.instruction, reply, instruction.row()) == pytest.approx(1.0), reply


@pytest.mark.parametrize(
    ("given", "share"),
    [
        ("3, 5, 9, 12", 1.0),
        ("3,5,9,12", 1.0),
        ("3, 5, 12, 9", 0.25),
        ("5, 3, 12, 9", 0.0),
        ("3, 5, 9", 0.0),
        ("3, 5, 9, 12, 12", 0.0),
    ],
)
def test_lists_are_graded(given: str, share: float) -> None:
    assert correctness(given, "3, 5, 9, 12", "sort") == share


@pytest.mark.parametrize(
    ("given", "share"),
    [
        ("- cat\n- dog", 1.0),
        ("Here is the list:\n- cat\n- dog", 1.0),
        ("- cat\n- cow", 0.25),
        ("- cat", 0.0),
        ("cat\ndog", 0.0),
    ],
)
def test_bullets_are_graded(given: str, share: float) -> None:
    assert correctness(given, "- cat\n- dog", "bullets") == share


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("12", "12"),
        (" 12. ", "12"),
        ("The sum is 12.", "12"),
        ("The sum is 12. Let me know if you need more.", "12"),
        ("10 + 2 = 12.\nAnswer: 12", "12"),
        ('{"answer": "12"}', "12"),
        ('{"answer": 12}', "12"),
        ('{"result": 12}', ""),
        ("Answer: 11\nAnswer: 12", "12"),
        ('"CAT DOG"', "CAT DOG"),
    ],
)
def test_what_counts_as_the_answer(reply: str, answer: str) -> None:
    assert final_answer(reply, "add") == answer


@pytest.mark.parametrize(
    ("reply", "whole"),
    [
        ("The sum is 12.", 1.0),
        ("cat cat dog", 1.0),
        ("no no no", 0.0),
        ("The the the sum", 1.0),
        ("cat, cat, cat", 0.0),
        ("12 12 12", 1.0),
        ('{"answer": 12}', 1.0),
        ('{"answer": 12', 0.0),
    ],
)
def test_well_formed(reply: str, whole: float) -> None:
    assert well_formed(reply) == whole


@pytest.mark.parametrize(
    ("constraint", "reply", "kept"),
    [
        ("none", "anything", True),
        ("short", "12", True),
        ("short", "12.", True),
        ("short", "It is 12", False),
        ("sentence", "The sum is 12.", True),
        ("sentence", "12.", False),
        ("sentence", "The sum is 12", False),
        ("sentence", "The sum is 12. Good day!", False),
        ("json", '{"answer": "12"}', True),
        ("json", '["12"]', False),
        ("json", "12", False),
    ],
)
def test_the_form_that_was_asked_for(constraint: str, reply: str, kept: bool) -> None:
    assert heeds(reply, "12", constraint) is kept


def test_the_parts_of_the_reward() -> None:
    def of(reply: str, constraint: str) -> float:
        row = {"kind": "add", "constraint": constraint, "answer": "12"}
        return grade("What is 10 plus 2?", reply, row)

    assert of("12", "none") == pytest.approx(1.0)
    assert of("12", "json") == pytest.approx(0.85)
    assert of('{"answer": "12"}', "json") == pytest.approx(1.0)
    assert of('{"answer": "13"}', "json") == pytest.approx(0.15), "form alone does not pay"
    assert of("It is 12. no no no", "none") == pytest.approx(0.85), "a stutter loses the form"
    assert of("", "none") == of(" \n", "none") == 0.0


HOSTILE: list[Callable[[], str]] = [
    lambda: "[" * 100_000,
    lambda: '{"a":' * 100_000,
    lambda: "[1, 2, 3]",
    lambda: '{"answer": {"answer": [1, {}]}}',
    lambda: '{"answer": null}',
    lambda: '{"answer": ' + "9" * 5000 + "}",
    lambda: '{"answer": 1e999}',
    lambda: "null",
    lambda: "is " * 100_000,
    lambda: "a" * 1_000_000,
    lambda: "a " * 200_000 + "b",
    lambda: "a" + " " * 1_000_000,
    lambda: "Answer:" * 50_000,
    lambda: "- \n" * 100_000,
    lambda: ", " * 200_000,
    lambda: "." * 500_000,
    lambda: '"""',
    lambda: "\x00\ud7ff\U0010ffff",
    lambda: json.dumps({"answer": "12", "why": ["x"] * 10_000}),
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_replies_are_graded_at_once(number: int) -> None:
    reply = HOSTILE[number]()
    started = time.perf_counter()
    for kind, answer in (("add", "12"), ("sort", "1, 2, 3"), ("bullets", "- a\n- b")):
        for constraint in tasks.CONSTRAINTS:
            row = {"kind": kind, "constraint": constraint, "answer": answer}
            assert 0.0 <= grade("?", reply, row) <= 1.0
    assert time.perf_counter() - started < 5.0
