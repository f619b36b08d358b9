"""`preceptor study`: from settings to outcomes, killed and resumed, limited, and with failures.

Tiny models learn from recorded answers, and a benchmark of this file counts letters.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from forked import start as start_process
from preceptor.core.benchmark import (
    Benchmark,
    Examinee,
    Exchange,
    Graded,
    Marks,
    Measure,
    Question,
    mean_scorer,
)
from preceptor.core.errors import ModelError, PreceptorError, SettingsError
from preceptor.core.fleet import LostGroupsError, Work, run_here
from preceptor.recipes.ask import prepare as prepare_ask
from preceptor.recipes.settings.loading import load_settings, validated
from preceptor.recipes.settings.study import Study
from preceptor.recipes.study import study
from preceptor.recipes.studying.preparing import choose_measures, prepare
from preceptor.recipes.studying.sources import asking_of, list_sources

TEACHERS = {
    "ash": "It is {n} in the house.",
    "beech": "The answer is the number {n} and the cat.",
    "cherry": "{n}",
}
KILLS = 4


def open_letters(setting: Any, runtime: Any) -> Benchmark:
    """Share of the letters of "house" in an answer; fails for whom `options: break` names."""
    questions = tuple(Question(f"q{n}", (f"Where is number {n}?",)) for n in range(12))
    measures = (
        Measure("letters", "letters", item="letters"),
        Measure("waste", "waste", direction="lower", item="waste"),
    )
    return Benchmark(
        setting.name,
        questions,
        measures,
        partial(_grade, setting.options.get("break", "")),
        mean_scorer(measures, 100.0),
        setting.max_new_tokens,
        "letters",
    )


def _grade(broken: str, examinee: Examinee, exchanges: Sequence[Exchange]) -> Graded:
    if broken and Path(broken).exists() and Path(broken).read_text() in examinee.name:
        raise RuntimeError("the judge is on holiday\nand comes back tomorrow")
    shares = [len(set("house") & set(own.response.lower())) / 5 for own in exchanges]
    keys = tuple(own.question.key for own in exchanges)
    values = {"letters": np.array(shares), "waste": 1.0 - np.array(shares)}
    return Graded(Marks(keys, ("",) * len(keys), values))


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path], chat_template: str
) -> dict[str, Any]:
    """Settings of one base, three recorded teachers and one seed."""
    folder = tmp_path_factory.mktemp("study")
    rows = [
        {
            "instruction": f"Where is number {n}?",
            "generator": teacher,
            "response": form.format(n=n),
            "helpful": 0.5 + 0.01 * n + 0.1 * place,
        }
        for n in range(16)
        for place, (teacher, form) in enumerate(TEACHERS.items())
    ]
    file = folder / "answers.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {
        "bases": str(tiny_model("study-pupil", chat_template=chat_template, seed=41)),
        "answers": str(file),
        "rewards": ["helpful"],
        "selection": {"criteria": ["mean_reward", "length", "perplexity"]},
        "criteria_on": 10,
        "training": {
            "max_steps": 4,
            "batch_size": 4,
            "learning_rate": 0.02,
            "max_length": 64,
            "save_steps": 2,
            "log_steps": 2,
        },
        "benchmarks": [
            {
                "kind": f"{__name__}:open_letters",
                "name": "letters",
                "max_new_tokens": 12,
                "options": {"break": str(folder / "broken")},
            }
        ],
        "resamples": 100,
        "device": "cpu",
    }


def settings_of(world: dict[str, Any], **changes: Any) -> Study:
    return validated(Study, {**world, **changes}, "test")


def outcomes(out: Path) -> bytes:
    return (out / "outcomes.json").read_bytes()


@pytest.fixture(scope="module")
def whole(world: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that nothing disturbed, as the command line runs it."""
    folder = tmp_path_factory.mktemp("whole")
    process = _start(world, folder)
    process.join(300)
    assert process.exitcode == 0
    return folder / "run"


def _run(config: str, out: str) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    import torch

    torch.set_num_threads(1)
    study(load_settings(Study, Path(config)), Path(out))


