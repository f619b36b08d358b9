"""What the passes of the base and the reference take: one for each kind of text they read."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from preceptor.core.types import Runtime
from preceptor.data.rendering import Renderer
from preceptor.data.steps import Steps
from preceptor.data.token_store import DTYPES
from preceptor.kernels import linear_nll
from preceptor.models import size as sizes
from preceptor.models.load import Card, pick_device
from preceptor.recipes.planning.asking import Asked, dtype_ways, known_size
from preceptor.recipes.planning.draft import BOUND, EXACT, SAMPLED, STORED, Draft, Need, Stage
from preceptor.recipes.planning.scoring import (
    Sequences,
    add_verdict,
    host_bytes,
    reading_need,
    sequences,
)
from preceptor.recipes.selecting.measuring import Needs
from preceptor.recipes.settings.select import Select
from preceptor.recipes.settings.shared import model_name
from preceptor.selection import gradients
from preceptor.selection.measure import BATCH_TOKENS, COSINES

MEAN_LENGTH = "mean length"
STEP = 32  # tokens of a step, where no answer is known yet
BACKWARD = 3  # a forward pass and the way back, in forward passes


@dataclass(frozen=True)
class Counted:
    """Sequences of one pass.

    Attributes:
        n: of them, repeats counted.
        tokens: of those that are read, each once.
        basis: how this is known.
    """

    n: int
    tokens: int
    basis: str


def plan_measuring(
    draft: Draft,
    card: Card,
    role: str,
    asked: Sequence[Asked],
    runtime: Runtime,
    needs: Needs,
    settings: Select,
    out: Path,
    quoted: int = 0,
) -> None:
    """Add every pass of the base or the reference, and what it keeps below the run folder.

    Args:
        quoted: answers that the report will quote; unless every token's numbers are kept, they are
            measured once more.
    """
    renderer = Renderer(card.tokenizer, card.limit, card.reference)
    found = sequences(renderer, asked)
    add_verdict(draft, role, card, found)
    device = pick_device(runtime.device)
    budget = runtime.batch_tokens or BATCH_TOKENS.get(device.type, BATCH_TOKENS["cuda"])
    rows, columns = linear_nll.TILES.get(device.type, linear_nll.BIG_TILE)
    tile = rows * min(columns, card.vocabulary) * sizes.FULL
    plain = reading_need(card.reference, runtime, budget, found, tile)
    # a further tile holds what other sums are made of
    wide = reading_need(card.reference, runtime, budget, found, 3 * tile // 2)
    own = plain
    if not set(COSINES).isdisjoint(needs.sums):
        own = reading_need(card.reference, runtime, budget, found, 3 * tile // 2, compares=True)
    elif {*needs.sums, *needs.tokens} - {"nll"}:
        own = wide

    def add(
        name: str, counted: Counted, need: Need, work: float = 1.0, *, alone: bool = False
    ) -> None:
        draft.stages.append(
            Stage(
                f"measuring {model_name(card.reference)} ({name})",
                "measure",
                f"measure.{role}",
                model=model_name(card.reference),
                items=counted.n,
                tokens=counted.tokens,
                tokens_from=counted.basis,
                need=need,
                host=host_bytes(card.reference, runtime),
                work=work,
                alone=alone,
            )
        )

    whole = Counted(found.n, found.tokens, found.basis)
    if needs.sums or needs.tokens:
        add("nll", whole, own)
    if "nll_unconditional" in needs.others:
        add("nll_unconditional", replace(whole, tokens=found.bare), plain)
    if "nll_question" in needs.others:
        add("nll_question", questions(renderer, asked), plain)
    if "local" in needs.others:
        steps = Steps(card.tokenizer, settings.step_separator)
        add("local", windows(renderer, asked, steps, settings.local_window), plain)
    if "gradient" in needs.others:
        work = BACKWARD + settings.gradient_dim * found.distinct / max(found.tokens, 1)
        basis = f"{found.basis}; each is {work:.3g} tokens' work"
        add(
            "gradient",
            replace(whole, basis=basis),
            gradient_need(card.reference, runtime, found, settings.gradient_dim),
            work,
        )
        size = found.distinct * settings.gradient_dim * gradients.NUMBER.itemsize
        draft.write("projected gradients", out, size)
    if quoted and "nll" in needs.sums and "nll" not in needs.tokens:
        tokens = round(found.tokens * quoted / max(found.n, 1))
        add("quoted", Counted(quoted, tokens, MEAN_LENGTH), wide, alone=True)
    stored = sum(DTYPES[name].itemsize for name in needs.tokens)
    draft.write("token signals", out, stored * found.scored_once)


def questions(renderer: Renderer, asked: Sequence[Asked]) -> Counted:
    """The instructions by themselves: all teachers answer the same ones."""
    counts = []
    for one in asked:
        texts = sorted(set(one.instructions))
        scale = one.n / max(len(one.instructions), 1)
        tokens = scale * sum(len(row.ids) for row in renderer.questions(texts))
        basis = SAMPLED if scale > 1 else EXACT
        counts.append(Counted(round(scale * len(texts)), round(tokens), basis))
    return max(counts, key=lambda one: one.n)


def windows(renderer: Renderer, asked: Sequence[Asked], steps: Steps, share: float) -> Counted:
    """Every step of the answers in its local window.

    Known answers are cut into their steps. One that is not known yet counts as the mean of the
    teacher's known answers, or as steps of `STEP` tokens up to what it is expected to generate.
    """
    seen: set[tuple[bytes, int]] = set()
    n = tokens = 0.0
    doubts: set[str] = set()
    for one in asked:
        scale = one.n / max(len(one.instructions), 1)
        pairs = list(zip(one.instructions, one.responses, strict=True))
        known = [(text, response) for text, response in pairs if response is not None]
        n_unknown = len(pairs) - len(known)
        like: list[tuple[int, int]] = []
        for row in renderer.render([text for text, _ in known], [answer for _, answer in known]):
            found = renderer.windows(row, steps.starts(row.response_ids), share)
            like.append((len(found), sum(len(window.ids) for window in found)))
            new = {(w.ids.tobytes(), w.n_response): len(w.ids) for w in found}
            tokens += scale * sum(length for key, length in new.items() if key not in seen)
            seen.update(new)
        n += scale * sum(count for count, _ in like)
        doubts |= {SAMPLED} if scale > 1 else set()
        if n_unknown:
            for row in renderer.render([""] * len(one.others), one.others):
                found = renderer.windows(row, steps.starts(row.response_ids), share)
                like.append((len(found), sum(len(window.ids) for window in found)))
            doubts.add(STORED if like else BOUND)
            like = like or [_expected(renderer, one, share)]
            n += scale * n_unknown * statistics.fmean(count for count, _ in like)
            tokens += scale * n_unknown * statistics.fmean(length for _, length in like)
    basis = next((name for name in (BOUND, STORED, SAMPLED) if name in doubts), EXACT)
    return Counted(round(n), round(tokens), basis)


def _expected(renderer: Renderer, one: Asked, share: float) -> tuple[int, int]:
    """(windows, their tokens) of an answer of the expected length to a middling instruction."""
    middle = sorted(one.instructions, key=len)[len(one.instructions) // 2]
    (bare,) = renderer.render([middle], [""])
    response = min(round(one.generated) + 1, renderer.limit)
    row = renderer.fit([0] * (len(bare.ids) - bare.n_response), [0] * response)
    found = renderer.windows(row, range(0, row.n_response, STEP), share)
    return len(found), sum(len(window.ids) for window in found)


def gradient_need(reference: str, runtime: Runtime, found: Sequences, dim: int) -> Need:
    """Memory of the gradients' pass: one answer at a time, the longest of all."""
    size = known_size(reference, runtime.trust_remote_code)
    device = pick_device(runtime.device)

    def parts(knobs: Any) -> dict[str, int]:
        s = gradients.gradient_dtype(knobs["dtype"], device).itemsize
        own = size.parameters * s
        # of a part of the positions: logits, their log-softmax and their gradient
        logits = 3 * min(found.longest_response, gradients.POSITIONS) * size.vocabulary
        active = sizes.saved_bytes(size, found.longest, s)
        active += sizes.forward_bytes(size, found.longest, s) + logits * sizes.FULL
        return {
            "weights": own,
            # those that wait, and the largest one as it is formed and summed up
            "gradients": gradients.rows_held(own, device, own) * own + 2 * size.head * s,
            "activations": active,
            "projection": 2 * sizes.FULL * gradients.signs_held(device),
        }

    return Need(parts, {"dtype": runtime.dtype}, dtype_ways(runtime))
