"""How things are measured: every contender alone in a fresh process, in turn, several times.

A contender is a function `contender(meter, **case) -> values`; it prepares itself (imports, model,
inputs), then does the timed work inside `with meter:`. Peak memory is the high-water mark of the
process's resident memory during that block.
"""

from __future__ import annotations

import gc
import importlib
import math
import multiprocessing
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _status_bytes(field_name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(field_name + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{field_name} not in {_STATUS}")


class Meter:
    """Times a block and watches resident memory: `seconds`, `peak` (bytes) and `growth`
    (bytes above what was resident when the block began: inputs and weights not counted).

    Of several blocks the least time counts, and the most memory.
    """

    seconds = math.inf
    peak = growth = 0

    def __enter__(self) -> Meter:
        gc.collect()
        _CLEAR.write_text("5")  # resets the high-water mark
        self._before = _status_bytes("VmRSS")
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = min(self.seconds, time.perf_counter() - self._started)
        peak = _status_bytes("VmHWM")
        self.peak, self.growth = max(self.peak, peak), max(self.growth, peak - self._before)


@dataclass(frozen=True)
class Contender:
    """Who takes part: `function` as `module:name`, called with the case's arguments."""

    name: str
    function: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass
class Result:
    """Least seconds and median memory over the repeats; `values` of the last one.

    Whatever else a machine does only adds to the seconds, so the least of them says most about the
    work itself (as Python's `timeit` has it).
    """

    seconds: float
    peak: float
    growth: float
    values: np.ndarray


def _child(queue: Any, function: str, arguments: dict[str, Any]) -> None:
    module, _, name = function.partition(":")
    meter = Meter()
    values = getattr(importlib.import_module(module), name)(meter, **arguments)
    queue.put((meter.seconds, meter.peak, meter.growth, np.asarray(values, dtype=np.float64)))


def _once(contender: Contender, case: dict[str, Any]) -> tuple[float, int, int, np.ndarray]:
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(
        target=_child, args=(queue, contender.function, case | contender.arguments)
    )
    process.start()
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"{contender.name} failed with exit code {process.exitcode}")
    return queue.get()


def race(contenders: list[Contender], case: dict[str, Any], repeats: int) -> dict[str, Result]:
    """Run all contenders in turn, `repeats` times, each in a process of its own."""
    runs: dict[str, list[tuple[float, int, int, np.ndarray]]] = {c.name: [] for c in contenders}
    for _ in range(repeats):
        for contender in contenders:
            runs[contender.name].append(_once(contender, case))
    return {
        name: Result(
            min(run[0] for run in found),
            statistics.median(run[1] for run in found),
            statistics.median(run[2] for run in found),
            found[-1][3],
        )
        for name, found in runs.items()
    }


def row(case: str, peer: str, ours: Result, theirs: Result, **more: float) -> dict[str, Any]:
    """One line of a table; ratios are ours / peer, so below 1 is better for us."""
    wanted = theirs.values
    same = wanted.shape == ours.values.shape and wanted.size
    error = float(np.max(np.abs(ours.values - wanted) / np.abs(wanted))) if same else None
    return {
        "case": case,
        "peer": peer,
        "time_ratio": ours.seconds / theirs.seconds,
        "memory_ratio": ours.peak / theirs.peak,
        "max_rel_error": error,
        "growth_ratio": ours.growth / theirs.growth if theirs.growth else None,
        "ours_seconds": ours.seconds,
        "peer_seconds": theirs.seconds,
        "ours_peak_mb": ours.peak / 1e6,
        "peer_peak_mb": theirs.peak / 1e6,
        **more,
    }
