"""Plans of studies and evaluations: counts, names without a network, rates, budgets, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from preceptor.core.errors import ModelError, SettingsError
from preceptor.data.answer_store import AnswerStore
from preceptor.models.size import read_size
from preceptor.recipes.plan import plan
from preceptor.recipes.planning.asking import known_size
from preceptor.recipes.planning.distant import (
    Named,
    located,
    named_size,
    parameters_of,
    place_of,
)
from preceptor.recipes.planning.draft import Rates, Stage
from preceptor.recipes.planning.jobs import read_any
from preceptor.recipes.planning.studying import StudyJob
from preceptor.recipes.settings.evaluation import Evaluate
from preceptor.recipes.settings.shared import model_location
from preceptor.recipes.settings.study import Study

LAB: dict[str, Any] = {
    "bases": ["lab:base-notes", "lab:base-school"],
    "instructions": "lab:train",
    "max_instructions": 40,
    "teachers": [
        {"model": "lab:aster-s", "max_new_tokens": 24},
        {"model": "lab:birch-m", "max_new_tokens": 24},
    ],
    "decodings": {"temperature": [0.0, 0.8], "samples": 3},
    "picks": ["best", "worst"],
    "rewards": [{"kind": "verifier", "name": "correct", "function": "lab"}],
    "selection": {"criteria": ["car", "ifd", "length"]},
    "criteria_on": 30,
    "seeds": 2,
    "training": {"epochs": 1, "batch_size": 8, "max_length": 128},
    "benchmarks": [{"kind": "lab", "max_questions": 20, "max_new_tokens": 24}],
}
FAR: dict[str, Any] = {
    "bases": ["nobody/base-1.5B"],
    "answers": "nobody/answers",
    "rewards": ["reward"],
    "benchmarks": ["lab"],
}


def study_plan(settings: dict[str, Any], out: Path | None = None, **options: Any) -> Any:
    return plan("study", Study.model_validate(settings), out, **options)


def by_name(found: dict[str, Any]) -> dict[str, Any]:
    return {stage["stage"]: stage for stage in found["stages"]}


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, and an error for whoever calls the hub."""
    import socket

    from huggingface_hub import constants

    def refuse(*arguments: Any, **more: Any) -> None:
        raise AssertionError(f"somebody called {arguments}")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize(
    ("name", "whole", "visited"),
    [
        ("Qwen/Qwen2.5-14B-Instruct", 14.0, 14.0),
        ("microsoft/Phi-3-mini-4k-instruct", 3.8, 3.8),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", 46.7, 12.9),
        ("Qwen/Qwen3-30B-A3B", 30.0, 3.0),
        ("openai-community/gpt2", 0.124, 0.124),
    ],
)
def test_a_name_tells_a_size(name: str, whole: float, visited: float) -> None:
    assert parameters_of(name) == (whole, visited)


def test_a_name_that_tells_nothing() -> None:
    assert parameters_of("nobody/model") is None and located("nobody/model") == "nobody/model"
    with pytest.raises(ModelError, match="does not tell its size"):
        known_size(Named("nobody/model"), False)
    assert known_size(Named("nobody/model", 2.0), False).parameters == 2_000_000_000


@pytest.mark.parametrize(
    ("billions", "width", "layers"),
    [(8.03, 4096, 32), (70.6, 8192, 80), (3.2, 3072, 28), (1.54, 1536, 28)],
)
def test_proportions_are_those_of_known_models(billions: float, width: int, layers: int) -> None:
    """What activations grow with, D L, within a quarter (Llama-3.1 8B and 70B, 3.2 3B; Qwen2)."""
    size = named_size(billions)
    assert size.parameters == round(billions * 1e9)
    assert size.width * size.layers == pytest.approx(width * layers, rel=0.3)


def test_what_is_here_is_opened(base: Path) -> None:
    assert place_of("lab:birch-m") == model_location("lab:birch-m")
    assert place_of(str(base)) == str(base) and isinstance(located("some/id-7B"), Named)
    assert place_of("not a hub id!") is None


