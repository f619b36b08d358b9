"""Where tables are printed."""

from __future__ import annotations

import sys

from rich.console import Console

WIDTH = 118  # of a table that does not go to a terminal


def wide_console(width: int = WIDTH) -> Console:
    """The terminal in its own width, or a file or pipe in one that tables fit."""
    return Console(width=None if sys.stdout.isatty() else width)
