"""What recipes read before anything else: tables with their hashes, questions, names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from preceptor.core.errors import SettingsError
from preceptor.core.run import hash_input
from preceptor.data.sources import read_source
from preceptor.recipes.settings.shared import Source

Question = tuple[str, str, dict[str, Any]]  # id, text, whole row


def read_table(source: Source, inputs: dict[str, str], limit: int | None = None) -> pa.Table:
    """The rows of a source; its hash goes to `inputs` (raises DataError)."""
    table = read_source(source.path, source.split, limit)
    name = source.path if source.split == "train" else f"{source.path} ({source.split})"
    inputs[name] = hash_input(source.path, table)
    return table


def refuse_both(live: Sequence[str], recorded: Sequence[str], kind: str = "teacher") -> None:
    """Nobody is live and recorded at once (raises SettingsError)."""
    both = sorted({*live} & {*recorded})
    if both:
        raise SettingsError(
            f"a live {kind} has the name of a recorded one",
            where=f"{kind}s",
            found=both[0],
            next_step=f"set another `name` for the live {kind}",
        )
