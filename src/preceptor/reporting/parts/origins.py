"""What stands behind a page: its result file, checked, the run's provenance, and what it took."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preceptor.core import artifacts
from preceptor.core.errors import RunFolderError
from preceptor.reporting.parts.wording import hours_words

_BASICS = {"preceptor": "Made with preceptor", "status": "Status"}


def read_result(path: Path, version: int, what: str, verb: str) -> dict[str, Any]:
    """The JSON object in `path`, refused where it is missing or of another version.

    Args:
        what: it holds: "comparison".
        verb: that makes it: "compare-criteria".

    Raises:
        RunFolderError: see above.
    """
    found = read_json(path)
    if not isinstance(found, dict):
        raise RunFolderError(
            f"the folder holds no {what}",
            where=str(path),
            found="no such file" if found is None else type(found).__name__,
            next_step=f"give the --out of `preceptor {verb}`",
        )
    if found.get("version") != version:
        raise RunFolderError(
            f"the {what} has a version this release cannot read",
            where=str(path),
            found=repr(found.get("version"))[:80],
            next_step=f"make it again with this release (version {version})",
        )
    return found


def read_json(path: Path) -> Any:
    """The JSON in `path`, or None where there is no such file (raises RunFolderError)."""
    text = read_text(path)
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        raise unreadable(path, "JSON", error) from error


def read_text(path: Path) -> str | None:
    """The text in `path`, or None where there is no such file."""
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else None


def unreadable(path: Path, kind: str, error: Exception) -> RunFolderError:
    """The error about a file that is no JSON, or no YAML."""
    return RunFolderError(
        f"a file of the run folder is not {kind}",
        where=str(path),
        found=str(error),
        next_step="run it again, or restore the file",
    )


def changed_by_hand(path: Path | str, what: str, error: Exception) -> RunFolderError:
    """The error about a result file that has not what its version promises.

    Args:
        path: of the file.
        what: it holds ("the evaluation"), or its name.
    """
    return RunFolderError(
        f"{what} is incomplete or was changed by hand",
        where=str(path),
        found=f"{type(error).__name__}: {error}",
        next_step="run it again, or restore the file",
    )


def origin_of(folder: Path) -> dict[str, Any]:
    """What the provenance section of a page shows, of the two files that every run leaves.

    Keys: `command` (None where nobody recorded it), `basics` (words -> value), `rest` (all else,
    settings only where there is no file of them), `settings` (text of the file, or None),
    `recorded` (whether there is a provenance), `raw` (it as it stands; {} where it is no object).
    """
    provenance = read_json(folder / artifacts.PROVENANCE)
    settings = read_text(folder / artifacts.SETTINGS)
    known = provenance if isinstance(provenance, dict) else {}
    elsewhere = {"command", *_BASICS, *(() if settings is None else ("settings",))}
    rest = {key: value for key, value in known.items() if key not in elsewhere}
    return {
        "command": known.get("command"),
        "basics": {words: known[key] for key, words in _BASICS.items() if key in known},
        "rest": rest if isinstance(provenance, dict) else provenance,
        "settings": settings,
        "recorded": provenance is not None,
        "raw": known,
    }


def said_in(sentence: str, verdict: str) -> bool:
    """Whether a sentence, or all but its last signs, is part of the verdict."""
    return sentence.removesuffix(".").removesuffix(")") in verdict


def with_cost(verdict: str, cost: str) -> str:
    """A sentence with what it cost to know, still one sentence: "A beats B; it took 2 minutes."."""
    return f"{verdict.rstrip().removesuffix('.')}; {cost}." if cost else verdict


def spent(provenance: Mapping[str, Any]) -> str:
    """What a run took, for `with_cost`: "it took 12 minutes and cost 3.20"; "" where unknown.

    Time is that of all stages and of asking, or of the last run where that is longer; cost is the
    sum of what sources charged by their `price`.
    """
    asked = [own for own in _values(provenance.get("asked")) if isinstance(own, Mapping)]
    seconds = sum(map(_number, _values(provenance.get("stage_seconds"))))
    seconds += sum(_number(own.get("seconds")) for own in asked)
    seconds = max(seconds, _number(provenance.get("wall_seconds_of_last_run")))
    cost = sum(_number(own.get("cost")) for own in asked)
    parts = [f"took {time_words(seconds)}"] if seconds else []
    parts += [f"cost {cost:,.2f}"] if cost else []
    return f"it {' and '.join(parts)}" if parts else ""


def time_words(seconds: float) -> str:
    """ "3.2 hours", "12 minutes", "40 seconds", "under a second"."""
    return hours_words(seconds / 3600) if seconds >= 1 else "under a second"


def _values(tree: Any) -> list[Any]:
    return list(tree.values()) if isinstance(tree, Mapping) else []


def _number(value: Any) -> float:
    """A finite number, else 0: the file may have been changed by hand."""
    fit = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if fit else 0.0
