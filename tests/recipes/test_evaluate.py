"""`preceptor evaluate`: from models and benchmarks to scores, a page and a gate; and resumption."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from forked import start
from preceptor.core import artifacts
from preceptor.core.benchmark import (
    Benchmark,
    Examinee,
    Exchange,
    Game,
    Graded,
    Marks,
    Measure,
    Question,
    mean_scorer,
)
from preceptor.core.errors import DataError, PreceptorError, SettingsError
from preceptor.recipes.examining.arguments import load_evaluation
from preceptor.recipes.settings.evaluation import Evaluate
from preceptor.recipes.settings.loading import load_settings

KILLS = int(os.environ.get("PRECEPTOR_KILLS", "5"))
LETTERS = f"{__name__}:open_letters"


def open_letters(setting: Any, runtime: Any) -> Benchmark:
    """Six questions of two categories; an answer's marks are its letters and whether it is long.

    `slow` waits that many seconds for each answer; `log` names a file that tells who was graded;
    `fails_on` names a model whose grading fails.
    """
    slow, log = setting.options.get("slow", 0), setting.options.get("log")
    measures = (
        Measure("letters", "letters", 0.0, 1000.0, item="letters"),
        Measure("long", "long answers", 0.0, 1.0, item="long"),
    )
    questions = tuple(
        Question(f"q{n}", (f"What is the sum of one and {n}?",), ("odd", "even")[n % 2])
        for n in range(6)
    )

    def grade(examinee: Examinee, exchanges: Sequence[Exchange]) -> Graded:
        if examinee.name == setting.options.get("fails_on"):
            raise PreceptorError("the judge has gone")
        if log:
            with open(log, "a") as file:
                file.write(f"{examinee.name}\n")
        time.sleep(slow * len(exchanges))
        letters = np.array([float(len(own.response)) for own in exchanges])
        shown = Marks(
            tuple(own.question.key for own in exchanges),
            tuple(own.question.category for own in exchanges),
            {"letters": letters, "long": (letters > 20).astype(np.float64)},
        )
        games = tuple(
            Game(own.question.key, 0, first, float(len(own.response) > 20), len(own.response) - 20)
            for own in exchanges
            for first in (True, False)
        )
        return Graded(shown, games, {"graded": len(exchanges)})

    return Benchmark(
        setting.name, questions, measures, grade, mean_scorer(measures), setting.max_new_tokens
    )


def open_asking_itself(setting: Any, runtime: Any) -> Benchmark:
    """A benchmark without questions: it loads checkpoints by itself (here: weighs their files)."""
    measure = Measure("bytes", "bytes", 0.0, 1e12, item="bytes")

    def grade(examinee: Examinee, exchanges: Sequence[Exchange]) -> Graded:
        sizes = [float(file.stat().st_size) for file in sorted(Path(examinee.location).iterdir())]
        keys = tuple(str(number) for number in range(len(sizes)))
        return Graded(Marks(keys, ("",) * len(sizes), {"bytes": np.array(sizes)}))

    return Benchmark(setting.name, (), (measure,), grade, mean_scorer((measure,)))


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Evaluate]:
    """`settings(**tree)`, of the own benchmark unless others are given."""

    def load(**tree: Any) -> Evaluate:
        file = tmp_path / f"evaluate-{random.getrandbits(32)}.yaml"
        own = {"kind": LETTERS, "name": "letters", "max_new_tokens": 8}
        tree = {"benchmarks": [own], "resamples": 100, "device": "cpu", **tree}
        file.write_text(yaml.safe_dump(tree))
        return load_settings(Evaluate, file)

    return load


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Answers of ash (long), beech (short) and cherry (long, to four of the questions)."""
    rows = [
        {"id": f"q{n}", "prompt": "?", "model": model, "output": text * (n + 1)}
        for model, text, last in (("ash", "abcdefgh", 6), ("beech", "xy", 6), ("cherry", "abc", 4))
        for n in range(last)
    ]
    path = tmp_path / "recorded.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(settings: Evaluate, out: Path) -> dict[str, Any]:
    from preceptor.recipes.evaluate import evaluate

    return dict(evaluate(settings, out))


def read(out: Path, name: str) -> Any:
    return json.loads((out / name).read_text())


