"""Settings that a page shows, whole or in part, checked by the classes that runs use."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from blocks import Block, PageError

from preceptor.core.errors import PreceptorError
from preceptor.recipes.settings.loading import load_settings
from preceptor.recipes.starter import RECIPES

LOCAL = re.compile(
    r"^(adapters|data|models|prompts|runs|tasks)(/[\w.\-/]+)?$|^[\w-]+\.(parquet|jsonl?|txt)$"
)
MODEL = "lab:base-notes"
LOSS = {"name": "forward_kl", "weight": 1.0, "temperature": 1.0}
VERIFIER = {"kind": "verifier", "name": "correct", "function": "lab"}
RECORDED = {"answers": "some/answers"}
# the least that a recipe's settings must say, beside what a page shows
REST: dict[str, dict[str, Any]] = {
    "select": {"base": MODEL, "rewards": [VERIFIER]},
    "ask": {},
    "export": {"run": "runs/ask", "sets": {"greedy": {"pick": "greedy"}}},
    "distill": {"base": MODEL, "teacher": MODEL, "data": RECORDED, "mix": 1.0, "losses": [LOSS]},
    "align": {
        "base": MODEL,
        "route_by": "domain",
        "experts": {"shop": MODEL},
        "reference": MODEL,
        "data": RECORDED,
        "mix": 1.0,
        "divergence": LOSS,
        "mean": "tokens",
    },
    "sft": {"base": MODEL, "data": RECORDED},
    "cache": {
        "base": MODEL,
        "teacher": MODEL,
        "data": RECORDED,
        "form": "top_k",
        "k": 8,
        "temperature": 1.0,
    },
    "upcycle": {"models": [MODEL], "experts": 2, "per_token": 1},
    "evaluate": {"models": [MODEL], "benchmarks": ["lab"]},
    "study": {"bases": [MODEL], "rewards": [VERIFIER], "benchmarks": ["lab"]},
}


class _Once(yaml.SafeLoader):
    """YAML in which a name stands once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise PageError(f"{name!r} stands twice in one mapping of a YAML block")
        return super().construct_mapping(node, deep)


def check_settings(block: Block, folder: Path) -> None:
    """The block's documents are settings of a recipe, or parts of them (raises PageError).

    Args:
        folder: an empty one; what the settings name is put there, so that only they are judged.
    """
    wanted, _, path = (block.said("settings") or [""])[0].partition(".")
    if wanted and wanted not in RECIPES:
        raise PageError(f"{block.place}: no recipe {wanted!r}")
    for number, tree in enumerate(yaml.load_all(block.text, _Once)):
        for name in reversed(path.split(".") if path else []):
            tree = {name: tree}
        if not isinstance(tree, dict):
            raise PageError(f"{block.place}: `settings RECIPE.NAME` must say where a list belongs")
        faults = []
        for recipe in [wanted] if wanted else RECIPES:
            if not wanted and not set(tree) <= set(RECIPES[recipe].model_fields):
                continue
            fault = _fault(recipe, tree, folder / f"{number}-{recipe}")
            if fault is None:
                break
            faults.append(f"{recipe}: {fault}")
        else:
            told = "\n".join(faults) or f"no recipe has all of {', '.join(tree)}"
            raise PageError(f"{block.place}: these are no settings\n{told}")


def _fault(recipe: str, shown: dict[str, Any], folder: Path) -> str | None:
    """Why a part cannot stand in a recipe's settings."""
    tree = {**REST[recipe], **shown}
    if "answers" in RECIPES[recipe].model_fields and recipe != "evaluate":
        if tree.get("teachers") and "instructions" not in tree:
            tree["instructions"] = "lab:selection"
        if not tree.get("teachers") and "answers" not in tree:
            tree["answers"] = "some/answers"
    folder.mkdir()
    _put_there(tree, folder)
    (folder / "settings.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    try:
        load_settings(RECIPES[recipe], folder / "settings.yaml")
    except PreceptorError as error:
        return str(error)
    return None


def _put_there(value: Any, folder: Path) -> None:
    """An empty file or folder for every path that settings name."""
    for inner in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        _put_there(inner, folder)
    if isinstance(value, str) and LOCAL.match(value):
        place = folder / value
        if place.suffix in (".parquet", ".json", ".jsonl", ".csv", ".txt"):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        else:
            place.mkdir(parents=True, exist_ok=True)
