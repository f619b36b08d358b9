"""What a run tells whoever looks on: its stages and its latest words, in `work/progress.json`.

The file appears whole, at most twice a second, and goes when the shards beside it go. No run reads
it to decide anything: what is done stands in the shards. So a file that cannot be written, or that
somebody changed, costs the run nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from preceptor.core.errors import PreceptorError

PROGRESS = "progress.json"
EVERY_SECONDS = 0.5
KEPT = 30  # lines that were said, and stages: the latest ones
LONGEST = 600  # characters of a line that are kept

_accounts: list[Account] = []  # of the open runs of this process, the innermost last


class Account:
    """The stages of an open run, and what it said; goes on from what an earlier run left.

    Args:
        path: of the file, in a folder that the run keeps.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.process = os.getpid()  # a forked worker has nothing to tell here
        self._lock = threading.Lock()
        self._written = float("-inf")
        before = read_account(path)
        self.stages = {own["title"]: own | {"live": False} for own in before["stages"]}
        self.said: list[dict[str, Any]] = before["said"]
        self.error = ""

    def begin(self, title: str, total: int, unit: str, done: int) -> None:
        """A stage begins, or goes on where `done` of its `total` units were done before."""
        now = round(time.time(), 2)
        with self._lock:
            self.stages.pop(title, None)  # it moves to the end
            self.stages[title] = {
                "title": title,
                "unit": unit,
                "total": total,
                "done": done,
                "before": done,
                "extra": 0,
                "began": now,
                "at": now,
                "live": True,
            }
            for old in list(self.stages)[:-KEPT]:
                del self.stages[old]
            self._write()

    def advance(self, title: str, amount: int, extra: int) -> None:
        """So many units more of a stage are done, and so much of a second unit (tokens)."""
        with self._lock:
            stage = self.stages[title]
            stage["done"] += amount
            stage["extra"] += extra
            stage["at"] = round(time.time(), 2)
            if time.monotonic() - self._written >= EVERY_SECONDS:
                self._write()

    def end(self, title: str) -> None:
        """A stage is left, done or not."""
        with self._lock:
            self.stages[title]["live"] = False
            self._write()

    def hear(self, text: str) -> None:
        """A line that the run said."""
        with self._lock:
            self.said = [*self.said, {"at": round(time.time(), 2), "text": text[:LONGEST]}][-KEPT:]
            self._write()

    def stop(self, why: str) -> None:
        """The run ends before its time."""
        with self._lock:
            self.error = why[:LONGEST]
            self._write()

    def _write(self) -> None:
        """Whole, but not flushed to the disk: after a power cut it may be missing."""
        if os.getpid() != self.process:
            return
        self._written = time.monotonic()
        told = {"stages": list(self.stages.values()), "said": self.said, "error": self.error}
        temporary = self.path.with_name(f".{PROGRESS}.{self.process}.tmp")
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps(told), encoding="utf-8")
            temporary.replace(self.path)


@contextlib.contextmanager
def account(folder: Path) -> Iterator[None]:
    """Within, stages and words of this process are told in a file of `folder`."""
    own = Account(folder / PROGRESS)
    _accounts.append(own)
    try:
        yield
    except BaseException as error:
        own.stop(_why(error))
        raise
    finally:
        _accounts.remove(own)


@contextlib.contextmanager
def stage(title: str, total: int, unit: str, done: int) -> Iterator[Callable[[int, int], None]]:
    """A stage of the innermost open run, if there is one; yields what tells how it advances."""
    own = _accounts[-1] if _accounts else None
    if own is None:
        yield lambda amount, extra: None
        return
    own.begin(title, total, unit, done)
    try:
        yield lambda amount, extra: own.advance(title, amount, extra)
    finally:
        own.end(title)


def hear(text: str) -> None:
    """A line for the user, kept for whoever looks on at the innermost open run."""
    if _accounts:
        _accounts[-1].hear(text)


def _why(error: BaseException) -> str:
    """What a page may say of it; messages of other libraries may hold what is nobody's business."""
    if isinstance(error, PreceptorError):
        return error.what + (f": {error.found}" if error.found else "")
    return "interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__


def read_account(path: Path) -> dict[str, Any]:
    """`stages`, `said` and `error` of a run; empty where there is no file, or one of another kind.

    Never raises: whatever the file holds, the values have the types that `Account` writes.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    return checked_account(found)


def checked_account(found: Any) -> dict[str, Any]:
    """The parts of `found` that have the types that `Account` writes."""
    found = found if isinstance(found, dict) else {}
    stages, said, error = found.get("stages"), found.get("said"), found.get("error")
    return {
        "stages": [own for own in _listed(stages) if _is_stage(own)][-KEPT:],
        "said": [own for own in _listed(said) if _is_line(own)][-KEPT:],
        "error": error if isinstance(error, str) else "",
    }


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def _is_stage(own: Any) -> bool:
    return (
        isinstance(own, dict)
        and all(isinstance(own.get(key), str) for key in ("title", "unit"))
        and all(_is_number(own.get(key)) for key in ("total", "done", "before", "extra"))
        and all(_is_number(own.get(key)) for key in ("began", "at"))
        and isinstance(own.get("live"), bool)
    )


def _is_line(own: Any) -> bool:
    return isinstance(own, dict) and isinstance(own.get("text"), str) and _is_number(own.get("at"))
