"""What a run tells who looks on: stages and words, across kills, whatever the file holds."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from preceptor.core import artifacts, live
from preceptor.core.errors import PreceptorError
from preceptor.core.progress import progress, quietly, say
from preceptor.core.run import is_held, open_run

NOBODY: dict[str, Any] = {"settings": {}, "inputs": {}, "models": {}}
WORKER = """
import sys
from pathlib import Path
from preceptor.core.progress import progress
from preceptor.core.run import open_run
with open_run(Path(sys.argv[1]), {"settings": {}, "inputs": {}, "models": {}}, "c") as run:
    with progress("asking ash", 10, "answers") as advance:
        advance(4, 90)
        print("open", flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "EVERY_SECONDS", 0.0)


def told(folder: Path) -> dict[str, Any]:
    return live.read_account(folder / artifacts.WORK / live.PROGRESS)


def stages(folder: Path) -> dict[str, tuple[float, float, bool]]:
    return {
        own["title"]: (own["done"], own["total"], own["live"]) for own in told(folder)["stages"]
    }


def test_stages_and_words_are_told_while_they_happen(folder: Path) -> None:
    with open_run(folder, NOBODY, "c") as run:
        with progress("asking ash", 10, "answers", done=4) as advance:
            assert stages(folder) == {"asking ash": (4, 10, True)}
            advance(3, 90)
            (stage,) = told(folder)["stages"]
            assert (stage["done"], stage["before"], stage["extra"]) == (7, 4, 90)
            assert stage["began"] <= stage["at"]
            advance(3)
        say("warning: two answers are empty")
        with quietly(), progress("scoring", 2, "answers"):
            say("nobody hears, who looks on reads")
            assert stages(folder) == {"asking ash": (10, 10, False), "scoring": (0, 2, True)}
        words = [line["text"] for line in told(folder)["said"]]
        assert words == ["warning: two answers are empty", "nobody hears, who looks on reads"]
        run.finish()
        say("after the end")
    assert not (folder / artifacts.WORK).exists()


def test_the_innermost_run_is_told(folder: Path) -> None:
    with open_run(folder, NOBODY, "study"), open_run(folder / "cell", NOBODY, "cell"):
        with progress("training", 3, "steps") as advance:
            advance(1)
        say("of the cell")
    assert stages(folder / "cell") == {"training": (1, 3, False)}
    assert stages(folder) == {} and told(folder)["said"] == []


def test_a_kill_and_what_comes_after(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "open\n"
        assert is_held(folder) is True and is_held(folder) is True
        worker.send_signal(signal.SIGKILL)
    assert is_held(folder) is False
    assert stages(folder) == {"asking ash": (0, 10, True)} or stages(folder)["asking ash"][0] == 4
    with open_run(folder, NOBODY, "c"):
        assert is_held(folder) is True
        with progress("scoring", 1, "answers"):
            assert list(stages(folder)) == ["asking ash", "scoring"]
            assert not stages(folder)["asking ash"][2]
        with progress("asking ash", 10, "answers", done=4):
            assert list(stages(folder)) == ["scoring", "asking ash"]
    assert is_held(folder) is False


def test_who_looks_keeps_nobody_out(folder: Path) -> None:
    """A run opens although somebody just tries its lock, as `is_held` does, for an instant."""
    with open_run(folder, NOBODY, "c"):
        pass
    looking = open(folder / artifacts.WORK / ".lock", "rb")  # noqa: SIM115 - closed by a timer
    fcntl.flock(looking, fcntl.LOCK_SH)
    timer = threading.Timer(0.03, looking.close)
    timer.start()
    with open_run(folder, NOBODY, "c"):
        assert looking.closed
    timer.join()


def test_a_lock_that_is_none(tmp_path: Path) -> None:
    assert is_held(tmp_path) is False and is_held(tmp_path / "nothing") is False
    work = tmp_path / artifacts.WORK
    work.mkdir()
    (tmp_path / "outside").touch()
    (work / ".lock").symlink_to(tmp_path / "outside")
    assert is_held(tmp_path) is None
    (work / ".lock").unlink()
    os.mkfifo(work / ".lock")
    assert is_held(tmp_path) in (False, None)  # and does not wait for anybody to write


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PreceptorError("no room", found="3 MB free", next_step="make room"), "no room: 3 MB free"),
        (KeyboardInterrupt(), "interrupted"),
        (RuntimeError("key sk-123 was refused"), "RuntimeError"),
    ],
)
def test_why_a_run_ended(folder: Path, error: BaseException, said: str) -> None:
    with pytest.raises(type(error)), open_run(folder, NOBODY, "c"):
        raise error
    assert told(folder)["error"] == said
    with open_run(folder, NOBODY, "c"), progress("again", 1, "steps"):
        assert told(folder)["error"] == ""


def test_what_cannot_be_written_stops_nothing(folder: Path) -> None:
    with open_run(folder, NOBODY, "c"):
        (folder / artifacts.WORK / live.PROGRESS).mkdir()
        with progress("asking", 2, "answers") as advance:
            advance(2)
        say("goes on")
    assert told(folder) == {"stages": [], "said": [], "error": ""}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        '{"stages": 3, "said": {"a": 1}, "error": 7}',
        '{"stages": [1, {}, {"title": 1}], "said": [{"text": 3, "at": 1}, {"text": "x"}]}',
        '{"stages": [{"title": "x", "unit": "y", "total": NaN, "done": 1, "before": 0, "extra": 0,'
        ' "began": 1, "at": 1, "live": true}]}',
        '{"said": [{"text": "x", "at": 1e400}, {"text": "y", "at": true}]}',
    ],
)
def test_whatever_the_file_holds(tmp_path: Path, content: str) -> None:
    (tmp_path / live.PROGRESS).write_text(content)
    assert live.read_account(tmp_path / live.PROGRESS) == {"stages": [], "said": [], "error": ""}


def test_only_so_much_is_kept(folder: Path) -> None:
    with open_run(folder, NOBODY, "c"):
        for number in range(live.KEPT + 5):
            say(f"{number} " + "x" * 5000)
            with progress(f"stage {number}", 1, "steps"):
                pass
    found = json.loads((folder / artifacts.WORK / live.PROGRESS).read_text())
    assert len(found["said"]) == len(found["stages"]) == live.KEPT
    assert found["said"][-1]["text"].startswith(f"{live.KEPT + 4} x")
    assert max(len(line["text"]) for line in found["said"]) == live.LONGEST
    assert found["stages"][0]["title"] == "stage 5"
