"""`preceptor init` and `preceptor schema`: a commented starter file and its JSON Schema."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from preceptor.core.artifacts import write_bytes
from preceptor.core.errors import SettingsError, nearest
from preceptor.recipes.settings.asking import Ask, Export
from preceptor.recipes.settings.evaluation import Evaluate
from preceptor.recipes.settings.loading import Settings
from preceptor.recipes.settings.select import Select
from preceptor.recipes.settings.study import Study
from preceptor.recipes.settings.training import Align, Cache, Distill, Sft, Upcycle

RECIPES: dict[str, type[Settings]] = {
    "select": Select,
    "ask": Ask,
    "export": Export,
    "distill": Distill,
    "align": Align,
    "sft": Sft,
    "cache": Cache,
    "upcycle": Upcycle,
    "evaluate": Evaluate,
    "study": Study,
}


def settings_schema(recipe: str) -> dict[str, Any]:
    """The JSON Schema of a recipe's settings file (raises SettingsError)."""
    _refuse_unknown(recipe)
    return RECIPES[recipe].model_json_schema()


def _refuse_unknown(recipe: str) -> None:
    if recipe not in RECIPES:
        raise SettingsError(
            f"no recipe {recipe!r}",
            found=nearest(recipe, RECIPES),
            next_step="name one of them",
        )


def write_starter(path: Path, recipe: str = "select") -> list[Path]:
    """Write the starter file and, beside it, the schema that its first line names.

    Raises:
        SettingsError: no such recipe, the file exists, or its folder cannot be written.
    """
    _refuse_unknown(recipe)
    if path.exists():
        raise SettingsError(
            "the file exists", where=str(path), next_step="give another name, or remove it"
        )
    schema = path.with_suffix(".schema.json")
    text = resources.files("preceptor.recipes").joinpath(f"{recipe}.yaml").read_text("utf-8")
    head = f"# yaml-language-server: $schema={schema.name}\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            "the starter file cannot be written",
            where=str(path),
            found=error.strerror or str(error),
            next_step="give a path in a folder that you may write",
        ) from error
    write_bytes(path, (head + text).encode())
    write_bytes(schema, (json.dumps(settings_schema(recipe), indent=2) + "\n").encode())
    return [path, schema]
