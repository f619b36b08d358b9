"""Wheel and sdist: built as a release builds them, compared with the sources, and imported."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools import package

pytest.importorskip("build")
pytest.importorskip("hatchling")


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, and the wheel that is made of it."""
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, package.ROOT],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def wheel_of(dist: Path) -> Path:
    (wheel,) = dist.glob("*.whl")
    return wheel


def test_archives_hold_the_sources_and_nothing_else(
    dist: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert package.main([str(dist)]) == 0, capsys.readouterr().err
    assert "preceptor/py.typed" in package.names_in(wheel_of(dist))


def test_what_is_missing_or_too_much_is_told(dist: Path, tmp_path: Path) -> None:
    """A wheel without its vendored licences, with a cache, a run and the tests in it."""
    broken = tmp_path / wheel_of(dist).name
    with zipfile.ZipFile(wheel_of(dist)) as whole, zipfile.ZipFile(broken, "w") as made:
        for name in whole.namelist():
            if not name.startswith("preceptor/reporting/vendor/LICENSE."):
                made.writestr(name, whole.read(name) if name.endswith(".py") else b"")
        for more in ("preceptor/core/__pycache__/run.pyc", "tests/test_cli.py"):
            made.writestr(more, b"")
        made.writestr("preceptor/runs/first/provenance.json", b"")
    told = package.faults(broken)
    assert "lacks preceptor/reporting/vendor/LICENSE.*" in told
    assert "lacks preceptor/reporting/vendor/LICENSE.d3" in told
    assert "holds tests" in told
    assert "holds preceptor/core/__pycache__/run.pyc" in told
    assert "holds preceptor/runs/first/provenance.json" in told
    assert package.faults(wheel_of(dist)) == []


def test_an_unpacked_wheel_works_far_from_the_sources(dist: Path, tmp_path: Path) -> None:
    place = tmp_path / "installed"
    with zipfile.ZipFile(wheel_of(dist)) as wheel:
        wheel.extractall(place)
    code = (
        "import preceptor.cli, preceptor.reporting.pages.select.report as pages;"
        "from preceptor.lab.place import model_folder;"
        "print(preceptor.__file__, pages.__file__, model_folder('base-notes'), sep='\\n');"
        "preceptor.cli.app(['init'], standalone_mode=False);"
        "preceptor.cli.app(['lab'], standalone_mode=False)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(place)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert all(line.startswith(str(place)) for line in lines[:3]), lines[:3]
    assert (Path(lines[2]) / "model.safetensors").is_file()
    assert lines[3:5] == ["select.yaml", "select.schema.json"]
    assert (tmp_path / "select.yaml").is_file()
    assert any(line.startswith("lab:base-notes") for line in lines[5:])
