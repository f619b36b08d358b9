"""Which recipes can be planned, and whose settings a file holds. Reaches no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from preceptor.core.errors import PreceptorError, SettingsError, nearest
from preceptor.recipes.settings.loading import Settings, place_of, read_tree, validated
from preceptor.recipes.starter import RECIPES

# who plans a recipe; each is imported only for its own, so that memory is that of its run
JOBS = {
    "select": "select:SelectJob",
    "ask": "select:AskJob",
    "distill": "courses:CourseJob",
    "align": "courses:CourseJob",
    "sft": "courses:CourseJob",
    "cache": "storing:CacheJob",
    "evaluate": "evaluating:EvaluateJob",
    "study": "studying:StudyJob",
}
TRAINED = ("distill", "align", "sft")  # they need the extra that trains


def read_any(
    path: Path, overrides: Sequence[str], recipe: str | None = None
) -> tuple[str, Settings]:
    """(recipe, its settings) of a file; without a name, the recipe whose settings they are.

    Raises:
        SettingsError: no such recipe, or a file that is no recipe's.
    """
    _refuse_unknown(recipe)
    return settings_of_any(read_tree(path, overrides), place_of(path), recipe)


def settings_of_any(
    tree: dict[str, Any], where: str, recipe: str | None = None
) -> tuple[str, Settings]:
    """The same of names and values, which stand at `where`."""
    _refuse_unknown(recipe)
    if recipe is not None:
        return recipe, validated(RECIPES[recipe], tree, where)
    faults: dict[str, PreceptorError] = {}
    for name in JOBS:
        try:
            return name, validated(RECIPES[name], tree, where)
        except PreceptorError as error:
            faults[name] = error
    if len({str(fault) for fault in faults.values()}) == 1:  # the file itself is at fault
        raise faults["select"]
    told = "; ".join(f"{name}: {fault.what}" for name, fault in faults.items())
    raise SettingsError(
        "the settings are of no recipe that can be planned",
        where=where,
        found=told,
        next_step="name the recipe with --recipe, and its own message says what is wrong",
    )


def _refuse_unknown(recipe: str | None) -> None:
    if recipe is not None and recipe not in JOBS:
        raise SettingsError(
            f"no plan for {recipe!r}",
            where="--recipe",
            found=nearest(recipe, JOBS),
            next_step=f"name one of {', '.join(JOBS)}",
        )
