"""Imports run down only, and reading settings or help loads no heavy library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "datasets", "ray", "vllm", "openai")
LIGHT = [
    "preceptor",
    "preceptor.cli",
    "preceptor.core.run",
    "preceptor.core.stage",
    "preceptor.core.progress",
    "preceptor.criteria.car",
    "preceptor.criteria.ifd",
    "preceptor.lab.cast",
    "preceptor.lab.verifier",
    "preceptor.recipes.examining.arguments",
    "preceptor.recipes.settings.select",
    "preceptor.recipes.starter",
    "preceptor.recipes.settings.training",
    "preceptor.losses",
    "preceptor.reporting.pages.select.report",
    "preceptor.reporting.terminal.evaluation",
    "preceptor.reporting.findings.quality",
    "preceptor.reporting.terminal.ranking",
    "preceptor.reporting.pages.training.report",
    "preceptor.rewards",
    "preceptor.teachers",
]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )


def test_import_contracts_hold() -> None:
    done = python("-c", "from importlinter.cli import lint_imports_command as c; c()")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 kept, 0 broken" in done.stdout


@pytest.fixture(scope="module")
def brought() -> dict[str, list[str]]:
    """The heavy libraries that each light module brings, all imported by one process in turn."""
    code = (
        "import importlib, json, sys\nfound, before = {}, set()\n"
        f"for module in {LIGHT}:\n"
        "    importlib.import_module(module)\n"
        f"    now = set({HEAVY}) & set(sys.modules)\n"
        "    found[module], before = sorted(now - before), now\n"
        "print(json.dumps(found))"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_no_heavy_library(brought: dict[str, list[str]], module: str) -> None:
    assert brought[module] == []


def test_help_loads_no_heavy_library() -> None:
    done = python("-X", "importtime", "-m", "preceptor.cli", "--help")
    assert done.returncode == 0
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typer" in loaded
    assert not loaded & {*HEAVY, "numpy", "pyarrow", "pydantic"}


def test_the_package_needs_no_environment() -> None:
    """Importing reads no home folder and no variable of the user."""
    bare = {"PATH": os.environ["PATH"]}
    code = "import preceptor.cli, preceptor.recipes.settings.select"
    assert subprocess.run([sys.executable, "-c", code], env=bare, check=False).returncode == 0
