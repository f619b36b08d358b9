"""The fleet of this process alone."""

from __future__ import annotations

from typing import Any

from preceptor.core.fleet import Fleet, run_here


def open_fleet(setting: Any) -> Fleet:
    """One worker in this process; `setting` has nothing to say."""
    del setting
    return run_here