def test_lab_models_on_the_lab_test(tmp_path: Path, settings: Callable[..., Evaluate]) -> None:
    from preceptor.lab import verifier
    from preceptor.lab.tasks import instructions

    out = tmp_path / "run"
    own = settings(
        models=["lab:base-notes", {"model": "lab:aster-m", "name": "teacher"}],
        benchmarks=[{"kind": "lab", "max_questions": 24, "max_new_tokens": 48}],
        fail_if=["surely lab.reward < 0 against base-notes"],
    )
    found = run(own, out)
    assert found == read(out, "evaluation.json")
    assert found["models"] == ["base-notes", "teacher"] and found["reference"] == "base-notes"
    assert found["gate"] == [
        {
            "condition": "surely teacher:lab.reward < 0 against base-notes",
            "value": found["benchmarks"][0]["differences"][0]["high"],
            "holds": False,
        }
    ]
    (lab,) = found["benchmarks"]
    assert (lab["name"], lab["kind"], lab["n"], lab["judge"]) == ("lab", "lab", 24, None)
    rows = pq.read_table(out / "exchanges.parquet").to_pylist()
    asked = {each.instruction_id: each for each in instructions("test", 24)}
    for score in lab["scores"]:
        said = [row for row in rows if row["model"] == score["model"]]
        assert [row["item"] for row in said] == list(asked)
        grades = [
            verifier.grade(row["prompt"], row["response"], asked[row["item"]].row()) for row in said
        ]
        assert score["measures"]["reward"]["value"] == pytest.approx(np.mean(grades))
        assert score["n_marked"] == 24
    (gap,) = [row for row in lab["differences"] if row["measure"] == "reward"]
    assert (gap["model"], gap["against"]) == ("teacher", "base-notes")
    assert gap["low"] > 0, "a teacher is better than a base"
    assert [kept["model"] for kept in lab["retention"]] == ["teacher"]
    assert {row["model"] for row in found["quality"]} == {"base-notes", "teacher"}
    schemas = {
        "exchanges.parquet": artifacts.EXCHANGES_SCHEMA,
        "marks.parquet": artifacts.MARKS_SCHEMA,
        "judgements.parquet": artifacts.JUDGEMENTS_SCHEMA,
    }
    for name, schema in schemas.items():
        assert pq.read_schema(out / name).equals(schema)
    assert "base-notes" in (out / "report.html").read_text()
    provenance = read(out, "provenance.json")
    assert provenance["status"] == "finished" and not (out / "work").exists()
    assert provenance["asked"]["teacher (lab)"]["answers"] == 24
    assert set(provenance["models"]) == {"model base-notes", "model teacher", "benchmark lab"}


def test_recorded_answers_are_examined(
    tmp_path: Path, recorded: Path, settings: Callable[..., Evaluate]
) -> None:
    found = run(settings(answers=str(recorded), reference="beech"), tmp_path / "run")
    (letters,) = found["benchmarks"]
    values = {row["model"]: row["measures"]["letters"]["value"] for row in letters["scores"]}
    assert values == {"ash": 28.0, "beech": 7.0, "cherry": 7.5}
    ash = letters["scores"][0]
    assert ash["categories"]["odd"]["letters"]["value"] == pytest.approx((8 + 24 + 40) / 3)
    assert ash["facts"] == {"graded": 6}
    pairs = [(r["model"], r["against"]) for r in letters["differences"] if r["measure"] == "long"]
    assert pairs == [("ash", "beech"), ("cherry", "beech"), ("cherry", "ash")]
    cherry = letters["differences"][2]
    assert (cherry["model"], cherry["against"]) == ("cherry", "beech")
    assert cherry["value"] == pytest.approx(7.5 - 5)  # on the four questions of both
    assert letters["judge"]["games"] == 32 and letters["judge"]["words"]
    assert len(found["warnings"]) == 1
    assert found["warnings"][0].startswith("cherry has no mark on 2 of 6 items of letters")
    cut = {row["model"]: row["cut_off"] for row in found["quality"]}
    assert cut == {"ash": None, "beech": None, "cherry": None}


