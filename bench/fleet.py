"""`fleet`: the measuring pass on a Ray fleet of two workers, against one.

Workers are single-threaded. Each fleet goes through the same answers several times without a stop,
and its fastest pass counts: on a shared machine one pass after the other differs more than the
fleets do. Start-up (Ray, the processes, their imports, the model) is left out: only passes count
that began after the last worker had loaded its model. What start-up took stands in each row.
Memory is that of the driver; each worker holds a model of its own.
"""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Any

import numpy as np

from bench.harness import Contender, Meter, race, row
from bench.workload import build_model, build_sequences
from preceptor.fleets.ray import open_fleet
from preceptor.recipes.settings.shared import Fleet
from preceptor.selection.measure import Scorer, make_plan

BATCH_TOKENS = 512  # some 25 groups a pass at least
N_ANSWERS = {"large": 48, "tiny": 96}
N_PASSES = 3


def open_worker(vocabulary: str) -> Any:
    """A scorer: (process, when it was ready, nll of the rows)."""
    score = Scorer(build_model(vocabulary)).score
    ready = time.time()

    def work(rows: Any) -> tuple[int, float, np.ndarray]:
        return os.getpid(), ready, score(rows)["nll"]

    return work


def on_ray(meter: Meter, vocabulary: str, n: int, workers: int) -> np.ndarray:
    """nll of every answer; then the seconds of start-up, and how many passes counted."""
    plan = make_plan(build_sequences(vocabulary, "chat", n), BATCH_TOKENS)
    groups = [[plan.unique[place] for place in batch.rows] for batch in plan.batches]
    fleet = open_fleet(Fleet(kind="ray", workers=workers))
    nll, ready = np.empty(len(plan.unique)), {}
    ended = np.zeros(N_PASSES)
    called = time.time()
    with meter:
        for number, (process, opened, found) in fleet(
            partial(open_worker, vocabulary), groups * N_PASSES
        ):
            passed, place = divmod(number, len(groups))
            nll[plan.batches[place].rows] = found
            ready[process] = opened
            ended[passed] = time.time()
    if len(ready) != workers:
        raise RuntimeError(f"{len(ready)} workers worked, {workers} were wanted")
    first = max(ready.values())
    seconds = np.diff(ended)[ended[:-1] >= first]
    meter.seconds = float(seconds.min())
    return np.append(nll[plan.item_to_unique], [first - called, len(seconds)])


def run(repeats: int = 3) -> list[dict[str, Any]]:
    """Rows of the `fleet` benchmark."""
    rows = []
    for vocabulary, n in N_ANSWERS.items():
        contenders = [
            Contender("two", "bench.fleet:on_ray", {"workers": 2}),
            Contender("one", "bench.fleet:on_ray", {"workers": 1}),
        ]
        results = race(contenders, {"vocabulary": vocabulary, "n": n}, repeats)
        startup = {name: float(result.values[-2]) for name, result in results.items()}
        passes = {name: float(result.values[-1]) for name, result in results.items()}
        for result in results.values():
            result.values = result.values[:-2]
        two, one = results["two"], results["one"]
        figures = {
            "throughput": one.seconds / two.seconds,
            "ours_startup_seconds": startup["two"],
            "peer_startup_seconds": startup["one"],
            "ours_timed_passes": passes["two"],
            "peer_timed_passes": passes["one"],
        }
        rows.append(row(f"{vocabulary} vocabulary, 2 workers", "1 worker", two, one, **figures))
    return rows
