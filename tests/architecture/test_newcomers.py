"""A newcomer follows the how-to pages: a criterion, a loss, a teacher, each one file and one line.

The code comes from the pages. It is put into a copy of the package, whose command line then uses
each by its name on the shelf.
"""

from __future__ import annotations

import ast
import json
import math
import os
import re
import shutil
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from forked import SECONDS, start
from tools import house

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"


@dataclass(frozen=True)
class Page:
    """What a page tells a newcomer: which function becomes which file, its line, its settings."""

    function: str
    path: str
    shelf: str
    line: str
    settings: dict[str, Any]
    code: str


def read(name: str) -> Page:
    text = (HOW_TO / name).read_text(encoding="utf-8")
    module, told = text.split("\n## Put it on the shelf\n")
    function, path = re.findall(r"`(\w+)` from\s+above.*?the file `([\w/]+\.py)`", told, re.S)[0]
    (shelf,) = re.findall(r"`(src/[\w/]+/__init__\.py)`", told)
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", told, re.M | re.S)
    by_kind = dict(blocks)
    assert len(blocks) == 2 and set(by_kind) == {"python", "yaml"}
    examples = re.findall(r"^```python[^\n]*\n(.*?)^```", module, re.M | re.S)
    complete = next(text for text in examples if f"def {function}(" in text)
    return Page(
        function,
        path,
        shelf,
        by_kind["python"],
        yaml.safe_load(by_kind["yaml"]),
        alone(complete, function),
    )


def alone(module: str, function: str) -> str:
    """The imports of a module and one of its functions, as they stand there."""
    tree = ast.parse(module)
    kept: list[str] = []
    for node in tree.body:
        named = isinstance(node, ast.FunctionDef) and node.name == function
        if named or isinstance(node, ast.Import | ast.ImportFrom):
            first = min([node.lineno, *(own.lineno for own in getattr(node, "decorator_list", []))])
            kept += ["", *module.splitlines()[first - 1 : node.end_lineno]]
    return "\n".join(kept) + "\n"


PAGES = {
    kind: read(name)
    for kind, name in {
        "criterion": "own-criterion.md",
        "loss": "own-loss.md",
        "teacher": "own-teacher.md",
    }.items()
}


def contents(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*.py")}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, whose lab is the real one's."""
    root = tmp_path_factory.mktemp("newcomer")
    package = root / "src" / "preceptor"
    shutil.copytree(
        house.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__", "models", "vendor")
    )
    shutil.copytree(house.PACKAGE / "models", package / "models")
    (package / "lab" / "models").symlink_to(house.PACKAGE / "lab" / "models")
    (package / "reporting" / "vendor").symlink_to(house.PACKAGE / "reporting" / "vendor")
    for page in PAGES.values():
        before = contents(root)
        assert page.path not in before
        (root / page.path).write_text(page.code, encoding="utf-8")
        shelf = root / page.shelf
        table = re.compile(r"^([A-Z]+ = \{\n)", re.M)
        shelf.write_text(table.sub(rf"\1    {page.line}", shelf.read_text(), count=1))
        after = contents(root)
        assert {name for name in after if after[name] != before.get(name)} == {
            page.path,
            page.shelf,
        }
        assert len(after[page.shelf].splitlines()) == len(before[page.shelf].splitlines()) + 1
    return root


def run(copy: str, commands: list[list[str]]) -> None:
    """The command line of the copy, in a forked process: the package is imported anew."""
    os.dup2(os.open(Path(copy, "said"), os.O_WRONLY | os.O_CREAT), 2)
    os.chdir(copy)
    for name in [name for name in sys.modules if name.partition(".")[0] == "preceptor"]:
        del sys.modules[name]
    sys.path.insert(0, str(Path(copy, "src")))
    cli = import_module("preceptor.cli")
    assert cli.__file__ == str(Path(copy, "src", "preceptor", "cli.py"))
    for arguments in commands:
        cli.app(arguments, standalone_mode=False)


@pytest.fixture(scope="module")
def ran(copy: Path) -> Path:
    """`select` with the criterion and the teacher, and `distill` with the loss."""
    teachers = [{"model": "lab:elm-m", "max_new_tokens": 8}, *PAGES["teacher"].settings["teachers"]]
    selection = {
        "base": "lab:base-notes",
        "instructions": "lab:selection",
        "max_instructions": 4,
        "teachers": teachers,
        "rewards": [{"kind": "verifier", "name": "correct", "function": "lab"}],
        **PAGES["criterion"].settings,
        "resamples": 100,
        "device": "cpu",
    }
    training = {
        "base": "lab:base-notes",
        "teacher": "lab:birch-m",
        "data": {
            "instructions": "lab:train",
            "max_rows": 4,
            "ask": {"model": "lab:birch-m", "max_new_tokens": 8},
        },
        "mix": 1.0,
        **PAGES["loss"].settings,
        "training": {"max_steps": 2, "batch_size": 2, "max_length": 64, "log_steps": 1},
        "device": "cpu",
    }
    commands = []
    for verb, tree in {"select": selection, "distill": training}.items():
        (copy / f"{verb}.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
        commands.append([verb, f"{verb}.yaml", "--out", verb])
    process = start(run, str(copy), commands)
    process.join(SECONDS)
    assert process.exitcode == 0, (copy / "said").read_text("utf-8")
    return copy


def test_the_pages_promise_one_file_and_one_line() -> None:
    for page in PAGES.values():
        assert page.function == Path(page.path).stem
        assert Path(page.shelf).parent == Path(page.path).parent
        assert page.line.count("\n") == 1 and page.line.strip().endswith(",")
        module = page.path.removeprefix("src/").removesuffix(".py").replace("/", ".")
        entry = ast.literal_eval(f"{{{page.line}}}")
        assert entry == {page.function: f"{module}:{page.function}"}


def test_a_criterion_is_used_by_its_name(ran: Path) -> None:
    ranking = json.loads((ran / "select" / "ranking.json").read_text())
    found = ranking["criteria"]["reward_per_token"]
    assert (found["direction"], found["unit"]) == ("higher", "reward per token")
    rows = pq.read_table(ran / "select" / "signals.parquet").to_pylist()
    for row in found["teachers"]:
        own = [one for one in rows if one["teacher"] == row["teacher"]]
        wanted = sum(one["reward.correct"] for one in own) / sum(one["n_tokens"] for one in own)
        assert row["score"] == pytest.approx(wanted)
    assert len(found["teachers"]) == 2


def test_a_teacher_is_used_by_its_name(ran: Path) -> None:
    rows = pq.read_table(ran / "select" / "answers.parquet").to_pylist()
    own = [row for row in rows if row["teacher"] == "shouting"]
    assert len(own) == 4
    assert all(row["response"] == row["instruction"].upper().strip() for row in own)


def test_a_loss_is_used_by_its_name(ran: Path) -> None:
    kept = yaml.safe_load((ran / "distill" / "settings.yaml").read_text())
    assert [own["name"] for own in kept["losses"]] == ["hellinger"]
    lines = (ran / "distill" / "metrics.jsonl").read_text().splitlines()
    values = [row["divergence"] for row in map(json.loads, lines) if "divergence" in row]
    assert len(values) == 2 and all(0 < value < 1 and math.isfinite(value) for value in values)
