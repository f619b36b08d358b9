"""A run folder serves one identity and one process, and touches nothing that is not its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from preceptor.core import artifacts
from preceptor.core.errors import RunFolderError
from preceptor.core.run import hash_input, open_run

SCHEMA = pa.schema([pa.field("n", pa.int32())])
HOLDER = """
import sys
from pathlib import Path
from preceptor.core.run import open_run
with open_run(Path(sys.argv[1]), {"settings": {}, "inputs": {}, "models": {}}, "other"):
    print("open", flush=True)
    sys.stdin.read()
"""


def identity(**changes: Any) -> dict[str, Any]:
    return {
        "settings": {"beta": 3.0, "base": "m"},
        "inputs": {"a.parquet": "sha256:1"},
        "models": {"base": "sha256:2"},
    } | changes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "first"


def provenance(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "provenance.json").read_text("utf-8"))


def test_from_opening_to_finish(folder: Path) -> None:
    with open_run(folder, identity(), "preceptor select s.yaml") as run:
        assert provenance(folder)["status"] == "running"
        with run.stage("count", SCHEMA) as stage:
            stage._committed -= 2.0  # as if the work had taken two seconds
            stage.add(n=[1])
        run.note_seconds("counting", stage)
        run.facts["tokens"] = 12
        assert (folder / "work" / "count" / "000000.parquet").exists()
        run.finish()
    assert sorted(p.name for p in folder.iterdir()) == ["provenance.json", "settings.yaml"]
    assert yaml.safe_load((folder / "settings.yaml").read_text()) == identity()["settings"]
    found = provenance(folder)
    assert found["status"] == "finished"
    assert found["command"] == "preceptor select s.yaml"
    assert {part: found[part] for part in identity()} == identity()
    assert found["tokens"] == 12
    assert found["stage_seconds"]["counting"] == pytest.approx(2.0, abs=0.2)
    assert found["versions"]["pyarrow"] == pa.__version__
    assert found["machine"]["cores"] >= 1


def test_the_same_identity_goes_on(folder: Path) -> None:
    with open_run(folder, identity(), "first") as run, run.stage("count", SCHEMA) as stage:
        assert not run.finished
        stage.add(n=[1])
    with open_run(folder, identity(), "second") as run:
        assert not run.finished
        assert run.stage("count", SCHEMA).table()["n"].to_pylist() == [1]
        assert provenance(folder)["command"] == "second"


def test_a_finished_run_is_only_read(folder: Path) -> None:
    with open_run(folder, identity(), "first") as run:
        run.facts["tokens"] = 12
        run.finish()
    before = (folder / "provenance.json").read_bytes()
    with open_run(folder, identity(), "second") as run:
        assert run.finished
    assert (folder / "provenance.json").read_bytes() == before
    assert sorted(p.name for p in folder.iterdir()) == ["provenance.json", "settings.yaml"]


@pytest.mark.parametrize(
    ("part", "other", "found"),
    [
        ("settings", {"beta": 2.0, "base": "m"}, "beta: 3.0 then, 2.0 now"),
        ("inputs", {"a.parquet": "sha256:9"}, "a.parquet: 'sha256:1' then, 'sha256:9' now"),
        ("models", {"base": "sha256:2", "reference": "x"}, "reference: None then, 'x' now"),
    ],
)
def test_another_identity_is_refused_and_changes_nothing(
    folder: Path, part: str, other: dict[str, Any], found: str
) -> None:
    with open_run(folder, identity(), "first"):
        pass
    before = (folder / "provenance.json").read_bytes()
    with (
        pytest.raises(RunFolderError, match=f"belongs to other {part}") as caught,
        open_run(folder, identity(**{part: other}), "second"),
    ):
        pass
    assert caught.value.found == found
    assert caught.value.where == str(folder)
    assert (folder / "provenance.json").read_bytes() == before


@pytest.mark.parametrize("foreign", ["thesis.tex", "work/data.csv", "settings.yaml"])
def test_a_folder_of_other_things_is_refused_and_left_alone(folder: Path, foreign: str) -> None:
    (folder / foreign).parent.mkdir(parents=True)
    (folder / foreign).write_text("mine")
    before = sorted(folder.rglob("*"))
    with (
        pytest.raises(RunFolderError, match="no run of preceptor") as caught,
        open_run(folder, identity(), "c"),
    ):
        pass
    assert caught.value.found == foreign
    assert sorted(folder.rglob("*")) == before
    assert (folder / foreign).read_text() == "mine"


@pytest.mark.parametrize("content", ["", "[]", '{"settings": 3}', "{}"])
def test_a_record_that_is_none_is_refused(folder: Path, content: str) -> None:
    folder.mkdir(parents=True)
    (folder / "provenance.json").write_text(content)
    with (
        pytest.raises(RunFolderError, match="no record of a run"),
        open_run(folder, identity(), "c"),
    ):
        pass
    assert (folder / "provenance.json").read_text() == content


def test_an_empty_folder_and_the_rests_of_a_kill_are_taken(folder: Path) -> None:
    (folder / artifacts.WORK).mkdir(parents=True)
    (folder / artifacts.WORK / ".lock").touch()
    (folder / ".provenance.json.4711.tmp").write_text("{")
    with open_run(folder, identity(), "c"):
        assert not (folder / ".provenance.json.4711.tmp").exists()
        assert provenance(folder)["status"] == "running"


def test_a_second_process_is_refused(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == "open\n"
        mine = {"settings": {}, "inputs": {}, "models": {}}
        with (
            pytest.raises(RunFolderError, match="another process works in this run folder"),
            open_run(folder, mine, "mine"),
        ):
            pass
        assert provenance(folder)["command"] == "other"
        other.stdin.close()
    assert other.returncode == 0
    with open_run(folder, mine, "mine"):
        assert provenance(folder)["command"] == "mine"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with (
            pytest.raises(RunFolderError, match="the run folder cannot be written") as caught,
            open_run(folder, identity(), "c"),
        ):
            pass
        assert caught.value.where == str(folder)
        assert "Not a directory" in caught.value.found
        assert "--out" in caught.value.next_step


def test_hashes_of_inputs(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    table = pa.table({"x": [1, 2, 3]})
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert hash_input(str(tmp_path / "a"), table) == f"sha256:{known}"
    rows = hash_input("lab:selection", table)
    assert rows.startswith("rows-sha256:")
    chunks = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert hash_input("lab:selection", chunks) == rows
    assert hash_input("lab:selection", table.slice(1)) != rows
