"""The models' passes over the answers of a selection: `signals.parquet`, and what is read of it.

Shapes: M teachers, N instructions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
from preceptor.data.sequences import Lazy, Tokens, tokenize
from preceptor.data.steps import Windows
from preceptor.data.token_store import TokenStore
from preceptor.models.load import Card, pick_device
from preceptor.recipes.selecting.features import features_of_gradients, features_of_tokens
from preceptor.recipes.selecting.preparing import Prepared
from preceptor.recipes.selecting.teacher_facts import Facts
from preceptor.recipes.settings.select import Select
from preceptor.recipes.settings.shared import model_name
from preceptor.selection.gradients import (
    GRADIENT_SCHEMA,
    measure_gradients,
    open_gradients,
    plan_gradients,
)
from preceptor.selection.measure import (
    BATCH_TOKENS,
    COSINES,
    LOSS,
    SUMS,
    Plan,
    Wanted,
    make_plan,
    measure,
    open_scorer,
)
from preceptor.selection.ranking import apply_map


@dataclass(frozen=True)
class Needs:
    """What some criteria need of one model.

    Attributes:
        sums: signals of the answers after their instructions.
        tokens: signals of each of their tokens.
        others: whatever takes further passes.
    """

    sums: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    others: frozenset[str] = frozenset()

    @property
    def none(self) -> bool:
        return not (self.sums or self.tokens or self.others)


def needs_of(criteria: Iterable[Criterion], *, reference: bool = False) -> Needs:
    """What the criteria read of the base, or of the reference.

    The reference's signals are read by criteria that are `of_any_model`; its losses with the
    instruction are then always there.
    """
    readers = [c for c in criteria if not reference or c.of_any_model]
    needs = frozenset[str]().union(*(criterion.needs for criterion in readers))
    tokens = frozenset[str]().union(*(criterion.tokens for criterion in readers))
    if reference and needs:
        needs |= {"nll"}
    sums = [name for name in SUMS if name in needs]
    sums += [name for name in COSINES if "similarity" in needs]
    others = needs & {"nll_unconditional", "nll_question", "local"}
    others |= {"gradient"} if any(criterion.gradients for criterion in readers) else set()
    return Needs(tuple(sums), tuple(sorted(tokens - {"step"})), frozenset(others))


def measure_answers(
    prepared: Prepared,
    run: Run,
    answers: Paired,
    rewards: Mapping[str, np.ndarray],
    prefix: str = "",
) -> pa.Table:
    """The base's (and the reference's) passes over the answers: `signals.parquet`.

    A model that no criterion reads is not loaded: of the base then remain the counts of tokens.

    Args:
        prefix: of the stages' names, where answers are measured in several rounds.
    """
    base = _Model(prepared, run, answers, prepared.base, "base", prefix)
    columns: dict[str, Any] = {
        "teacher": answers.answers.coded("teacher").texts(),
        "instruction_id": answers.answers.coded("instruction_id").texts(),
        **base.measure(needs_of(prepared.criteria)),
    }
    needs = needs_of(prepared.criteria, reference=True)
    if prepared.reference is not None and needs.none:
        say("warning: no criterion reads the reference model, so it is not measured")
    if prepared.reference is not None and not needs.none:
        reference = _Model(prepared, run, answers, prepared.reference, "reference", prefix)
        other = reference.measure(needs)
        columns["n_tokens_reference"] = other["n_tokens"]
        columns["nll_reference"] = other.get("nll")
        columns["nll_reference_unconditional"] = other.get("nll_unconditional")
    columns |= {f"reward.{name}": values for name, values in rewards.items()}
    features = [name for name in columns if name.startswith(artifacts.FEATURE)]
    schema = artifacts.signals_schema(rewards, "nll" in columns, columns, features)
    arrays = []
    for each in schema:
        values = columns.get(each.name)
        if values is None:
            values = pa.nulls(len(answers.answers))
        arrays.append(pa.array(values).cast(each.type))
    return pa.Table.from_arrays(arrays, schema=schema)


class _Model:
    """One model of the run, and the answers as it reads them."""

    def __init__(
        self, prepared: Prepared, run: Run, answers: Paired, card: Card, role: str, prefix: str
    ) -> None:
        self.prepared, self.run, self.card, self.role = prepared, run, card, role
        self.answers, self.prefix = answers, prefix
        self.renderer = Renderer(card.tokenizer, card.limit, card.reference)
        runtime = prepared.runtime
        device = pick_device(runtime.device)
        self.budget = runtime.batch_tokens or BATCH_TOKENS.get(device.type, BATCH_TOKENS["cuda"])
        self.place = (card.reference, runtime.dtype, runtime.device, runtime.trust_remote_code)

    def measure(self, needs: Needs) -> dict[str, Any]:
        """n_tokens, truncated, and every signal and feature that is needed."""
        tokens = tokenize(self.renderer, self.answers.answers, keep_ids=not needs.none)
        columns: dict[str, Any] = {"n_tokens": tokens.n_response, "truncated": tokens.truncated}
        if tokens.truncated.any():
            say(
                f"warning: {tokens.truncated.sum():,} answers are longer than "
                f"{self.card.reference} takes ({self.card.limit:,} tokens) and are scored on their "
                "kept part"
            )
        if needs.none:
            return columns
        _refuse_foreign_tokens(self.card, tokens.largest)
        if needs.sums or needs.tokens:
            columns |= self._answers(tokens, needs)
        if "nll_unconditional" in needs.others:
            alone = Lazy(
                lambda place: self.renderer.unconditional(tokens.sequences[place]),
                len(tokens.sequences),
            )
            columns["nll_unconditional"] = self._pass("nll_unconditional", alone)["nll"]
        if "nll_question" in needs.others:
            columns |= self._questions()
        if "local" in needs.others:
            columns["local"] = self._windows(tokens)
        if "gradient" in needs.others:
            columns |= self._gradients(tokens)
        return columns

    def _answers(self, tokens: Tokens, needs: Needs) -> dict[str, Any]:
        """The pass that most signals come from."""
        wanted, plan = Wanted(needs.sums, needs.tokens), make_plan(tokens.sequences, self.budget)
        if not needs.tokens:
            return self._pass("nll", plan, wanted)
        place = (
            f"{artifacts.WORK}/{self.prefix}{artifacts.TOKENS}" if self.prefix else artifacts.TOKENS
        )
        folder = self.run.path(place)
        with TokenStore(folder, plan.n_response, needs.tokens) as store:
            columns = self._pass("nll", plan, wanted, store)
            starts = store.starts[:-1][plan.item_to_unique]
        features = features_of_tokens(
            self.prepared.criteria,
            folder,
            starts,
            tokens,
            self.prepared.settings.step_separator,
        )
        kept = {} if self.prefix else {"token_start": starts}
        return {**columns, **features, **kept}

    def _questions(self) -> dict[str, np.ndarray]:
        """Loss of each instruction by itself; one that many teachers answered is measured once."""
        texts = self.answers.answers.coded("instruction")
        used, place = np.unique(texts.codes, return_inverse=True)
        rows = self.renderer.questions(texts.values.take(pa.array(used)).to_pylist())
        nll = self._pass("nll_question", rows)["nll"]
        n = np.array([row.n_response for row in rows])
        return {"nll_question": nll[place], "n_question": n[place]}

    def _windows(self, tokens: Tokens) -> np.ndarray:
        """Mean over an answer's steps of mean log p, each step given its local window."""
        settings = self.prepared.settings
        windows = Windows(
            self.renderer, tokens.sequences, settings.step_separator, settings.local_window
        )
        plan = make_plan(windows.sequences, self.budget)
        nll = self._pass("local", plan)["nll"]
        return windows.mean_over_steps(-nll / plan.n_response[plan.item_to_unique])

    def _gradients(self, tokens: Tokens) -> dict[str, np.ndarray]:
        """What criteria make of each answer's projected gradient."""
        dim, plan = self.prepared.settings.gradient_dim, plan_gradients(tokens.sequences)
        name = f"{self.prefix}measure-{self.role}-gradient"
        with self.run.stage(name, GRADIENT_SCHEMA) as stage:
            gradients = measure_gradients(
                f"gradients of {model_name(self.card.reference)}",
                partial(open_gradients, *self.place, dim),
                dim,
                plan,
                stage,
                self.run.path(f"{artifacts.WORK}/{self.prefix}gradients.npy"),
                self.prepared.runtime.fleet,
            )
            self.run.note_seconds(f"measuring {self.role} gradient", stage)
        return features_of_gradients(
            self.prepared.criteria, gradients, plan.item_to_unique, self.answers.shape
        )

    def _pass(
        self,
        name: str,
        what: Plan | Sequence[Rendered],
        wanted: Wanted = LOSS,
        store: TokenStore | None = None,
    ) -> dict[str, np.ndarray]:
        """One pass over a plan, or over sequences that are planned here."""
        runtime = self.prepared.runtime
        plan = what if isinstance(what, Plan) else make_plan(what, self.budget)
        opener = partial(open_scorer, *self.place, wanted)
        with self.run.stage(f"{self.prefix}measure-{self.role}-{name}", wanted.schema) as stage:
            title = f"measuring under {model_name(self.card.reference)} ({name})"
            found = measure(title, opener, plan, stage, runtime.fleet, store)
            self.run.note_seconds(f"measuring {self.role} {name}", stage)
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


