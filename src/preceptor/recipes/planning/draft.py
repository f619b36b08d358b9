"""What a plan is made of: stages with their tokens, needs of memory and disk, rates, refusals."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from preceptor.core.errors import SettingsError, nearest
from preceptor.reporting.parts.wording import in_bytes

KINDS = ("ask", "score", "measure", "train", "store")  # of stages, and first words of rates
EXACT, SAMPLED, STORED, BOUND = "exact", "sample", "store", "upper bound"
ASSUMED, UNKNOWN = (
    "assumed",
    "unknown",
)  # lengths, where nothing tells them; counts that are not known
Knobs = Mapping[str, Any]


@dataclass(frozen=True)
class Need:
    """Memory that a stage takes on its device, as settings decide it.

    Attributes:
        parts: settings -> bytes of each part (weights, cache, activations ...).
        knobs: the settings as they are, by name.
        ways: other values of a setting that take less, mildest first.
        share: of the device's memory that the stage may take.
    """

    parts: Callable[[Knobs], Mapping[str, int]]
    knobs: Knobs
    ways: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    share: float = 1.0

    def bytes(self, changes: Knobs | None = None) -> int:
        """Of all parts, after changes of some settings."""
        return sum(self.parts({**self.knobs, **(changes or {})}).values())

    def advice(self, room: int) -> str:
        """What would fit into `room` bytes: the mildest changes of settings, computed."""
        single = [
            {name: value}
            for name, values in self.ways.items()
            if (value := next((v for v in values if self.bytes({name: v}) <= room), None))
            is not None
        ]
        if single:
            shown = ", or ".join(f"{name} {value}" for one in single for name, value in one.items())
            return f"{shown} would fit"
        grid = [[(name, value) for value in values] for name, values in self.ways.items()]
        for number in range(2, len(grid) + 1):
            for chosen in itertools.combinations(grid, number):
                for changes in itertools.product(*chosen):
                    if self.bytes(dict(changes)) <= room:
                        shown = " with ".join(f"{name} {value}" for name, value in changes)
                        return f"{shown} would fit"
        least = self.bytes({name: values[-1] for name, values in self.ways.items() if values})
        return f"no batch is small enough: use a device with at least {in_bytes(least)} free for it"


@dataclass
class Stage:
    """One piece of work of a run.

    Attributes:
        name: what is done, to whom ("asking birch-m").
        rate: name of the rate that says how long it takes ("ask.birch-m").
        model: whose weights are loaded; empty if none are.
        items: answers, sequences or examples in all.
        reused: of them, those that a store holds already.
        prompt_tokens, generated_tokens: that are still to be read and to be written.
        tokens: what the rate counts, in `unit`.
        tokens_from: how the tokens are known: EXACT, SAMPLED, STORED, BOUND, ASSUMED or UNKNOWN,
            or in words.
        need: memory on the device; None where nothing is loaded here.
        host: bytes of weights that pass through the machine's own memory on their way.
        here: whether it runs on this machine (else on a fleet or behind a server).
        workers: that share the work.
        alone: whether one worker does it even on a fleet of many.
        money: in the currency of the settings' prices.
        least_seconds: below which limits of a server do not let it finish.
        free: too little work to be timed.
        work: what one of its tokens takes, in tokens of the rate.
    """

    name: str
    kind: str
    rate: str
    model: str = ""
    items: int = 0
    reused: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    tokens: int = 0
    unit: str = "tokens"
    tokens_from: str = EXACT
    need: Need | None = None
    host: int = 0
    here: bool = True
    workers: int = 1
    alone: bool = False
    money: float = 0.0
    least_seconds: float = 0.0
    free: bool = False
    work: float = 1.0


@dataclass(frozen=True)
class Disk:
    """What a run writes: `size` bytes of `what` below `folder`."""

    what: str
    folder: str
    size: int


@dataclass(frozen=True)
class Verdict:
    """What a tokenizer is to its run."""

    role: str
    model: str
    verdict: str
    detail: str = ""


@dataclass(frozen=True)
class Refusal:
    """Why the run would fail, as an error says it."""

    what: str
    where: str
    found: str
    next_step: str


@dataclass
class Draft:
    """A plan while it is made."""

    device: torch.device
    stages: list[Stage] = field(default_factory=list)
    disks: list[Disk] = field(default_factory=list)
    tokenizers: list[Verdict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)

    def write(self, what: str, folder: Path, size: int) -> None:
        """Note that `size` more bytes of `what` are written below a folder."""
        known = [disk for disk in self.disks if (disk.what, disk.folder) == (what, str(folder))]
        self.disks = [disk for disk in self.disks if disk not in known]
        size += sum(disk.size for disk in known)
        if size:
            self.disks.append(Disk(what, str(folder), size))


@dataclass
class Rates:
    """How fast things go: name of a rate -> (units a second, where it is known from).

    A stage's rate is looked up by its whole name (`ask.birch-m`), then by its kind (`ask`).
    """

    known: dict[str, tuple[float, str]] = field(default_factory=dict)
    loading: dict[str, float] = field(default_factory=dict)  # seconds before the first result

    def give(self, name: str, value: float, source: str) -> None:
        """Note a rate; one that the user gave is kept."""
        if value > 0 and self.known.get(name, (0.0, ""))[1] != "given":
            self.known[name] = (value, source)

    def find(self, name: str) -> tuple[float, str] | None:
        return self.known.get(name) or self.known.get(name.partition(".")[0])

    def seconds(self, stage: Stage) -> tuple[float | None, str]:
        """(seconds of a stage, where its rate is from); None where no rate is known."""
        if stage.tokens_from == UNKNOWN:
            return None, ""
        if stage.free or not stage.tokens:
            return stage.least_seconds, ""
        found = self.find(stage.rate)
        if found is None:
            return (
                (stage.least_seconds, "limits of the settings")
                if stage.least_seconds
                else (
                    None,
                    "",
                )
            )
        rate, source = found
        wanted = (
            self.loading.get(stage.rate, 0.0) + stage.tokens * stage.work / rate / stage.workers
        )
        return max(wanted, stage.least_seconds), source


def given_rates(texts: Sequence[str]) -> Rates:
    """Rates of `NAME=NUMBER` texts (raises SettingsError)."""
    rates = Rates()
    for text in texts:
        name, _, value = text.partition("=")
        kind = name.partition(".")[0]
        try:
            number = float(value)
        except ValueError:
            number = 0.0
        if kind not in KINDS or not 0 < number < float("inf"):
            raise SettingsError(
                "a rate must be NAME=NUMBER",
                where="--rate",
                found=repr(text) + ("" if kind in KINDS else f"; {nearest(kind, KINDS)}"),
                next_step="write ask.TEACHER=900 or measure=12000, in units a second",
            )
        rates.give(name, number, "given")
    return rates


def halves(value: int) -> list[int]:
    """Smaller values to try: half of it, and so on down to 1."""
    found = []
    while value > 1:
        value //= 2
        found.append(value)
    return found
