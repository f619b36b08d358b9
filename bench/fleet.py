"""`fleet`: the measuring pass on a Ray fleet of two workers, against one.

Workers are single-threaded. Start-up (Ray, the processes, their imports, the model) is left out:
the clock runs from the moment when the last worker has loaded its model until the last result has
reached the driver, and only groups that began after that moment count. Seconds are those of all
tokens at that speed. What start-up took, and the share of the tokens that counted, stand in each
row. Memory is that of the driver; each worker holds a model of its own.
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
from preceptor.recipes.shared_settings import Fleet
from preceptor.selection.measure import Scorer, make_plan

BATCH_TOKENS = 512  # some 50 groups at least: the last one hardly counts
N_ANSWERS = {"large": 96, "tiny": 192}


def open_worker(vocabulary: str) -> Any:
    """A scorer: (process, when it was ready, when it began with these rows, nll of the rows)."""
    score = Scorer(build_model(vocabulary)).score
    ready = time.time()

    def work(rows: Any) -> tuple[int, float, float, np.ndarray]:
        began = time.time()
        return os.getpid(), ready, began, score(rows)["nll"]

    return work


def on_ray(meter: Meter, vocabulary: str, n: int, workers: int) -> np.ndarray:
    """nll of every answer; then the seconds of start-up, and the share that was timed."""
    plan = make_plan(build_sequences(vocabulary, "chat", n), BATCH_TOKENS)
    groups = [[plan.unique[place] for place in batch.rows] for batch in plan.batches]
    fleet = open_fleet(Fleet(kind="ray", workers=workers))
    nll, ready, begins = np.empty(len(plan.unique)), {}, {}
    called = ended = time.time()
    with meter:
        for number, (process, opened, began, found) in fleet(
            partial(open_worker, vocabulary), groups
        ):
            nll[plan.batches[number].rows] = found
            ready[process], begins[number] = opened, began
            ended = time.time()
    if len(ready) != workers:
        raise RuntimeError(f"{len(ready)} workers worked, {workers} were wanted")
    first = max(ready.values())
    tokens = {number: plan.batches[number].n_tokens for number in begins}
    timed = sum(tokens[number] for number, began in begins.items() if began >= first)
    share = timed / sum(tokens.values())
    meter.seconds = (ended - first) / share
    return np.append(nll[plan.item_to_unique], [first - called, share])


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
        shares = {name: float(result.values[-1]) for name, result in results.items()}
        for result in results.values():
            result.values = result.values[:-2]
        two, one = results["two"], results["one"]
        figures = {
            "throughput": one.seconds / two.seconds,
            "ours_startup_seconds": startup["two"],
            "peer_startup_seconds": startup["one"],
            "ours_timed_share": shares["two"],
            "peer_timed_share": shares["one"],
        }
        rows.append(row(f"{vocabulary} vocabulary, 2 workers", "1 worker", two, one, **figures))
    return rows
