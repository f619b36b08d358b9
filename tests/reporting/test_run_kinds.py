"""Which verb made a folder, whether it is finished, and its verdict in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from evaluations import build_evaluation_folder, evaluation
from studies import build, written
from test_compare_report import comparison
from test_training_report import build_training_folder, quality_table

from preceptor.core import artifacts
from preceptor.core.comparison import COMPARE
from preceptor.core.errors import RunFolderError
from preceptor.reporting.findings.run_kinds import KINDS, finished, kind_of, verdict_of

SETTINGS: dict[str, dict[str, Any]] = {  # what tells a begun run, as its settings resolve
    "select": {"base": "b", "criteria": ["car"], "rewards": [], "teachers": []},
    "ask": {"decodings": {"samples": 1}, "rewards": [], "teachers": []},
    "evaluate": {"models": [], "benchmarks": [], "reference": None},
    "study": {"bases": [], "arms": {}, "benchmarks": [], "decodings": {}, "rewards": []},
    "distill": {"base": "b", "teacher": {}, "losses": [], "data": {}, "training": {}},
    "align": {"base": "b", "experts": {}, "reference": {}, "data": {}, "training": {}},
    "sft": {"base": "b", "data": {}, "training": {}},
    "cache": {"base": "b", "teacher": {}, "form": "top_k", "data": {}},
    "export": {"run": "r", "sets": {}, "form": "both"},
    "route": {"run": "r", "instructions": {}, "prompts": 10},
}


def begun(folder: Path, settings: dict[str, Any], **more: Any) -> Path:
    """A folder as a run leaves it when it begins."""
    folder.mkdir(exist_ok=True)
    provenance = {"status": "running", "settings": settings} | more
    artifacts.write_json(folder / artifacts.PROVENANCE, provenance)
    return folder


@pytest.mark.parametrize("name", SETTINGS)
def test_a_begun_run_is_told_by_its_settings(name: str, tmp_path: Path) -> None:
    folder = begun(tmp_path / "run", SETTINGS[name])
    assert kind_of(folder) == name and not finished(folder)
    assert verdict_of(folder) == "The run is not finished; the same command goes on with it."
    (folder / artifacts.PROVENANCE).unlink()
    (folder / artifacts.SETTINGS).write_text(yaml.safe_dump(SETTINGS[name]))
    assert kind_of(folder) == name, "the settings file alone tells as much"


def test_the_command_tells_where_nothing_else_does(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run", {}, command="preceptor align a.yaml --out run")
    assert kind_of(folder) == "align"
    begun(folder, {}, command="rm -rf 'unclosed")
    assert kind_of(folder) is None
    (folder / artifacts.METRICS).write_text('{"step": 1, "loss": 2.0}\n')
    assert kind_of(folder) == "sft", "a log is that of a training"


@pytest.mark.parametrize("what", ["nothing", "a file", "files of others", "broken files"])
def test_what_is_no_run(what: str, tmp_path: Path) -> None:
    folder = tmp_path / "x"
    if what == "a file":
        folder.write_text("x")
    elif what != "nothing":
        folder.mkdir()
        (folder / "notes.txt").write_text("x")
    if what == "broken files":
        (folder / artifacts.PROVENANCE).write_text("{")
        (folder / artifacts.SETTINGS).write_text("a: [")
    assert kind_of(folder) is None and not finished(folder)
    with pytest.raises(RunFolderError, match="no folder that preceptor wrote"):
        verdict_of(folder)


def test_finished_runs(run_folder: Callable[..., Path], tmp_path: Path) -> None:
    made = {
        "select": run_folder(n_instructions=8),
        "evaluate": build_evaluation_folder(tmp_path / "evaluate"),
        "study": written(tmp_path / "study", build()),
        "distill": build_training_folder(tmp_path / "distill", steps=10),
        "compare": tmp_path / "compare",
    }
    made["compare"].mkdir()
    (made["compare"] / COMPARE).write_text(json.dumps(comparison("one")))
    for name, folder in made.items():
        assert kind_of(folder) == name and finished(folder), name
        assert (folder / KINDS[name].result).is_file()
        said = verdict_of(folder)
        assert said.endswith(".") and "\n" not in said and "%" in said, said


def test_a_tour_is_told_by_its_seeds(tmp_path: Path) -> None:
    begun(tmp_path / "seed-0", {})
    assert kind_of(tmp_path) is None
    build_training_folder(tmp_path / "seed-0" / "distill", steps=5)
    assert kind_of(tmp_path) == "tour" and not finished(tmp_path)
    artifacts.write_json(tmp_path / artifacts.QUALITY, quality_table())
    assert finished(tmp_path) and verdict_of(tmp_path).startswith("KD + DAE scores ")


def test_verdict_of_a_selection(run_folder: Callable[..., Path]) -> None:
    folder = run_folder(n_instructions=8)
    ranking = json.loads((folder / artifacts.RANKING).read_text())
    car = ranking["criteria"]["car"]
    first = car["teachers"][0]["teacher"]
    assert car["tied_with_first"], "the made-up run is too clear"
    said = verdict_of(folder)
    assert said.startswith(f"{first} is the recommended teacher for en-terse by CAR (it came first")
    assert f"but at 95% confidence it cannot be separated from {car['tied_with_first'][0]}" in said
    car["tied_with_first"] = []
    ranking |= {"pilot": {"verdict": "overturned"}, "pilot_recommended": "phi\n3"}
    (folder / artifacts.RANKING).write_text(json.dumps(ranking))
    said = verdict_of(folder)
    assert "at 95% confidence separable from all 19 others" in said
    assert said.endswith("; a pilot training puts phi 3 first instead.")


def test_verdict_of_an_evaluation(tmp_path: Path) -> None:
    folder = build_evaluation_folder(tmp_path)
    assert verdict_of(folder).endswith(" (95% intervals); the gate fails on 2 of 3 conditions.")
    found = evaluation()
    found["gate"] = [{"condition": "x", "value": 1.0, "holds": False}]
    artifacts.write_json(folder / artifacts.EVALUATION, found)
    assert verdict_of(folder).endswith("; the gate passes 1 condition.")


def test_verdict_of_a_training(tmp_path: Path) -> None:
    folder = build_training_folder(tmp_path, steps=30)
    assert verdict_of(folder) == (
        "KD + DAE scores 0.82 [0.79, 0.85] on the 540 general instructions (not separable from "
        "KD), 0.64 [0.54, 0.74] on the 60 shop instructions (0.49 [0.38, 0.60] above KD), with "
        "95% intervals."
    )
    (folder / artifacts.QUALITY).unlink()
    assert verdict_of(folder).startswith("A student was trained for 150 steps, with a loss of ")
    assert "nothing is said of what it can do" in verdict_of(folder)


def test_a_study_that_its_budget_ended_has_a_verdict(tmp_path: Path) -> None:
    folder = written(tmp_path / "study", build(["one"]))
    provenance = json.loads((folder / artifacts.PROVENANCE).read_text())
    artifacts.write_json(folder / artifacts.PROVENANCE, provenance | {"status": "running"})
    assert not finished(folder)
    assert "best, and surely so (95% intervals; 17 of 20 trainings are done)." in verdict_of(folder)


def test_a_result_changed_by_hand_is_an_error(tmp_path: Path) -> None:
    (tmp_path / artifacts.RANKING).write_text('{"criteria": {}}')
    with pytest.raises(RunFolderError, match="incomplete or was changed by hand"):
        verdict_of(tmp_path)
