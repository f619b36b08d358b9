"""What a verb does, whoever calls it: the command line and the functions of Python alike.

Both come here with settings; what they print or give back is their own. Reaches no torch: a recipe
is imported when it is run.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from preceptor.core.artifacts import SETTINGS
from preceptor.core.errors import PreceptorError
from preceptor.recipes.planning.jobs import TRAINED
from preceptor.recipes.settings.loading import Settings, validated
from preceptor.recipes.settings.select import Select


def select_settings(
    tree: Mapping[str, Any],
    where: str,
    *,
    by: str | None = None,
    pilot: bool = False,
    race: bool = False,
) -> Select:
    """Settings of a selection, with what its options ask for.

    Args:
        tree: names and values of the settings.
        where: they stand, for errors.
        by: replaces the setting `by`; None leaves it.
        pilot, race: these settings with all their defaults, where `tree` does not set them.

    Raises:
        SettingsError: settings that cannot be used.
    """
    asked = dict(tree)
    if by is not None:
        asked["by"] = by
    for name, wanted in (("pilot", pilot), ("race", race)):
        if wanted and asked.get(name) is None:
            asked[name] = {}
    return validated(Select, asked, where)


def need_training(recipe: str, settings: Settings | None = None) -> None:
    """One clear error where a run trains, and the extra that trains is not installed."""
    pilot = getattr(settings, "pilot", None)
    if recipe not in (*TRAINED, "study", "tour") and pilot is None:
        return
    missing = [name for name in ("trl", "peft", "accelerate") if find_spec(name) is None]
    if missing:
        raise PreceptorError(
            "training needs packages that are not installed",
            found=f"no {', '.join(missing)}",
            next_step="pip install 'preceptor[train]'",
        )


def command_of(recipe: str, settings: Any, out: Path) -> str:
    """The command line that makes a run again from the settings in its own folder."""
    words = ["preceptor", recipe, str(out / SETTINGS), "--out", str(out)]
    for condition in getattr(settings, "fail_if", ()):  # kept out of the folder's settings
        words += ["--fail-if", condition]
    return shlex.join(words)


def run(recipe: str, settings: Any, out: Path, command: str) -> Any:
    """Run a recipe to the end, and give the content of its result file.

    Args:
        recipe: `select`, `ask`, `distill`, `align`, `sft`, `evaluate` or `study`.
        settings: of that recipe.
        out: the run folder; a begun one is finished.
        command: what makes the run again, for the provenance.

    Raises:
        PreceptorError: whatever the recipe refuses.
    """
    match recipe:
        case "select":
            from preceptor.recipes.select import select

            return select(settings, out, command)
        case "ask":
            from preceptor.recipes.ask import ask

            return ask(settings, out, command)
        case "distill":
            from preceptor.recipes.distill import distill

            return distill(settings, out, command)
        case "align":
            from preceptor.recipes.align import align

            return align(settings, out, command)
        case "sft":
            from preceptor.recipes.sft import sft

            return sft(settings, out, command)
        case "evaluate":
            from preceptor.recipes.evaluate import evaluate

            return evaluate(settings, out, command)
        case "study":
            from preceptor.recipes.study import study

            return study(settings, out, command)
    raise ValueError(f"no verb {recipe!r}")
