"""The one progress display: a live bar with rate and time left, or plain log lines.

Everything goes to standard error, so that standard output stays for results. In a notebook it goes
to the cell's output, where standard error would look like a fault.
"""

from __future__ import annotations

import html
import importlib
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from preceptor.core import live

LOG_EVERY_SECONDS = 10.0
SHOWN_EVERY_SECONDS = 0.25  # in a notebook
_quiet = 0  # how many `quietly` blocks are open


class Advance(Protocol):
    """Reports that `amount` more units are done, and `extra` of a second unit (tokens)."""

    def __call__(self, amount: int, extra: int = 0) -> None: ...


class PlainLog:
    """Progress as log lines, at most one every ten seconds, for files and CI."""

    def __init__(self, title: str, total: int, unit: str, done: int, every: float) -> None:
        self.title, self.total, self.unit, self.done = title, total, unit, done
        self.done_before, self.extra, self.every = done, 0, every
        self.started = self.said = time.monotonic()
        if done:
            _print(f"{title}: {done:,} of {total:,} {unit} were done before")

    def __call__(self, amount: int, extra: int = 0) -> None:
        self.done += amount
        self.extra += extra
        now = time.monotonic()
        if now - self.said >= self.every or self.done >= self.total:
            self.said = now
            _print(self.line(now))

    def line(self, now: float) -> str:
        seconds = max(now - self.started, 1e-9)
        rate = (self.done - self.done_before) / seconds
        parts = [f"{self.title}: {self.done:,}/{self.total:,} {self.unit}, {rate:,.1f}/s"]
        if self.extra:
            parts.append(f"{self.extra / seconds:,.0f} tokens/s")
        if self.done < self.total and rate > 0:
            parts.append(f"{clock((self.total - self.done) / rate)} left")
        elif self.done >= self.total:
            parts.append(f"took {clock(seconds)}")
        return ", ".join(parts)


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def say(text: str) -> None:
    """One line for the user, on standard error; an open run keeps it for who looks on."""
    live.hear(text)
    _print(text)


def _print(text: str) -> None:
    if not _quiet:
        print(text, file=sys.stdout if in_notebook() else sys.stderr, flush=True)


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook, which draws what is displayed."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def settle_notebook() -> None:
    """In a notebook, load other libraries' bars without their call for widgets: none is shown."""
    if in_notebook() and "tqdm.auto" not in sys.modules:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module("tqdm.auto")


class NotebookBar(PlainLog):
    """Progress as one output of a notebook that changes in its place, and stays when it is done.

    rich draws there with ipywidgets alone, and what a widget showed is not kept with the notebook.
    """

    def __init__(self, title: str, total: int, unit: str, done: int) -> None:
        super().__init__(title, total, unit, 0, every=float("inf"))
        self.done = self.done_before = done
        from IPython.display import display

        self.shown: Any = display(self.content(), raw=True, display_id=True)

    def __call__(self, amount: int, extra: int = 0) -> None:
        self.done += amount
        self.extra += extra
        now = time.monotonic()
        if now - self.said >= SHOWN_EVERY_SECONDS or self.done >= self.total:
            self.said = now
            self.shown.update(self.content(), raw=True)

    def content(self) -> dict[str, str]:
        line = self.line(time.monotonic())
        bar = f'<progress value="{self.done}" max="{max(self.total, 1)}"></progress>'
        return {"text/plain": line, "text/html": f"<div>{bar} {html.escape(line)}</div>"}


@contextmanager
def quietly() -> Iterator[None]:
    """Nothing is said or shown within: another display tells how the whole goes on."""
    global _quiet
    _quiet += 1
    try:
        yield
    finally:
        _quiet -= 1


@contextmanager
def progress(title: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    """Show how a stage goes on.

    Args:
        title: what is being done.
        total: units in all, `done` of which were finished by an earlier run.
        unit: plural name of the unit ("answers").
        done: units found finished.

    Yields:
        A function to call with the number of units (and tokens) just finished.
    """
    with live.stage(title, total, unit, done) as tell, _shown(title, total, unit, done) as show:

        def advance(amount: int, extra: int = 0) -> None:
            show(amount, extra)
            tell(amount, extra)

        yield advance


@contextmanager
def _shown(title: str, total: int, unit: str, done: int) -> Iterator[Advance]:
    """The display alone: a bar on a terminal or in a notebook, else log lines."""
    if not _quiet and in_notebook():
        yield NotebookBar(title, total, unit, done)
        return
    if _quiet or not sys.stderr.isatty():
        yield PlainLog(title, total, unit, done, LOG_EVERY_SECONDS)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}"),
        TextColumn("{task.fields[rates]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    log = PlainLog(title, total, unit, 0, every=float("inf"))
    log.done = log.done_before = done
    with bar:
        task = bar.add_task(title, total=total, completed=done, unit=unit, rates="")

        def advance(amount: int, extra: int = 0) -> None:
            log.done += amount
            log.extra += extra
            seconds = max(time.monotonic() - log.started, 1e-9)
            rates = f"{(log.done - done) / seconds:,.1f}/s"
            if log.extra:
                rates += f"  {log.extra / seconds:,.0f} tokens/s"
            bar.update(task, advance=amount, rates=rates)

        yield advance
