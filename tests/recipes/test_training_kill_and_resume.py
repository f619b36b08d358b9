"""A training killed at random moments, and finished by the same command, ends with the same bits.

Runs are forked from a server that has the libraries imported, so that a restart costs little.
"""

from __future__ import annotations

import json
import os
import random
import signal
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import yaml

from forked import start

KILLS = 4
STEPS = 20


def _run(config: str, out: str) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    import torch

    from preceptor.recipes.distill import distill
    from preceptor.recipes.settings.loading import load_settings
    from preceptor.recipes.settings.training import Distill

    torch.set_num_threads(1)
    distill(load_settings(Distill, Path(config)), Path(out))


def _start(config: Path, out: Path) -> BaseProcess:
    return start(_run, str(config), str(out))


@pytest.fixture
def config(tmp_path: Path, tiny_model: Any, chat_template: str, instruction_texts: Any) -> Path:
    """LoRA dropout draws random numbers; the projections of hidden states are trained, too."""
    rows = tmp_path / "answers.jsonl"
    records = [
        {"instruction": f"{text} Number {n}.", "generator": "ash", "response": f"It is {n}."}
        for text in instruction_texts
        for n in range(7)
    ]
    rows.write_text("".join(json.dumps(record) + "\n" for record in records))
    tree = {
        "base": str(tiny_model("pupil", chat_template=chat_template, seed=21)),
        "teacher": str(tiny_model("master", chat_template=chat_template, seed=22)),
        "data": {"answers": str(rows)},
        "mix": 0.5,
        "losses": [
            {"name": "forward_kl", "weight": 1.0, "temperature": 2.0},
            {"name": "attention", "weight": 1.0, "layers": "one_to_one"},
            {"name": "hidden_mse", "weight": 0.1, "layers": "one_to_one"},
        ],
        "training": {
            "max_steps": STEPS,
            "batch_size": 4,
            "learning_rate": 0.01,
            "save_steps": 4,
            "log_steps": 2,  # divides save_steps, so that no logged mean spans a checkpoint
            "lora": {"r": 4, "alpha": 8, "dropout": 0.2},
        },
    }
    place = tmp_path / "distill.yaml"
    place.write_text(yaml.safe_dump(tree))
    return place


def _killed_at_step(process: BaseProcess, out: Path, step: int) -> None:
    """Kill when the metrics or checkpoints say that `step` was reached, or some time later."""
    seen = -1
    while process.is_alive() and seen < step:
        process.join(0.01)
        folders = (out / "work").glob("checkpoints-student/checkpoint-*")
        seen = max([int(path.name.rpartition("-")[2]) for path in folders], default=-1)
    process.join(random.Random(step).uniform(0, 0.2))
    if process.is_alive() and process.pid is not None:
        os.kill(process.pid, signal.SIGKILL)
    process.join()


def test_a_killed_training_ends_with_the_same_weights(config: Path, tmp_path: Path) -> None:
    whole = _start(config, tmp_path / "whole")
    whole.join(240)
    assert whole.exitcode == 0
    out, kills = tmp_path / "killed", 0
    for place in range(KILLS):
        process = _start(config, out)
        _killed_at_step(process, out, place * STEPS // KILLS)
        kills += process.exitcode == -signal.SIGKILL
    assert kills >= KILLS // 2
    last = _start(config, out)
    last.join(240)
    assert last.exitcode == 0
    wanted = (tmp_path / "whole" / "model" / "model.safetensors").read_bytes()
    assert (out / "model" / "model.safetensors").read_bytes() == wanted
    rows = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "killed")
    ]
    timing = {"tokens_per_second", "peak_memory_mb", "num_tokens"}
    for one, other in zip(*rows, strict=True):
        assert {k: v for k, v in one.items() if k not in timing} == {
            k: v for k, v in other.items() if k not in timing
        }
