"""`select --pilot`: short trainings on the finalists' answers, graded on what was held out."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from forked import start as start_process
from preceptor.core.artifacts import WORK
from preceptor.core.errors import DataError, PreceptorError, SettingsError
from preceptor.recipes.plan import plan
from preceptor.recipes.select import select
from preceptor.recipes.selecting.pilot import choose_finalists, rows_table, verdict
from preceptor.recipes.settings.pilot import Pilot, grading_reward
from preceptor.recipes.settings.select import Select
from preceptor.recipes.settings.training import Sft
from preceptor.recipes.sft import sft
from preceptor.reporting.pages.select import report as select_report
from preceptor.reporting.terminal.ranking import print_ranking

N = 40
TEACHERS = {  # name -> its answer; the letters of the alphabet are the reward
    "../rich: a/b": "Jackdaws love my big sphinx of quartz.",
    "long": "no no no no no no no no no no no no no no no no",
    "poor": "no.",
}


def letters(instruction: str, response: str, row: dict[str, Any]) -> float:
    """A reward in [0, 1]: share of the alphabet, of the wanted letters where the row has some."""
    wanted = set(row["wanted"])
    return len(set(response.lower()) & wanted) / len(wanted)


VERIFIER = {"kind": "verifier", "name": "letters", "function": f"{__name__}:letters"}


def settings_tree(folder: Path, base: Path, **changes: Any) -> dict[str, Any]:
    """A selection by length, which the longest answers win, with a small pilot."""
    rows = [
        {
            "instruction": f"Say {number}.",
            "generator": teacher,
            "response": response,
            "right": 0.5,
            "wanted": "abcdefghijklmnopqrstuvwxyz",
        }
        for number in range(N)
        for teacher, response in TEACHERS.items()
    ]
    file = folder / "answers.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tree: dict[str, Any] = {
        "base": str(base),
        "answers": str(file),
        "rewards": ["right", VERIFIER | {"map": "affine", "scale": 2.0}],
        "criteria": ["length", "mean_reward"],
        "resamples": 200,
        "device": "cpu",
        "pilot": {
            "finalists": 2,
            "instructions": 24,
            "held_out": 12,
            "max_new_tokens": 24,
            "training": {
                "learning_rate": 0.01,
                "epochs": 6,
                "batch_size": 8,
                "max_length": 128,
                "log_steps": 2,
                "save_steps": 4,
            },
        },
    }
    return tree | changes


@pytest.fixture(scope="module")
def pupil(tiny_model: Callable[..., Path], chat_template: str) -> Path:
    return tiny_model("pilot-pupil", chat_template=chat_template, seed=31)


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, pupil: Path
) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """(folder of a whole run, its settings, its ranking)."""
    folder = tmp_path_factory.mktemp("pilot")
    tree = settings_tree(folder, pupil)
    ranking = select(Select.model_validate(tree), folder / "run", "preceptor select")
    return folder / "run", tree, ranking


def test_the_pilot_overturns_what_training_does_not_bear_out(finished: Any) -> None:
    """The longest answers win by length; the student of the rich ones earns most."""
    out, _, ranking = finished
    pilot = ranking["pilot"]
    assert ranking["recommended"] == "long" and ranking["recommended_by"] == "length"
    assert pilot["finalists"] == ["long", "../rich: a/b"]
    assert ranking["pilot_recommended"] == "../rich: a/b" == pilot["rows"][0]["teacher"]
    assert pilot["verdict"] == "overturned"
    (gap,) = pilot["differences"]
    scores = {row["teacher"]: row["score"] for row in pilot["rows"]}
    assert gap["difference"] == pytest.approx(scores["long"] - scores["../rich: a/b"])
    assert gap["high"] < 0 and gap["separable"]
    assert pilot["rows"][0]["score"] > 0.5, "the student writes what it read"
    assert pilot["rows"][0]["over_base"]["low"] > 0
    assert (pilot["n_train"], pilot["n_held_out"], pilot["reward"]) == (24, 12, "letters")
    assert json.loads((out / "ranking.json").read_text()) == ranking


def test_scores_are_those_of_the_grades(finished: Any) -> None:
    """Raw rewards, without the map; the base is graded once."""
    out, _, ranking = finished
    grades = pq.read_table(out / "pilot" / "grades.parquet").to_pylist()
    by_model: dict[str, list[float]] = {}
    for row in grades:
        by_model.setdefault(row["model"], []).append(row["reward"])
    assert sorted(by_model) == ["1-long", "2-rich-a-b", "base"]
    assert all(len(rewards) == 12 for rewards in by_model.values())
    found = {row["teacher"]: row["score"] for row in ranking["pilot"]["rows"]}
    assert found["long"] == pytest.approx(np.mean(by_model["1-long"]))
    assert found["../rich: a/b"] == pytest.approx(np.mean(by_model["2-rich-a-b"]))
    assert ranking["pilot"]["base"]["score"] == pytest.approx(np.mean(by_model["base"]))
    assert max(max(rewards) for rewards in by_model.values()) <= 1.0


def test_students_learn_the_same_instructions_and_answer_others(finished: Any) -> None:
    out, *_ = finished
    lessons = pq.read_table(out / "pilot" / "lessons.parquet").to_pylist()
    learned = {
        teacher: [row["instruction_id"] for row in lessons if row["teacher"] == teacher]
        for teacher in ("long", "../rich: a/b")
    }
    assert len(lessons) == 48
    assert learned["long"] == learned["../rich: a/b"] and len(set(learned["long"])) == 24
    held_out = pq.read_table(out / "pilot" / "held_out.parquet").to_pylist()
    assert len(held_out) == 12
    assert not {row["pilot.instruction_id"] for row in held_out} & set(learned["long"])
    assert held_out[0]["wanted"] == "abcdefghijklmnopqrstuvwxyz"


def test_each_student_is_an_ordinary_run(finished: Any, capsys: pytest.CaptureFixture[str]) -> None:
    out, _, ranking = finished
    folders = sorted(path.name for path in (out / "pilot").iterdir() if path.is_dir())
    assert folders == ["1-long", "2-rich-a-b"], "safe, whatever the teacher is called"
    assert [row["runs"] for row in ranking["pilot"]["rows"]] == [
        ["pilot/2-rich-a-b"],
        ["pilot/1-long"],
    ]
    place = out / "pilot" / "2-rich-a-b"
    settings = yaml.safe_load((place / "settings.yaml").read_text())
    facts = json.loads((place / "provenance.json").read_text())
    assert facts["command"] == "preceptor select (pilot)" and facts["examples"] == 24
    assert ranking["pilot"]["rows"][0]["n_tokens"] == facts["tokens"]
    capsys.readouterr()
    sft(Sft.model_validate(settings), place)
    assert "holds the finished run" in capsys.readouterr().err


def test_without_a_pilot_the_ranking_is_the_same(finished: Any, tmp_path: Path) -> None:
    _, tree, ranking = finished
    plain = {name: value for name, value in tree.items() if name != "pilot"}
    select(Select.model_validate(plain), tmp_path / "plain")
    rest = {name: value for name, value in ranking.items() if not name.startswith("pilot")}
    wanted = json.dumps(rest, indent=2, ensure_ascii=False) + "\n"
    assert (tmp_path / "plain" / "ranking.json").read_text() == wanted


def test_page_and_terminal_show_it(finished: Any) -> None:
    out, _, ranking = finished
    html = (out / "report.html").read_text()
    assert "The pilot disagrees: the student of <b><bdi>../rich: a/b</bdi></b>" in html
    assert html == select_report.render(out)
    printed = StringIO()
    print_ranking(ranking, out, Console(file=printed, width=110))
    words = " ".join(printed.getvalue().split())
    assert "the student of ../rich: a/b is separably better than that of long." in words
    assert "(base)" in words and "over the base" in words


def test_the_cost_is_told_before_the_first_training(
    pupil: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two seeds and fewer instructions than wanted; what is told is what was trained."""
    tree = settings_tree(tmp_path, pupil)
    tree["pilot"] |= {"instructions": 60, "held_out": 20, "seeds": 2, "max_new_tokens": 4}
    tree["pilot"]["training"] = {"max_steps": 2, "batch_size": 8, "log_steps": 1}
    ranking = select(Select.model_validate(tree | {"seed": 5}), tmp_path / "run")
    said = [line for line in capsys.readouterr().err.splitlines() if "pilot" in line]
    assert "30 to learn from instead of 60, 10 held out instead of 20" in said[0]
    assert said[1] == "pilot: finalists long, ../rich: a/b"
    assert said[2].startswith("pilot: 4 trainings on 30 answers each, 8 steps, ")
    assert "answer 10 other instructions, at most 200 tokens, scored by letters" in said[3]
    assert said[4] == "pilot: student 1 of 4 learns from long (seed 5)"
    assert "the other trainings take about" in said[5]
    rows = ranking["pilot"]["rows"]
    assert all(row["seeds"] == [5, 6] for row in rows)
    long = next(row for row in rows if row["teacher"] == "long")
    assert long["runs"] == ["pilot/1-long-seed-5", "pilot/1-long-seed-6"]
    weights = [(tmp_path / "run" / run / "model" / "model.safetensors") for run in long["runs"]]
    assert weights[0].read_bytes() != weights[1].read_bytes()


