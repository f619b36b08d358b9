"""Two processes with sharded weights (FSDP2, gloo) train as one process does."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from forked import start


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def run(student: Path, teacher: Path, out: Path, processes: int) -> list[dict[str, float]]:
    out.mkdir()
    port = free_port()
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
        log = out / f"log-{rank}"
        arguments = str(student), str(teacher), str(out), processes
        started.append((start(in_world, world if processes > 1 else {}, str(log), arguments), log))
    for process, log in started:
        process.join(240)
        assert process.exitcode == 0, log.read_text()[-3000:]
    return json.loads((out / "losses.json").read_text())


def in_world(world: dict[str, str], log: str, arguments: tuple[str, str, str, int]) -> None:
    """One process of the run, which finds the others through its environment."""
    import torch
    from fsdp_run import main

    for number in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.update(world)
    torch.set_num_threads(1)
    main(*arguments)


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
    whole, gathered = (
        load_file(tmp_path / out / "model" / "model.safetensors") for out in ("one", "two")
    )
    for name, weights in whole.items():  # a model of shards is no model
        torch.testing.assert_close(gathered[name], weights, rtol=1e-3, atol=1e-4)
