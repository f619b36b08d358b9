"""What the pages assume that their reader has: models, data, finished runs. All of it is the lab's.

given models/my-base        a checkpoint: MODELS; any other name is a copy of the base
given data/answers.parquet  a table: DATA
given select.yaml           settings of a recipe: what `preceptor init` writes, made small: SMALL
given runs/first            a finished selection; `runs/student:distill` a run of another recipe
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from blocks import PageError
from commands import run_preceptor

MODELS = {
    "teacher": "birch-m",
    "teacher-a": "birch-l",
    "teacher-b": "birch-m",
    "teacher-small": "aster-s",
    "shop-expert": "marlow-expert",
    "law": "marlow-expert",
    "medicine": "birch-l",
    "judge": "aster-m",
}
VERIFIER = {"kind": "verifier", "name": "correct", "function": "lab"}
GRADED = {
    "instructions": "lab:test",
    "max_instructions": 12,
    "reward": VERIFIER,
    "max_new_tokens": 16,
}
SHORT = {"learning_rate": 0.002, "max_steps": 2, "batch_size": 8, "max_length": 256}
# settings that replace those of a starter file, so that its run takes a few seconds
SMALL: dict[str, dict[str, Any]] = {
    "select": {
        "base": "models/my-base",
        "instructions": "data/instructions.parquet",
        "teachers": ["models/teacher-a", "models/teacher-b", "lab:aster-s"],
        "reference": None,
        "resamples": 200,
    },
    "ask": {
        "instructions": "data/instructions.parquet",
        "teachers": [{"model": "models/teacher-b", "max_new_tokens": 24}],
        "decodings": {"temperature": [0.0, 1.0], "top_p": [1.0], "samples": 2},
    },
    "export": {},
    "distill": {
        "base": "models/my-base",
        "teacher": "models/teacher-b",
        "data": {"answers": "data/answers.parquet", "teacher": "teacher-b"},
        "training": SHORT,
        "quality": GRADED,
    },
    "align": {
        "base": "models/my-base",
        "experts": {"shop": "models/shop-expert"},
        "reference": "models/teacher-b",
        "data": {"answers": "data/answers.parquet", "teacher": "teacher-b"},
        "training": SHORT,
        "quality": GRADED,
    },
    "sft": {
        "base": "models/my-base",
        "data": {"answers": "data/answers.parquet", "teacher": "teacher-b"},
        "training": SHORT,
        "quality": GRADED,
    },
    "cache": {
        "base": "models/my-base",
        "teacher": "models/teacher-b",
        "data": {"answers": "data/answers.parquet", "teacher": "teacher-b"},
    },
    "upcycle": {"models": ["models/my-base"]},
    "evaluate": {
        "models": ["models/my-base", "models/teacher-b"],
        "benchmarks": [{"kind": "lab", "max_questions": 24, "max_new_tokens": 16}],
        "reference": "my-base",
        "fail_if": [],
    },
    "study": {
        "bases": ["models/my-base"],
        "instructions": "data/instructions.parquet",
        "teachers": [{"model": "lab:birch-m", "max_new_tokens": 24}, "lab:aster-s"],
        "criteria_on": 24,
        "training": {**SHORT, "gradient_norms": False},
        "benchmarks": [{"kind": "lab", "max_questions": 24, "max_new_tokens": 16}],
        "runs": {"kind": "here"},
    },
}
NEEDED = {  # what the small settings of a recipe name, beside models and data
    "export": ["runs/ask:ask"],
}
COMMON = ["models/my-base", "models/teacher-a", "models/teacher-b", "models/shop-expert"]
N_GENERAL, N_SHOP = 24, 12


class Givens:
    """Puts things into the folder of a page; runs are made once, in a folder of its own."""

    def __init__(self, home: Path, reward_model: Callable[[], Path]) -> None:
        self.home, self.reward_model = home, reward_model

    def put(self, name: str, folder: Path) -> None:
        """Put one thing that a page names into its folder (raises PageError)."""
        path, _, recipe = name.partition(":")
        place = folder / path
        if place.exists():
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        top, _, rest = path.partition("/")
        if top == "models" and rest:
            shutil.copytree(self._model(rest), place)
        elif top == "data" and rest in DATA:
            shutil.copy(self._datum(rest), place)
        elif top == "runs" and rest:
            shutil.copytree(self._run(recipe or "select"), place, symlinks=True)
        elif path.endswith(".yaml") and (recipe or place.stem) in SMALL:
            self._settings(recipe or place.stem, place)
        else:
            raise PageError(f"nothing is known of {name!r}, that a page starts from: see givens.py")

    def _model(self, name: str) -> Path:
        from preceptor.lab.place import model_folder

        if name == "reward":
            return self.reward_model()
        return model_folder(f"lab:{MODELS.get(name, 'base-notes')}")

    def _datum(self, name: str) -> Path:
        path = self.home / "tables" / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            DATA[name](self, path)
        return path

    def _settings(self, recipe: str, place: Path) -> None:
        """A starter file, made small, with all that it names beside it."""
        from importlib import resources

        starter = resources.files("preceptor.recipes").joinpath(f"{recipe}.yaml")
        tree = yaml.safe_load(starter.read_text("utf-8")) | SMALL[recipe]
        tree = {name: value for name, value in tree.items() if value is not None}
        text = yaml.safe_dump(tree, sort_keys=False)
        for name in COMMON:
            if name in text:
                self.put(name, place.parent)
        for name in DATA:
            if f"data/{name}" in text:
                self.put(f"data/{name}", place.parent)
        for name in NEEDED.get(recipe, []):
            self.put(name, place.parent)
        place.write_text(text, encoding="utf-8")

    def _run(self, recipe: str) -> Path:
        """A finished run of a recipe, made by its command."""
        folder = self.home / recipe
        if not (folder / "run").exists():
            self.put(f"{recipe}.yaml", folder)
            done = run_preceptor([recipe, f"{recipe}.yaml", "--out", "run"], folder, {})
            if done.status:
                raise PageError(f"the run of {recipe} that pages start from: {done.err}")
        return folder / "run"


def _instructions(_: Givens, path: Path) -> None:
    """Instructions of the lab, a third of them about the shop."""
    from preceptor.lab.tasks import instructions

    rows: dict[str, list[dict[str, str]]] = {"general": [], "shop": []}
    for task in instructions("selection", 400):
        rows[task.domain].append(task.row())
    kept = rows["general"][:N_GENERAL] + rows["shop"][:N_SHOP]
    _write(kept, path)


def _write(rows: list[dict[str, Any]], path: Path) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _answers(givens: Givens, path: Path) -> None:
    """The answers of the selection that pages start from, with their rewards and all columns of
    their instructions."""
    run = givens._run("select")
    asked = pq.read_table(givens._datum("instructions.parquet")).to_pylist()
    questions = {row["instruction_id"]: row for row in asked}
    answers = pq.read_table(run / "answers.parquet").to_pylist()
    rewards = pq.read_table(run / "signals.parquet")["reward.correct"].to_pylist()
    rows = [
        {
            **questions[row["instruction_id"]],
            "generator": row["teacher"],
            "response": row["response"],
            "reward": reward,
        }
        for row, reward in zip(answers, rewards, strict=True)
    ]
    _write(rows, path)


def _sums(_: Givens, path: Path) -> None:
    """Two teachers' answers to sums, each with the right answer in the column `target`."""
    rows = [
        {
            "instruction": f"What is {a} + {a + 1}?",
            "teacher": teacher,
            "response": f"It is {2 * a + 1 + (a % 3 == off)}.",
            "target": str(2 * a + 1),
        }
        for a in range(2, 14)
        for off, teacher in enumerate(("ash", "beech"))
    ]
    _write(rows, path)


def _outcomes(_: Givens, path: Path) -> None:
    """How good a student of each teacher of the selection became."""
    rows = ("teacher-a,my-base,0.52", "teacher-b,my-base,0.61", "aster-s,my-base,0.43")
    path.write_text("\n".join(("teacher,base,outcome", *rows)) + "\n", encoding="utf-8")


def _pairs(_: Givens, path: Path) -> None:
    """Prompts and completions, as TRL reads them, with a domain each."""
    from preceptor.lab.tasks import instructions

    rows = [
        {"prompt": task.instruction, "completion": task.answer, "domain": task.domain}
        for task in instructions("train", 24)
    ]
    _write(rows, path)


DATA: dict[str, Callable[[Givens, Path], None]] = {
    "instructions.jsonl": _instructions,
    "instructions.parquet": _instructions,
    "many.parquet": _instructions,
    "answers.parquet": _answers,
    "outcomes.csv": _outcomes,
    "pairs.jsonl": _pairs,
    "routed.parquet": _answers,
    "shop.parquet": _answers,
    "sums.jsonl": _sums,
}