def test_a_model_in_the_cache_is_here(base: Path, tmp_path: Path) -> None:
    """A snapshot in the hub's cache is opened in its place, so that nobody is asked for it."""
    folder = tmp_path / "hub" / "models--some--model" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes((base / "config.json").read_bytes())
    refs = tmp_path / "hub" / "models--some--model" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    assert place_of("some/model") == str(folder)
    assert known_size(located("some/model"), False).parameters == read_size(str(base)).parameters


def test_a_study_of_the_lab_is_counted(tmp_path: Path) -> None:
    found = study_plan(LAB, tmp_path / "run")
    stages = by_name(found)
    # a greedy answer, and best and worst of three samples, of two teachers: six sources
    assert found["notes"][0].startswith("2 bases x 6 sources x 1 arms x 2 seeds: 24 trainings")
    assert stages["asking aster-s (temperature 0, top-p 1)"]["items"] == 40
    assert stages["asking birch-m (temperature 0.8, top-p 1)"]["items"] == 3 * 40
    assert stages["scoring correct"]["items"] == 2 * 4 * 40
    training = stages["training base-notes: sft, 6 x 2 students"]
    assert training["items"] == 2 * 6 * 5  # 40 answers in batches of 8, once
    assert (
        training["memory"]["weights"] == 4 * read_size(model_location("lab:base-notes")).parameters
    )
    measured = stages["measuring base-school (nll)"]
    assert measured["items"] == 6 * 30  # `criteria_on`
    exam = stages["lab: base-notes and 12 students"]
    assert exam["items"] == 13 * 20 and exam["generated_tokens"] == 13 * 20 * 24
    assert found["fits"] and {row["what"] for row in found["disk"]} >= {"models", "checkpoints"}
    assert not (tmp_path / "run").exists()


def test_stored_answers_are_taken_off(tmp_path: Path) -> None:
    from preceptor.recipes.ask import ask
    from preceptor.recipes.settings.asking import Ask

    store = str(tmp_path / "store")
    own = ("instructions", "max_instructions", "teachers", "rewards")
    ask(Ask.model_validate({**{name: LAB[name] for name in own}, "store": store}), tmp_path / "ask")
    assert AnswerStore(tmp_path / "store").table(["key"]).num_rows == 80
    stages = by_name(study_plan({**LAB, "store": store}))
    stage = stages["asking birch-m (temperature 0, top-p 1)"]
    assert (stage["reused"], stage["generated_tokens"]) == (40, 0)
    assert stages["asking birch-m (temperature 0.8, top-p 1)"]["reused"] == 0


def test_rates_and_workers_make_hours() -> None:
    rates = ["ask=1000", "measure=1000", "train=100"]
    alone = study_plan(LAB, rates=rates)
    spread = study_plan({**LAB, "runs": {"kind": "processes", "workers": 4}}, rates=rates)
    name = "training base-notes: sft, 6 x 2 students"
    one, four = by_name(alone)[name]["seconds"], by_name(spread)[name]["seconds"]
    assert one == pytest.approx(by_name(alone)[name]["tokens"] / 100)
    assert four == pytest.approx(one / 4)
    assert alone["totals"]["seconds"] > spread["totals"]["seconds"] > 0


def test_a_budget_says_what_it_allows() -> None:
    rates = ["ask=1000", "measure=1000", "train=100"]
    seconds = study_plan(LAB, rates=rates)["totals"]["seconds"]
    note = study_plan({**LAB, "budget": seconds / 3600 / 2}, rates=rates)["notes"][-1]
    allowed = int(note.partition("allows about ")[2].split()[0])
    assert note.startswith("a budget of") and 0 < allowed < 24
    whole = study_plan({**LAB, "budget": 2 * seconds / 3600}, rates=rates)["notes"][-1]
    assert "allows about 24 of the 24 trainings" in whole
    unknown = study_plan({**LAB, "budget": 1.0})["notes"][-1]
    assert "once all rates are" in unknown


