"""The fleet of processes: the contract of fleets, workers that die, and a parent that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from preceptor.core.errors import ModelError, SettingsError
from preceptor.core.fleet import LostGroupsError
from preceptor.fleets.processes import _devices, open_fleet
from preceptor.recipes.settings.shared import Fleet

LIMIT = 60.0  # seconds to wait for what happens by itself


def setting(**more: Any) -> Fleet:
    return Fleet(kind="processes", **more)


def fleet(**more: Any) -> Any:
    return open_fleet(setting(**more))


def squares(pause: float = 0.0) -> Callable[[int], tuple[int, int]]:
    """A worker that says who it is: (square, process)."""

    def work(group: int) -> tuple[int, int]:
        time.sleep(pause)
        return group * group, os.getpid()

    return work


def failing(how: str, notes: str = "") -> Callable[[int], int]:
    if how == "opening":
        raise OSError("no such weights\nand much more")

    def work(group: int) -> int:
        if group == 3 and how == "own":
            raise ModelError("too long", where="w", found="f", next_step="n")
        if group == 3 and how == "other":
            raise ValueError("broken\nand much more")
        if group == 3 and how == "once" and not Path(notes).exists():
            Path(notes).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if group == 3 and how == "always":
            os.write(2, b"the last thing it said\n")
            os._exit(7)
        return group

    return work


def share() -> Callable[[int], dict[str, str]]:
    names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    return lambda group: {name: os.environ[name] for name in names}


def with_a_child(notes: str) -> Callable[[int], None]:
    """A worker that has a child, and writes both processes' numbers."""

    def work(group: int) -> None:
        child = subprocess.Popen(["sleep", "600"])
        Path(notes, str(group)).write_text(f"{os.getpid()} {child.pid}", encoding="utf-8")
        time.sleep(600)

    return work


def gone(process: int) -> bool:
    """Whether a process is no more, or dead and not yet noticed."""
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return True
    return state[0] in "ZX"


def wait_until(what: Callable[[], Any], message: str) -> None:
    end = time.monotonic() + LIMIT
    while not what():
        assert time.monotonic() < end, message
        time.sleep(0.05)


def test_nothing_starts_before_there_is_work() -> None:
    assert list(fleet(workers=2)(partial(failing, "opening"), [])) == []


@pytest.mark.parametrize(("more", "found"), [({"address": "auto"}, "auto"), ({"gpus": 1.5}, "1.5")])
def test_settings_that_no_process_has(more: dict[str, Any], found: str) -> None:
    with pytest.raises(SettingsError) as caught:
        fleet(**more)
    assert caught.value.found == found


def test_each_group_once_as_it_is_done() -> None:
    done = list(fleet(workers=2)(partial(squares, 0.05), list(range(12))))
    assert sorted(number for number, _ in done) == list(range(12))
    assert all(square == number**2 for number, (square, _) in done)
    processes = {process for _, (_, process) in done}
    assert os.getpid() not in processes
    assert all(gone(process) for process in processes)


def test_closing_early_ends_the_workers() -> None:
    stream = fleet(workers=(1, 2))(partial(squares, 0.1), list(range(100_000)))
    processes: set[int] = set()
    wait_until(
        lambda: len(processes) == 2 or processes.add(next(stream)[1][1]), "one worker alone works"
    )
    stream.close()
    assert all(gone(process) for process in processes)


def test_a_worker_has_its_share_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    [(_, found)] = fleet(cpus=3.0)(share, [0])
    assert found == {"OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": ""}
    [(_, found)] = fleet(gpus=2)(share, [0])
    assert found == {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "4,5"}
    assert _devices(setting(gpus=2), 2) == ["4,5", "6,7"]
    assert _devices(setting(gpus=1), 3) == ["4", "5", "6"]
    assert _devices(setting(gpus=0.5), 5) == ["4", "4", "5", "5", "6"]
    with pytest.raises(SettingsError, match="more GPUs than this machine has") as caught:
        _devices(setting(gpus=2), 3)
    assert caught.value.found == "3 x 2, 4 here"
    with pytest.raises(SettingsError, match="more GPUs"):
        _devices(setting(gpus=0.5), 9)


def test_an_error_of_ours_arrives_as_it_was() -> None:
    with pytest.raises(ModelError) as caught:
        list(fleet()(partial(failing, "own"), list(range(6))))
    error = caught.value
    assert (error.what, error.where, error.found, error.next_step) == ("too long", "w", "f", "n")


@pytest.mark.parametrize(
    ("how", "found"),
    [("other", "ValueError: broken"), ("opening", "OSError: no such weights")],
)
def test_any_other_error_is_one_line(how: str, found: str) -> None:
    with pytest.raises(ModelError, match="a worker of the fleet failed") as caught:
        list(fleet()(partial(failing, how), list(range(6))))
    assert caught.value.found == found


def test_a_group_whose_worker_was_killed_runs_again(tmp_path: Path) -> None:
    opener = partial(failing, "once", str(tmp_path / "died"))
    done = list(fleet(workers=2)(opener, list(range(6))))
    assert (tmp_path / "died").exists()
    assert sorted(done) == [(number, number) for number in range(6)]


def test_a_group_that_kills_its_workers_is_told_after_the_others() -> None:
    done: list[tuple[int, int]] = []
    stream = fleet(workers=2)(partial(failing, "always"), list(range(6)))
    with pytest.raises(LostGroupsError, match="workers of the fleet died") as caught:
        done.extend(stream)  # keeps what came before the error
    assert sorted(done) == [(number, number) for number in (0, 1, 2, 4, 5)]
    assert caught.value.reasons == {3: "it ended with status 7 (the last thing it said)"}


def test_no_worker_outlives_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import sys, functools; sys.path.insert(0, sys.argv[1]); import test_processes as t\n"
        "list(t.fleet(workers=2)(functools.partial(t.with_a_child, sys.argv[2]), [0, 1]))"
    )
    arguments = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)]
    parent = subprocess.Popen(arguments)
    try:
        wait_until(
            lambda: all((tmp_path / name).exists() for name in "01"), "the workers do not start"
        )
        time.sleep(0.2)  # the files are written whole
        numbers = [int(n) for name in "01" for n in (tmp_path / name).read_text().split()]
        assert len(numbers) == 4 and not any(map(gone, numbers))
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: all(map(gone, numbers)), "workers or their children outlive the parent")
