"""`preceptor store`: what it lists and merges, and what it says of a folder that is no store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from preceptor.core.types import Decoding, Reply, Request, user_turn
from preceptor.data.answer_store import AnswerStore
from preceptor.recipes.store import compact_store, list_store


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "preceptor.cli", "store", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
        check=False,
    )


def fill(folder: Path) -> None:
    """Two teachers: one in three shards, greedy and sampled; one that was never asked."""
    identity = {"model": "org/ash", "fingerprint": "commit:12"}
    greedy, warm = Decoding(0, 0.9, 64), Decoding(0.8, 0.95, 128)
    with AnswerStore(folder).part(identity) as part:
        for decoding, sample in ((warm, 0), (warm, 1), (greedy, 0)):
            request = Request(user_turn("How?"), decoding, sample)
            reply = Reply("So.", "stop", 3, 1000)
            part.add([request.key(identity)], [request], [reply], lambda a, b: a / 100 + b)
            part.commit()
    with AnswerStore(folder).part({"model": "org/[beech]"}):
        pass


def test_what_a_store_holds(tmp_path: Path) -> None:
    fill(tmp_path)
    rows = {row["teacher"]: row for row in list_store(tmp_path)}
    size = sum(path.stat().st_size for path in tmp_path.glob("*/*.parquet"))
    assert rows["org/ash"] == {
        "teacher": "org/ash",
        "identity": {"fingerprint": "commit:12"},
        "decodings": ["2 T 0.8, top_p 0.95, to 128 tokens", "1 greedy, to 64 tokens"],
        "answers": 3,
        "prompt_tokens": 3000,
        "generated_tokens": 9,
        "cost": 39.0,
        "shards": 3,
        "bytes": size,
    }
    empty = rows["org/[beech]"]
    assert (empty["answers"], empty["cost"], empty["decodings"], empty["bytes"]) == (0, 0, [], 0)


def test_the_verbs(tmp_path: Path) -> None:
    fill(tmp_path)
    listed = run("list", str(tmp_path))
    assert (listed.returncode, listed.stderr) == (0, "")
    (line,) = [line for line in listed.stdout.splitlines() if "org/ash" in line]
    assert all(text in line for text in ("2 T 0.8", "3,000", "39.00"))
    assert "org/[beech]" in listed.stdout and "fingerprint commit:12" in listed.stdout
    merged = run("compact", str(tmp_path))
    assert merged.returncode == 0
    assert sorted(merged.stdout.splitlines()) == [
        "org/[beech]: 0 shards before, 0 now",
        "org/ash: 3 shards before, 1 now",
    ]
    assert [row["after"] for row in compact_store(tmp_path)] == [1, 0]
    assert AnswerStore(tmp_path).table().num_rows == 3


def test_no_store(tmp_path: Path) -> None:
    for verb in ("list", "compact"):
        done = run(verb, str(tmp_path / "nothing"))
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: no answer store there\n  where: ")
    assert not (tmp_path / "nothing").exists()
