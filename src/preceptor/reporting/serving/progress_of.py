"""How a run goes on: its stages, its losses, its cells, and what it said last.

Everything is looked up from what a run leaves while it works: `work/progress.json`, the shards of
its stages, `metrics.jsonl`, and of a study the cells that are done. Files may be half written, or
gone a moment later; what cannot be read is not told.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from preceptor.core import artifacts
from preceptor.core.live import PROGRESS, checked_account
from preceptor.reporting.findings.run_kinds import TRAININGS, settings_of
from preceptor.reporting.findings.training_log import LOSSES, thinned
from preceptor.reporting.parts.folders import open_below
from preceptor.reporting.serving.gallery import Card, Gallery, model_words

DRAWN = ("loss", *LOSSES)  # columns of the log that are drawn
LATEST = ("learning_rate", "grad_norm", "tokens_per_second", "peak_memory_mb")  # that are told
POINTS = 500  # logged steps that are drawn of one training; more are thinned
BYTES = 16_000_000  # of a log that are read at once: its last ones
# stages of work that leaves shards: folder below `work/` -> in words
_SHARDS = (
    (r"reward-(\d+)", "scoring, reward {}"),
    (r"measure-(base|reference)-(\w+)", "measuring {} ({})"),
    (r"grade-(.+)", "grading {}"),
)
_NO_MODEL = {"mean_reward", "length", "size", "cost", "yield", "family_prior"}


@dataclass
class Tail:
    """A log that grows, read on from where the last reading ended.

    Attributes:
        rows: step -> its values.
    """

    rows: dict[int, dict[str, float | None]] = field(default_factory=dict)
    _file: int = -1  # inode: a log that is written anew is read anew
    _place: int = 0

    def read(self, root: Path, parts: Sequence[str]) -> bool:
        """Take what was appended; whether there is such a file."""
        try:
            with open_below(root, parts) as file:
                known = os.fstat(file.fileno())
                if known.st_ino != self._file or known.st_size < self._place:
                    self.rows, self._file, self._place = {}, known.st_ino, 0
                self._place = max(self._place, known.st_size - BYTES)
                file.seek(self._place)
                text = file.read(BYTES)
        except OSError:
            return False
        whole = text[: text.rfind(b"\n") + 1]  # a line that is being written waits
        self._place += len(whole)
        for line in whole.splitlines():
            self._take(line)
        return True

    def _take(self, line: bytes) -> None:
        try:
            row = json.loads(line)
            step = row["step"]
            if isinstance(step, int):
                self.rows[step] = {
                    name: _finite(row[name]) for name in (*DRAWN, *LATEST) if name in row
                }
        except (ValueError, KeyError, TypeError, RecursionError):
            pass  # the first line of a long log may be cut, and any may have been changed

    def drawn(self) -> dict[str, Any]:
        """`step` and the columns that have values, thinned; and the `latest` values."""
        steps = sorted(self.rows)
        kept = [steps[place] for place in thinned(len(steps), max(1, len(steps) // POINTS))]
        columns = {name: [self.rows[step].get(name) for step in kept] for name in DRAWN}
        last = self.rows[steps[-1]] if steps else {}
        return {
            "step": kept,
            "columns": {
                name: values
                for name, values in columns.items()
                if any(value is not None for value in values)
            },
            "latest": {name: last[name] for name in LATEST if last.get(name) is not None},
        }


def _finite(value: Any) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None


@dataclass
class Watch:
    """Looks up how the runs of a gallery go on; remembers how far it has read their logs."""

    gallery: Gallery
    _tails: dict[tuple[str, ...], Tail] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def now(self, card: Card) -> dict[str, Any] | None:
        """The stage that a running run is at, of a study its cells; None where it does not say."""
        if card.state != "running":
            return None
        if card.kind == "study":
            cells = self._cells(card, self._settings(card))
            if cells is None or cells["total"] is None:
                return None
            return {**cells, "title": "trainings and exams", "unit": "done"}
        told = [_stage(own, card.state) for own in self._told(card)["stages"]]
        return next((own for own in reversed(told) if own["status"] == "now"), None)

    def look(self, card: Card, cards: Mapping[str, Card]) -> dict[str, Any]:
        """All that a page shows of a run that is not finished, ready for JSON.

        Args:
            cards: every run of the gallery, by key.
        """
        told, settings = self._told(card), self._settings(card)
        inner = [own for own in cards.values() if own.parent == card.key]
        return {
            "name": card.name,
            "state": card.state,
            "changed": card.changed,
            "verdict": card.verdict,
            "fault": card.fault,
            "report": card.report,
            "command": card.command,
            "error": told["error"] if card.state == "stopped" else "",
            "stages": self._stages(card, told["stages"], settings),
            "said": told["said"][::-1],
            "logs": self._logs(card),
            "cells": self._cells(card, settings) if card.kind == "study" else None,
            "inner": [
                brief(own)
                for own in sorted(inner, key=lambda own: (own.state != "running", own.parts))
            ],
            "files": list(card.names),
        }

    def _settings(self, card: Card) -> Mapping[str, Any]:
        try:
            return settings_of(self.gallery.folder(card))
        except RecursionError:
            return {}

    def _told(self, card: Card) -> dict[str, Any]:
        text = self.gallery.read(card, artifacts.WORK, PROGRESS)
        try:
            return checked_account(json.loads(text or b"null"))
        except (ValueError, RecursionError):
            return checked_account(None)

    def _stages(
        self, card: Card, told: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Stages that are done or begun as they came, then those that the settings announce."""
        shown = [_stage(own, card.state) for own in told]
        if not shown:  # of a run that tells nothing: its shards
            shown = list(self._shards(card))
        titles = [own["title"] for own in shown]
        wanted = announced(card.kind, settings)
        begun = [place for place, title in enumerate(wanted) if _stands(title, titles)]
        after = begun[-1] + 1 if begun else 0  # what a store held before is not asked again
        return shown + [{"title": title, "status": "later"} for title in wanted[after:]]

    def _shards(self, card: Card) -> Iterable[dict[str, Any]]:
        """Stages by the shards they have committed, without a total."""
        work = self.gallery.folder(card) / artifacts.WORK
        try:
            with os.scandir(work) as entries:
                names = sorted(own.name for own in entries if own.is_dir(follow_symlinks=False))
        except OSError:
            return
        for name in names:
            for pattern, words in _SHARDS:
                hit = re.fullmatch(pattern, name)
                if hit is not None:
                    shards = [own for own in _listed(work / name) if own.endswith(".parquet")]
                    yield {
                        "title": words.format(*hit.groups()),
                        "status": "begun",
                        "unit": "shards",
                        "done": len(shards),
                    }

    def _logs(self, card: Card) -> list[dict[str, Any]]:
        """The losses of every student that the run trains: its own, and those of its controls."""
        if card.kind not in TRAININGS:
            return []
        found = []
        with self._lock:
            for below in ((), *self._students(card)):
                parts = (*card.parts, *below, artifacts.METRICS)
                tail = self._tails.setdefault(parts, Tail())
                if tail.read(self.gallery.root, parts):
                    found.append({"name": "/".join(below), **tail.drawn()})
        return found

    def _students(self, card: Card) -> list[tuple[str, str]]:
        folder = self.gallery.folder(card)
        return [
            (group, name)
            for group in ("ablation", "controls")
            if not (folder / group).is_symlink()
            for name in sorted(_listed(folder / group))
        ]

    def _cells(self, card: Card, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """Of a study: how many trainings and exams of bases are done, of how many, in what time."""
        bases, arms, seeds = (settings.get(name) for name in ("bases", "arms", "seeds"))
        if not (isinstance(bases, list) and isinstance(arms, Mapping) and isinstance(seeds, int)):
            return None
        folder = self.gallery.folder(card)
        sources = [own for own in _listed(folder / "sources") if own.endswith(".parquet")]
        total = len(bases) * (len(sources) * len(arms) * seeds + 1) if sources else None
        seconds, done = [], Counter[str]()
        for place in ("cells/*/*/*/*/cell.json", "bases/*/cell.json"):
            for path in folder.glob(place):
                parts = path.relative_to(folder).parts
                try:
                    own = json.loads(self.gallery.read(card, *parts) or b"null")["seconds"]
                    took = sum(float(value) for value in own.values())
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                    continue
                done[parts[0]] += 1
                if parts[0] == "cells" and math.isfinite(took):
                    seconds.append(took)
        mean = sum(seconds) / len(seconds) if seconds else None
        return {"done": done.total(), "total": total, "mean_seconds": mean}


def _listed(folder: Path) -> list[str]:
    """Names of what lies in a folder; none where there is no such folder."""
    try:
        return [own.name for own in folder.iterdir()]
    except OSError:
        return []


def brief(card: Card) -> dict[str, Any]:
    """What a list says of a run, ready for JSON."""
    return {
        "id": card.key,
        "parent": card.parent,
        "name": card.name,
        "last": card.parts[-1] if card.parts else "",
        "kind": card.kind,
        "title": card.title,
        "about": card.about,
        "verdict": card.verdict,
        "fault": card.fault,
        "state": card.state,
        "changed": round(card.changed, 2),
        "command": card.command,
        "report": card.report,
        "family": card.family,
        "files": list(card.names),
    }


def _stage(own: Mapping[str, Any], state: str) -> dict[str, Any]:
    """A stage that the run told of: `status`, counts, rate and time left in seconds."""
    total, done = own["total"], own["done"]
    status = "done" if done >= total else "now" if own["live"] else "begun"
    if status == "now" and state != "running":
        status = "begun"
    seconds = own["at"] - own["began"]
    rate = (done - own["before"]) / seconds if seconds > 0 else 0.0
    left = (total - done) / rate if status == "now" and rate > 0 else None
    return {
        "title": own["title"],
        "unit": own["unit"],
        "status": status,
        "done": done,
        "total": total,
        "rate": rate or None,
        "tokens_rate": own["extra"] / seconds if seconds > 0 and own["extra"] else None,
        "seconds": max(seconds, 0.0),
        "left": left,
    }


def _stands(title: str, among: Sequence[str]) -> bool:
    return any(own == title or own.startswith(f"{title} (") for own in among)


def announced(kind: str, settings: Mapping[str, Any]) -> list[str]:
    """Titles of stages that a run of these settings will surely have, as far as they tell it.

    A stage of the run has this title, or this title and more in brackets behind it.
    """
    if kind in ("select", "ask"):
        titles = [f"asking {name}" for name in _names(settings.get("teachers"))]
        rewards = settings.get("rewards")
        titles += [
            f"scoring {own['name']}"
            for own in (rewards if isinstance(rewards, list) else [])
            if isinstance(own, Mapping) and own.get("kind") != "column" and own.get("name")
        ]
        criteria = settings.get("criteria")
        if kind == "select" and isinstance(criteria, list):
            known = {own.get("name") if isinstance(own, Mapping) else own for own in criteria}
            if not known <= _NO_MODEL:
                titles += [f"measuring under {name}" for name in _names([settings.get("base")])]
        return titles
    if kind in TRAININGS:
        data = settings.get("data")
        asked = [data.get("ask")] if isinstance(data, Mapping) else []
        titles = [f"asking {name}" for name in _names(asked)]
        exam = ["asking base (exam)"] if settings.get("quality") else []
        return [*titles, "training", *exam]
    if kind == "evaluate":
        models, benchmarks = _names(settings.get("models")), settings.get("benchmarks")
        return [
            f"asking {model} ({own.get('name') or own.get('kind')})"
            for own in (benchmarks if isinstance(benchmarks, list) else [])
            if isinstance(own, Mapping) and own.get("kind") != "lm_eval"
            for model in models
        ]
    return []


def _names(models: Any) -> list[str]:
    """Names of models or teachers as stages call them."""
    found = [model_words(own) for own in (models if isinstance(models, list) else [])]
    return [name for name in found if name]
