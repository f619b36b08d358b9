"""`scale`: `preceptor select` on 100,000 and on 1,000,000 recorded answers.

Answers are made up: 20 teachers, responses of about 400 characters, two rewards, rows in random
order, a few answers missing. Each case is one whole command in a fresh process, from reading the
Parquet file to the report. `peak MB` is the high-water mark of that process's resident memory.
`time_ratio` and `memory_ratio` are a million answers / a hundred thousand: 10 is linear growth,
less where the constant part counts (libraries). `growth_mb` is the
peak above what was resident when the libraries were loaded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TEACHERS = 20
SIZES = (5_000, 50_000)  # instructions: 100,000 and 1,000,000 answers
MODEL_SIZE = 5_000
WORDS = "the a of note house cat garden sum sky blue three answer number colour list day".split()
BLOCK = 100_000  # rows made at a time
TABLES, MODEL = "mean_reward, length", "car, mean_reward, length"
CHILD = """
import json, sys, time
from pathlib import Path
started = time.perf_counter()
import preceptor.recipes.select
def held(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
before = held("VmRSS")
from preceptor.recipes.settings.loading import load_settings
from preceptor.recipes.settings.select import Select
settings = load_settings(Select, Path(sys.argv[1]))
ranking = preceptor.recipes.select.select(settings, Path(sys.argv[2]))
found = {"seconds": time.perf_counter() - started, "peak": held("VmHWM"), "before": before,
         "answers": ranking["n_answers"]}
print(json.dumps(found))
"""


def make_answers(path: Path, n_instructions: int, seed: int = 0) -> int:
    """Write the made-up answers of `TEACHERS` teachers, in random order; returns their number."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(TEACHERS * n_instructions)
    # three teachers each miss one answer in a thousand
    rows = rows[(rows % TEACHERS >= 3) | (rng.random(len(rows)) >= 0.001)]
    words = np.array(WORDS)
    writer = None
    for low in range(0, len(rows), BLOCK):
        teacher, instruction = (
            rows[low : low + BLOCK] % TEACHERS,
            rows[low : low + BLOCK] // TEACHERS,
        )
        drawn = words[rng.integers(0, len(words), (len(teacher), 80))]
        quality = rng.normal(0.5 + 0.01 * teacher, 0.2)
        table = pa.table(
            {
                "instruction": [
                    f"Question {n}: what does {WORDS[n % 16]} {n} say of the {WORDS[n % 7]}, "
                    "and where would you look it up? Answer in whole sentences."
                    for n in instruction.tolist()
                ],
                "generator": [f"teacher-{m:02d}" for m in teacher.tolist()],
                "response": [
                    " ".join(line[: 60 + n % 21]) for n, line in enumerate(drawn.tolist())
                ],
                "first": np.clip(quality, 0, 1),
                "second": np.clip(rng.normal(0.5, 0.2, len(teacher)), 0, 1),
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer:
        writer.close()
    return len(rows)


def run_select(folder: Path, answers: Path, criteria: str) -> dict[str, Any]:
    """One `select` in a fresh process: seconds, peak and start (bytes), ranked answers."""
    settings = folder / "select.yaml"
    settings.write_text(
        f"base: lab:base-notes\nanswers: {answers}\nrewards: [first, second]\n"
        f"criteria: [{criteria}]\ndevice: cpu\n"
    )
    with tempfile.TemporaryDirectory(dir=folder) as out:
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(settings), str(Path(out) / "run")],
            stdout=subprocess.PIPE,
            check=True,
            text=True,
            cwd=Path(__file__).parent.parent,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
    return json.loads(done.stdout.splitlines()[-1])


def row(case: str, n: int, found: dict[str, Any], small: dict[str, Any] | None) -> dict[str, Any]:
    """One line of the table; ratios are to `small`, the same case with fewer answers."""
    growth = found["peak"] - found["before"]
    ratios = {
        "time_ratio": found["seconds"] / small["seconds"] if small else None,
        "memory_ratio": found["peak"] / small["peak"] if small else None,
        "growth_ratio": growth / (small["peak"] - small["before"]) if small else None,
    }
    return {
        "case": case,
        "peer": "a tenth of the answers" if small else "",
        **ratios,
        "answers": n,
        "ranked_answers": found["answers"],
        "seconds": found["seconds"],
        "answers_per_second": n / found["seconds"],
        "peak_mb": found["peak"] / 1e6,
        "growth_mb": growth / 1e6,
    }


def run(repeats: int = 1) -> list[dict[str, Any]]:
    """Rows of the `scale` benchmark; of the repeats the fastest counts."""
    rows = []
    small: dict[str, Any] | None = None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in SIZES:
            answers = folder / f"answers-{size}.parquet"
            n = make_answers(answers, size)
            cases = [TABLES, MODEL] if size == MODEL_SIZE else [TABLES]
            for criteria in cases:
                runs = [run_select(folder, answers, criteria) for _ in range(repeats)]
                best = min(runs, key=lambda one: one["seconds"])
                rows.append(row(f"{n:,} answers, {criteria}", n, best, small))
                if criteria == TABLES and small is None:
                    small = best
    return [each | ({} if "car" not in each["case"] else {"peer": "no model"}) for each in rows]
