"""Models that stay loaded between the rounds of a race, one at a time."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from preceptor.core.fleet import Work, run_here
from preceptor.recipes.selecting.preparing import Prepared


class KeptOpen:
    """The fleet of this process, with its last worker left open.

    One worker at most is open: the memory that a race takes is that of a run without rounds.
    """

    def __init__(self) -> None:
        self._key: Any = None
        self._work: Work | None = None

    def __call__(
        self, open_worker: Callable[[], Work], groups: Sequence[Any]
    ) -> Iterator[tuple[int, Any]]:
        """As `run_here`; a worker that the same call opened last is used again."""
        if not groups:
            return
        key, work = _key_of(open_worker), self._work
        if work is None or key is None or key != self._key:
            work = None
            self.close()
            work = open_worker()
            self._key, self._work = key, work
        for number, group in enumerate(groups):
            yield number, work(group)

    def make_room(self, teacher: Any) -> None:
        """Close the worker before a teacher loads weights in this process."""
        if teacher.kind != "openai":
            self.close()

    def close(self) -> None:
        """Let go of the worker."""
        if self._work is not None:
            self._key = self._work = None
            gc.collect()


def _key_of(open_worker: Callable[[], Work]) -> Any:
    """What tells one `functools.partial` from another; None for what cannot be told."""
    if not isinstance(open_worker, partial):
        return None
    return open_worker.func, open_worker.args, sorted(open_worker.keywords.items())


def keep_open(prepared: Prepared) -> tuple[Prepared, KeptOpen | None]:
    """The same preparation with models kept open, where they run in this process."""
    if prepared.runtime.fleet is not run_here:
        return prepared, None
    kept = KeptOpen()
    return replace(prepared, runtime=replace(prepared.runtime, fleet=kept)), kept


def uses_memory_here(reward: Any) -> bool:
    """Whether a reward may load weights other than through the fleet it is given."""
    judge = getattr(reward, "teacher", None)
    if judge is not None:
        return judge.kind != "openai"
    return reward.kind not in ("column", "verifier", "reward_model")
