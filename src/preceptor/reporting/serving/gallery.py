"""The runs below a folder: which there are, what each is, and whether it is at work.

Folders come from strangers. No symbolic link is followed, neither to a folder nor to a file, so
nothing outside the folder is ever read; and a run is named by a hash of where it lies, so no
address is ever made into a path.
"""

from __future__ import annotations

import os
import shlex
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from preceptor.core import artifacts
from preceptor.core.errors import PreceptorError, RunFolderError
from preceptor.core.live import PROGRESS
from preceptor.core.run import is_held
from preceptor.core.study import OUTCOMES
from preceptor.reporting.findings.run_kinds import (
    KINDS,
    TRAININGS,
    finished,
    kind_of,
    provenance_of,
    settings_of,
    verdict_of,
)
from preceptor.reporting.parts.folders import key_of, open_below, walk

FOLDERS, RUNS = 100_000, 5_000  # at how many is looked, and how many are shown
RECENT_SECONDS = 60.0  # where no lock can be tried: what changed so lately is at work
AGAIN_SECONDS, RESTS = 1.0, 10  # looked through again after so long, and so often what it took
_JSON, _TEXT, _PAGE = "application/json", "text/plain; charset=utf-8", "text/html; charset=utf-8"
FILES = {  # what may be fetched of a run, as what
    **{kind.report: _PAGE for kind in KINDS.values()},
    **{kind.report.replace(".html", ".md"): _TEXT for kind in KINDS.values()},
    **{kind.result: _JSON for kind in KINDS.values() if kind.result.endswith(".json")},
    artifacts.QUALITY: _JSON,
    OUTCOMES: _JSON,
    artifacts.PROVENANCE: _JSON,
    artifacts.SETTINGS: _TEXT,
    artifacts.METRICS: _TEXT,
    artifacts.CARD: _TEXT,
    "routing.yaml": _TEXT,
    "ask.yaml": _TEXT,
}
FILES = {name: kind for name, kind in FILES.items() if "/" not in name}
_FAMILIES = {name: name for name in ("select", "evaluate", "study")}
_FAMILIES |= dict.fromkeys((*TRAININGS, "tour"), "training")
# a link or a pipe in place of one of these, and the folder is left aside
_READ = {*FILES, "signals", artifacts.WORK}


@dataclass(frozen=True)
class Card:
    """What a list says of a run.

    Attributes:
        key: stable name for addresses: a hash of where the run lies.
        parent: key of the run that it belongs to; "" if of none.
        parts: of its path below the folder that is served; none of the folder itself.
        kind: key of `KINDS`.
        about: the models that it is about, in a few words.
        verdict: what it found, in a sentence; "" of one that is not finished.
        fault: what of it cannot be read; "" as a rule.
        state: `finished`, `running` or `stopped`.
        changed: when it ended, or when anything of it last changed; Unix time.
        command: what was typed; of an inner run, what began the run around it. "" if not known.
        names: the files of its folder that may be fetched.
    """

    key: str
    parent: str
    parts: tuple[str, ...]
    kind: str
    title: str
    about: str
    verdict: str
    fault: str
    state: str
    changed: float
    command: str
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        """Where it lies below the folder that is served."""
        return "/".join(self.parts)

    @property
    def report(self) -> str:
        """The name of its page; "" where it has none yet."""
        page = KINDS[self.kind].report
        return page if page in self.names else ""

    @property
    def family(self) -> str:
        """Two finished runs of one family can be compared; "" where none can be."""
        family = _FAMILIES.get(self.kind, "")
        return family if self.state == "finished" else ""


