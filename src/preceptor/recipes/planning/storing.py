"""What storing a teacher's signals takes: its pass over the data, and bytes on the disk."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from preceptor.core.progress import say
from preceptor.data.signal_store import StoreReader
from preceptor.models import size as sizes
from preceptor.models.load import pick_device, pick_dtype
from preceptor.recipes import cache
from preceptor.recipes.inputs.respondents import decoding_of, open_asker, requests_of
from preceptor.recipes.planning.asking import Asked, known_size
from preceptor.recipes.planning.draft import Draft, Need, Rates, Stage, Verdict, halves
from preceptor.recipes.planning.lessons import compare, plan_lessons, refuse_cut
from preceptor.recipes.planning.rates import known_pairs, note_rate, probe_asking
from preceptor.recipes.planning.scoring import add_verdict, sequences
from preceptor.recipes.settings.shared import model_name
from preceptor.recipes.settings.training import Cache, Cached, Distill
from preceptor.training.storing import BIG_TILE_VALUES, TILE_VALUES, write_store

FULL = sizes.FULL


def plan_store(draft: Draft, prepared: cache.Prepared, asked: Sequence[Asked], out: Path) -> None:
    """Add the teacher's pass over the data, and the signals on the disk."""
    settings, runtime = prepared.settings, prepared.runtime
    found = sequences(prepared.renderer, asked)
    add_verdict(draft, "student", prepared.student, found)
    refuse_cut(draft, found, settings, prepared.renderer)
    compare(draft, "teacher", prepared.student, settings.teacher, runtime)
    size = known_size(prepared.teacher.reference, runtime.trust_remote_code)
    device = pick_device(runtime.device)
    values = TILE_VALUES.get(device.type, BIG_TILE_VALUES)

    def parts(knobs: Any) -> dict[str, int]:
        width = max(found.longest, 1)
        rows = max(1, knobs["batch_tokens"] // width)
        scored = round(rows * found.longest_response)
        tile = min(values, scored * size.vocabulary) * FULL
        if settings.form == "sampled":  # sums and draws in fp64 beside it
            tile += 2 * 2 * tile
        return {
            "activations": sizes.scoring_bytes(size, rows * width, scored, FULL, tile),
            "weights": sizes.weight_bytes(
                size,
                pick_dtype(settings.teacher.dtype, device).itemsize,
                settings.teacher.load_in,
            ),
        }

    draft.stages.append(
        Stage(
            f"storing {model_name(settings.teacher.model)}",
            "store",
            "store",
            model=settings.teacher.model,
            items=found.n,
            tokens=round(float(np.mean(found.lengths)) * found.n) if found.lengths else 0,
            tokens_from=found.basis,
            need=Need(
                parts,
                {"batch_tokens": settings.batch_tokens},
                {"batch_tokens": halves(settings.batch_tokens)},
            ),
            host=size.parameters * FULL,
        )
    )
    stored = stored_bytes(settings.form, settings.k, size.vocabulary) * found.scored
    draft.write("signals", out / cache.SIGNALS, stored)


def stored_bytes(form: str, k: int, vocabulary: int) -> int:
    """Bytes of a scored position in a signal store; of `sampled` the most, where no draw repeats.

    top_k: an id and a log p (float16) an entry, and the tail's mass. sampled: an id and a weight
    (float32) a draw, their number (2) and the entropy.
    """
    an_id = 2 if vocabulary <= 1 << 16 else 4
    if form == "top_k":
        return min(k, vocabulary) * (an_id + 2) + FULL
    return min(k, vocabulary) * (an_id + FULL) + 2 + FULL


def stored_verdict(draft: Draft, settings: Any) -> None:
    """What is known of a teacher whose signals are stored."""
    if isinstance(settings, Distill) and isinstance(settings.teacher, Cached):
        facts = StoreReader(Path(settings.teacher.path)).facts
        draft.tokenizers.append(
            Verdict(
                "stored teacher",
                str(facts.get("teacher", "")),
                "compared when the run opens it",
                f"{facts['positions']:,} positions, {facts['bytes_per_token']:,} bytes a token",
            )
        )


class CacheJob:
    """A storing of signals that was prepared, to be planned."""

    def __init__(self, settings: Cache, out: Path) -> None:
        self.prepared, self.out = cache.prepare_cache(settings), out
        self.identity, self.device = self.prepared.identity, pick_device(settings.device)
        self.store = open_asker(settings.data.store, out).store
        self._asked: list[Asked] = []

    def draft(self) -> Draft:
        """The plan, as far as it is known now."""
        own, draft = self.prepared, Draft(self.device)
        self._asked = plan_lessons(
            draft,
            own.lessons,
            own.respondents,
            lambda row: next(iter(own.respondents)),
            self.store,
            own.settings.seed,
            own.runtime,
            own.student,
        )
        plan_store(draft, own, self._asked, self.out)
        return draft

    def probe(self, count: int, rates: Rates) -> None:
        """Short timed pieces of asking and storing."""
        own = self.prepared
        texts = [text for _, text, _ in own.lessons.questions]
        for name, (teacher, source) in own.respondents.items():
            requests = requests_of(texts, decoding_of(teacher), own.settings.seed)
            probe_asking(name, source, requests, count, self.store, rates)
        self.draft()  # the answers of the probe are known now
        probe_storing(own, self._asked, count, rates)


def probe_storing(
    prepared: cache.Prepared, asked: Sequence[Asked], count: int, rates: Rates
) -> None:
    """The teacher's signals of up to `count` known answers, stored for a moment."""
    settings, device = prepared.settings, pick_device(prepared.runtime.device)
    pairs = known_pairs(asked)[: max(count, 2)]
    if not pairs:
        return
    say(f"probe: signals of {len(pairs)} answers")
    rows = prepared.renderer.render([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    started = time.perf_counter()
    teacher = cache.open_store_teacher(prepared)
    counts = []
    with tempfile.TemporaryDirectory() as folder:
        for name, part in (("warm", rows[:1]), ("timed", rows)):
            write_store(
                Path(folder, name),
                teacher,
                part,
                cache.form_of(settings),
                tokenizer_fingerprint="",
                device=device,
                batch_tokens=settings.batch_tokens,
            )
            counts.append((time.perf_counter(), sum(len(row.ids) for row in part)))
    note_rate(rates, "store", started, counts)
