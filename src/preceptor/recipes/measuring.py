"""The models' pass over the answers of a selection: `signals.parquet`, and what is read of it.

Shapes: M teachers, N instructions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from preceptor.core import artifacts
from preceptor.core.criterion import Criterion, Signals
from preceptor.core.errors import ModelError
from preceptor.core.progress import say
from preceptor.core.run import Run
from preceptor.data.paired import Paired
from preceptor.data.rendering import Rendered, Renderer
from preceptor.data.sequences import Lazy, tokenize
from preceptor.models.load import Card, pick_device
from preceptor.recipes.preparing import Prepared
from preceptor.recipes.shared_settings import model_name
from preceptor.selection.measure import BATCH_TOKENS, NLL_SCHEMA, make_plan, measure, open_scorer
from preceptor.selection.ranking import apply_map

LOSSES = ("nll", "nll_unconditional")  # of the signals, those that a model's pass gives


def losses_of(criteria: Iterable[Criterion], *, reference: bool = False) -> tuple[str, ...]:
    """The losses that some criterion reads, under the base or under the reference.

    The reference's are read by criteria that need no reward. A view of the reference always has
    its losses with the instruction.
    """
    readers = [c for c in criteria if not (reference and "reward" in c.needs)]
    needs = frozenset[str]().union(*(criterion.needs for criterion in readers))
    if reference and needs & set(LOSSES):
        needs |= {"nll"}
    return tuple(name for name in LOSSES if name in needs)


def measure_answers(
    prepared: Prepared, run: Run, answers: Paired, rewards: Mapping[str, np.ndarray]
) -> pa.Table:
    """The base's (and the reference's) pass over the answers: `signals.parquet`.

    A model that no criterion reads is not loaded: of the base then remain the counts of tokens.
    """
    wanted = losses_of(prepared.criteria)
    base = _measure_model(prepared, run, answers, prepared.base, "base", wanted)
    columns: dict[str, Any] = {
        "teacher": answers.answers.coded("teacher").texts(),
        "instruction_id": answers.answers.coded("instruction_id").texts(),
        **base,
    }
    wanted_reference = losses_of(prepared.criteria, reference=True)
    if prepared.reference is not None and not wanted_reference:
        say("warning: no criterion reads the reference model, so it is not measured")
    if prepared.reference is not None and wanted_reference:
        other = _measure_model(
            prepared, run, answers, prepared.reference, "reference", wanted_reference
        )
        columns["n_tokens_reference"] = other["n_tokens"]
        columns["nll_reference"] = other.get("nll")
        columns["nll_reference_unconditional"] = other.get("nll_unconditional")
    columns |= {f"reward.{name}": values for name, values in rewards.items()}
    schema = artifacts.signals_schema(rewards, measured="nll" in wanted)
    arrays = []
    for field in schema:
        values = columns.get(field.name)
        if values is None:
            values = pa.nulls(len(answers.answers))
        arrays.append(pa.array(values).cast(field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _measure_model(
    prepared: Prepared, run: Run, answers: Paired, card: Card, role: str, losses: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """n_tokens, truncated, and the losses under one model."""
    runtime = prepared.runtime
    renderer = Renderer(card.tokenizer, card.limit, card.reference)
    tokens = tokenize(renderer, answers.answers, keep_ids=bool(losses))
    found = {"n_tokens": tokens.n_response, "truncated": tokens.truncated}
    if tokens.truncated.any():
        say(
            f"warning: {tokens.truncated.sum():,} answers are longer than {card.reference} "
            f"takes ({card.limit:,} tokens) and are scored on their kept part"
        )
    if not losses:
        return found
    _refuse_foreign_tokens(card, tokens.largest)
    device = pick_device(runtime.device)
    budget = runtime.batch_tokens or BATCH_TOKENS.get(device.type, BATCH_TOKENS["cuda"])
    opener = partial(
        open_scorer, card.reference, runtime.dtype, runtime.device, runtime.trust_remote_code
    )

    def alone(place: int) -> Rendered:
        return renderer.unconditional(tokens.sequences[place])

    passes = {"nll": tokens.sequences, "nll_unconditional": Lazy(alone, len(tokens.sequences))}
    for name in losses:
        plan = make_plan(passes[name], budget)
        with run.stage(f"measure-{role}-{name}", NLL_SCHEMA) as stage:
            title = f"measuring under {model_name(card.reference)} ({name})"
            found[name] = measure(title, opener, plan, stage, runtime.fleet)
            run.note_seconds(f"measuring {role} {name}", stage)
    return found


def _refuse_foreign_tokens(card: Card, largest: int) -> None:
    """Some tokenizers were given tokens that the model was never resized for."""
    if largest >= card.vocabulary:
        raise ModelError(
            "the tokenizer makes token ids that the model does not have",
            where=card.reference,
            found=f"id {largest}, vocabulary {card.vocabulary}",
            next_step="resize the model's embeddings, or use the tokenizer it was trained with",
        )


def read_signals(prepared: Prepared, answers: Paired, table: pa.Table) -> Signals:
    """`signals.parquet` as (M, N) arrays, rewards mapped."""

    def grid(name: str) -> np.ndarray | None:
        column = table[name]
        if column.null_count:
            return None
        return column.to_numpy().astype(np.float64).reshape(answers.shape)

    rewards = {}
    for reward in prepared.settings.rewards:
        raw = table[f"reward.{reward.name}"].to_numpy()
        mapped = apply_map(raw, reward.map, reward.scale, reward.shift)
        rewards[reward.name] = mapped.reshape(answers.shape)
    n_tokens, nll = grid("n_tokens"), grid("nll")
    assert n_tokens is not None
    return Signals(
        teachers=answers.teachers,
        n_tokens_MN=n_tokens,
        nll_MN=np.broadcast_to(np.nan, answers.shape) if nll is None else nll,
        nll_unconditional_MN=grid("nll_unconditional"),
        n_tokens_reference_MN=grid("n_tokens_reference"),
        nll_reference_MN=grid("nll_reference"),
        nll_reference_unconditional_MN=grid("nll_reference_unconditional"),
        rewards=rewards,
    )
