"""Two processes with sharded weights (FSDP2, gloo) train as one process does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def run(student: Path, teacher: Path, out: Path, processes: int) -> list[dict[str, float]]:
    out.mkdir()
    port = free_port()
    program = Path(__file__).with_name("fsdp_run.py")
    started = []
    for rank in range(processes):
        world = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "ACCELERATE_USE_FSDP": "true",
            "FSDP_VERSION": "2",
        }
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | (world if processes > 1 else {})
        command = [sys.executable, str(program), str(student), str(teacher), str(out)]
        started.append(
            subprocess.Popen(
                [*command, str(processes)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    for process in started:
        text, _ = process.communicate(timeout=240)
        assert process.returncode == 0, text[-3000:]
    return json.loads((out / "losses.json").read_text())


def test_two_sharded_processes_give_the_loss_curve_of_one(
    tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    student, teacher = tiny_model("student", seed=5), tiny_model("teacher", seed=6)
    alone = run(student, teacher, tmp_path / "one", 1)
    sharded = run(student, teacher, tmp_path / "two", 2)
    assert len(alone) == len(sharded) == 8
    for one, two in zip(alone, sharded, strict=True):
        for name, value in one.items():
            assert two[name] == pytest.approx(value, rel=1e-4), name
    assert alone[-1]["loss"] < alone[0]["loss"]