def test_live_and_recorded_sit_side_by_side(
    tmp_path: Path, recorded: Path, chatter: Path, settings: Callable[..., Evaluate]
) -> None:
    """Who cannot sit a benchmark is left out of it, and the run says so."""
    own = settings(
        models=[str(chatter)],
        answers=str(recorded),
        benchmarks=[
            {"kind": LETTERS, "name": "letters", "max_new_tokens": 4},
            {"kind": f"{__name__}:open_asking_itself", "name": "weight"},
        ],
        fail_if=["weight.bytes < 1"],
    )
    found = run(own, tmp_path / "run")
    assert found["models"] == ["chatter", "ash", "beech", "cherry"]
    weight = found["benchmarks"][1]
    assert weight["scores"][0]["measures"]["bytes"]["value"] > 1
    nothing = {"value": None, "low": None, "high": None}
    assert [row["measures"]["bytes"] for row in weight["scores"][1:]] == [nothing] * 3
    assert weight["differences"] == weight["retention"] == []
    assert sum("does not sit weight" in text for text in found["warnings"]) == 3
    # what was not measured does not pass
    assert [(row["value"], row["holds"]) for row in found["gate"]] == [(None, True)] * 3


def test_a_live_model_is_not_asked_for_recorded_marks(
    tmp_path: Path, chatter: Path, settings: Callable[..., Evaluate]
) -> None:
    """It has none: it is left out of that benchmark, and refused where there is no other."""
    sheet, answers = tmp_path / "sheet.jsonl", tmp_path / "judged.jsonl"
    rows = [{"instruction_id": f"q{n}", "instruction": f"Question {n}?"} for n in range(4)]
    own = {"model": "ash", "response": "mine", "won": 0.75}
    for path, more in ((sheet, {"output": "theirs"}), (answers, own)):
        path.write_text("".join(json.dumps(row | more) + "\n" for row in rows))
    alpaca = {"kind": "alpaca_eval", "questions": str(sheet), "baseline": "output"}
    live: dict[str, Any] = {"models": [str(chatter)], "benchmarks": [alpaca | {"recorded": "won"}]}
    with pytest.raises(DataError, match="a live model has none") as caught:
        run(settings(**live), tmp_path / "refused")
    assert "'won'" in caught.value.found and not (tmp_path / "refused").exists()
    live["benchmarks"].append({"kind": LETTERS, "name": "letters", "max_new_tokens": 4})
    found = run(settings(answers=str(answers), **live), tmp_path / "run")
    assert sum("chatter does not sit alpaca_eval" in text for text in found["warnings"]) == 1
    scores = found["benchmarks"][0]["scores"]
    rates = {row["model"]: row["measures"]["win_rate"]["value"] for row in scores}
    assert rates == {"chatter": None, "ash": pytest.approx(75)}
    assert set(read(tmp_path / "run", "provenance.json")["asked"]) == {"chatter (letters)"}


def test_a_begun_run_goes_on_where_it_stopped(
    tmp_path: Path, recorded: Path, settings: Callable[..., Evaluate]
) -> None:
    log, out = tmp_path / "log", tmp_path / "run"
    options = {"log": str(log)}
    tree: dict[str, Any] = {"kind": LETTERS, "name": "letters"}

    def own(**more: Any) -> Evaluate:
        return settings(answers=str(recorded), benchmarks=[tree | {"options": options | more}])

    with pytest.raises(PreceptorError, match="the judge has gone"):
        run(own(fails_on="cherry"), out)
    assert log.read_text().split() == ["ash", "beech"]
    options["fails_on"] = "cherry"
    provenance = read(out, "provenance.json")
    assert provenance["status"] == "running" and not (out / "evaluation.json").exists()
    with pytest.raises(PreceptorError, match="the judge has gone"):
        run(own(), out)
    assert log.read_text().split() == ["ash", "beech"], "what is kept is not graded again"


def test_a_finished_run_is_read_and_its_gate_may_change(
    tmp_path: Path,
    recorded: Path,
    settings: Callable[..., Evaluate],
    capsys: pytest.CaptureFixture[str],
) -> None:
    log, out = tmp_path / "log", tmp_path / "run"
    benchmark = {"kind": LETTERS, "name": "letters", "options": {"log": str(log)}}
    tree: dict[str, Any] = {
        "answers": str(recorded),
        "reference": "beech",
        "benchmarks": [benchmark],
    }
    first = run(settings(**tree), out)
    before = (out / "evaluation.json").read_bytes()
    assert run(settings(**tree), out) == first
    assert "holds the finished run" in capsys.readouterr().err
    assert (out / "evaluation.json").read_bytes() == before
    gated = run(settings(**tree, fail_if=["cherry:letters.letters/even >= 9"]), out)
    assert gated["gate"] == [
        {"condition": "cherry:letters.letters/even >= 9", "value": 9.0, "holds": True}
    ]
    assert gated | {"gate": []} == first
    assert log.read_text().split() == ["ash", "beech", "cherry"]
    with pytest.raises(PreceptorError, match="belongs to other settings"):
        run(settings(**tree, confidence=0.9), out)