def test_a_plan_counts_the_pilot(finished: Any, tmp_path: Path) -> None:
    """As if both learned from the longest answers; a training takes what the plan says."""
    out, tree, _ = finished
    found = plan("select", Select.model_validate(tree), tmp_path / "new", rates=["train=100"])
    trainings = [stage for stage in found["stages"] if stage["kind"] == "train"]
    assert [stage["items"] for stage in trainings] == [18, 18]
    lines = (out / "pilot" / "1-long" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines][-1] == 18
    facts = [json.loads((out / run / "provenance.json").read_text())["tokens"]
             for run in ("pilot/1-long", "pilot/2-rich-a-b")]  # fmt: skip
    assert trainings[0]["tokens"] == pytest.approx(6 * max(facts), rel=0.05)
    assert trainings[0]["seconds"] == pytest.approx(trainings[0]["tokens"] / 100)
    exams = [stage for stage in found["stages"] if stage["stage"].startswith("exam of")]
    assert len(exams) == 3 and {stage["items"] for stage in exams} == {12}
    assert not (tmp_path / "new").exists()


def _run(config: str, out: str) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    import torch

    torch.set_num_threads(1)
    select(Select.model_validate(yaml.safe_load(Path(config).read_text())), Path(out))


def test_a_killed_pilot_ends_with_the_same_ranking(finished: Any, tmp_path: Path) -> None:
    """Killed in the first training, in the second, and while students are graded."""
    whole, tree, _ = finished
    (tmp_path / "select.yaml").write_text(yaml.safe_dump(tree))
    out, kills = tmp_path / "killed", 0
    for pattern in (
        f"pilot/1-*/{WORK}/checkpoints-*/checkpoint-4",
        f"pilot/2-*/{WORK}/checkpoints-*/checkpoint-8",
        f"{WORK}/grade-2-*",
    ):
        process = start_process(_run, str(tmp_path / "select.yaml"), str(out))
        while process.is_alive() and not any(out.glob(pattern)):
            process.join(0.01)
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        kills += process.exitcode == -signal.SIGKILL
    assert kills >= 2
    last = start_process(_run, str(tmp_path / "select.yaml"), str(out))
    last.join(120)
    assert last.exitcode == 0
    assert (out / "ranking.json").read_bytes() == (whole / "ranking.json").read_bytes()
    assert not (out / "work").exists()


