"""Folders of strangers: looked through and read without following a symbolic link.

So nothing outside the folder that was given is ever read, whatever lies in it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from preceptor.core import artifacts

DEPTH = 12  # how deep is looked
INNER = {"store", "tokens", "model", "signals", "sources", artifacts.WORK}  # of a run: hold no runs


def key_of(parts: Sequence[str]) -> str:
    """16 hexadecimal digits that stand for a place below the folder that is served."""
    place = "/".join(parts).encode("utf-8", "surrogateescape")
    return hashlib.blake2b(place, digest_size=8, person=b"preceptor run").hexdigest()


def walk(root: Path) -> Iterator[tuple[tuple[str, ...], frozenset[str], frozenset[str]]]:
    """Every folder that may hold runs, outer ones first: its parts, its files, and its odd things.

    Odd are symbolic links, which are not followed, and pipes and devices, which may never end. What
    cannot be read is passed over.
    """
    left: list[tuple[str, ...]] = [()]
    while left:
        parts = left.pop()
        files, odd, folders = set(), set(), []
        try:
            with os.scandir(root.joinpath(*parts)) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.name)
                    elif entry.is_file(follow_symlinks=False):
                        files.add(entry.name)
                    else:
                        odd.add(entry.name)
        except OSError:
            continue
        yield parts, frozenset(files), frozenset(odd)
        if len(parts) < DEPTH:
            below = sorted(folders, reverse=True)
            left += [
                (*parts, name)
                for name in below
                if name[0] != "." and (name not in INNER or artifacts.PROVENANCE not in files)
            ]


def open_below(root: Path, parts: Sequence[str]) -> BinaryIO:
    """A plain file below a folder, opened for reading; on the way no link is followed.

    Raises:
        OSError: there is none, or a link or something else than a folder or a file on the way.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    at = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            below = os.open(part, flags | os.O_DIRECTORY, dir_fd=at)
            os.close(at)
            at = below
        handle = os.open(parts[-1], flags, dir_fd=at)
    finally:
        os.close(at)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError("no plain file")
    return os.fdopen(handle, "rb")