def read_signals(settings: Select, facts: Facts, answers: Paired, table: pa.Table) -> Signals:
    """`signals.parquet` as (M, N) arrays, rewards mapped."""

    def grid(name: str) -> np.ndarray | None:
        if name not in table.column_names or table[name].null_count:
            return None
        return table[name].to_numpy().astype(np.float64).reshape(answers.shape)

    rewards = {}
    for reward in settings.rewards:
        raw = table[f"reward.{reward.name}"].to_numpy()
        mapped = apply_map(raw, reward.map, reward.scale, reward.shift)
        rewards[reward.name] = mapped.reshape(answers.shape)
    n_tokens, nll = grid("n_tokens"), grid("nll")
    assert n_tokens is not None
    features = {
        name.removeprefix(artifacts.FEATURE): values
        for name in table.column_names
        if name.startswith(artifacts.FEATURE) and (values := grid(name)) is not None
    }
    return Signals(
        teachers=answers.teachers,
        n_tokens_MN=n_tokens,
        nll_MN=np.broadcast_to(np.nan, answers.shape) if nll is None else nll,
        **{f"{name}_MN": grid(name) for name in artifacts.OPTIONAL_SIGNALS},
        **facts.arrays(answers.teachers),
        rewards=rewards,
        features=features,
    )
