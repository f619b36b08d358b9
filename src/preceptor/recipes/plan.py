"""`preceptor plan`: what a run will take, and whether it can, before a weight is loaded.

It runs the recipe's own preparation, so everything that a run refuses there is refused. Nothing is
written; with a probe, answers go to the answer store, where the run finds them.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from preceptor.core.errors import ModelError, SettingsError
from preceptor.core.run import look_at
from preceptor.recipes.planning.devices import disk_of, memory_of, resident
from preceptor.recipes.planning.draft import Draft, Rates, Stage, given_rates
from preceptor.recipes.planning.jobs import JOBS
from preceptor.recipes.planning.rates import rates_of_run
from preceptor.recipes.settings.loading import Settings

PLAN_VERSION = 1


class Job(Protocol):
    """A prepared run that can be planned."""

    identity: dict[str, Any]
    device: torch.device

    def draft(self) -> Draft: ...

    def probe(self, count: int, rates: Rates) -> None: ...


def plan(
    recipe: str,
    settings: Settings,
    out: Path | None = None,
    *,
    rates: Sequence[str] = (),
    like: Path | None = None,
    probe: int = 0,
) -> dict[str, Any]:
    """What a run of these settings takes.

    Args:
        out: the run folder; its disk is looked at, and a run that it holds; a new one if None.
        rates: `NAME=UNITS_PER_SECOND`, as in `ask.birch-m=900`, `measure=12000`, `train=3000`.
        like: folder of a finished run whose rates are taken.
        probe: ask and read so many answers, and train a few steps, to measure rates and lengths.

    Returns:
        The plan, as `docs/how-to/plan.md` says it.

    Raises:
        PreceptorError: what a run would refuse before it loads a weight.
    """
    known = given_rates(rates)
    if like is not None:
        rates_of_run(like, known)
    if probe and out is None and _store_setting(settings) is None:
        raise SettingsError(
            "a probe keeps the answers it asks for, and there is no place for them",
            where="--probe",
            found="neither `store` nor --out",
            next_step="give --out, the folder of the run that is meant, or set `store`",
        )
    module, _, name = JOBS[recipe].partition(":")
    opener = getattr(importlib.import_module(f"preceptor.recipes.planning.{module}"), name)
    place = out or Path("run")
    job: Job = opener(settings, place)
    status = look_at(place, job.identity) if out is not None else "new"
    process = resident()
    draft, memory, disk = _look(job, process)
    if probe and not draft.refusals and status != "finished":
        job.probe(probe, known)
        draft, memory, disk = _look(job, process)
    settle = getattr(job, "settle", None)  # a study's last words, once rates are known
    if settle is not None:
        settle(draft, known)
    if status == "finished":
        draft.notes.append(
            f"{place} holds the finished run of these settings: nothing is left to do"
        )
    elif status == "running":
        draft.notes.append(f"{place} holds a begun run; only stored answers are taken off here")
    return _as_json(recipe, draft, memory, disk, known)


def _store_setting(settings: Any) -> str | None:
    return getattr(getattr(settings, "data", settings), "store", None)


def _look(job: Job, process: int) -> tuple[Draft, list[dict[str, Any]], list[dict[str, Any]]]:
    draft = job.draft()
    return draft, memory_of(draft, process), disk_of(draft)


def refuse(found: dict[str, Any]) -> None:
    """Raise the first reason why the run cannot be (raises ModelError); the others are counted."""
    if found["fits"]:
        return
    first, *others = found["refusals"]
    more = f" (and {len(others)} more)" if others else ""
    raise ModelError(
        first["what"] + more,
        where=first["where"],
        found=first["found"],
        next_step=first["next"],
    )


def _as_json(
    recipe: str,
    draft: Draft,
    memory: list[dict[str, Any]],
    disk: list[dict[str, Any]],
    rates: Rates,
) -> dict[str, Any]:
    stages = [_stage(stage, rates) for stage in draft.stages]
    unknown = [stage["stage"] for stage in stages if stage["seconds"] is None]
    return {
        "version": PLAN_VERSION,
        "recipe": recipe,
        "fits": not draft.refusals,
        "device": str(draft.device),
        "stages": stages,
        "memory": memory,
        "disk": disk,
        "tokenizers": [vars(verdict) for verdict in draft.tokenizers],
        "totals": {
            "prompt_tokens": sum(stage["prompt_tokens"] for stage in stages),
            "generated_tokens": sum(stage["generated_tokens"] for stage in stages),
            "read_tokens": sum(stage["tokens"] for stage in stages if stage["unit"] == "tokens"),
            "seconds": None if unknown else sum(stage["seconds"] for stage in stages),
            "without_rate": unknown,
            "money": sum(stage["money"] for stage in stages),
        },
        "notes": draft.notes,
        "refusals": [
            {"what": r.what, "where": r.where, "found": r.found, "next": r.next_step}
            for r in draft.refusals
        ],
    }


def _stage(stage: Stage, rates: Rates) -> dict[str, Any]:
    seconds, source = rates.seconds(stage)
    rate = rates.find(stage.rate)
    return {
        "stage": stage.name,
        "kind": stage.kind,
        "model": stage.model,
        "items": stage.items,
        "reused": stage.reused,
        "prompt_tokens": stage.prompt_tokens,
        "generated_tokens": stage.generated_tokens,
        "tokens": stage.tokens,
        "unit": stage.unit,
        "tokens_from": stage.tokens_from,
        "memory": dict(stage.need.parts(stage.need.knobs)) if stage.need else {},
        "here": stage.here,
        "workers": stage.workers,
        "rate_name": stage.rate,
        "rate": rate[0] if rate and not stage.free else None,
        "rate_from": source,
        "seconds": seconds,
        "money": stage.money,
    }