def _start(world: dict[str, Any], folder: Path) -> Any:
    config = folder / "study.yaml"
    config.write_text(yaml.safe_dump(world), encoding="utf-8")
    return start_process(_run, str(config), str(folder / "run"))


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_whole_study(whole: Path, world: dict[str, Any]) -> None:
    found = json.loads((whole / "study.json").read_text(encoding="utf-8"))
    assert [source["name"] for source in found["sources"]] == list(TEACHERS)
    assert found["n_instructions"] == 16 and found["seeds"] == [0]
    assert [cell["status"] for cell in found["cells"]] == ["done"] * 3
    rows = json.loads(outcomes(whole))
    by_cell = {cell["source"]: cell for cell in found["cells"]}
    for row in rows:
        cell = by_cell[row["teacher"]]
        assert row == {
            "base": "study-pupil",
            "teacher": cell["source"],
            "seed": 0,
            "outcome": cell["outcome"],
            "n": 12,
        }
        assert cell["outcome"] == cell["scores"]["letters.letters"]
        assert cell["scores"]["letters.waste"] == pytest.approx(100 - cell["outcome"])
        assert cell["seconds"] > 0
        for name in ("model/model.safetensors", "marks.parquet", "exchanges.parquet"):
            assert (whole / cell["folder"] / name).exists()
    best = max(rows, key=lambda row: row["outcome"])
    ranks = {row["source"]: row["rank"] for row in found["matrix"]}
    assert ranks[best["teacher"]] == 1
    for row in found["matrix"]:
        assert row["outcome"]["low"] <= row["outcome"]["value"] <= row["outcome"]["high"]
    assert found["base_scores"][0]["scores"]["letters.letters"] is not None
    trials = found["criteria"]["bases"][0]["outcomes"]["criteria"]
    assert {"mean_reward", "length", "perplexity"} <= set(trials)
    assert (whole / "comparison" / "compare.html").exists() and (whole / "study.html").exists()
    assert "of one seed" in found["warnings"][0]
    assert found["budget"] is None
    selection = json.loads((whole / "selection/study-pupil/ranking.json").read_text())
    assert selection["n_instructions"] == 10
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("cell.json")}
    assert study(settings_of(world), whole)["cells"] == found["cells"]
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("cell.json")} == before


