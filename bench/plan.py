"""`plan`: what a plan with a probe says, against the run that follows (ratios: predicted / actual).

Each case is planned in one process and run in another, on the lab: tokens to generate, peak memory
(the run's high-water mark), and seconds from the first stage to the last. A ratio of 1 is exact.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

PROBE = 64
SELECT = {
    "base": "lab:base-notes",
    "instructions": "lab:selection",
    "max_instructions": 400,
    "teachers": [
        {"model": f"lab:{name}", "max_new_tokens": 48, "batch_size": 32}
        for name in ("birch-m", "aster-m", "elm-m")
    ],
    "rewards": [{"kind": "verifier", "name": "correct", "function": "lab"}],
    "criteria": ["car", "ifd"],
}
DISTILL = {
    "base": "lab:base-notes",
    "teacher": "lab:birch-m",
    "data": {
        "instructions": "lab:train",
        "max_rows": 1000,
        "ask": {"model": "lab:birch-m", "max_new_tokens": 48, "batch_size": 32},
    },
    "mix": 1.0,
    "losses": [
        {"name": "forward_kl", "weight": 1.0, "temperature": 1.0},
        {"name": "attention", "weight": 1.0, "layers": "one_to_one"},
    ],
    "training": {"epochs": 3, "batch_size": 32, "max_length": 256, "learning_rate": 0.002},
}
CASES: dict[str, dict[str, Any]] = {"select": SELECT, "distill": DISTILL}


def _command(*arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "preceptor.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def _child(queue: Any, verb: str, config: Path, out: Path) -> None:
    """Plan, then run; the larger memory of the two commands is that of the run."""
    plan = json.loads(_command("plan", config, "--out", out, "--probe", str(PROBE), "--json"))
    _command(verb, config, "--out", out)
    unit = 1 if sys.platform == "darwin" else 1024
    queue.put((plan, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit))


def _once(verb: str) -> dict[str, tuple[float, float]]:
    """What was predicted and what was measured: tokens, memory, seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config, out = folder / "settings.yaml", folder / "run"
        config.write_text(yaml.safe_dump(CASES[verb]))
        context = multiprocessing.get_context("spawn")
        queue = context.SimpleQueue()
        process = context.Process(target=_child, args=(queue, verb, config, out))
        process.start()
        process.join()
        if process.exitcode:
            raise RuntimeError(f"{verb} failed with exit code {process.exitcode}")
        plan, peak = queue.get()
        facts = json.loads((out / "provenance.json").read_text())
    asks = [stage for stage in plan["stages"] if stage["reused"]]
    # answers that the probe has asked are not generated again: their share is taken off
    generated = sum(
        facts["asked"][stage["stage"].removeprefix("asking ")]["generated_tokens"]
        * (1 - stage["reused"] / stage["items"])
        for stage in asks
    )
    return {
        "tokens": (sum(stage["generated_tokens"] for stage in asks), generated),
        "memory": (plan["memory"][0]["peak_bytes"], peak),
        "seconds": (plan["totals"]["seconds"], facts["wall_seconds_of_last_run"]),
    }


def run(repeats: int = 3) -> list[dict[str, Any]]:
    """Rows of the `plan` benchmark: medians of the ratios."""
    rows = []
    for verb in CASES:
        found = [_once(verb) for _ in range(repeats)]
        row: dict[str, Any] = {"case": verb, "peer": "the run itself"}
        for name in ("tokens", "memory", "seconds"):
            row[f"{name}_ratio"] = statistics.median(one[name][0] / one[name][1] for one in found)
            row[f"{name}_predicted"] = statistics.median(one[name][0] for one in found)
            row[f"{name}_actual"] = statistics.median(one[name][1] for one in found)
        row["time_ratio"], row["max_rel_error"] = row.pop("seconds_ratio"), None
        rows.append(row)
    return rows
