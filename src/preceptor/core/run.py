"""A run folder from opening to finish: whose it is, what made it, and that one process owns it."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import yaml

from preceptor import __version__
from preceptor.core import artifacts, live
from preceptor.core.errors import RunFolderError
from preceptor.core.stage import Stage, clear

IN_MEMORY = "in_memory"  # folder of tables that a program gave: `core/inputs.py`
LOCK = ".lock"  # below `work/`
TRIES = 5  # of the lock, within a tenth of a second
_IDENTITY = ("settings", "inputs", "models")
_PACKAGES = tuple(
    "torch transformers tokenizers safetensors datasets trl peft accelerate numpy pyarrow pydantic "
    "openai ray vllm".split()
)


@dataclass
class Run:
    """An open run folder.

    Attributes:
        folder: where results go.
        identity: settings, and hashes of inputs and models; a folder serves one identity.
        finished: whether an earlier run of the same identity left its results here; such a
            folder is only read.
        leads: whether this is the process that writes, of several that work on one run.
        facts: what `provenance.json` says beside the identity; filled as work goes.
    """

    folder: Path
    identity: dict[str, Any]
    command: str
    finished: bool = False
    leads: bool = True
    facts: dict[str, Any] = field(default_factory=dict)
    _seconds: dict[str, float] = field(default_factory=dict)
    _started: float = field(default_factory=time.time)

    def path(self, name: str) -> Path:
        return self.folder / name

    def stage(self, name: str, schema: pa.Schema) -> Stage:
        """The stage `name` of this run, with what earlier runs committed."""
        return Stage(self.folder / artifacts.WORK / name, schema)

    def note_seconds(self, name: str, stage: Stage) -> None:
        """Remember a finished stage's working time for the provenance; of one name, the sum."""
        self._seconds[name] = round(self._seconds.get(name, 0.0) + stage.seconds(), 1)

    def finish(self) -> None:
        """Write the final provenance and remove the shards."""
        if not self.leads:
            return
        self.facts["stage_seconds"] = self._seconds
        self.facts["wall_seconds_of_last_run"] = round(time.time() - self._started, 1)
        _write_provenance(self, "finished")
        clear(self.folder / artifacts.WORK)


def is_leader() -> bool:
    """Whether this process writes and prints; of several launched together, the first."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def open_run(folder: Path, identity: dict[str, Any], command: str) -> Iterator[Run]:
    """Open a run folder, new or begun earlier, for this process alone.

    Args:
        folder: made if missing.
        identity: `settings` (resolved), `inputs` and `models` (name -> hash).
        command: the command line that makes this run again.

    Raises:
        RunFolderError: not writable, in use, or made by other settings, inputs or models.
    """
    if not is_leader():
        finished = (folder / artifacts.PROVENANCE).exists() and _refuse_other(
            folder, identity
        ) == "finished"
        yield Run(folder, identity, command, finished, leads=False)
        return
    try:
        if folder.exists():
            refuse_foreign(folder)
        (folder / artifacts.WORK).mkdir(parents=True, exist_ok=True)
        lock = open(folder / artifacts.WORK / LOCK, "w")  # noqa: SIM115 - held while running
    except OSError as error:
        raise RunFolderError(
            "the run folder cannot be written",
            where=str(folder),
            found=error.strerror or str(error),
            next_step="give --out a folder that you may write",
        ) from error
    with lock:
        try:
            _take(lock)
        except OSError as error:
            held = isinstance(error, BlockingIOError)
            raise RunFolderError(
                "another process works in this run folder"
                if held
                else "the run folder cannot be locked",
                where=str(folder),
                found="" if held else error.strerror or str(error),
                next_step="wait for it, or give another --out",
            ) from error
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink()
        finished = _refuse_other(folder, identity) == "finished"
        run = Run(folder, identity, command, finished)
        if finished:
            clear(folder / artifacts.WORK)
        else:
            _write_provenance(run, "running")
            settings = yaml.safe_dump(identity["settings"], sort_keys=False, allow_unicode=True)
            artifacts.write_bytes(run.path(artifacts.SETTINGS), settings.encode())
        with live.account(folder / artifacts.WORK):
            yield run


def _take(lock: IO[str]) -> None:
    """The lock, for this process alone; who only looks has it for an instant (raises OSError)."""
    for _ in range(TRIES - 1):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(0.02)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_held(folder: Path) -> bool | None:
    """Whether a process works in a run folder now; None where the file system does not say.

    Writes nothing. The lock is tried, shared and for an instant.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        lock = os.open(folder / artifacts.WORK / LOCK, flags)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(lock)
    return False


