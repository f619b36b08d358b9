"""What `preceptor.plan`, and `dry_run=True` of every verb, give back: what a run would take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from preceptor.api.result import Shown
from preceptor.core.progress import clock
from preceptor.reporting.parts.tables import Table, table
from preceptor.reporting.parts.wording import in_bytes

_STAGE = (
    *("stage", "kind", "model", "items", "reused", "prompt_tokens", "generated_tokens", "tokens"),
    *("unit", "tokens_from", "rate", "seconds", "money"),
)


@dataclass(frozen=True, repr=False, eq=False)
class Plan(Shown):
    """What a run takes: tokens, memory, disk, time, money. Nothing was loaded or written.

    Attributes:
        raw: the plan as `preceptor plan --json` prints it.
    """

    @property
    def fits(self) -> bool:
        """Whether the run can be: see `refusals`."""
        return self.raw["fits"]

    @property
    def refusals(self) -> list[str]:
        """Why the run cannot be, and what would help; empty where it fits."""
        return [f"{own['what']}: {own['found']}; {own['next']}" for own in self.raw["refusals"]]

    @property
    def seconds(self) -> float | None:
        """How long it takes; None where some rate is not known (`probe`, `rates`, `like`)."""
        return self.raw["totals"]["seconds"]

    @property
    def money(self) -> float:
        """What servers ask for it, at the prices of the settings."""
        return self.raw["totals"]["money"]

    def check(self) -> None:
        """Raise the first of `refusals`, as the command line does (raises ModelError)."""
        from preceptor.recipes.plan import refuse

        refuse(dict(self.raw))

    def _exports(self) -> dict[str, Table]:
        stages = [
            (*(own[name] for name in _STAGE), sum(own["memory"].values()))
            for own in self.raw["stages"]
        ]
        memory = ("device", "peak_bytes", "total_bytes", "process_bytes")
        disk = ("what", "folder", "bytes", "free")
        return {
            "stages": table("Stages", (*_STAGE, "memory_bytes"), stages),
            "memory": table(
                "Memory", memory, [[own[name] for name in memory] for own in self.raw["memory"]]
            ),
            "disk": table("Disk", disk, [[own[name] for name in disk] for own in self.raw["disk"]]),
        }

    def _main(self) -> Table:
        columns = ("stage", "items", "prompt_tokens", "tokens", "unit", "tokens_from", "seconds")
        return self._export("stages").only(columns)

    def _verdict(self) -> str:
        if not self.fits:
            return f"The run does not fit: {self.refusals[0]}."
        peaks = [f"{in_bytes(own['peak_bytes'])} of {own['device']}" for own in self.raw["memory"]]
        time = "" if self.seconds is None else f", {clock(self.seconds)}"
        cost = f", {self.money:,.2f} for servers" if self.money else ""
        return f"The run fits: at most {', '.join(peaks)}{time}{cost}."

    def _note(self) -> str:
        return " ".join(f"{note}." for note in self.raw["notes"])

    def _facts(self) -> dict[str, Any]:
        return {"recipe": self.raw["recipe"], "fits": self.fits, "seconds": self.seconds}
