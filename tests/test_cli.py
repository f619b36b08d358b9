"""The command line: its frozen set of verbs and flags, its exit statuses, its two streams."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from forked import preceptor
from preceptor.cli import app
from preceptor.lab.cast import MEMBERS
from preceptor.recipes.starter import settings_schema


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "preceptor.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"},
        check=False,
    )


def test_verbs_and_flags_are_frozen() -> None:
    """A new flag is a decision: it needs a reason, a page in docs/ and a line here."""
    group = typer.main.get_command(app)
    verbs = getattr(group, "commands", {})
    found = {
        name: sorted(
            option
            for parameter in verb.params
            for option in (*parameter.opts, *parameter.secondary_opts)
        )
        for name, verb in verbs.items()
    }
    assert found == {
        "select": ["--by", "--dry-run", "--out", "--pilot", "--race", "config", "overrides"],
        "plan": [
            "--json",
            "--like",
            "--out",
            "--probe",
            "--rate",
            "--recipe",
            "config",
            "overrides",
        ],
        "compare-criteria": ["--json", "--out", "--outcomes", "runs"],
        "ask": ["--dry-run", "--out", "config", "overrides"],
        "route": ["--alpha", "--instructions", "--out", "--prompts", "--seed", "selection"],
        "export": ["--out", "config", "overrides"],
        "distill": ["--ablate", "--dry-run", "--no-ablate", "--out", "config", "overrides"],
        "align": ["--dry-run", "--out", "config", "overrides"],
        "sft": ["--dry-run", "--out", "config", "overrides"],
        "cache": ["--dry-run", "--out", "config", "overrides"],
        "upcycle": ["--out", "config", "overrides"],
        "evaluate": ["--dry-run", "--fail-if", "--out", "arguments"],
        "study": ["--budget", "--dry-run", "--out", "config", "overrides"],
        "tour": ["--controls", "--no-controls", "--out", "--seeds", "--selection"],
        "init": ["--if-missing", "--no-if-missing", "--recipe", "path"],
        "schema": ["recipe"],
        "lab": [],
        "report": ["--csv", "--markdown", "--out", "other", "run"],
        "serve": ["--host", "--no-open", "--open", "--port", "runs"],
        "store": [],  # list, compact: tests/recipes/test_store.py
    }


def test_help_names_every_verb() -> None:
    done = run("--help")
    assert done.returncode == 0
    for verb in ("select", "distill", "align", "sft", "cache", "upcycle", "init", "schema"):
        assert verb in done.stdout


def test_init_then_a_mistake(tmp_path: Path) -> None:
    """What init writes is read; a mistake is one message, exit status 2, no traceback."""
    done = run("init", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["select.yaml", "select.schema.json"]
    again = run("init", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.startswith("error: the file exists\n  where: select.yaml\n  next: ")
    assert run("init", "--if-missing", cwd=tmp_path).returncode == 0
    wrong = run("select", "select.yaml", "--out", "run", "betta=2", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.splitlines()[:3] == [
        "error: unknown setting 'betta'",
        "  where: select.yaml",
        "  found: did you mean 'beta'?",
    ]
    assert not (tmp_path / "run").exists()


def test_a_model_that_is_not_there(tmp_path: Path, tall: list[dict[str, object]]) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tall))
    (tmp_path / "s.yaml").write_text(
        "base: nobody/has-this-model\nanswers: a.jsonl\nrewards: [reward]\n"
    )
    done = preceptor("select", "s.yaml", "--out", "run", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the model cannot be opened\n  where: nobody/has-this")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status"), [((), 2), (("select", "x.yaml"), 2), (("frobnicate",), 2)]
)
def test_misuse_shows_usage(arguments: tuple[str, ...], status: int) -> None:
    done = run(*arguments)
    assert done.returncode == status
    assert "Usage: " in done.stdout + done.stderr


def test_schema_prints_json() -> None:
    done = run("schema")
    assert json.loads(done.stdout) == settings_schema("select")
    assert run("schema", "nothing").returncode == 2


def test_lab_lists_every_member_and_split() -> None:
    lines = run("lab").stdout.splitlines()
    names = [line.split()[0] for line in lines]
    assert names == [f"lab:{name}" for name in (*MEMBERS, "train", "selection", "test")]
    assert "teacher, mixtral, width 96, 4 layers" in lines[names.index("lab:cedar-moe")]
