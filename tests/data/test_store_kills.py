"""The answer store under SIGKILL, a full disk, and several processes at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from forked import KILLS, start
from preceptor.core.errors import RunFolderError
from preceptor.core.types import Reply, TeacherSource
from preceptor.data.answer_shards import live_shards
from preceptor.data.answer_store import AnswerStore, part_name
from preceptor.data.asking import Asker
from tests.data import store_child
from tests.data.store_child import IDENTITY, answer, questions

SLACK = 2.0  # seconds that a busy machine may take for a commit that is due every 0.02 s


def kill(process: BaseProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def stored(folder: Path) -> set[str]:
    """Every key; each stands once in the shards, and every shard can be read whole."""
    shards = live_shards(folder / part_name(IDENTITY))
    rows = [key for s in shards for key in pq.read_table(s.path)["key"].to_pylist()]
    assert len(rows) == len(set(rows)), "an answer is stored twice"
    return set(rows)


def noted(log: Path) -> list[list[str]]:
    """Whole lines of a log."""
    text = log.read_text() if log.exists() else ""
    return [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]


def until(true: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def test_killed_asking_loses_and_doubles_nothing(tmp_path: Path) -> None:
    rng, n = random.Random(3), 60 * KILLS
    folder, log = tmp_path / "store", tmp_path / "log"
    before: set[str] = set()
    middles = 0
    for number in range(KILLS):
        size = len(noted(log))
        process = start(store_child.ask, str(folder), str(log), n, 0.03)
        until(lambda size=size: len(noted(log)) > size)
        time.sleep(rng.uniform(0, 0.2) if number % 10 else SLACK + 0.3)
        assert process.exitcode is None, "asking was over before it could be killed"
        killed = time.time()
        kill(process)
        now = stored(folder)
        assert before <= now, "a stored answer went"
        told = {key for key, when, _ in noted(log)[size:] if float(when) < killed - SLACK}
        assert told <= now, "an answer was lost that was given well before the kill"
        middles += bool(now - before)
        before = now
    assert middles >= max(2, KILLS // 4), "the kills should fall into the middle of the work"
    last = start(store_child.ask, str(folder), str(log), n, 0.0)
    last.join(120)
    assert last.exitcode == 0
    asked = questions(n)
    assert stored(folder) == {request.key(IDENTITY) for request in asked}
    table = AnswerStore(folder).table(["instruction", "response"]).to_pylist()
    assert {row["instruction"]: row["response"] for row in table} == {
        request.messages[0][1]: answer(request).response for request in asked
    }


def test_killed_compaction_loses_and_doubles_nothing(tmp_path: Path) -> None:
    rng, cut = random.Random(5), 0
    folder, log = tmp_path / "store", tmp_path / "log"
    own = folder / part_name(IDENTITY)
    process = start(store_child.compact_for_ever, str(folder), str(log))
    until(lambda: len(noted(log)) > 100)
    kill(process)
    kills = 0
    while kills < KILLS or not cut:  # some fall into a write
        kills += 1
        assert kills < 20 * KILLS, "no kill falls into a write"
        process = start(store_child.compact_for_ever, str(folder), str(log))
        size = len(noted(log))
        until(lambda size=size: len(noted(log)) > size)
        time.sleep(rng.uniform(0, 0.15))
        kill(process)
        cut += any(own.glob(".*.tmp")) or len(list(own.glob("*.parquet"))) > len(live_shards(own))
        keys = {line[0] for line in noted(log)}
        assert keys <= stored(folder), "a merge lost an answer"
        seen = AnswerStore(folder).table(["key"])["key"].to_pylist()
        assert len(seen) == len(set(seen)) and keys <= set(seen)
        with AnswerStore(folder).part(IDENTITY) as part:
            assert keys <= part.replies(sorted(keys)).keys()
        assert not any(own.glob(".*.tmp"))
        assert len(list(own.glob("*.parquet"))) == len(live_shards(own))


def test_a_reader_without_the_lock_sees_every_answer_once(tmp_path: Path) -> None:
    folder, log = tmp_path / "store", tmp_path / "log"
    process = start(store_child.compact_for_ever, str(folder), str(log))
    try:
        until(lambda: noted(log))
        merged, began = 0, time.monotonic()
        while merged <= 100 or time.monotonic() < began + 1:  # it changes while it is read
            assert time.monotonic() < began + 60, "the store should change while it is read"
            keys = {line[0] for line in noted(log)}
            seen = AnswerStore(folder).table(["key", "response"])["key"].to_pylist()
            assert keys <= set(seen) and len(seen) == len(set(seen))
            merged = len(keys)
    finally:
        kill(process)


def test_two_processes_ask_one_teacher_once(tmp_path: Path) -> None:
    folder, log = tmp_path / "store", tmp_path / "log"
    both = [start(store_child.ask, str(folder), str(log), 60, 0.02) for _ in range(2)]
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    assert len(noted(log)) == 60 and len({pid for _, _, pid in noted(log)}) == 1
    assert len(stored(folder)) == 60


def test_two_teachers_are_asked_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    logs = [tmp_path / name for name in ("parrot", "macaw")]
    both = [start(store_child.ask, str(folder), str(log), 120, 0.05, log.name) for log in logs]
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    times = [[float(when) for _, when, _ in noted(log)] for log in logs]
    assert max(min(own) for own in times) < min(max(own) for own in times), "one after the other"
    assert AnswerStore(folder).table(["key"]).num_rows == 240


def test_the_lock_goes_with_its_holder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder, ready = tmp_path / "store", tmp_path / "ready"
    holder = start(store_child.hold, str(folder), str(ready))
    until(ready.exists)
    entered = threading.Event()

    def enter() -> None:
        with AnswerStore(folder).part(IDENTITY):
            entered.set()

    waiting = threading.Thread(target=enter, daemon=True)
    waiting.start()
    assert not entered.wait(0.3)
    kill(holder)
    assert entered.wait(30)
    waiting.join()
    assert "another process asks org-parrot" in capfd.readouterr().err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(options, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a tmpfs is refused here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def long_winded(words: random.Random) -> TeacherSource:
    """Answers of 8,000 letters that hardly compress."""

    def ask(groups: Any) -> Iterator[tuple[int, list[Reply]]]:
        for number, group in enumerate(groups):
            yield number, [Reply(words.randbytes(4000).hex(), "stop", 9) for _ in group]
            time.sleep(0.01)

    return TeacherSource(IDENTITY, lambda requests: [[n] for n in range(len(requests))], ask)


def test_a_full_disk_is_one_error_and_costs_nothing(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preceptor.data.answer_store.COMMIT_SECONDS", 0.03)
    folder, ballast = small_disk / "store", small_disk / "ballast"
    ballast.write_bytes(bytes(100_000))
    source, wanted = long_winded(random.Random(1)), questions(100)
    with pytest.raises(RunFolderError, match="cannot be written") as caught:
        Asker(AnswerStore(folder))("parrot", source, wanted)
    assert caught.value.found == "No space left on device" and caught.value.next_step
    assert str(folder) in caught.value.where
    kept = AnswerStore(folder).table().to_pylist()
    assert 0 < len(kept) < 40
    with pytest.raises(RunFolderError, match="cannot be written"):
        Asker(AnswerStore(folder))("parrot", source, wanted)
    assert AnswerStore(folder).table().to_pylist()[: len(kept)] == kept
    with (
        pytest.raises(RunFolderError, match="cannot be written"),
        AnswerStore(folder).part(IDENTITY) as part,
    ):
        part.compact()
    assert AnswerStore(folder).table().to_pylist()[: len(kept)] == kept
    ballast.unlink()
    few = wanted[: len(kept) + 10]
    replies = Asker(AnswerStore(folder))("parrot", source, few)
    assert [reply.response for reply in replies][: len(kept)] == [row["response"] for row in kept]
    assert not any((folder / part_name(IDENTITY)).glob(".*.tmp"))