def test_a_killed_study_ends_with_the_same_outcomes(
    world: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    rng, kills = random.Random(3), 0
    for _ in range(KILLS):
        process = _start(world, tmp_path)
        process.join(rng.uniform(0.5, 6.0))
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += process.exitcode == -signal.SIGKILL
    assert kills >= 1
    last = _start(world, tmp_path)
    last.join(300)
    assert last.exitcode == 0
    assert outcomes(tmp_path / "run") == outcomes(whole)


def test_processes_do_the_same_after_a_kill(
    world: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    """The parent is killed while workers train; the next invocation finds no one in its way."""
    beside = {**world, "runs": {"kind": "processes", "workers": 2}}
    process = _start({**beside, "runs": {"kind": "processes"}}, tmp_path)  # no part of the identity
    end = time.monotonic() + 200
    while process.is_alive() and not list((tmp_path / "run").glob("cells/**/work")):
        assert time.monotonic() < end, "no cell begins"
        time.sleep(0.05)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    last = _start(beside, tmp_path)
    last.join(300)
    assert last.exitcode == 0
    assert outcomes(tmp_path / "run") == outcomes(whole)


def test_a_failed_cell_is_told_and_tried_again(
    world: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    broken = Path(world["benchmarks"][0]["options"]["break"])
    broken.write_text("beech", encoding="utf-8")
    out = tmp_path / "run"
    try:
        found = study(settings_of(world), out)
    finally:
        broken.unlink()
    status = {cell["source"]: (cell["status"], cell["reason"]) for cell in found["cells"]}
    assert status == {
        "ash": ("done", ""),
        "beech": ("failed", "RuntimeError: the judge is on holiday"),
        "cherry": ("done", ""),
    }
    assert found["criteria"] is None
    assert any("1 of 3 trainings failed" in said["text"] for said in found["verdict"])
    again = study(settings_of(world), out)
    assert [cell["status"] for cell in again["cells"]] == ["done"] * 3
    assert outcomes(out) == outcomes(whole)


def open_losing_fleet(setting: Any) -> Any:
    """A fleet whose workers die over the cells of one source."""

    def fleet(open_worker: Callable[[], Work], groups: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        lost = [n for n, job in enumerate(groups) if job.cell.source == "cherry"]
        kept = [n for n in range(len(groups)) if n not in lost]
        for place, result in run_here(open_worker, [groups[n] for n in kept]):
            yield kept[place], result
        raise LostGroupsError(dict.fromkeys(lost, "killed by SIGKILL"))

    return fleet


def test_a_cell_whose_workers_die_is_a_failure_like_others(
    world: dict[str, Any], tmp_path: Path
) -> None:
    losing = settings_of(world, runs={"kind": f"{__name__}:open_losing_fleet"})
    found = study(losing, tmp_path / "run")
    status = {cell["source"]: (cell["status"], cell["reason"]) for cell in found["cells"]}
    assert status["cherry"] == ("failed", "its worker died twice: killed by SIGKILL")
    assert status["ash"] == status["beech"] == ("done", "")


def test_what_does_not_fit_is_left_and_finished_later(
    world: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    limited = study(settings_of(world, budget=1e-9), out)
    assert [cell["status"] for cell in limited["cells"]] == ["left"] * 3
    assert limited["matrix"] == [] and json.loads(outcomes(out)) == []
    assert limited["budget"] is not None and limited["budget"]["order"] == []
    assert (out / "selection/study-pupil/ranking.json").exists()
    more = study(settings_of(world, budget=1.0, keep_models=True), out)
    assert more["budget"] is not None
    assert [Path(own).parts[0] for own in more["budget"]["order"]] == ["bases", *["cells"] * 3]
    assert study(settings_of(world), out)["cells"] == more["cells"]
    assert outcomes(out) == outcomes(whole)


def test_weights_are_dropped_where_nobody_wants_them(world: dict[str, Any], tmp_path: Path) -> None:
    """Two seeds of a single source."""
    rows = Path(world["answers"]).read_text(encoding="utf-8").splitlines()
    alone = tmp_path / "ash.jsonl"
    alone.write_text("\n".join(row for row in rows if '"ash"' in row), encoding="utf-8")
    changes: dict[str, Any] = {"answers": str(alone), "keep_models": False, "seeds": 2}
    found = study(settings_of(world, **changes), tmp_path / "run")
    assert [cell["status"] for cell in found["cells"]] == ["done"] * 2
    assert list((tmp_path / "run").rglob("*.safetensors")) == []
    assert [row["seeds"] for row in found["matrix"]] == [2]
    mean = np.mean([cell["outcome"] or 0.0 for cell in found["cells"]])
    assert found["matrix"][0]["outcome"]["value"] == pytest.approx(mean)
    assert not any("of one seed" in warning for warning in found["warnings"])


def test_sources_of_live_and_recorded_teachers(
    world: dict[str, Any], chatter: Path, tmp_path: Path
) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text(
        "".join(json.dumps({"instruction": f"Where is number {n}?"}) + "\n" for n in range(16))
    )
    live = settings_of(
        world,
        instructions=str(questions),
        rewards=[{"kind": "verifier", "name": "right", "function": "exact_match"}],
        teachers=[{"model": str(chatter), "name": "live", "max_new_tokens": 4}],
        decodings={"temperature": [0.0, 0.7], "top_p": [0.9, 1.0], "samples": 2},
        picks=["one", "best"],
    )
    asked = prepare_ask(asking_of(live, tmp_path), tmp_path / "answers")
    found = {own.name: own for own in list_sources(live, asked)}
    assert list(found) == [
        "live@greedy",
        "live@t0.7-p0.9-one",
        "live@t0.7-p0.9-best",
        "live@t0.7-p1-one",
        "live@t0.7-p1-best",
        *TEACHERS,
    ]
    best = found["live@t0.7-p0.9-best"]
    assert (best.teacher, best.temperature, best.top_p, best.pick) == ("live", 0.7, 0.9, "best")
    assert best.wanted("right").model_dump() == {
        "pick": "best",
        "reward": "right",
        "teacher": "live",
        "temperature": 0.7,
        "top_p": 0.9,
        "samples": None,
        "min_reward": None,
    }
    assert best.size is not None and 0 < best.size < 1e-3 and best.model == str(chatter)
    assert found["ash"].size is None and found["ash"].model == ""
    greedy = settings_of(world, picks=["greedy"])
    asked = prepare_ask(asking_of(greedy, tmp_path), tmp_path / "answers")
    with pytest.raises(SettingsError, match="nobody answers greedily"):
        list_sources(greedy, asked)


def test_an_arm_that_cannot_be_is_refused_or_noted(
    world: dict[str, Any], chatter: Path, tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    arm = {
        "recipe": "distill",
        "settings": {
            "teacher": "{teacher}",
            "mix": 0.5,
            "losses": [{"name": "forward_kl", "weight": 1.0, "temperature": 1.0}],
        },
    }
    with pytest.raises(SettingsError, match="only its answers are known"):
        prepare(settings_of(world, arms={"kd": arm}), tmp_path / "run")
    questions = tmp_path / "questions.jsonl"
    questions.write_text(
        "".join(json.dumps({"instruction": f"Where is number {n}?"}) + "\n" for n in range(16))
    )
    mixed = settings_of(
        world,
        instructions=str(questions),
        rewards=[{"kind": "verifier", "name": "right", "function": "exact_match"}],
        teachers=[{"model": str(chatter), "name": "live", "max_new_tokens": 4}],
        arms={"sft": {}, "kd": arm},
    )
    prepared = prepare(mixed, tmp_path / "run")
    assert len(prepared.cells) == 8
    reasons = {Path(own).parts[2]: why for own, why in prepared.impossible.items()}
    assert set(reasons) == set(TEACHERS)
    assert all("only its answers are known" in why for why in reasons.values())
    assert not (tmp_path / "run").exists()
    typo = {"kd": {"recipe": "distill", "settings": {"teachr": "x"}}}
    with pytest.raises(SettingsError, match="teachr"):
        prepare(settings_of(world, arms=typo), tmp_path / "run")
    (tmp_path / "empty").mkdir()
    absent = {
        "recipe": "distill",
        "settings": {**arm["settings"], "teacher": str(tmp_path / "empty")},
    }
    with pytest.raises(ModelError, match="cannot be opened"):
        prepare(settings_of(world, arms={"sft": {}, "kd": absent}), tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outcome": "letters.leters"}, "no benchmark gives the measure"),
        ({"outcome": "letters.waste"}, "better where it is higher"),
        ({"selection": {"base": "x"}}, "the study sets this by itself"),
        ({"arms": {"sft": {"settings": {"seed": 3}}}}, "the study sets this by itself"),
        ({"selection": {"criteria": ["caar"]}}, "unknown criterion"),
        ({"selection": {"betta": 1}}, "unknown setting"),
        ({"selection": {"teacher_facts": {"oak": {"size": 7}}}}, "not in the study"),
        ({"rewards": []}, "needs a reward"),
    ],
)
def test_mistakes_are_found_before_anything_runs(
    world: dict[str, Any], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(PreceptorError, match=message):
        prepare(settings_of(world, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_outcome_is_the_first_measure_of_each_benchmark() -> None:
    class Setting:
        name, options, max_new_tokens = "letters", {}, 8

    letters = open_letters(Setting, None)
    assert choose_measures((), [letters]) == ([("letters", "letters")], [])
    with pytest.raises(SettingsError) as caught:
        choose_measures(("letters.leters",), [letters])
    assert caught.value.found == "did you mean 'letters.letters'?"
