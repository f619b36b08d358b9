"""The studies in `examples/`: their settings hold, they are planned without a network, and the
small ones run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from preceptor.core.study import STUDY, STUDY_PAGE
from preceptor.recipes.settings.loading import load_settings
from preceptor.recipes.settings.study import Study
from preceptor.recipes.study import study

EXAMPLES = Path(__file__).parents[2] / "examples"
PUBLISHED = sorted(EXAMPLES.glob("study_*.yaml"))
REAL = [path for path in PUBLISHED if path.stem != "study_lab"]
SMALL = sorted(EXAMPLES.glob("lab_*.yaml"))
WITHIN = 10.0  # seconds of work for a plan; a wait for the network would be longer than its limit

# every way out of the machine is an error, and each attempt is written down
CHILD = """
import json, socket, sys, time

tried = []

def refuse(*arguments, **more):
    tried.append(repr(arguments[:2]))
    raise OSError("there is no network here")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse

from preceptor.recipes.settings.loading import load_settings
from preceptor.recipes.plan import plan
from preceptor.recipes.settings.study import Study

for path in sys.argv[2:]:
    started = time.process_time()
    found = plan("study", load_settings(Study, __import__("pathlib").Path(path)))
    found["took"] = time.process_time() - started
    print(json.dumps({"path": path, "plan": found, "tried": tried}))
"""


def outside(tmp_path: Path) -> dict[str, str]:
    """An environment with an empty cache of the hub, in which nothing says that it is offline."""
    offline = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "OPENAI_API_KEY")
    kept = {name: value for name, value in os.environ.items() if name not in offline}
    return {**kept, "HF_HOME": str(tmp_path / "hub"), "NO_COLOR": "1"}


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Plans of every published study, made without a network."""
    folder = tmp_path_factory.mktemp("plans")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "-", *map(str, PUBLISHED)],
        capture_output=True,
        text=True,
        env=outside(folder),
        cwd=folder,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["tried"] for row in rows] == [[]] * len(PUBLISHED)  # nobody was even called
    return {Path(row["path"]).stem: row["plan"] for row in rows}


def test_there_are_examples() -> None:
    assert {path.stem for path in REAL} == {
        "study_decodings",
        "study_kd_dae",
        "study_rejection_sampling",
        "study_teachers",
        "study_teachers_live",
    }
    assert {path.stem for path in SMALL} == {
        "lab_decodings",
        "lab_kd_dae",
        "lab_rejection_sampling",
        "lab_teachers_small",
    }


@pytest.mark.parametrize("path", [*PUBLISHED, *SMALL], ids=lambda path: path.stem)
def test_settings_hold_and_are_told(path: Path) -> None:
    load_settings(Study, path)
    lines = path.read_text("utf-8").splitlines()
    assert lines[0].startswith("# ") and any("preceptor study examples/" in line for line in lines)
    assert max(map(len, lines)) <= 110


def trainings(plan: dict[str, Any]) -> str:
    return plan["notes"][0].partition(":")[2].split()[0]


def test_published_studies_are_planned_without_a_network(plans: dict[str, dict[str, Any]]) -> None:
    assert {name: trainings(plan) for name, plan in plans.items()} == {
        "study_decodings": "39",  # 13 points, 3 seeds
        "study_kd_dae": "15",  # 5 arms, 3 seeds
        "study_lab": "81",
        "study_rejection_sampling": "40",
        "study_teachers": "95",
        "study_teachers_live": "95",
    }
    for name, plan in plans.items():
        assert plan["fits"], (name, plan["refusals"])
        if name == "study_lab":  # nothing of it is read from a name
            continue
        assert plan["took"] < WITHIN
        kinds = {stage["kind"] for stage in plan["stages"]}
        assert {"score", "measure", "train", "ask"} <= kinds
        assert plan["totals"]["money"] > 0  # of the judges
        assert any("from its name" in note for note in plan["notes"])
        assert any("OPENAI_API_KEY" in note for note in plan["notes"])


def test_a_plan_counts_what_the_study_asks_for(plans: dict[str, dict[str, Any]]) -> None:
    stages = {stage["stage"]: stage for stage in plans["study_teachers"]["stages"]}
    training = stages["training Qwen2.5-3B: sft, 19 x 1 students"]
    assert training["items"] == 19 * 2 * 3125  # 100,000 answers in batches of 32, twice
    weights = training["memory"]["weights"]
    assert weights == 4 * 3_000_000_000 and not training["here"] and training["workers"] == 8
    judged = stages["alpaca_eval: judged by gpt-4-1106-preview"]
    assert judged["items"] == 805 * (95 + 5)
    both = stages["arena_hard: judged by gpt-4-1106-preview"]
    assert both["items"] == 2 * 500 * (95 + 5)
    picked = {stage["stage"]: stage for stage in plans["study_rejection_sampling"]["stages"]}
    assert picked["scoring skywork-27b"]["items"] == 2 * 6 * 10_000
    greedy = picked["asking google/gemma-2-9b-it (temperature 0, top-p 1)"]
    assert (greedy["items"], greedy["prompt_tokens"] > 0) == (10_000, True)
    live = {stage["stage"]: stage for stage in plans["study_teachers_live"]["stages"]}
    large = live["asking meta-llama/Llama-3.1-405B-Instruct (temperature 0, top-p 1)"]
    assert sum(large["memory"].values()) > 405e9 * 2 / 16
    beside = {stage["stage"]: stage for stage in plans["study_kd_dae"]["stages"]}
    teacher = beside["training Mistral-7B-v0.1: kd, 1 x 3 students"]["memory"]["teachers"]
    assert 46.7e9 / 2 < teacher < 46.7e9  # in 4 bit


@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.stem)
def test_small_studies_run(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    found = study(load_settings(Study, path), tmp_path / "study")
    assert {cell["status"] for cell in found["cells"]} == {"done"}
    assert len(found["matrix"]) == len(found["cells"]) and found["verdict"]
    assert (tmp_path / "study" / STUDY).exists()
    page = (tmp_path / "study" / STUDY_PAGE).read_text("utf-8")
    assert all(f"<bdi>{own['name']}</bdi>" in page for own in found["sources"])
    sections = {
        "lab_decodings": "decodings",
        "lab_kd_dae": "arms",
        "lab_rejection_sampling": "decodings",
        "lab_teachers_small": "criteria",
    }
    assert f'<section id="{sections[path.stem]}"' in page
