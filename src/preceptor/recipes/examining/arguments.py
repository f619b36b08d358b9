"""The arguments of `preceptor evaluate`, told apart, and the settings they stand for.

Reaches no torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from preceptor.core.errors import SettingsError
from preceptor.recipes.settings.evaluation import Evaluate
from preceptor.recipes.settings.loading import load_settings

_OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.\w+)*=")  # a path like runs/lr=1/model is none


def load_evaluation(arguments: Sequence[str], fail_if: Sequence[str] = ()) -> Evaluate:
    """The settings of `MODEL... CONFIG [KEY=VALUE]...`, in any order.

    `KEY=VALUE` replaces a setting, the last other argument that ends in `.yaml` or `.yml` is the
    settings file, and the others are models, which come after those of the file. The file may be
    left out where the overrides name the benchmarks.

    Args:
        fail_if: conditions that come after those of the file.

    Raises:
        SettingsError: no settings file, or settings that cannot be used.
    """
    overrides = [text for text in arguments if _OVERRIDE.match(text)]
    others = [text for text in arguments if not _OVERRIDE.match(text)]
    files = [place for place, text in enumerate(others) if text.endswith((".yaml", ".yml"))]
    if not files and not any(text.startswith("benchmarks=") for text in overrides):
        raise SettingsError(
            "there is no settings file that names the benchmarks",
            where="command line",
            found=" ".join(arguments),
            next_step="name one (.yaml) after the models, or add 'benchmarks=[lab]'",
        )
    file = Path(others.pop(files[-1])) if files else None
    return load_settings(Evaluate, file, overrides, {"models": others, "fail_if": fail_if})
