"""Where the lab's things are: `lab:NAME` for a model, `lab:SPLIT` for an instruction set."""

from __future__ import annotations

from pathlib import Path

from preceptor.core.errors import SettingsError, nearest
from preceptor.lab.cast import MEMBERS
from preceptor.lab.tasks import SPLITS

MODELS_FOLDER = Path(__file__).parent / "models"
PREFIX = "lab:"


def model_folder(name: str) -> Path:
    """The checkpoint folder of a lab model named `lab:NAME` (raises SettingsError)."""
    name = name.removeprefix(PREFIX)
    if name not in MEMBERS:
        raise SettingsError(
            "no such lab model",
            where=f"lab:{name}",
            found=nearest(name, MEMBERS),
            next_step="`preceptor lab` lists what the lab holds",
        )
    return MODELS_FOLDER / name


def split_name(name: str) -> str:
    """The split of an instruction set named `lab:SPLIT` (raises SettingsError)."""
    split = name.removeprefix(PREFIX)
    if split not in SPLITS:
        raise SettingsError(
            "no such lab instruction set",
            where=name,
            found=nearest(split, SPLITS),
            next_step=f"use one of {', '.join(PREFIX + s for s in SPLITS)}",
        )
    return split
