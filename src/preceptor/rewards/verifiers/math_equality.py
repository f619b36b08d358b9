"""Whether an answer is mathematically equal to the right one (extra `verify`: math-verify).

Comparing is done in a process of its own. math-verify stops long computations with a signal, which
works in the main thread alone, and not while one operation on large numbers runs; that process can
be stopped at any time, from any thread.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any

from preceptor.core.errors import SettingsError
from preceptor.rewards.verifiers.reference import reference_of

if importlib.util.find_spec("math_verify") is None:
    raise SettingsError(
        "the verifier `math` needs the library math-verify",
        where="rewards: function math",
        found="it is not installed",
        next_step="pip install 'preceptor[verify]'",
    )


STOPPED = -signal.SIGPROF  # status of a process that ran out of time


def math(
    instruction: str,
    response: str,
    row: Mapping[str, Any],
    *,
    column: str | None = None,
    seconds: float = 5.0,
) -> float:
    """1 if the response's final answer is mathematically equal to the right one, else 0.

    The final answer of a response is what math-verify finds: the last boxed expression, else what
    follows "the answer is", else the last formula or number. A right answer may be a bare number or
    LaTeX expression, a text with such an answer in it, or GSM8K's form (after `####`).

    Args:
        column: of the right answer; `answer`, `reference` or `solution` if None.
        seconds: of computing, at most; an answer that takes longer counts as wrong (0).

    Raises:
        KeyError: the row has no right answer.
        ValueError: the right answer holds no mathematics.

    Source: math-verify, https://github.com/huggingface/Math-Verify.
    """
    wanted = reference_of(row, column)
    return _calculator(os.getpid()).equal(wanted, response, seconds)


class Calculator:
    """The process that compares; started at the first use, and again after one that took too long.

    Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def equal(self, wanted: str, response: str, seconds: float) -> float:
        with self._lock:
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "preceptor.rewards.verifiers.calculator"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                    encoding="utf-8",
                )
            stdin, stdout = self._process.stdin, self._process.stdout
            assert stdin is not None and stdout is not None
            try:
                stdin.write(json.dumps([wanted, response, seconds]) + "\n")
                stdin.flush()
                line = stdout.readline()
            except BrokenPipeError:
                line = ""
            if not line:  # it was stopped
                code = self._close()
                if code == STOPPED:
                    return 0.0
                raise RuntimeError(f"the process that compares ended with status {code}")
        found = json.loads(line)
        if isinstance(found, str):
            raise ValueError(found)
        return float(found)

    def _close(self) -> int:
        process, self._process = self._process, None
        assert process is not None
        for pipe in (process.stdin, process.stdout):
            with suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]
        return process.wait()

    def close(self) -> None:
        """End the process, if one runs."""
        with self._lock:
            if self._process is not None:
                self._close()


@cache
def _calculator(owner: int) -> Calculator:
    """The one of this process: a fork has its own."""
    calculator = Calculator()
    atexit.register(calculator.close)
    return calculator