def test_what_cannot_be_learned_is_left_out() -> None:
    """birch-m can teach by its distributions; dahlia-m has a tokenizer of its own."""
    kd = {
        "recipe": "distill",
        "settings": {
            "teacher": "{teacher}",
            "mix": 1.0,
            "losses": [{"name": "forward_kl", "weight": 1.0, "temperature": 1.0}],
        },
    }
    teachers = [
        {"model": "lab:birch-m", "max_new_tokens": 24},
        {"model": "lab:dahlia-m", "max_new_tokens": 24},
    ]
    settings = {**LAB, "teachers": teachers, "decodings": {}, "picks": ["one"], "seeds": 1}
    found = study_plan({**settings, "arms": {"sft": {}, "kd": kd}, "bases": "lab:base-notes"})
    stages = by_name(found)
    assert "3 trainings" in found["notes"][0] and "1 are not possible" in found["notes"][0]
    assert stages["training base-notes: kd, 1 x 1 students"]["memory"]["teachers"] > 0
    assert "teachers" not in stages["training base-notes: sft, 2 x 1 students"]["memory"]


def test_an_unknown_table_is_not_counted() -> None:
    found = study_plan(FAR)
    assert any("how many teachers they hold is not known" in note for note in found["notes"])
    assert found["fits"] and found["notes"][0].startswith("1 bases x 0 sources")


def test_unknown_counts_have_no_hours() -> None:
    rates = Rates()
    rates.give("ask", 10.0, "given")
    assert rates.seconds(Stage("a", "ask", "ask", tokens=0, tokens_from="unknown")) == (None, "")
    assert rates.seconds(Stage("a", "ask", "ask", tokens=20))[0] == 2.0
    far = {**FAR, "instructions": "nobody/instructions", "answers": []}
    far["teachers"] = [{"kind": "vllm", "model": "nobody/teacher-7B", "max_new_tokens": 100}]
    found = study_plan(far, rates=["ask=10", "measure=10", "train=10", "score=10"])
    asked = by_name(found)["asking nobody/teacher-7B (temperature 0, top-p 1)"]
    assert asked["tokens_from"] == "unknown" and asked["seconds"] is None
    assert found["totals"]["seconds"] is None
    known = study_plan({**far, "max_instructions": 100}, rates=["ask=10"])
    asked = by_name(known)["asking nobody/teacher-7B (temperature 0, top-p 1)"]
    assert (asked["items"], asked["tokens"], asked["seconds"]) == (100, 10_000, 1000.0)
    assert asked["memory"]["weights"] == 4 * 7_000_000_000


def test_faulty_settings_of_arms_and_selection_are_refused() -> None:
    with pytest.raises(SettingsError, match="critera"):
        study_plan({**LAB, "selection": {"critera": ["car"]}})
    with pytest.raises(SettingsError, match="lossess"):
        study_plan({**LAB, "arms": {"kd": {"recipe": "distill", "settings": {"lossess": []}}}})
    far = {**FAR, "max_instructions": 100, "answers": "Magpie-Align/Magpie-100K-Generator-Zoo"}
    assert "19 sources" in study_plan(far)["notes"][0]
    with pytest.raises(SettingsError, match="critera"):
        study_plan({**far, "selection": {"critera": ["car"]}})


def test_a_file_of_a_study_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(LAB))
    assert read_any(path, [])[0] == "study"
    path.write_text(yaml.safe_dump({"models": ["lab:birch-m"], "benchmarks": ["lab"]}))
    assert read_any(path, [])[0] == "evaluate"


def evaluation_plan(settings: dict[str, Any], out: Path | None = None, **options: Any) -> Any:
    return plan("evaluate", Evaluate.model_validate(settings), out, **options)


