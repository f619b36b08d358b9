"""Asynchronous work on a thread of its own, read as a plain iterator."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


def in_background(work: Callable[[Callable[[T], None]], Awaitable[None]]) -> Iterator[T]:
    """Yield what `work` emits, as it is emitted.

    The event loop has its own thread, so that work goes on while the reader is busy, and so that a
    program that runs a loop already (a notebook) can call this. Whatever was emitted is yielded
    before an error of `work` is raised. Closing the iterator cancels the work, and waits until it
    has ended.

    Args:
        work: a coroutine function; it is given the function that emits an item.
    """
    items: SimpleQueue[tuple[bool, Any]] = SimpleQueue()
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []
    begun = threading.Event()

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        running.append((asyncio.get_running_loop(), task))
        begun.set()
        await work(lambda item: items.put((True, item)))

    def run() -> None:
        error: BaseException | None = None
        try:
            asyncio.run(main())
        except BaseException as raised:  # handed to the reader
            error = raised
        begun.set()
        items.put((False, error))

    thread = threading.Thread(target=run, name="asking", daemon=True)
    thread.start()
    try:
        while True:
            more, item = items.get()
            if not more:
                break
            yield item
        if item is not None:
            raise item
    finally:
        begun.wait()
        for loop, task in running:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(task.cancel)
        thread.join()