def test_conditions_by_hand(
    tmp_path: Path, recorded: Path, settings: Callable[..., Evaluate]
) -> None:
    """Letters: ash 28, beech 7, cherry 7.5 (5 and 7 on the four questions of both)."""
    wanted: dict[str, list[tuple[str, float, bool]]] = {
        "letters.letters < 8": [("ash", 28.0, False), ("cherry", 7.5, True)],
        "ash:letters.letters>28": [("ash", 28.0, False)],
        "ash:letters.letters >= 28": [("ash", 28.0, True)],
        "beech:letters.letters <= 7": [("beech", 7.0, True)],
        "letters.letters/odd < 10 against beech": [("ash", 18.0, False), ("cherry", 2.0, True)],
        "ash:letters.letters > 20 against cherry": [("ash", 12.5, False)],
        "ash:letters.letters < 29": [("ash", 28.0, True)],
    }
    sure = ["surely ash:letters.letters < 29", "surely ash:letters.letters > 8"]
    own = settings(answers=str(recorded), reference="beech", fail_if=[*wanted, *sure])
    found = run(own, tmp_path / "run")
    told = [(r["condition"].split(":")[0], r["value"], r["holds"]) for r in found["gate"]]
    assert told[:-2] == [row for rows in wanted.values() for row in rows]
    score = found["benchmarks"][0]["scores"][0]["measures"]["letters"]
    assert score["low"] > 8 and score["high"] > 29
    assert told[-2:] == [("surely ash", score["high"], False), ("surely ash", score["low"], True)]


@pytest.mark.parametrize(
    ("condition", "hint"),
    [
        ("letters.leters < 1", "did you mean 'letters.letters'"),
        ("leters.letters < 1", "did you mean 'letters.letters'"),
        ("asch:letters.long < 1", "did you mean 'ash:letters.long'"),
        ("letters.letters/green < 1", "no category 'green'; did you mean 'even'?"),
        ("letters.letters < many", "'many' is no number"),
        ("letters.letters < nan", "'nan' is no number"),
        ("letters.letters", "no condition"),
        ("letters.letters < 1 against birch", "no model 'birch'; did you mean 'beech'"),
        ("ash:letters.letters < 1 against ash", "nobody"),
    ],
)
def test_a_bad_condition_is_refused_before_anything_runs(
    tmp_path: Path, recorded: Path, settings: Callable[..., Evaluate], condition: str, hint: str
) -> None:
    with pytest.raises(SettingsError, match="a condition of the gate") as caught:
        run(settings(answers=str(recorded), fail_if=[condition]), tmp_path / "run")
    assert hint in caught.value.found and condition in caught.value.where
    assert not (tmp_path / "run").exists()


def test_names_with_colons_and_dots_are_understood() -> None:
    from preceptor.recipes.examining.gate import read_gates

    def benchmark(name: str) -> Benchmark:
        measures = tuple(Measure(n, n, item=n) for n in ("acc", "acc_norm", "exact_match,strict"))
        return Benchmark(
            name, (), measures, lambda e, x: Graded(Marks((), (), {})), mean_scorer(measures)
        )

    names = ["lm_eval:arc_easy", "v2.0"]
    models = ["base", "llama3.1:8b", "org/model"]
    benchmarks = {name: benchmark(name) for name in names}
    for text, wanted in {
        "lm_eval:arc_easy.acc_norm < 0.3": ("", "lm_eval:arc_easy", "acc_norm", ""),
        "llama3.1:8b:lm_eval:arc_easy.acc<0.3": ("llama3.1:8b", "lm_eval:arc_easy", "acc", ""),
        "org/model:v2.0.exact_match,strict/a/b > -1e-3": (
            "org/model", "v2.0", "exact_match,strict", "a/b"),
    }.items():  # fmt: skip
        (gate,) = read_gates([text], benchmarks, models, "base")
        own = gate.models if wanted[0] else ("",)
        assert (own[0], gate.benchmark, gate.measure, gate.category) == wanted
    (gate,) = read_gates(["v2.0.acc < 1"], benchmarks, ["base"], "base")
    assert gate.models == ("base",), "the only model is gated, though it is the reference"


