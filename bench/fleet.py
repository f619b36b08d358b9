"""`fleet`: the measuring pass on a Ray fleet of two workers, against one.

Workers are single-threaded. Start-up (Ray, the processes, their imports, the model) is left out: a
worker that has loaded its model waits for the others, and the clock runs from the moment when the
first of them goes on until the last result has reached the driver. What start-up took stands in
each row. Memory is that of the driver; each worker holds a model of its own.
"""

from __future__ import annotations

import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import Contender, Meter, race, row
from bench.workload import build_model, build_sequences
from preceptor.fleets.ray import open_fleet
from preceptor.recipes.shared_settings import Fleet
from preceptor.selection.measure import Scorer, make_plan

BATCH_TOKENS = 512  # some 50 groups at least, so that the last one hardly counts
N_ANSWERS = {"large": 64, "tiny": 384}


def open_worker(vocabulary: str, meeting: str, workers: int) -> Any:
    """A scorer that begins when all workers are ready: (when it began, nll of the rows)."""
    score = Scorer(build_model(vocabulary)).score
    (Path(meeting) / str(os.getpid())).touch()
    while len(list(Path(meeting).iterdir())) < workers:
        time.sleep(0.01)
    began = time.time()
    return lambda rows: (began, score(rows))


def on_ray(meter: Meter, vocabulary: str, n: int, workers: int) -> np.ndarray:
    """nll of every answer, and as the last value the seconds of start-up."""
    plan = make_plan(build_sequences(vocabulary, "chat", n), BATCH_TOKENS)
    groups = [[plan.unique[place] for place in batch.rows] for batch in plan.batches]
    fleet = open_fleet(Fleet(kind="ray", workers=workers))
    nll, begins = np.empty(len(plan.unique)), []
    called = ended = time.time()
    with meter, tempfile.TemporaryDirectory() as meeting:
        opener = partial(open_worker, vocabulary, meeting, workers)
        for number, (began, found) in fleet(opener, groups):
            nll[list(plan.batches[number].rows)] = found
            begins.append(began)
            ended = time.time()
    meter.seconds = ended - min(begins)
    return np.append(nll[plan.item_to_unique], min(begins) - called)


def run(repeats: int = 3) -> list[dict[str, Any]]:
    """Rows of the `fleet` benchmark."""
    rows = []
    for vocabulary, n in N_ANSWERS.items():
        contenders = [
            Contender("two", "bench.fleet:on_ray", {"workers": 2}),
            Contender("one", "bench.fleet:on_ray", {"workers": 1}),
        ]
        results = race(contenders, {"vocabulary": vocabulary, "n": n}, repeats)
        startup = {name: float(result.values[-1]) for name, result in results.items()}
        for result in results.values():
            result.values = result.values[:-1]
        two, one = results["two"], results["one"]
        figures = {
            "throughput": one.seconds / two.seconds,
            "ours_startup_seconds": startup["two"],
            "peer_startup_seconds": startup["one"],
        }
        rows.append(row(f"{vocabulary} vocabulary, 2 workers", "1 worker", two, one, **figures))
    return rows
