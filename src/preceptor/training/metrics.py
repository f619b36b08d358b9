"""Step metrics of a training run: one JSON object a line, continued exactly after a kill."""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from preceptor.core.artifacts import write_bytes

_BYTES = 1 if sys.platform == "darwin" else 1024  # unit of ru_maxrss


def norm(gradients: Sequence[torch.Tensor | None]) -> float:
    """Euclidean norm over all entries of all gradients (None counts as zero)."""
    squares = [g.detach().float().square().sum() for g in gradients if g is not None]
    return math.sqrt(float(torch.stack(squares).sum())) if squares else 0.0


class MetricsFile:
    """`metrics.jsonl` of a run, with the rates of the steps since the last line.

    Args:
        path: of the file; None keeps nothing.
        active: whether this process writes.
    """

    def __init__(self, path: Path | None, active: bool) -> None:
        self.path = path if active else None
        self._tokens, self._since = 0, time.perf_counter()

    def count(self, tokens: int) -> None:
        """So many tokens more were trained on."""
        self._tokens += tokens

    def rates(self, device: torch.device) -> dict[str, float]:
        """tokens_per_second since the last call, and peak_memory_mb of device or process."""
        now = time.perf_counter()
        rate = self._tokens / max(now - self._since, 1e-9)
        self._tokens, self._since = 0, now
        if device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(device)
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _BYTES
        return {"tokens_per_second": round(rate, 1), "peak_memory_mb": round(peak / 1e6, 1)}

    def append(self, step: int, epoch: float | None, values: dict[str, Any]) -> None:
        """One line; values that are no numbers are left out."""
        if self.path is None:
            return
        numbers = {k: v for k, v in values.items() if isinstance(v, int | float) and k != "epoch"}
        finite = {k: v if math.isfinite(v) else None for k, v in numbers.items()}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "epoch": epoch, **finite}) + "\n")

    def keep_until(self, step: int) -> None:
        """Drop the lines of steps after `step`, and any half line: a resumed run writes them."""
        self._tokens, self._since = 0, time.perf_counter()
        if self.path is None or not self.path.exists():
            return
        kept = [
            line for line in self.path.read_bytes().splitlines(keepends=True) if _until(line, step)
        ]
        write_bytes(self.path, b"".join(kept))


def _until(line: bytes, step: int) -> bool:
    try:
        return line.endswith(b"\n") and json.loads(line)["step"] <= step
    except (ValueError, KeyError):
        return False