def look_at(folder: Path, identity: dict[str, Any]) -> str:
    """Status of the run that a folder holds ("new" if none); writes nothing.

    Raises:
        RunFolderError: a folder of something else, or of other settings, inputs or models.
    """
    if not folder.exists():
        return "new"
    refuse_foreign(folder)
    return _refuse_other(folder, identity)


def refuse_foreign(folder: Path) -> None:
    """A folder that holds something, but no run, is left alone (a kill may leave `.*.tmp`)."""
    if (folder / artifacts.PROVENANCE).exists():
        return
    held = {
        path.relative_to(folder)
        for path in (*folder.iterdir(), *folder.glob(f"{artifacts.WORK}/*"))
    }
    held -= {Path(artifacts.WORK), Path(artifacts.WORK, ".lock")}
    held -= {Path("store"), Path(IN_MEMORY)}  # what a plan's probe asked for, or a program gave
    foreign = [str(path) for path in held if not fnmatch(path.name, ".*.tmp")]
    if foreign:
        raise RunFolderError(
            "the folder holds files that are no run of preceptor",
            where=str(folder),
            found=", ".join(sorted(foreign)[:5]),
            next_step="give --out a new or empty folder",
        )


def _refuse_other(folder: Path, identity: dict[str, Any]) -> str:
    """Status of an earlier run of the same identity ("new" if none); an error if another's."""
    known = folder / artifacts.PROVENANCE
    if not known.exists():
        return "new"
    try:
        before = json.loads(known.read_text(encoding="utf-8"))
        earlier = {part: dict(before[part]) for part in _IDENTITY}
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{artifacts.PROVENANCE} in this folder is no record of a run",
            where=str(known),
            found=f"{type(error).__name__}: {error}",
            next_step="give --out a new or empty folder",
        ) from error
    for part, then in earlier.items():
        changed = _changes(then, identity[part])
        if changed:
            raise RunFolderError(
                f"the run folder belongs to other {part}",
                where=str(folder),
                found=changed,
                next_step="give another --out, or go back to what the run was started with",
            )
    return str(before.get("status"))


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    shown = [f"{name}: {before.get(name)!r} then, {now.get(name)!r} now" for name in names[:3]]
    return "; ".join(shown)


def _write_provenance(run: Run, status: str) -> None:
    artifacts.write_json(
        run.path(artifacts.PROVENANCE),
        {
            "preceptor": __version__,
            "status": status,
            "command": run.command,
            **run.identity,
            **run.facts,
            "machine": {
                "system": platform.platform(),
                "processor": platform.machine(),
                "cores": os.cpu_count(),
            },
            "versions": {"python": platform.python_version(), **_versions()},
        },
    )


@cache
def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hash_input(path: str, table: pa.Table) -> str:
    """sha256 of an input: of the file where it is one, else of the rows."""
    if Path(path).is_file():
        with open(path, "rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    sink = _HashSink()
    with pa.PythonFile(sink, mode="w") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return "rows-sha256:" + sink.hash.hexdigest()


class _HashSink:
    """A file to write that keeps nothing but the hash of what was written."""

    closed = False

    def __init__(self) -> None:
        self.hash = hashlib.sha256()

    def write(self, content: Any) -> int:
        self.hash.update(content)
        return len(content)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass
