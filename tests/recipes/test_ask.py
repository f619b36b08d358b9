"""`preceptor ask`: the grid, what stands in the table, what the summary says, and resumption."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from io import StringIO
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from forked import start
from preceptor.core import artifacts
from preceptor.core.errors import PreceptorError
from preceptor.recipes.settings.asking import Ask
from preceptor.recipes.settings.loading import load_settings

LETTERS = {"kind": "verifier", "name": "letters", "function": f"{__name__}:letters"}


def letters(instruction: str, response: str, row: object) -> float:
    """A verifier for this test: share of the alphabet that a reply uses."""
    return len(set(response.lower()) & set("abcdefghijklmnopqrstuvwxyz")) / 26


def needs_the_key(instruction: str, response: str, row: Any) -> float:
    """A verifier that reads a column of the instruction."""
    return float(response == row["key"])


def open_missing(setting: Any, runtime: Any) -> Any:
    """A reward of its own kind that cannot read every other answer."""
    from preceptor.core.types import RewardSource, even_batches

    def score(answers: Any) -> list[float]:
        return [float("nan") if "no" in a.response else float(len(a.response)) for a in answers]

    return RewardSource(lambda a: even_batches(len(a), 16), lambda: score, may_miss=True)


def open_slow(setting: Any, runtime: Any) -> Any:
    """A reward of its own kind, in batches of eight, slow enough to be killed in."""
    from preceptor.core.types import RewardSource, even_batches

    def score(answers: Any) -> list[float]:
        time.sleep(0.05)
        return [letters(a.instruction, a.response, a.row) for a in answers]

    return RewardSource(lambda answers: even_batches(len(answers), 8), lambda: score)


@pytest.fixture
def questions(tmp_path: Path, instruction_texts: tuple[str, ...]) -> Path:
    path = tmp_path / "questions.jsonl"
    rows = [{"prompt": text, "key": f"key {n}", "level": n} for n, text in
            enumerate(instruction_texts)]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def asked(tmp_path: Path, questions: Path) -> Callable[..., tuple[dict[str, Any], Path]]:
    """`asked(name, **settings)`: (content of ask.json, run folder)."""

    def run(name: str = "run", **tree: Any) -> tuple[dict[str, Any], Path]:
        from preceptor.recipes.ask import ask

        file = tmp_path / f"{name}.yaml"
        tree = {"instructions": str(questions), "resamples": 100, **tree}
        file.write_text(yaml.safe_dump({k: v for k, v in tree.items() if v is not None}))
        out = tmp_path / name
        return ask(load_settings(Ask, file), out), out

    return run


def rows_of(out: Path, name: str = artifacts.SAMPLES) -> list[dict[str, Any]]:
    return pq.read_table(out / name).to_pylist()


def test_a_grid_replaces_each_teachers_decoding(asked: Any, chatter: Path, capsys: Any) -> None:
    teacher = {"model": str(chatter), "name": "chat", "max_new_tokens": 8, "temperature": 0.3}
    grid = {"temperature": [0, 1.0], "top_p": [0.9, 1.0], "samples": 3}
    found, out = asked(teachers=[teacher], decodings=grid, rewards=[LETTERS])
    rows = rows_of(out)
    assert pq.read_schema(out / artifacts.SAMPLES).names == [
        *artifacts.samples_schema(["letters"]).names, "prompt", "key", "level",
    ]  # fmt: skip
    points = {(0.0, 1.0): [0], (1.0, 0.9): [0, 1, 2], (1.0, 1.0): [0, 1, 2]}
    for (temperature, top_p), samples in points.items():
        own = [row for row in rows if (row["temperature"], row["top_p"]) == (temperature, top_p)]
        assert [row["sample"] for row in own] == samples * 6
        assert [row["level"] for row in own] == [n for n in range(6) for _ in samples]
    assert len(rows) == 6 * 7
    assert {row["max_new_tokens"] for row in rows} == {8}
    sampled = [row["response"] for row in rows if row["temperature"] == 1.0]
    assert len(set(sampled)) > 30, "samples differ from one another"
    for row in rows:
        assert row["reward.letters"] == letters(row["instruction"], row["response"], {})
        assert row["n_prompt"] > 0 and row["n_generated"] >= 1
    assert [(p["temperature"], p["top_p"], p["samples"]) for p in found["points"]] == [
        (0.0, 1.0, 1), (1.0, 0.9, 3), (1.0, 1.0, 3),
    ]  # fmt: skip
    assert found["answers"] is None and not (out / artifacts.ANSWERS).exists()
    assert not (out / artifacts.WORK).exists()
    provenance = artifacts.read_json(out / artifacts.PROVENANCE)
    assert provenance["asked"]["chat"]["answers"] == 42
    assert list(provenance["models"]) == ["teacher chat"]


def test_a_sample_is_the_answer_to_its_own_request(asked: Any, chatter: Path) -> None:
    """What the grid asks is what anybody gets who asks the teacher for that sample alone."""
    from preceptor.core.types import Decoding, Request, user_turn
    from preceptor.teachers.transformers import open_generator

    teacher = {"model": str(chatter), "max_new_tokens": 8}
    grid = {"temperature": 0.8, "top_p": 0.95, "samples": 2}
    _, out = asked(teachers=[teacher], decodings=grid, seed=11)
    generate = open_generator(str(chatter), "float32", "cpu", False)
    for row in rows_of(out):
        point = Decoding(0.8, 0.95, 8)
        reply = generate([Request(user_turn(row["instruction"]), point, row["sample"], 11)])[0]
        assert row["response"] == reply.response


def test_without_a_grid_teachers_decode_as_they_say(asked: Any, chatter: Path, base: Path) -> None:
    teachers = [
        {"model": str(chatter), "name": "warm", "temperature": 0.7, "top_p": 0.8},
        {"model": str(chatter), "name": "cold"},
    ]
    teachers = [{**teacher, "max_new_tokens": 4} for teacher in teachers]
    found, out = asked(teachers=teachers, decodings={"samples": 2}, max_instructions=3)
    points = [(p["teacher"], p["temperature"], p["top_p"], p["n_answers"]) for p in found["points"]]
    assert points == [("warm", 0.7, 0.8, 6), ("cold", 0.0, 1.0, 3)]
    assert found["n_instructions"] == 3
    assert "reward" not in "".join(pq.read_schema(out / artifacts.SAMPLES).names)


def test_recorded_answers_get_the_columns_of_their_instructions(
    asked: Any, chatter: Path, tmp_path: Path, instruction_texts: tuple[str, ...]
) -> None:
    recorded = [
        {"prompt": text, "generator": "book", "response": f"key {n % 2}", "level": "mine"}
        for n, text in enumerate(instruction_texts)
    ]
    recorded.append({**recorded[0], "prompt": "Nobody asks this."})
    pq.write_table(pa.Table.from_pylist(recorded), tmp_path / "book.parquet")
    reward = {"kind": "verifier", "name": "right", "function": f"{__name__}:needs_the_key"}
    live = {"model": str(chatter), "name": "live", "max_new_tokens": 4}
    answers = str(tmp_path / "book.parquet")
    with pytest.raises(PreceptorError, match="a column has other values") as caught:
        asked("clash", teachers=[live], answers=answers, rewards=[reward])
    assert caught.value.where == "column 'level'"
    pq.write_table(pa.Table.from_pylist(recorded).drop_columns(["level"]), answers)
    found, out = asked(teachers=[live], answers=answers, rewards=[reward])
    book = [row for row in rows_of(out) if row["teacher"] == "book"]
    assert [row["reward.right"] for row in book] == [1, 1, 0, 0, 0, 0]
    assert [row["level"] for row in book] == list(range(6))
    assert {row["temperature"] for row in book} == {None}
    assert {row["finish_reason"] for row in book} == {"recorded"}
    point = found["points"][1]
    assert (point["teacher"], point["cut_share"], point["n_tokens_mean"]) == ("book", None, None)
    assert found["answers"] == artifacts.ANSWERS
    single = rows_of(out, artifacts.ANSWERS)
    assert len(single) == 12
    assert [row["right"] for row in single if row["teacher"] == "book"] == [1, 1, 0, 0, 0, 0]


def test_samples_can_be_scored_again(asked: Any, chatter: Path) -> None:
    """An earlier `samples.parquet` is recorded answers: points, numbers and rewards stay."""
    teacher = {"model": str(chatter), "name": "chat", "max_new_tokens": 6}
    grid = {"temperature": [0, 1.0], "samples": 3}
    _, first = asked("first", teachers=[teacher], decodings=grid, rewards=[LETTERS])
    again = {"kind": "column", "name": "double", "column": "reward.letters"}
    _, second = asked(
        "second", instructions=None, answers=str(first / artifacts.SAMPLES), rewards=[again]
    )
    before, after = rows_of(first), rows_of(second)
    assert [row.pop("reward.double") for row in after] == [row["reward.letters"] for row in before]
    assert after == before


def test_the_summary_of_a_table_made_by_hand(asked: Any, tmp_path: Path) -> None:
    replies = {"a": ["x", "xxx", "xxxxx"], "b": ["xx", "no", "xxxx"], "c": ["no", "no", "no"]}
    rows = [
        {"instruction": text, "generator": "g", "response": reply, "finish_reason": reason,
         "n_generated": len(reply), "temperature": 0.5, "top_p": 1.0, "max_new_tokens": 5}
        for text, own in replies.items()
        for reply, reason in zip(own, ["stop", "stop", "length"], strict=True)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "made.parquet")
    reward = {"kind": f"{__name__}:open_missing", "name": "size"}
    found, out = asked(
        instructions=None, answers=str(tmp_path / "made.parquet"), rewards=[reward, LETTERS]
    )
    (point,) = found["points"]
    size = point["rewards"]["size"]
    assert size["n_missing"] == 4
    assert size["mean"] == pytest.approx((3 + 3) / 2)  # of each instruction first; c has none
    assert size["low"] == size["high"] == 3.0
    best = {cell["k"]: cell["mean"] for cell in size["best_of"]}
    worst = {cell["k"]: cell["mean"] for cell in size["worst_of"]}
    assert best == {1: 3.0, 2: pytest.approx(((3 + 5 + 5) / 3 + 4) / 2)}
    assert worst == {1: 3.0, 2: pytest.approx(((1 + 1 + 3) / 3 + 2) / 2)}
    assert (point["samples"], point["n_answers"], point["n_instructions"]) == (3, 9, 3)
    assert point["cut_share"] == pytest.approx(1 / 3)
    assert point["n_tokens_mean"] == pytest.approx(np.mean([1, 3, 5, 2, 2, 4, 2, 2, 2]))
    nulls = [row["reward.size"] for row in rows_of(out)]
    assert nulls == [1, 3, 5, 2, None, 4, None, None, None]

    from preceptor.reporting.terminal.ask import print_samples

    console = Console(file=StringIO(), width=110)
    print_samples(found, out, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "9 answers to 3 instructions" in text
    assert "3.000 [3.000, 3.000]" in text and "33.3%" in text
    assert "size: 4 of 9 answers have no score" in text
    assert "0.5/1" in text and "best" in text
    page = (out / artifacts.REPORT).read_text(encoding="utf-8")
    assert "4 of 9 answers have no score" in page and "3.000 <small>[3.000, 3.000]</small>" in page
    assert str(out / artifacts.SAMPLES) in text.replace("\n", "")


def test_one_store_serves_several_studies(asked: Any, chatter: Path, tmp_path: Path) -> None:
    teacher = {"model": str(chatter), "name": "chat", "max_new_tokens": 6}
    shared = {"teachers": [teacher], "store": str(tmp_path / "store")}
    asked("narrow", **shared, decodings={"temperature": 1.0, "samples": 2})
    _, out = asked("wide", **shared, decodings={"temperature": [0, 1.0], "samples": 3})
    facts = artifacts.read_json(out / artifacts.PROVENANCE)["asked"]["chat"]
    assert (facts["answers"], facts["reused"]) == (6 * 4, 6 * 2)


def test_answers_go_on_to_select(asked: Any, chatter: Path, base: Path, tmp_path: Path) -> None:
    from preceptor.recipes.select import select
    from preceptor.recipes.settings.select import Select

    teachers = [
        {"model": str(chatter), "name": name, "max_new_tokens": size}
        for name, size in (("short", 4), ("long", 12))
    ]
    _, out = asked(teachers=teachers, rewards=[LETTERS])
    file = tmp_path / "select.yaml"
    tree = {"base": str(base), "answers": str(out / artifacts.ANSWERS), "rewards": ["letters"]}
    file.write_text(yaml.safe_dump({**tree, "resamples": 100, "criteria": ["mean_reward"]}))
    ranking = select(load_settings(Select, file), tmp_path / "selected")
    assert ranking["recommended"] == "long"
    rewards = {name: own["rewards"]["letters"] for name, own in ranking["teachers"].items()}
    for name, mean in rewards.items():
        own = [row["letters"] for row in rows_of(out, artifacts.ANSWERS) if row["teacher"] == name]
        assert mean == pytest.approx(np.mean(own))


def test_a_finished_run_is_only_read(asked: Any, chatter: Path, capsys: Any) -> None:
    tree = {"teachers": [{"model": str(chatter), "max_new_tokens": 4}], "max_instructions": 2}
    first, out = asked(**tree)
    before = (out / artifacts.PROVENANCE).read_bytes()
    again, _ = asked(**tree)
    assert again == first
    assert (out / artifacts.PROVENANCE).read_bytes() == before
    assert "holds the finished run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "what", "found"),
    [
        ({"teachers": []}, "there are no answers", "neither"),
        ({"instructions": None}, "live teachers have nothing to answer", "not set"),
        ({"teachers": ["lab:elm-m", "lab:elm-m"]}, "a name stands twice", "elm-m"),
        ({"decodings": {"samples": 5}}, "several samples are asked for", "samples 5"),
        ({"decodings": {"samples": 2, "temperature": 0}}, "several samples are asked for", ""),
        ({"decodings": {"temperature": [-1]}}, "the setting 'decodings.temperature.0'", "-1"),
        ({"decodings": {"temprature": [1]}}, "unknown setting 'decodings.temprature'", "did you"),
        ({"rewards": [{**LETTERS, "map": "sigmoid"}]}, "rewards are kept as they are", "sigmoid"),
        ({"rewards": [{**LETTERS, "name": "response"}]}, "a reward has the name", "response"),
        ({"rewards": ["right"]}, "an answer has no such reward column", ""),
        ({"answers": "lab:test", "rewards": []}, "the data has no column for the teacher", ""),
    ],
)
def test_refusals(
    asked: Any, tmp_path: Path, change: dict[str, Any], what: str, found: str
) -> None:
    with pytest.raises(PreceptorError, match=what) as caught:
        asked(**{"teachers": ["lab:elm-m"], "rewards": [LETTERS], **change})
    assert found in caught.value.found
    assert caught.value.next_step
    assert not (tmp_path / "run").exists(), "refused before anything is written"


def test_a_live_teacher_must_not_take_a_recorded_name(
    asked: Any, tmp_path: Path, tall: list[dict[str, Any]]
) -> None:
    pq.write_table(pa.Table.from_pylist(tall), tmp_path / "tall.parquet")
    teacher = {"model": "lab:elm-m", "name": "ash"}
    with pytest.raises(PreceptorError, match="the name of a recorded one"):
        asked(teachers=[teacher], answers=str(tmp_path / "tall.parquet"))
    with pytest.raises(PreceptorError, match="no recorded answer belongs"):
        asked(instructions="lab:test", answers=str(tmp_path / "tall.parquet"), max_instructions=2)


def _run(config: str, out: str) -> None:
    from preceptor.core import stage
    from preceptor.data import answer_store
    from preceptor.recipes.ask import ask

    stage.COMMIT_SECONDS = answer_store.COMMIT_SECONDS = 0.02
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    import torch

    torch.set_num_threads(1)
    ask(load_settings(Ask, Path(config)), Path(out))


def _start(config: Path, out: Path) -> BaseProcess:
    return start(_run, str(config), str(out))


def _finish(config: Path, out: Path) -> None:
    process = _start(config, out)
    process.join(120)
    assert process.exitcode == 0


def _kill_when(config: Path, out: Path, shards: str, more: int) -> None:
    """Start the run, and kill it when it has committed so many more shards of that kind."""
    wanted = len(list(out.glob(shards))) + more
    process = _start(config, out)
    while len(list(out.glob(shards))) < wanted:
        assert process.exitcode is None, "the run was over before it could be killed"
        time.sleep(0.002)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_kills_while_asking_and_while_scoring_change_nothing(
    tmp_path: Path, tiny_model: Any, chat_template: str, instruction_texts: tuple[str, ...]
) -> None:
    rows = [{"instruction": f"{text} Number {n}."} for text in instruction_texts for n in range(4)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = tiny_model("asked", chat_template=chat_template, seed=4)
    config = tmp_path / "ask.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "instructions": str(tmp_path / "q.jsonl"),
                "teachers": [{"model": str(model), "max_new_tokens": 12, "batch_size": 4}],
                "decodings": {"temperature": [0, 0.9], "top_p": 0.9, "samples": 3},
                "rewards": [
                    {"kind": f"{__name__}:open_slow", "name": f"slow{n}"} for n in range(2)
                ],
                "resamples": 100,
            }
        )
    )
    _finish(config, tmp_path / "whole")
    out = tmp_path / "killed"
    for shards, more in [
        ("store/*/*.parquet", 1),
        ("store/*/*.parquet", 3),
        ("work/reward-000/*.parquet", 1),
        ("work/reward-000/*.parquet", 2),
        ("work/reward-001/*.parquet", 2),
    ]:
        _kill_when(config, out, shards, more)
        assert not (out / artifacts.SAMPLES).exists()
    _finish(config, out)
    for name in (artifacts.SAMPLES, artifacts.ASK):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (out / artifacts.WORK).exists()