@pytest.mark.parametrize(
    ("change", "what", "found"),
    [
        ({"reference": "bech"}, "the reference is not examined", "did you mean 'beech'?"),
        ({"models": ["CHATTER"]}, "a live model has the name of a recorded one", "chatter"),
        ({"models": ["CHATTER", "CHATTER"]}, "a name stands twice", "chatter"),
        ({"answers": [], "models": []}, "there is nobody to examine", ""),
        ({"answers": ["RECORDED", "RECORDED"]}, "stands more than once", "q0"),
        ({"benchmarks": [{"kind": "alpaca"}]}, "unknown benchmark 'alpaca'", "alpaca_eval"),
        ({"benchmarks": ["lab", "lab"]}, "a name stands twice", "lab"),
        ({"benchmarks": ["lab"]}, "no recorded answer belongs to a question", "ids like 'q0'"),
        ({"benchmarks": [f"{__name__}:open_asking_itself"]}, "the benchmark asks by itself", ""),
    ],
)
def test_refusals(
    tmp_path: Path,
    recorded: Path,
    chatter: Path,
    settings: Callable[..., Evaluate],
    change: dict[str, Any],
    what: str,
    found: str,
) -> None:
    if change.get("models") == ["CHATTER"]:
        recorded.write_text(recorded.read_text().replace('"ash"', '"chatter"'))
    places = {"CHATTER": str(chatter), "RECORDED": str(recorded)}
    change = {
        name: [places.get(item, item) if isinstance(item, str) else item for item in value]
        if isinstance(value, list)
        else value
        for name, value in change.items()
    }
    with pytest.raises(PreceptorError, match=what) as caught:
        run(settings(**{"answers": str(recorded), **change}), tmp_path / "run")
    assert found in f"{caught.value.found}"
    assert not (tmp_path / "run").exists()


def test_arguments_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=1").mkdir()
    Path("other.yaml").mkdir()
    Path("e.yaml").write_text("models: [lab:elm-m]\nbenchmarks: [lab]\nfail_if: [lab.form < 1]\n")
    own = load_evaluation(
        ["lab:aster-m", "confidence=0.9", "./lr=1", "other.yaml", "e.yaml", "seed=4"],
        ["lab.reward < 1"],
    )
    assert [getattr(model, "model", None) for model in own.models] == [
        "lab:elm-m",
        "lab:aster-m",
        str(tmp_path / "lr=1"),
        str(tmp_path / "other.yaml"),
    ]
    assert (own.confidence, own.seed) == (0.9, 4)
    assert own.fail_if == ("lab.form < 1", "lab.reward < 1")
    bare = load_evaluation(["lab:elm-m", "benchmarks=[lab]"])
    assert [model.kind for model in bare.models] == ["transformers"]
    with pytest.raises(SettingsError, match="no settings file") as caught:
        load_evaluation(["lab:elm-m", "seed=4"])
    assert caught.value.found == "lab:elm-m seed=4"
    with pytest.raises(SettingsError, match="a name stands twice"):
        load_evaluation(["lab:elm-m", "e.yaml"])


def test_the_run_of_a_training_stands_for_its_model(tmp_path: Path) -> None:
    (tmp_path / "runs" / "sft" / "model").mkdir(parents=True)
    (tmp_path / "runs" / "sft" / "provenance.json").write_text("{}")
    (tmp_path / "runs" / "select").mkdir()
    (tmp_path / "runs" / "select" / "provenance.json").write_text("{}")
    file = tmp_path / "e.yaml"
    model = str(tmp_path / "runs" / "sft" / "model")
    for given in ("runs/sft", "./runs/sft/model", {"model": "runs/sft", "temperature": 0.5}):
        file.write_text(yaml.safe_dump({"models": [given], "benchmarks": ["lab"]}))
        (found,) = load_settings(Evaluate, file).models
        assert (found.name, getattr(found, "model", None)) == ("sft", model)
    named = {"model": "runs/sft", "name": "mine"}
    file.write_text(yaml.safe_dump({"models": [named], "benchmarks": ["lab"]}))
    assert load_settings(Evaluate, file).models[0].name == "mine"
    kept = yaml.safe_dump(load_settings(Evaluate, file).model_dump(mode="json"))
    (tmp_path / "settings.yaml").write_text(kept)
    assert load_settings(Evaluate, tmp_path / "settings.yaml") == load_settings(Evaluate, file)
    file.write_text(yaml.safe_dump({"models": ["runs/select"], "benchmarks": ["lab"]}))
    with pytest.raises(SettingsError, match="holds no trained model"):
        load_settings(Evaluate, file)


