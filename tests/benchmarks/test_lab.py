"""The lab's own test: marks by hand, and those of a lab model through the real path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from preceptor.core.benchmark import Benchmark, Examinee, Exchange
from preceptor.core.run import open_run
from preceptor.core.types import Reply, Runtime
from preceptor.data.answer_store import AnswerStore
from preceptor.data.asking import Asker
from preceptor.lab.tasks import instructions
from preceptor.lab.verifier import grade
from preceptor.recipes.examining.examinees import examine, open_benchmark, open_candidate
from preceptor.recipes.settings.benchmarks import LabTest
from preceptor.recipes.settings.shared import TransformersTeacher
from preceptor.recipes.settings.training import Quality
from preceptor.recipes.teaching.grading import read_exam, sit

N = 24


def open_lab(runtime: Runtime, n: int | None = N) -> Benchmark:
    return open_benchmark(LabTest.model_validate({"kind": "lab", "max_questions": n}), runtime)


@pytest.fixture
def asker(tmp_path: Path) -> Asker:
    return Asker(AnswerStore(tmp_path / "store"))


@pytest.fixture
def runtime(asker: Asker) -> Runtime:
    return Runtime("cpu", "float32", ask=asker)


def exchanges(benchmark: Benchmark, said: dict[str, str]) -> list[Exchange]:
    """One reply to each question whose key is there."""
    return [
        Exchange(own, (Reply(said[own.key], "stop", 1),))
        for own in benchmark.questions
        if own.key in said
    ]


def test_questions_are_those_of_the_test_split(runtime: Runtime) -> None:
    benchmark = open_lab(runtime)
    wanted = instructions("test", N)
    assert [own.key for own in benchmark.questions] == [own.instruction_id for own in wanted]
    assert [own.turns for own in benchmark.questions] == [(own.instruction,) for own in wanted]
    assert {own.category for own in benchmark.questions} == {"general", "shop"}
    shop = sum(own.domain == "shop" for own in wanted)
    assert benchmark.facts == {"instructions": {"general": N - shop, "shop": shop}}
    assert benchmark.max_new_tokens == 96 and benchmark.name == "lab"
    assert benchmark.fingerprint == open_lab(runtime).fingerprint
    assert benchmark.fingerprint != open_lab(runtime, N + 1).fingerprint
    assert len(open_lab(runtime, None).questions) == 400


def test_marks_and_scores_by_hand(runtime: Runtime) -> None:
    """A right answer in the form, a right one in another, a wrong one, an empty one, none."""
    benchmark = open_lab(runtime, 200)
    of = {
        constraint: [own for own in benchmark.questions if own.row["constraint"] == constraint]
        for constraint in ("none", "short", "json")
    }
    single = [own for own in of["short"] if ", " not in own.row["answer"]]
    right, wordy = single[:2]
    wrong, empty, free = of["json"][0], of["json"][1], of["none"][0]
    said = {
        right.key: right.row["answer"],
        wordy.key: f"The answer that you want is {wordy.row['answer']}.",
        wrong.key: "I do not know.",
        empty.key: "  ",
        free.key: "I do not know.",
    }
    graded = benchmark.grade(Examinee("pupil"), exchanges(benchmark, said))
    assert graded.games == () and graded.facts == {"unanswered": 195}
    marks = graded.marks
    place = {key: n for n, key in enumerate(marks.keys)}
    found = {
        name: [float(marks.values[name][place[own]]) for own in said]
        for name in ("reward", "correct", "form")
    }
    assert found["reward"] == pytest.approx([1.0, 0.85, 0.15, 0.0, 0.15])
    assert found["correct"] == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert found["form"][:4] == [1.0, 0.0, 0.0, 0.0] and np.isnan(found["form"][4])
    unasked = [n for n, key in enumerate(marks.keys) if key not in said]
    assert all(np.isnan(values[unasked]).all() for values in marks.values.values())
    assert list(marks.categories) == [own.category for own in benchmark.questions]

    score = benchmark.score({"pupil": marks})
    weight_RN = np.ones((2, 200))
    weight_RN[1, place[wordy.key]] = 3
    scores = score("pupil", weight_RN)
    assert list(scores) == [measure.name for measure in benchmark.measures]
    assert scores["reward"] == pytest.approx([2.15 / 5, 3.85 / 7])
    assert scores["correct"] == pytest.approx([2 / 5, 4 / 7])
    assert scores["form"] == pytest.approx([1 / 4, 1 / 6])


def test_a_lab_model_has_the_marks_of_an_exam(
    tmp_path: Path, runtime: Runtime, asker: Asker
) -> None:
    """The same greedy answers, graded here and as the exam of a training grades them."""
    benchmark = open_lab(runtime)
    candidate = open_candidate(TransformersTeacher(model="lab:aster-s"), runtime)
    assert candidate.examinee.name == "aster-s"
    said, graded = examine(benchmark, candidate, runtime)
    rewards = graded.marks.values["reward"]
    assert rewards.tolist() == [
        grade(own.question.turns[0], own.response, own.question.row) for own in said
    ]
    quality = Quality.model_validate(
        {
            "instructions": "lab:test",
            "max_instructions": N,
            "max_new_tokens": 96,
            "reward": {"kind": "verifier", "name": "lab", "function": "lab"},
        }
    )
    exam = read_exam(quality, runtime, 0, {})
    identity = {"settings": {}, "inputs": {}, "models": {}}
    with open_run(tmp_path / "run", identity, "test") as run:
        location = candidate.examinee.location
        assert sit(exam, run, "aster-s", location).tolist() == rewards.tolist()
    assert 0.2 < rewards.mean() < 1  # a trained teacher, and not a perfect one
    again, _ = examine(benchmark, candidate, runtime)
    assert [own.response for own in again] == [own.response for own in said]
    assert asker.facts["aster-s (lab)"]["reused"] == N
