"""Progress as log lines, for files and CI: counts, rate, time left, all on standard error."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from preceptor.core.progress import PlainLog, progress, say


def test_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("asking ash", 10, "answers", done=4) as advance:
        advance(3, 90)
        advance(3, 90)
    out, err = capsys.readouterr()
    assert out == ""
    before, end = err.splitlines()
    assert before == "asking ash: 4 of 10 answers were done before"
    assert re.match(r"asking ash: 10/10 answers, [\d,.]+/s, [\d,]+ tokens/s", end)


def test_lines_are_rare(capsys: pytest.CaptureFixture[str]) -> None:
    log = PlainLog("measuring", 1000, "sequences", 0, every=60.0)
    for _ in range(999):
        log(1)
    assert capsys.readouterr().err == ""
    log(1)
    assert capsys.readouterr().err.startswith("measuring: 1,000/1,000 sequences")


def test_rate_and_time_left() -> None:
    log = PlainLog("measuring", 100, "sequences", 20, every=60.0)
    log.done, log.extra = 60, 4000
    line = "measuring: 60/100 sequences, 4.0/s, 400 tokens/s, 0:10 left"
    assert log.line(log.started + 10) == line


def test_a_terminal_shows_a_live_bar() -> None:
    """A real terminal on standard error, in a process of its own."""
    ours, theirs = os.openpty()
    code = (
        "from preceptor.core.progress import progress\n"
        "with progress('asking ash', 10, 'answers', done=4) as advance:\n"
        "    advance(6, 90)\n"
    )
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "NO_COLOR": "1"}
    with os.fdopen(ours, "rb", buffering=0) as screen:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=theirs,
            env=environment,
            check=True,
        )
        os.close(theirs)
        shown = screen.read(65536).decode()
    assert done.stdout == b""
    assert "asking ash" in shown
    assert "10/10 answers" in shown and "tokens/s" in shown


def test_say(capsys: pytest.CaptureFixture[str]) -> None:
    say("warning: x")
    assert capsys.readouterr().err == "warning: x\n"
