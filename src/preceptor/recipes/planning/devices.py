"""What this machine has: memory of its devices and of the process, room on its disks."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from preceptor.recipes.planning.draft import Disk, Draft, Refusal, Stage
from preceptor.reporting.parts.wording import in_bytes

HOST = "cpu"
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
CONTEXT = 600 << 20  # of an accelerator's memory: its driver and libraries


def host_total() -> int:
    """Bytes of memory that this process may have: the machine's, or its container's limit."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in map(Path, _LIMITS):
        text = limit.read_text().strip() if limit.exists() else ""
        if text.isdecimal():
            total = min(total, int(text))
    return total


def resident() -> int:
    """Bytes that this process holds now (where that cannot be read: the most that it held)."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def memory_of(draft: Draft, process: int) -> list[dict[str, Any]]:
    """Peak of each device of this machine, and refusals of stages that do not fit.

    Args:
        process: bytes that the process itself holds: libraries and the data that was read.
    """
    device, local = draft.device, [stage for stage in draft.stages if stage.here]
    on_host = device.type == HOST
    held = [process + (_bytes(stage) if on_host else stage.host) for stage in local]
    rooms = [_room(HOST, max(held, default=process), process, host_total())]
    if on_host:
        for stage in local:
            _refuse(draft, stage, host_total() - process, host_total())
    elif device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        rooms.append(
            _room(str(device), max(map(_bytes, local), default=0) + CONTEXT, CONTEXT, total)
        )
        for stage in local:
            _refuse(draft, stage, total - CONTEXT, total)
            if process + stage.host > host_total():
                draft.refusals.append(
                    Refusal(
                        "the weights do not pass through the machine's memory",
                        stage.name,
                        f"{in_bytes(process + stage.host)}, the machine has "
                        f"{in_bytes(host_total())}",
                        "use a machine with more memory, or a smaller model",
                    )
                )
    else:
        draft.notes.append(f"the memory of {device} cannot be read: nothing was compared with it")
    return rooms


def _bytes(stage: Stage) -> int:
    return stage.need.bytes() if stage.need else 0


def _room(name: str, peak: int, process: int, total: int) -> dict[str, Any]:
    return {"device": name, "peak_bytes": peak, "process_bytes": process, "total_bytes": total}


def _refuse(draft: Draft, stage: Stage, room: int, total: int) -> None:
    need = stage.need
    if need is None:
        return
    room = min(room, round(need.share * total))
    if need.bytes() <= room:
        return
    shown = ", ".join(
        f"{name} {in_bytes(size)}" for name, size in need.parts(need.knobs).items() if size
    )
    draft.refusals.append(
        Refusal(
            "a stage does not fit into the device's memory",
            stage.name,
            f"{in_bytes(need.bytes())} ({shown}) on {draft.device}, which has {in_bytes(room)}"
            " for it",
            need.advice(room),
        )
    )


def disk_of(draft: Draft) -> list[dict[str, Any]]:
    """What is written where, and refusals of disks that are too small."""
    rows, wanted = [], dict[int, list[Disk]]()
    for disk in draft.disks:
        place = _existing(Path(disk.folder))
        free = shutil.disk_usage(place).free
        rows.append({"what": disk.what, "folder": disk.folder, "bytes": disk.size, "free": free})
        wanted.setdefault(place.stat().st_dev, []).append(disk)
    for disks in wanted.values():
        free = shutil.disk_usage(_existing(Path(disks[0].folder))).free
        size = sum(disk.size for disk in disks)
        if size > free:
            draft.refusals.append(_too_small(disks, size, free))
    return rows


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())


def _too_small(disks: list[Disk], size: int, free: int) -> Refusal:
    largest = max(disks, key=lambda disk: disk.size)
    rest = size - largest.size
    move = f"move the {largest.what} to a disk with {in_bytes(largest.size)} free"
    setting = {"answer store": " (`store`)"}.get(largest.what, " (--out)")
    return Refusal(
        "the disk is too small",
        ", ".join(sorted({disk.folder for disk in disks})),
        f"{in_bytes(size)} to be written ({', '.join(disk.what for disk in disks)}), "
        f"{in_bytes(free)} free",
        move + setting + (f"; the rest, {in_bytes(rest)}, then fits" if 0 < rest <= free else ""),
    )


def merged(*parts: Mapping[str, int]) -> dict[str, int]:
    """Parts of several needs as one; equal names are summed."""
    found: dict[str, int] = {}
    for part in parts:
        for name, size in part.items():
            found[name] = found.get(name, 0) + size
    return found