@dataclass
class Gallery:
    """The runs below a folder, looked up again when somebody asks and a second or more has passed.

    Attributes:
        root: the folder, resolved.
        shown_as: how its reader wrote it, for commands to copy.
        left_aside: folders of runs that were not read, as they hold links or pipes.
        cut: whether there are more folders or runs than are looked at.
    """

    root: Path
    shown_as: str
    left_aside: int = 0
    cut: bool = False
    _cards: dict[str, Card] = field(default_factory=dict)
    _known: dict[str, tuple[Any, Card | None]] = field(default_factory=dict)
    _again: float = float("-inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def cards(self) -> dict[str, Card]:
        """Every run by its key; the latest first, and before the runs that belong to it."""
        with self._lock:
            started = time.monotonic()
            if started >= self._again:
                self._look()
                took = time.monotonic() - started
                self._again = started + took + max(AGAIN_SECONDS, RESTS * took)
            return self._cards

    def folder(self, card: Card) -> Path:
        return self.root.joinpath(*card.parts)

    def typed(self, card: Card) -> str:
        """The run's folder as its reader would type it."""
        return shlex.quote(str(PurePosixPath(self.shown_as, *card.parts)))

    def read(self, card: Card, *below: str) -> bytes | None:
        """The content of a file of a run; None where there is no such file."""
        try:
            with open_below(self.root, (*card.parts, *below)) as file:
                return file.read()
        except OSError:
            return None

    def _look(self) -> None:
        found: dict[str, Card] = {}
        known: dict[str, tuple[Any, Card | None]] = {}
        self.left_aside, self.cut, looked = 0, False, 0
        outer: list[Card] = []  # the runs around the folder in hand
        for parts, names, odd in walk(self.root):
            looked += 1
            if looked > FOLDERS or len(found) >= RUNS:
                self.cut = True
                break
            if not _may_be_run(names, odd):
                continue
            if odd & _READ:
                self.left_aside += 1
                continue
            while outer and parts[: len(outer[-1].parts)] != outer[-1].parts:
                outer.pop()
            card = self._card(parts, names, known)
            if card is not None:
                card = replace(card, parent=outer[-1].key if outer else "")
                found[card.key] = card
                outer.append(card)
        order = sorted(found.values(), key=lambda own: -_latest(own))
        self._cards, self._known = {card.key: card for card in order}, known

    def _card(
        self,
        parts: tuple[str, ...],
        names: frozenset[str],
        known: dict[str, tuple[Any, Card | None]],
    ) -> Card | None:
        """The card of a folder; its files are read again only where one of them changed."""
        folder, key = self.root.joinpath(*parts), key_of(parts)
        mark = _mark(folder, names)
        before = self._known.get(key)
        card = before[1] if before is not None and before[0] == mark else _read(key, parts, folder)
        known[key] = mark, card
        if card is None:
            return None
        card = replace(card, names=tuple(name for name in FILES if name in names))
        if card.state == "finished":
            return card
        return replace(card, state=_state(folder), changed=_changed(folder))


def _may_be_run(names: frozenset[str], odd: frozenset[str]) -> bool:
    """Runs leave a provenance; a comparison and a tour have their result and their page."""
    both = names | odd
    return artifacts.PROVENANCE in both or any(
        KINDS[kind].result in both and KINDS[kind].report in both for kind in ("compare", "tour")
    )


def _mark(folder: Path, names: frozenset[str]) -> Any:
    """Changes whenever a file of the folder is replaced, added or removed."""
    marks = []
    for path in (folder, folder / artifacts.PROVENANCE):
        try:
            found = path.stat()
            marks.append((found.st_ino, found.st_mtime_ns, found.st_size))
        except OSError:
            marks.append(None)
    return marks, names


def _read(key: str, parts: tuple[str, ...], folder: Path) -> Card | None:
    """The card as the folder's files tell it; the state is `stopped` where they do not say."""
    try:
        kind = kind_of(folder)
        if kind is None:
            return None
        ended, facts = finished(folder), provenance_of(folder)
        subject = about(kind, settings_of(folder))
    except Exception:  # whatever a stranger's files hold, the other runs are listed
        return None
    verdict, fault = _verdict(folder, kind, ended)
    return Card(
        key=key,
        parent="",
        parts=parts,
        kind=kind,
        title=KINDS[kind].title,
        about=subject,
        verdict=verdict,
        fault=fault,
        state="finished" if ended else "stopped",
        changed=_modified(folder / artifacts.PROVENANCE, folder / KINDS[kind].result),
        command=typed_command(facts.get("command")),
        names=(),
    )


def _verdict(folder: Path, kind: str, ended: bool) -> tuple[str, str]:
    """What a run found so far, and what keeps it from being read."""
    own = KINDS[kind]
    result = folder / own.result
    if not (ended or own.partial) or not result.is_file() or result.is_symlink():
        return "", ""
    try:
        return verdict_of(folder), ""
    except RunFolderError as error:
        return "", error.what
    except Exception as error:  # as above
        return "", f"{own.result} cannot be read ({type(error).__name__})"


def typed_command(command: Any) -> str:
    """The command of a provenance, fit to be copied into a shell; "" where it is none of ours.

    A run inside another notes behind the command, in brackets, which part of it it is. Whatever
    stands in a stranger's file, each word is quoted: it starts no other command.
    """
    head, _, part = str(command).rpartition(" (")
    try:
        words = shlex.split(head if head and part.endswith(")") else str(command))
    except ValueError:
        return ""
    return shlex.join(words) if words[:1] == ["preceptor"] else ""


def _modified(*paths: Path) -> float:
    """When the first of the files that is there was last written; 0 where none is."""
    for path in paths:
        try:
            return path.stat().st_mtime
        except OSError:
            continue
    return 0.0


def _state(folder: Path) -> str:
    """`running` or `stopped`, by the lock that a run holds; where locks fail, by what changed."""
    held = is_held(folder)
    if held is None:
        held = time.time() - _changed(folder) < RECENT_SECONDS
    return "running" if held else "stopped"


def _changed(folder: Path) -> float:
    """When anything of a run that is not finished last changed."""
    work = folder / artifacts.WORK
    latest = 0.0
    for path in (folder, folder / artifacts.METRICS, work, work / PROGRESS):
        try:
            latest = max(latest, path.lstat().st_mtime)
        except OSError:
            continue
    return latest


def _latest(card: Card) -> float:
    """By what runs are ordered: those at work come first."""
    return card.changed + (1e12 if card.state == "running" else 0.0)


def about(kind: str, settings: Mapping[str, Any]) -> str:
    """The models that a run is about: `base-terse`, or `base-prose and 2 more`."""
    wanted = {"study": "bases", "evaluate": "models"}.get(kind, "base")
    found = settings.get(wanted)
    names = [model_words(own) for own in (found if isinstance(found, list) else [found])]
    names = [name for name in names if name]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return names[0] + more if names else ""


def model_words(setting: Any) -> str:
    """A model as settings name it, in short: of a path the last part, of the lab its own name."""
    if isinstance(setting, Mapping):
        setting = setting.get("name") or setting.get("model")
    if not isinstance(setting, str):
        return ""
    if setting.startswith(("/", ".", "~")):
        return PurePosixPath(setting).name or setting
    return setting.removeprefix("lab:")


def opened(folder: Path) -> Gallery:
    """The gallery of a folder (raises RunFolderError where there is none that can be read)."""
    try:
        root = folder.resolve(strict=True)
        os.scandir(root).close()
    except (OSError, RuntimeError) as error:
        raise PreceptorError(
            "there is no folder of runs that can be read",
            where=str(folder),
            found=getattr(error, "strerror", None) or str(error),
            next_step="name the folder that holds your run folders",
        ) from error
    return Gallery(root, str(folder))