def test_recorded_columns_cannot_grade(tmp_path: Path, pupil: Path) -> None:
    tree = settings_tree(tmp_path, pupil, rewards=["right"])
    with pytest.raises(SettingsError, match="no reward of this run can score") as caught:
        Select.model_validate(tree)
    assert "right" in caught.value.found
    for kind in ("verifier", "reward_model", "judge", "pairwise", "module:function"):
        assert kind in caught.value.next_step


@pytest.mark.parametrize(
    ("keep", "what"),
    [
        (lambda row: row["generator"] == "long", "a pilot compares teachers, and there is one"),
        (lambda row: int(row["instruction"][4:-1]) < 9, "there are too few instructions"),
    ],
)
def test_answers_that_are_too_few(tmp_path: Path, pupil: Path, keep: Any, what: str) -> None:
    tree = settings_tree(tmp_path, pupil)
    file = Path(tree["answers"])
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows if keep(row)))
    with pytest.raises(DataError, match=what):
        select(Select.model_validate(tree), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_baseline_among_the_teachers_is_held_out_too(tmp_path: Path, pupil: Path) -> None:
    """A pairwise reward against a teacher's answers: they become a table for the new ones."""
    from preceptor.core.types import Answer
    from preceptor.data.answers import read_recorded
    from preceptor.data.paired import pair
    from preceptor.data.sources import read_source
    from preceptor.recipes.selecting.pilot import Plan, _reward
    from preceptor.recipes.settings.rewards import PairwiseReward
    from preceptor.rewards.judging.games import open_baseline

    tree = settings_tree(tmp_path, pupil)
    paired = pair(read_recorded(read_source(tree["answers"]), {}, "here"), 1.0)
    held = np.array([3, 7])
    wins = {"kind": "pairwise", "name": "wins", "teacher": "lab:elm-m", "map": "sigmoid"}
    reward = PairwiseReward.model_validate(wins | {"baseline": {"teacher": "long"}})
    plan = Plan(("long",), (), np.array([0]), held)
    own: Any = _reward(grading_reward([reward]), tmp_path, paired, plan)
    assert (own.map, own.name, own.baseline.teacher) == ("none", "wins", "")
    ids = [paired.instruction_ids[place] for place in held]
    new = [Answer(key, "unknown", "student", "yes") for key in ids]
    assert open_baseline(own).of(new) == [TEACHERS["long"]] * 2


def criterion(*order: str) -> dict[str, Any]:
    return {"teachers": [{"teacher": name, "rank": n} for n, name in enumerate(order, 1)]}


def test_who_is_a_finalist() -> None:
    """First of all those that some criterion puts first, in the deciding criterion's order."""
    ranking = {
        "recommended_by": "car",
        "criteria": {
            "car": criterion("a", "b", "c", "d"),
            "perplexity": criterion("d", "a", "b", "c"),
            "length": criterion("c", "a", "b", "d"),
        },
    }
    assert choose_finalists(ranking, 2) == ("a", "c")
    assert choose_finalists(ranking, 3) == ("a", "c", "d")
    assert choose_finalists(ranking, 4) == ("a", "b", "c", "d")
    assert choose_finalists(ranking, 9) == ("a", "b", "c", "d")
    ranking["criteria"] = {"car": criterion("a", "b", "c", "d")}
    assert choose_finalists(ranking, 3) == ("a", "b", "c")


def test_what_the_pilot_says() -> None:
    gaps = [
        {"teacher": "a", "against": "b", "separable": True},
        {"teacher": "a", "against": "c", "separable": False},
        {"teacher": "b", "against": "c", "separable": True},
    ]
    assert verdict("a", "a", gaps) == "open"
    assert verdict("a", "a", gaps[:1]) == "confirmed"
    assert verdict("b", "a", gaps) == "overturned"
    assert verdict("c", "a", gaps) == "open"


def test_shares_shrink_together() -> None:
    pilot = Pilot.model_validate({})
    assert pilot.shares(1000) == pilot.shares(400) == (300, 100)
    assert pilot.shares(200) == (150, 50)
    assert pilot.shares(10) == (8, 2)
    with pytest.raises(DataError, match="too few"):
        pilot.shares(9)
    assert pilot.training.save_steps == 25 and pilot.training.learning_rate == 2e-5


def test_rows_of_mixed_kinds_make_a_table() -> None:
    rows = [{"a": 1, "b": "x", "c": [1]}, {"a": "one", "c": None, "d": {"e": 1.5}}]
    assert rows_table(rows).to_pylist() == [
        {"a": "1", "b": "x", "c": [1], "d": None},
        {"a": '"one"', "b": None, "c": None, "d": {"e": 1.5}},
    ]


def on_the_command_line(*arguments: str | Path) -> None:
    from preceptor.cli import app

    app([str(argument) for argument in arguments], standalone_mode=False)


@pytest.fixture
def config(tmp_path: Path, pupil: Path) -> Path:
    file = tmp_path / "select.yaml"
    file.write_text(yaml.safe_dump(settings_tree(tmp_path, pupil)))
    return file


def test_the_flag_keeps_what_the_file_sets(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on_the_command_line("select", config, "--out", tmp_path / "run", "--pilot", "--dry-run")
    printed = capsys.readouterr().out
    assert "training pilot 2" in printed and "training pilot 3" not in printed
    on_the_command_line(
        "select", config, "pilot=null", "--out", tmp_path / "run", "--pilot", "--dry-run"
    )
    assert "training pilot 3" in capsys.readouterr().out
    with pytest.raises(DataError, match="there is no column 'topic'"):
        on_the_command_line("select", config, "--out", tmp_path / "run", "--by", "topic")


def test_without_the_extra_it_is_refused(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)  # as if it were not installed
    with pytest.raises(PreceptorError, match="training needs packages") as caught:
        on_the_command_line("select", config, "--out", tmp_path / "run")
    assert caught.value.found == "no trl" and "preceptor[train]" in caught.value.next_step
    assert not (tmp_path / "run").exists()
