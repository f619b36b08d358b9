"""`preceptor route`: from a finished selection to a teacher for each prompt, before asking.

The router of PerSyn (arXiv 2510.10925), see `selection/router.py`, and what it is worth on prompts
it has not seen. `ask.yaml` in the run folder then asks each teacher its own prompts alone.

Shapes: M teachers, N prompts of the selection, or instructions that are routed.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from preceptor.core import artifacts
from preceptor.core.errors import DataError, SettingsError
from preceptor.core.progress import progress, say
from preceptor.core.run import open_run
from preceptor.criteria.persyn import NORMALISE, persyn_MN
from preceptor.data.answers import read_instructions
from preceptor.data.ngrams import VERSION
from preceptor.recipes.inputs.reading import Question, read_table
from preceptor.recipes.inputs.respondents import STORE
from preceptor.recipes.inputs.selected import Selected, read_selected
from preceptor.recipes.settings.shared import Source, model_name
from preceptor.selection.router import Router, choose
from preceptor.selection.routing import ORACLE, SINGLE, train, worth

ROUTE, ROUTED_TABLE, ASK_FILE = "route.json", "routed.parquet", "ask.yaml"
ROUTE_VERSION = 1
TEACHER, STRENGTH = "teacher", "route."  # columns of `routed.parquet`; NAME behind the second
ALPHA, PROMPTS = 0.4, 2500  # of the paper
_BLOCK = 8192  # instructions routed between two reports of progress


def route(
    run: Path,
    instructions: Source,
    out: Path,
    *,
    alpha: float | None = None,
    prompts: int = PROMPTS,
    seed: int = 0,
    command: str = "preceptor route",
) -> dict[str, Any]:
    """Train a router, test it on held-out prompts, and name a teacher for each instruction.

    Args:
        run: folder of a finished `preceptor select`.
        instructions: what is to be asked.
        out: the run folder; one that the same settings began is finished.
        alpha: weight of learnability in the score; if None, that of the selection's
            `criterion_options: {persyn: ...}`, else the paper's 0.4.
        prompts: how many of the selection's prompts the router is fitted on, at most.
        seed: of which ones, and of the folds.
        command: what to type to make the run again, for the provenance.

    Returns:
        The content of `route.json`.

    Raises:
        RunFolderError: `run` is no finished selection, or `out` belongs to other settings.
        DataError: a selection that nothing can be learned from, or unusable instructions.
        SettingsError: an alpha outside [0, 1].
    """
    selected = read_selected(run)
    options = (selected.settings.get("criterion_options") or {}).get("persyn") or {}
    alpha = float(options.get("alpha", ALPHA)) if alpha is None else alpha
    normalise = str(options.get("normalise", "minmax"))
    _refuse_values(alpha, prompts, normalise)
    inputs = dict(selected.inputs)
    table = read_table(instructions, inputs)
    questions = read_instructions(table, instructions.columns.model_dump(), instructions.path, None)
    _refuse_columns(table, selected.signals.teachers, instructions.path)
    identity = {
        "settings": {
            "run": str(run.resolve()),
            "instructions": instructions.model_dump(mode="json"),
            "alpha": alpha,
            "normalise": normalise,
            "prompts": prompts,
            "seed": seed,
        },
        "inputs": inputs,
        "models": {},
    }
    with open_run(out, identity, command) as opened:
        if opened.finished:
            say(f"{out} holds the finished run of these settings")
            return artifacts.read_json(opened.path(ROUTE))
        for warning in selected.warnings:
            say(f"warning: {warning}")
        found, router = _learn(selected, alpha, normalise, prompts, seed)
        router.save(opened.path(artifacts.ROUTER))
        routed, names = _route(router, table, questions)
        artifacts.write_table(opened.path(ROUTED_TABLE), routed)
        count = Counter(names)
        counts = {name: count[name] for name in router.teachers}
        known = set(selected.texts)
        found["routed"] = {
            "n_instructions": len(names),
            "n_known": sum(text in known for _, text, _ in questions),
            "teachers": counts,
        }
        text, lost = ask_file(selected, counts)
        artifacts.write_bytes(opened.path(ASK_FILE), text.encode())
        found["fill_in"] = lost
        artifacts.write_json(opened.path(ROUTE), found)
        opened.facts["prompts"] = found["router"]["n_prompts"]
        opened.finish()
    return found


def _refuse_values(alpha: float, prompts: int, normalise: str) -> None:
    for name, value, fits in (
        ("alpha", alpha, 0 <= alpha <= 1),
        ("prompts", prompts, prompts >= 1),
        ("normalise", normalise, normalise in NORMALISE),
    ):
        if not fits:
            raise SettingsError(
                f"{name} cannot be used",
                where=name,
                found=repr(value),
                next_step={
                    "alpha": "give a share from 0 (quality alone) to 1 (learnability alone)",
                    "prompts": "give the number of prompts to fit on",
                    "normalise": f"use one of {', '.join(NORMALISE)}",
                }[name],
            )


def _refuse_columns(table: pa.Table, teachers: tuple[str, ...], where: str) -> None:
    taken = [n for n in (TEACHER, *(STRENGTH + t for t in teachers)) if n in table.column_names]
    if taken:
        raise DataError(
            "the instructions have a column that routing is to write",
            where=where,
            found=f"column {taken[0]!r}",
            next_step="drop or rename it",
        )


def _learn(
    selected: Selected, alpha: float, normalise: str, prompts: int, seed: int
) -> tuple[dict[str, Any], Router]:
    """The content of `route.json` without what was routed, and the router."""
    signals, settings = selected.signals, selected.settings
    assert signals.reward_MN is not None
    score_MN = persyn_MN(signals, alpha, normalise)
    trained = train(signals.teachers, selected.texts, score_MN, prompts=prompts, seed=seed)
    confidence, resamples = float(settings["confidence"]), int(settings["resamples"])
    held_out = worth(
        trained,
        score_MN,
        {"reward": signals.reward_MN, "log_p": -signals.nll_MN / signals.n_tokens_MN},
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )
    gain = held_out["means"]["score"]["routed_minus"][SINGLE]
    room = held_out["means"]["score"][ORACLE]["mean"] - held_out["means"]["score"][SINGLE]["mean"]
    return {
        "version": ROUTE_VERSION,
        "base": selected.ranking["base"],
        "run": str(selected.folder),
        "reward": settings["rewards"][0]["name"],
        "alpha": alpha,
        "normalise": normalise,
        "seed": seed,
        "confidence": confidence,
        "n_resamples": resamples,
        "teachers": list(signals.teachers),
        "router": {
            "features": VERSION,
            "n_prompts": int(trained.trained_N.sum()),
            "l2": _finite(trained.router.l2),
            "l2_of_folds": [_finite(l2) for l2 in trained.l2],
            "label_scale": trained.scale,
        },
        "held_out": held_out,
        "verdict": "gain" if gain["low"] > 0 else "loss" if gain["high"] < 0 else "open",
        "share_of_room": gain["mean"] / room if room > 0 else None,
        "warnings": list(selected.warnings),
    }, trained.router


def _finite(l2: float) -> float | None:
    """None: the prompt is not looked at."""
    return None if np.isinf(l2) else l2


def _route(
    router: Router, table: pa.Table, questions: list[Question]
) -> tuple[pa.Table, list[str]]:
    """The instructions with their teacher and the strength of each one, and the teachers."""
    texts = [text for _, text, _ in questions]
    blocks = []
    with progress("routing", len(texts), "instructions") as advance:
        for low in range(0, len(texts), _BLOCK):
            blocks.append(router.utilities(texts[low : low + _BLOCK]))
            advance(len(blocks[-1]))
    u_NM = np.concatenate(blocks)
    names = [router.teachers[m] for m in choose(u_NM, router.teachers)]
    table = table.append_column(TEACHER, pa.array(names, pa.string()))
    for m, name in enumerate(router.teachers):
        table = table.append_column(STRENGTH + name, pa.array(u_NM[:, m], pa.float32()))
    return table, names


def ask_file(selected: Selected, counts: dict[str, int]) -> tuple[str, list[str]]:
    """Settings of `preceptor ask` that ask each teacher its own prompts, and whom to fill in.

    Live teachers are asked as the selection asked them. Of those that are known by their answers
    alone the place is left empty. Who has no prompt is not there.
    """
    live = {
        own.get("name") or model_name(str(own.get("model", ""))): own
        for own in selected.settings.get("teachers") or ()
    }
    store = selected.settings.get("store") or selected.folder.resolve() / STORE
    lines = [
        f"# Each teacher is asked only the prompts whose column {TEACHER!r} names it.",
        "# `preceptor ask THIS_FILE --out FOLDER` runs it. Add `rewards` to score the answers.",
        _yaml({"instructions": ROUTED_TABLE, "route_by": TEACHER}),
        *([_yaml({"store": str(store)})] if live and Path(store).is_dir() else []),
        "teachers:",
    ]
    lost = []
    for name, n in counts.items():
        if not n:
            continue
        if name in live:
            kept = {k: v for k, v in live[name].items() if v not in (None, "", {}, [])}
            entry = _yaml({"name": name} | kept).splitlines()
        else:
            entry = [_yaml({"name": name}), "model:  # fill in: where this teacher is to be found"]
            lost.append(name)
        lines.append(f"  - {entry[0]}  # {n:,} prompts")
        lines += [f"    {line}" for line in entry[1:]]
    return "\n".join(lines) + "\n", lost


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=10**6).rstrip("\n")
