"""Stages: what is committed survives, whatever happens next."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preceptor.core import stage as stages
from preceptor.core.stage import Stage, clear

SCHEMA = pa.schema([pa.field("n", pa.int32(), nullable=False), pa.field("word", pa.string())])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "work" / "stage"


def test_a_new_stage_is_empty(folder: Path) -> None:
    stage = Stage(folder, SCHEMA)
    assert stage.table().equals(SCHEMA.empty_table())
    assert stage.seconds() == 0.0


def test_committed_rows_are_there_in_order(folder: Path) -> None:
    with Stage(folder, SCHEMA) as stage:
        stage.add(n=[3, 1], word=["c", "a"])
        stage.commit()
        stage.add(n=[2], word=[None])
        assert stage.table()["n"].to_pylist() == [3, 1]
    with Stage(folder, SCHEMA) as stage:
        stage.add(n=[9], word=["i"])
    assert Stage(folder, SCHEMA).table().to_pylist() == [
        {"n": 3, "word": "c"},
        {"n": 1, "word": "a"},
        {"n": 2, "word": None},
        {"n": 9, "word": "i"},
    ]
    assert Stage(folder, SCHEMA).table().schema.equals(SCHEMA)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["000000.parquet", "000001.parquet", "000002.parquet"]


def test_an_exception_commits_what_was_taken(folder: Path) -> None:
    def interrupted() -> None:
        with Stage(folder, SCHEMA) as stage:
            stage.add(n=[1], word=["a"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert Stage(folder, SCHEMA).table()["n"].to_pylist() == [1]


def test_leaving_with_nothing_writes_nothing(folder: Path) -> None:
    with Stage(folder, SCHEMA) as stage:
        stage.commit()
    assert list(folder.iterdir()) == []


def test_a_half_written_shard_is_removed(folder: Path) -> None:
    with Stage(folder, SCHEMA) as stage:
        stage.add(n=[1], word=["a"])
    (folder / ".000001.parquet.4711.tmp").write_bytes(b"PAR1 half a shard")
    assert Stage(folder, SCHEMA).table()["n"].to_pylist() == [1]
    assert [path.name for path in folder.iterdir()] == ["000000.parquet"]


def test_rows_are_committed_when_it_is_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(folder, SCHEMA)
    stage.add(n=[1], word=["a"])
    assert stage.table().num_rows == 0
    monkeypatch.setattr(stages, "COMMIT_SECONDS", 0.0)
    stage.add(n=[2], word=["b"])
    assert stage.table()["n"].to_pylist() == [1, 2]


def test_working_time_adds_up_over_runs(folder: Path) -> None:
    for seconds in (1.5, 2.25):
        with Stage(folder, SCHEMA) as stage:
            stage._committed -= seconds  # as if the work had taken so long
            stage.add(n=[1], word=["a"])
    assert Stage(folder, SCHEMA).seconds() == pytest.approx(3.75, abs=0.1)


def test_a_shard_cannot_hold_other_columns(folder: Path) -> None:
    with Stage(folder, SCHEMA) as stage:
        stage.add(n=[1], word=["a"])
    pq.write_table(pa.table({"other": [1]}), folder / "000001.parquet")
    with pytest.raises(pa.ArrowInvalid):
        Stage(folder, SCHEMA).table()


def test_clear(folder: Path) -> None:
    Stage(folder, SCHEMA)
    clear(folder.parent)
    assert not folder.parent.exists()
    clear(folder.parent)
