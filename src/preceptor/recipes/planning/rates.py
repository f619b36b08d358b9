"""How fast things go: short timed pieces of the real work, or the record of an earlier run."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from preceptor.core import artifacts
from preceptor.core.errors import RunFolderError
from preceptor.core.progress import say
from preceptor.core.types import Answer, Request, Runtime, TeacherSource
from preceptor.data.answer_store import AnswerStore
from preceptor.data.rendering import Renderer
from preceptor.models.load import Card, pick_device
from preceptor.recipes.planning.asking import Asked, held_keys, light_card
from preceptor.recipes.planning.draft import Rates
from preceptor.recipes.planning.scoring import recorded_as_asked, sequences
from preceptor.recipes.settings.shared import model_location
from preceptor.selection.measure import BATCH_TOKENS, LOSS, Wanted, make_plan, open_scorer

PROBED = "probe"


def probe_asking(
    name: str,
    source: TeacherSource,
    requests: Sequence[Request],
    count: int,
    store: AnswerStore | None,
    rates: Rates,
) -> None:
    """Ask up to `count` of the requests that are not answered yet; the run finds the answers.

    The first answer comes alone, with the loading of the weights; the rate is that of the others.

    Args:
        store: keeps the answers; None lets them go.
    """
    known = held_keys(store, source) if store else set()
    left = [request for request in requests if request.key(source.identity) not in known]
    places = sorted(set(np.linspace(0, len(left) - 1, min(count, len(left))).astype(int).tolist()))
    picked = [left[place] for place in places]
    if not picked:
        return
    say(f"probe: {name} answers {len(picked)} instructions")
    first, *groups = source.groups(picked)
    groups = [[first[0]], *([first[1:]] if first[1:] else []), *groups]
    asked = [[picked[place] for place in group] for group in groups]
    counts: list[tuple[float, int]] = []
    started = time.perf_counter()
    with closing(source.ask(asked)) as stream:  # type: ignore[type-var]
        found = []
        for number, replies in stream:
            counts.append((time.perf_counter(), sum(reply.n_generated for reply in replies)))
            found.append((asked[number], replies))
    if store is not None:
        with store.part(source.identity) as part:
            for own, replies in found:
                keys = [request.key(source.identity) for request in own]
                part.add(keys, own, replies, source.price)
    note_rate(rates, f"ask.{name}", started, counts)


def note_rate(rates: Rates, name: str, started: float, counts: Sequence[tuple[float, int]]) -> None:
    """The rate after the first result; with one result alone, of it all."""
    first = counts[0][0]
    if len(counts) > 1:
        seconds, amount = counts[-1][0] - first, sum(count for _, count in counts[1:])
        rates.loading[name] = first - started
    else:
        seconds, amount = first - started, counts[0][1]
    rates.give(name, amount / max(seconds, 1e-9), PROBED)


def known_pairs(asked: Sequence[Asked]) -> list[tuple[str, str]]:
    """Instructions and their answers, as far as they are known; teachers take turns."""
    by_teacher = [
        [
            (instruction, response)
            for instruction, response in zip(one.instructions, one.responses, strict=True)
            if response is not None
        ]
        for one in asked
    ]
    rounds = zip_longest(*by_teacher)
    return [pair for turn in rounds for pair in turn if pair is not None]


def probe_measuring(
    role: str,
    card: Card,
    asked: Sequence[Asked],
    runtime: Runtime,
    count: int,
    rates: Rates,
    wanted: Wanted = LOSS,
) -> None:
    """Score up to `count` known answers; the first batch warms up."""
    pairs = known_pairs(asked)[: max(count, 2)]
    if not pairs:
        return
    say(f"probe: {card.reference} reads {len(pairs)} answers")
    renderer = Renderer(card.tokenizer, card.limit, card.reference)
    rows = renderer.render([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    device = pick_device(runtime.device)
    budget = runtime.batch_tokens or BATCH_TOKENS.get(device.type, BATCH_TOKENS["cuda"])
    plan = make_plan(rows, budget)
    started = time.perf_counter()
    place = (card.reference, runtime.dtype, runtime.device, runtime.trust_remote_code)
    score = open_scorer(*place, wanted)
    score([plan.unique[0]])
    counts = [(time.perf_counter(), 0)]
    for batch in plan.batches:
        score([plan.unique[row] for row in batch.rows])
        counts.append((time.perf_counter(), batch.n_tokens))
    note_rate(rates, f"measure.{role}", started, counts)


def rates_of_run(folder: Path, rates: Rates, trust_remote_code: bool = False) -> None:
    """Rates that an earlier run reached: of asking, measuring and training.

    Raises:
        RunFolderError: no finished run there.
    """
    facts = artifacts.read_json(folder / artifacts.PROVENANCE, {})
    if not isinstance(facts, dict) or facts.get("status") != "finished":
        raise RunFolderError(
            "no finished run to take rates from",
            where=str(folder),
            found=str(facts.get("status", f"no {artifacts.PROVENANCE}")),
            next_step="give --like the folder of a finished run",
        )
    source = f"like {folder}"
    for name, asked in (facts.get("asked") or {}).items():
        if not asked.get("reused") and asked.get("seconds"):
            kind = f"score.{name[6:]}" if name.startswith("judge:") else f"ask.{name}"
            rates.give(kind, asked["generated_tokens"] / asked["seconds"], source)
    seconds = facts.get("stage_seconds") or {}
    settings = facts.get("settings") or {}
    for role in ("base", "reference"):
        spent = [seconds.get(f"measuring {role} {name}") for name in ("nll", "nll_unconditional")]
        if spent[0] and settings.get(role):
            card = light_card(model_location(settings[role]), trust_remote_code)
            found = sequences(
                Renderer(card.tokenizer, card.limit, card.reference),
                [recorded_as_asked(_answers_of(folder))],
            )
            tokens = found.tokens + (found.bare if spent[1] else 0)
            rates.give(f"measure.{role}", tokens / (spent[0] + (spent[1] or 0.0)), source)
    speeds = _speeds(folder / artifacts.METRICS)
    if speeds:
        rates.give("train", statistics.median(speeds), source)


def _answers_of(folder: Path) -> list[Answer]:
    table = pq.read_table(
        folder / artifacts.ANSWERS, columns=["instruction", "teacher", "response"]
    )
    return [
        Answer("", row["instruction"], row["teacher"], row["response"]) for row in table.to_pylist()
    ]


def _speeds(path: Path) -> list[float]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [json.loads(line).get("tokens_per_second") or 0.0 for line in lines]
    return [speed for speed in found[1:] or found if speed > 0]
