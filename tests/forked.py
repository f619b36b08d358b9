"""Processes of tests, forked from one server that has imported what is slow to import.

A server keeps what it was first told to preload, so all tests name the same modules. It knows that
it is offline, and so do all of its processes: no test needs a network.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

SECONDS = 240.0  # the longest that a command may take
# of a test that kills at random moments; PRECEPTOR_KILLS=100 kills a hundred times
KILLS = int(os.environ.get("PRECEPTOR_KILLS", "6"))

PRELOADED = ["tests.warm"]  # found from the root of the repository, where pytest starts


@dataclass(frozen=True)
class Done:
    """A command that has ended; named as in `subprocess`."""

    returncode: int
    stdout: str
    stderr: str


def start(target: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """A process that runs a function of a test module."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=target, args=arguments)
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"  # read by the libraries when the server imports them
    try:
        process.start()
    finally:
        os.environ.pop("HF_HUB_OFFLINE")
        if before is not None:
            os.environ["HF_HUB_OFFLINE"] = before
    return process


def preceptor(
    *words: str | Path, cwd: Path | None = None, variables: Mapping[str, str] | None = None
) -> Done:
    """A command line as the package's script runs it, in a folder, with more variables."""
    with tempfile.TemporaryDirectory() as place:
        streams = Path(place, "out"), Path(place, "err")
        process = start(
            _main, [str(word) for word in words], str(cwd or Path.cwd()), dict(variables or {}),
            *map(str, streams),
        )  # fmt: skip
        process.join(SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join()
        out, err = (path.read_text("utf-8") if path.exists() else "" for path in streams)
        return Done(process.exitcode or 0, out, err)


def _main(words: list[str], folder: str, variables: dict[str, str], out: str, err: str) -> None:
    import torch

    from preceptor.cli import main

    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    torch.set_num_threads(1)
    os.chdir(folder)
    os.environ.update({"HF_HUB_OFFLINE": "1", "NO_COLOR": "1", **variables})
    sys.argv = ["preceptor", *words]
    main()
