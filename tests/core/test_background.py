"""Work in a loop of its own: all that was emitted arrives, errors last; closing cancels."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import closing

import pytest

from preceptor.core.background import in_background


def asking() -> int:
    return sum(thread.name == "asking" for thread in threading.enumerate())


def test_items_come_as_they_are_emitted_and_the_error_last() -> None:
    async def work(emit: Callable[[int], None]) -> None:
        for number in range(3):
            emit(number)
            await asyncio.sleep(0)
        raise ValueError("over")

    got: list[int] = []
    with pytest.raises(ValueError, match="over"):
        got.extend(in_background(work))
    assert got == [0, 1, 2]
    assert asking() == 0


def test_closing_cancels_and_waits() -> None:
    ended = threading.Event()

    async def work(emit: Callable[[str], None]) -> None:
        emit("first")
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            ended.set()

    with closing(in_background(work)) as stream:  # type: ignore[type-var]
        assert next(stream) == "first"
        assert asking() == 1
    assert ended.is_set() and asking() == 0


def test_it_can_be_read_within_a_running_loop() -> None:
    async def work(emit: Callable[[int], None]) -> None:
        emit(1)

    async def notebook() -> list[int]:
        return list(in_background(work))

    assert asyncio.run(notebook()) == [1]
