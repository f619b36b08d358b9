"""Checkpoints that a kill may cut off at any moment: which of them are whole."""

from __future__ import annotations

import shutil
from pathlib import Path

from preceptor.core.artifacts import write_json

WHOLE = "whole.json"  # written last: a checkpoint without it was cut off by a kill


def mark_whole(checkpoint: Path, step: int) -> None:
    """Say that everything of a checkpoint has been written."""
    write_json(checkpoint / WHOLE, {"step": step})


def last_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint of a folder; None where there is none."""
    found = [path.parent for path in folder.glob(f"checkpoint-*/{WHOLE}")]
    newest = max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
    return None if newest is None else str(newest)


def drop_cut_checkpoints(folder: Path) -> None:
    """Remove checkpoints that a kill cut off; the one before each is whole."""
    for checkpoint in folder.glob("checkpoint-*"):
        if not (checkpoint / WHOLE).exists():
            shutil.rmtree(checkpoint)