def test_an_evaluation_is_counted(tmp_path: Path) -> None:
    lab = {"kind": "lab", "max_questions": 20, "max_new_tokens": 24}
    settings = {"models": ["lab:birch-m", "lab:aster-s"], "benchmarks": [lab]}
    found = evaluation_plan(settings, tmp_path / "run")
    stage = by_name(found)["lab: birch-m"]
    assert (stage["items"], stage["reused"], stage["generated_tokens"]) == (20, 0, 480)
    assert stage["tokens_from"] == "upper bound" and stage["memory"]["weights"] > 0
    assert found["fits"] and not (tmp_path / "run").exists()


def test_an_evaluation_takes_off_what_is_stored(tmp_path: Path) -> None:
    from preceptor.recipes.evaluate import evaluate

    lab = {"kind": "lab", "max_questions": 8, "max_new_tokens": 16}
    settings = {"models": ["lab:aster-s"], "benchmarks": [lab], "store": str(tmp_path / "store")}
    evaluate(Evaluate.model_validate(settings), tmp_path / "run")
    again = by_name(evaluation_plan(settings))["lab: aster-s"]
    assert (again["reused"], again["generated_tokens"]) == (8, 0)
    assert "nothing is left to do" in evaluation_plan(settings, tmp_path / "run")["notes"][-1]


def test_judges_cost_money_and_are_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    rows = [{"instruction": "one two three four " * 4, "base": "an answer"}] * 10
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    judge = {"kind": "openai", "model": "j", "price": {"input": 10.0, "output": 30.0}}
    asked = {"questions": str(path), "baseline": "base", "judge": judge, "max_new_tokens": 400}
    settings = {
        "models": ["nobody/model-7B", "nobody/model"],
        "benchmarks": [
            {"kind": "alpaca_eval", "swap": True, **asked},
            {"kind": "arena_hard", **asked},
            {"kind": "mt_bench", "questions": "nobody/mt-bench", "judge": judge},
            "lm_eval:gsm8k",
        ],
    }
    found = evaluation_plan(settings)
    stages = by_name(found)
    assert stages["alpaca_eval: judged by j"]["items"] == 2 * 2 * 10
    assert stages["alpaca_eval: judged by j"]["generated_tokens"] == 40  # a label each
    assert stages["arena_hard: judged by j"]["items"] == 2 * 2 * 10
    graded = stages["mt_bench: judged by j"]
    assert graded["items"] == 2 * 2 * 80 and graded["generated_tokens"] == 320 * 512
    money = (10 * graded["prompt_tokens"] + 30 * graded["generated_tokens"]) / 1e6
    assert graded["money"] == pytest.approx(money)
    answered = stages["alpaca_eval: nobody/model-7B"]
    assert answered["items"] == 10 and answered["generated_tokens"] == 10 * 400
    assert answered["memory"]["weights"] == 4 * 7_000_000_000 and not answered["here"]
    assert stages["mt_bench: nobody/model"]["memory"] == {}  # its name tells no size
    notes = " ".join(found["notes"])
    assert "OPENAI_API_KEY" in notes and "lm_eval:gsm8k: how many questions" in notes
    assert found["fits"]


def test_hours_of_a_known_gpu_follow_from_its_peak(tmp_path: Path) -> None:
    """Six operations a token and parameter, at 40 % of the peak; given rates go first."""

    class OnGpu(StudyJob):
        def _peak(self) -> float:
            return 1e15

    job = OnGpu(Study.model_validate(LAB), tmp_path / "run")
    draft, rates = job.draft(), Rates()
    rates.give("measure", 5.0, "given")
    job.settle(draft, rates)
    size = read_size(model_location("lab:base-notes")).parameters
    found = rates.find("train.base-notes")
    assert found is not None and found[0] == pytest.approx(0.4 * 1e15 / (6 * size))
    assert "40%" in found[1] and rates.find("measure.base-notes") == (5.0, "given")