def test_the_gate_is_an_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from preceptor.cli import main

    def status(*conditions: str) -> int:
        words = ["lab:base-notes", "e.yaml", "device=cpu", "--out", "run"]
        more = [word for text in conditions for word in ("--fail-if", text)]
        monkeypatch.setattr(sys, "argv", ["preceptor", "evaluate", *words, *more])
        with pytest.raises(SystemExit) as done:
            main()
        return int(done.value.code or 0)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "e.yaml").write_text(
        "benchmarks: [{kind: lab, max_questions: 4, max_new_tokens: 4}]\nresamples: 100\n"
    )
    assert status("lab.reward > 1") == 0
    assert "gate: 1 of 1 passed" in capsys.readouterr().out
    assert status("base-notes:lab.reward <= 1", "lab.form > 1") == 1
    shown = capsys.readouterr().out.splitlines()
    assert shown[-3].startswith("FAILED: base-notes:lab.reward <= 1 (")
    assert shown[-2:] == ["gate: 1 of 2 passed", "report: run/report.html"]
    found = read(tmp_path / "run", "evaluation.json")
    assert [row["holds"] for row in found["gate"]] == [True, False]
    assert status("lab.rewad < 1") == 2
    wrong = capsys.readouterr()
    assert wrong.out == "" and "did you mean 'lab.reward'?" in wrong.err


def _run(config: str, out: str) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    import torch

    from preceptor.data import answer_store
    from preceptor.recipes.evaluate import evaluate

    answer_store.COMMIT_SECONDS = 0.02
    torch.set_num_threads(1)
    evaluate(load_settings(Evaluate, Path(config)), Path(out))


def _start(config: Path, out: Path) -> BaseProcess:
    return start(_run, str(config), str(out))


def _finish(config: Path, out: Path) -> None:
    process = _start(config, out)
    process.join(120)
    assert process.exitcode == 0


def _kill_after(n_pairs: int, config: Path, out: Path, delay: float) -> bool:
    """Start the run, and kill it a little after so many pairs are kept; whether it was killed."""
    process = _start(config, out)
    while process.exitcode is None:
        begun = any(out.glob("store/*/*.parquet"))
        if begun and len(list(out.glob("work/examined/*-marks.parquet"))) >= n_pairs:
            time.sleep(delay)
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    process.join()
    return process.exitcode == -signal.SIGKILL


def test_kills_change_nothing(
    tmp_path: Path, chatter: Path, tiny_model: Callable[..., Path], chat_template: str
) -> None:
    """Killed among the answers, after each pair, and among the tables."""
    config = tmp_path / "evaluate.yaml"
    slow = {"kind": LETTERS, "max_new_tokens": 16, "options": {"slow": 0.01}}
    models = [str(chatter), str(tiny_model("chatter2", chat_template=chat_template, seed=2))]
    tree = {
        "models": [{"model": model, "batch_size": 2, "temperature": 0.5} for model in models],
        "benchmarks": [slow | {"name": "one"}, slow | {"name": "two"}],
        "resamples": 100,
        "device": "cpu",
    }
    config.write_text(yaml.safe_dump(tree))
    _finish(config, tmp_path / "whole")
    kept = ["evaluation.json", "marks.parquet", "exchanges.parquet", "judgements.parquet"]
    whole = {name: (tmp_path / "whole" / name).read_bytes() for name in kept}
    rng = random.Random(5)
    for round_ in range(KILLS // 5):
        out = tmp_path / f"killed-{round_}"
        kills = [_kill_after(n, config, out, rng.uniform(0, 0.1)) for n in range(5)]
        assert sum(kills) >= 4, "a kill should fall after each pair"
        _finish(config, out)
        assert {name: (out / name).read_bytes() for name in kept} == whole
        assert not (out / "work").exists()
