"""What a folder holds: which verb made it, whether it is finished, and what it found in a sentence.

A folder is told by its result file, and where there is none yet, by the settings that every run
leaves as it begins. Nothing but the folder is read: it may come from another machine.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from preceptor.core import artifacts
from preceptor.core.comparison import COMPARE, COMPARE_PAGE
from preceptor.core.errors import RunFolderError
from preceptor.core.study import STUDY, STUDY_PAGE
from preceptor.reporting.findings import run_verdicts
from preceptor.reporting.parts import origins

FINISHED = "finished"  # a status in `provenance.json`
ROUTE, STORE = "route.json", "signals/store.json"


@dataclass(frozen=True)
class Kind:
    """What one verb leaves.

    Attributes:
        name: of the verb; `compare` of `compare-criteria`.
        result: the file that holds what was found, below the folder.
        report: the page; `route`, `cache` and `export` leave none, `preceptor report` draws theirs.
        title: what it is in plain words.
        partial: whether the result can be read before the run is finished (a study that was given
            a budget).
    """

    name: str
    result: str
    report: str
    title: str
    partial: bool = False


KINDS = {
    kind.name: kind
    for kind in (
        Kind("select", artifacts.RANKING, artifacts.REPORT, "Teacher selection"),
        Kind("evaluate", artifacts.EVALUATION, artifacts.REPORT, "Evaluation"),
        Kind("study", STUDY, STUDY_PAGE, "Study", partial=True),
        Kind("compare", COMPARE, COMPARE_PAGE, "Comparison of criteria"),
        Kind("distill", artifacts.METRICS, artifacts.REPORT, "Distillation"),
        Kind("align", artifacts.METRICS, artifacts.REPORT, "Domain alignment"),
        Kind("sft", artifacts.METRICS, artifacts.REPORT, "Training on answers"),
        Kind("tour", artifacts.QUALITY, artifacts.REPORT, "Tour"),
        Kind("ask", artifacts.ASK, artifacts.REPORT, "Asking"),
        Kind("route", ROUTE, artifacts.REPORT, "Routing"),
        Kind("cache", STORE, artifacts.REPORT, "Store of signals"),
        Kind("export", artifacts.CARD, artifacts.REPORT, "Training sets"),
    )
}
TRAININGS = ("distill", "align", "sft")  # verbs whose folder is a training run
_BY_RESULT = ("study", "select", "evaluate", "compare", "route", "ask", "cache")
# the first verb all of whose settings are there
_BY_SETTINGS = {
    "study": ("bases", "arms"),
    "evaluate": ("benchmarks", "reference"),
    "align": ("experts", "reference"),
    "distill": ("teacher", "losses"),
    "cache": ("teacher", "form"),
    "export": ("run", "sets"),
    "route": ("run", "instructions", "prompts"),
    "ask": ("decodings", "rewards"),
    "select": ("base", "criteria"),
    "sft": ("base", "data", "training"),
}


def kind_of(folder: Path) -> str | None:
    """The name of the kind of a folder, finished or begun, in `KINDS`; None of anything else.

    Reads the settings alone where a result file does not tell; never raises.
    """
    if not folder.is_dir():
        return None
    for name in _BY_RESULT:
        if (folder / KINDS[name].result).is_file():
            return name
    settings = settings_of(folder)
    for name, wanted in _BY_SETTINGS.items():
        if all(key in settings for key in wanted):
            return name
    known = (artifacts.METRICS, artifacts.QUALITY)
    if provenance_of(folder) or (folder / artifacts.METRICS).is_file():
        typed = _typed(folder)
        trained = any((folder / file).is_file() for file in known)
        fits = typed in (TRAININGS if trained else KINDS)
        return typed if fits else "sft" if trained else None
    seeds = any(kind_of(path) in TRAININGS for path in folder.glob("seed-*/*"))
    return "tour" if seeds else None


def finished(folder: Path) -> bool:
    """Whether a folder holds all that its run was to leave; False of what is no run."""
    name = kind_of(folder)
    if name is None or not (folder / KINDS[name].result).is_file():
        return False
    if name in ("compare", "tour"):  # written at once, without provenance
        return True
    return provenance_of(folder).get("status", FINISHED) == FINISHED


def verdict_of(folder: Path) -> str:
    """What a run found, as one plain sentence with its confidence; of a begun run, that it is one.

    Names in it come from the data of strangers: it is text, to be escaped like any other.

    Raises:
        RunFolderError: no run, or a result file that cannot be read.
    """
    name = kind_of(folder)
    if name is None:
        raise unknown(folder)
    kind = KINDS[name]
    if not finished(folder) and not (kind.partial and (folder / kind.result).is_file()):
        return "The run is not finished; the same command goes on with it."
    try:
        words = run_verdicts.of(name, folder, provenance_of(folder))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OSError) as error:
        raise origins.changed_by_hand(folder / kind.result, kind.result, error) from error
    return " ".join(words.split())


def unknown(folder: Path) -> RunFolderError:
    """The error about a folder that holds no run."""
    return RunFolderError(
        "this is no folder that preceptor wrote",
        where=str(folder),
        found="no such folder" if not folder.is_dir() else "no result, and no settings of a run",
        next_step="give the --out of a run",
    )


def provenance_of(folder: Path) -> dict[str, Any]:
    """The content of `provenance.json`; empty where there is none that can be read."""
    try:
        found = json.loads((folder / artifacts.PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def settings_of(folder: Path) -> Mapping[str, Any]:
    """The resolved settings, from the provenance or else from `settings.yaml`; may be empty."""
    found = provenance_of(folder).get("settings")
    if isinstance(found, Mapping):
        return found
    try:
        found = yaml.safe_load((folder / artifacts.SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, Mapping) else {}


def _typed(folder: Path) -> str | None:
    """The verb of the recorded command."""
    try:
        words = shlex.split(str(provenance_of(folder).get("command")))
    except ValueError:
        return None
    return words[1] if len(words) > 1 and words[1] in KINDS else None
