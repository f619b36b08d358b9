"""`preceptor select`: ask or read the teachers' answers, score, measure, rank, report."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from preceptor.core import artifacts
from preceptor.core.criterion import Signals
from preceptor.core.errors import ModelError
from preceptor.core.progress import say
from preceptor.core.run import Run, open_run
from preceptor.core.types import Answer
from preceptor.criteria.perplexity import mean_loss
from preceptor.data.answers import Paired, pair
from preceptor.data.rendering import Rendered, Renderer
from preceptor.models.load import Card, pick_device
from preceptor.recipes.preparing import Prepared, prepare
from preceptor.recipes.respondents import decoding_of, requests_of
from preceptor.recipes.settings import Select
from preceptor.recipes.shared_settings import model_name
from preceptor.reporting import select_report
from preceptor.selection.measure import BATCH_TOKENS, NLL_SCHEMA, make_plan, measure, open_scorer
from preceptor.selection.ranking import apply_map, beta_sensitivity, guard_sign, rank_all
from preceptor.selection.rewarding import VALUES_SCHEMA, score_answers


def select(settings: Select, out: Path, command: str = "preceptor select") -> dict[str, Any]:
    """Rank the teachers for the base model and write the run folder.

    Args:
        settings: of the run.
        out: the run folder; a folder that the same settings began is finished.
        command: what to type to make the run again, for the provenance.

    Returns:
        The content of `ranking.json`.

    Raises:
        PreceptorError: bad settings, data, model or folder; before any weight is loaded, save
            for faults that only scoring can show (a reward that is NaN, say).
    """
    prepared = prepare(settings, out)
    with open_run(out, prepared.identity, command) as run:
        if run.finished:
            say(f"{out} holds the finished run of these settings")
            select_report.write(out)
            return json.loads(run.path(artifacts.RANKING).read_text(encoding="utf-8"))
        answers = _gather(prepared, run)
        for warning in answers.warnings:
            say(f"warning: {warning}")
        if run.path(artifacts.SIGNALS).exists():
            signals = pq.read_table(run.path(artifacts.SIGNALS))
        else:
            rewards = _reward(prepared, run, answers)
            signals = _measure(prepared, run, answers, rewards)
            artifacts.write_table(run.path(artifacts.SIGNALS), signals)
        ranking = _rank(prepared, answers, signals)
        artifacts.write_json(run.path(artifacts.RANKING), ranking)
        run.facts["asked"] = prepared.asker.facts
        run.facts["answers"] = len(answers.answers)
        run.facts["tokens"] = int(np.sum(signals["n_tokens"].to_numpy()))
        run.finish()
        select_report.write(out)
    return ranking


def _gather(prepared: Prepared, run: Run) -> Paired:
    """All answers, recorded and live, paired; written to `answers.parquet`."""
    settings = prepared.settings
    answers = list(prepared.recorded)
    texts = [text for _, text, _ in prepared.questions]
    for name, (teacher, source) in prepared.teachers.items():
        requests = requests_of(texts, decoding_of(teacher), settings.seed)
        replies = prepared.asker(name, source, requests)
        for (key, text, row), reply in zip(prepared.questions, replies, strict=True):
            answers.append(
                Answer(key, text, name, reply.response, reply.finish_reason, reply.n_generated, row)
            )
    paired = pair(answers, settings.min_paired_share, settings.max_instructions)
    if not run.path(artifacts.ANSWERS).exists():
        artifacts.write_table(run.path(artifacts.ANSWERS), paired.table())
    return paired


def _reward(prepared: Prepared, run: Run, answers: Paired) -> dict[str, np.ndarray]:
    """Every reward of every answer, as the reward itself gave it; CAR's sign guard."""
    values = {}
    for number, reward in enumerate(prepared.settings.rewards):
        with run.stage(f"reward-{number:03d}", VALUES_SCHEMA) as stage:
            source = prepared.rewards[reward.name]
            values[reward.name] = score_answers(
                reward.name, source, answers.answers, stage, prepared.runtime.fleet
            )
            run.note_seconds(f"scoring {reward.name}", stage)
        mapped = apply_map(values[reward.name], reward.map, reward.scale, reward.shift)
        if any(criterion.needs_positive_reward for criterion in prepared.criteria):
            guard_sign(reward.name, mapped)
    return values


def _measure(
    prepared: Prepared, run: Run, answers: Paired, rewards: dict[str, np.ndarray]
) -> pa.Table:
    """The base's (and the reference's) pass over the answers: `signals.parquet`."""
    needs = frozenset[str]().union(*(criterion.needs for criterion in prepared.criteria))
    unconditional = "nll_unconditional" in needs
    columns: dict[str, Any] = dict.fromkeys(artifacts.signals_schema(rewards).names)
    columns["teacher"] = [answer.teacher for answer in answers.answers]
    columns["instruction_id"] = [answer.instruction_id for answer in answers.answers]
    base = _measure_model(prepared, run, answers, prepared.base, "base", unconditional)
    columns |= {name: base[name] for name in ("n_tokens", "nll", "truncated")}
    columns["nll_unconditional"] = base.get("nll_unconditional")
    if prepared.reference is not None:
        other = _measure_model(
            prepared, run, answers, prepared.reference, "reference", unconditional
        )
        columns["n_tokens_reference"] = other["n_tokens"]
        columns["nll_reference"] = other["nll"]
        columns["nll_reference_unconditional"] = other.get("nll_unconditional")
    columns |= {f"reward.{name}": values for name, values in rewards.items()}
    schema = artifacts.signals_schema(rewards)
    empty = pa.nulls(len(answers.answers))
    arrays = [
        empty.cast(f.type) if columns[f.name] is None else pa.array(columns[f.name], f.type)
        for f in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _measure_model(
    prepared: Prepared, run: Run, answers: Paired, card: Card, role: str, unconditional: bool
) -> dict[str, np.ndarray]:
    """nll with the instruction, and without it on request, under one model."""
    device = pick_device(prepared.runtime.device)
    budget = prepared.runtime.batch_tokens or BATCH_TOKENS.get(device.type, BATCH_TOKENS["cuda"])
    renderer = Renderer(card.tokenizer, card.limit, card.reference)
    rendered = renderer.render(
        [answer.instruction for answer in answers.answers],
        [answer.response for answer in answers.answers],
    )
    _refuse_foreign_tokens(card, rendered)
    passes = {"nll": rendered}
    if unconditional:
        passes["nll_unconditional"] = [renderer.unconditional(row) for row in rendered]
    found = {
        "n_tokens": np.array([row.n_response for row in rendered], dtype=np.int32),
        "truncated": np.array([row.truncated for row in rendered]),
    }
    if found["truncated"].any():
        say(
            f"warning: {found['truncated'].sum():,} answers are longer than {card.reference} "
            f"takes ({card.limit:,} tokens) and are scored on their kept part"
        )

    runtime = prepared.runtime
    opener = partial(
        open_scorer, card.reference, runtime.dtype, runtime.device, runtime.trust_remote_code
    )
    for name, sequences in passes.items():
        plan = make_plan(sequences, budget)
        with run.stage(f"measure-{role}-{name}", NLL_SCHEMA) as stage:
            title = f"measuring under {model_name(card.reference)} ({name})"
            found[name] = measure(title, opener, plan, stage, runtime.fleet)
            run.note_seconds(f"measuring {role} {name}", stage)
    return found


def _refuse_foreign_tokens(card: Card, rendered: list[Rendered]) -> None:
    """Some tokenizers were given tokens that the model was never resized for."""
    largest = max(max(row.ids) for row in rendered)
    if largest >= card.vocabulary:
        raise ModelError(
            "the tokenizer makes token ids that the model does not have",
            where=card.reference,
            found=f"id {largest}, vocabulary {card.vocabulary}",
            next_step="resize the model's embeddings, or use the tokenizer it was trained with",
        )


def _signals(prepared: Prepared, answers: Paired, table: pa.Table) -> Signals:
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
    assert n_tokens is not None and nll is not None
    return Signals(
        teachers=answers.teachers,
        n_tokens_MN=n_tokens,
        nll_MN=nll,
        nll_unconditional_MN=grid("nll_unconditional"),
        n_tokens_reference_MN=grid("n_tokens_reference"),
        nll_reference_MN=grid("nll_reference"),
        nll_reference_unconditional_MN=grid("nll_reference_unconditional"),
        rewards=rewards,
    )


def _rank(prepared: Prepared, answers: Paired, table: pa.Table) -> dict[str, Any]:
    """The content of `ranking.json`."""
    settings = prepared.settings
    signals = _signals(prepared, answers, table)
    parameters = {"beta": settings.beta, "loss_reduction": settings.loss_reduction}
    ranked = rank_all(
        signals,
        prepared.criteria,
        parameters,
        with_reference=prepared.reference is not None,
        confidence=settings.confidence,
        resamples=settings.resamples,
        seed=settings.seed,
    )
    first = next(iter(ranked))
    betas = (*settings.betas, settings.beta)
    car = next(
        (c for c in prepared.criteria if "beta" in c.parameters and "reward" in c.needs), None
    )
    truncated = table["truncated"].to_numpy().reshape(answers.shape).sum(axis=1)
    warnings = list(answers.warnings)
    if truncated.any():
        warnings.append(
            f"{truncated.sum():,} answers are longer than the base takes "
            f"({prepared.base.limit:,} tokens) and were scored on their kept part"
        )
    return {
        "version": artifacts.RANKING_VERSION,
        "base": model_name(settings.base),
        "reference": model_name(settings.reference) if settings.reference else None,
        "n_instructions": answers.shape[1],
        "n_instructions_dropped": answers.n_dropped,
        "n_answers": len(answers.answers),
        "recommended": ranked[first]["teachers"][0]["teacher"],
        "recommended_by": first,
        "beta": settings.beta,
        "loss_reduction": settings.loss_reduction,
        "confidence": settings.confidence,
        "n_resamples": settings.resamples,
        "seed": settings.seed,
        "rewards": {
            reward.name: {
                "kind": reward.kind,
                "map": reward.map,
                "low": float(signals.rewards[reward.name].min()),
                "high": float(signals.rewards[reward.name].max()),
            }
            for reward in settings.rewards
        },
        "warnings": warnings,
        "teachers": _profiles(signals, settings.loss_reduction, truncated),
        "criteria": ranked,
        "beta_sensitivity": beta_sensitivity(signals, car, parameters, betas) if car else {},
    }


def _profiles(signals: Signals, loss_reduction: str, truncated_M: np.ndarray) -> dict[str, Any]:
    """Per teacher: loss L, mean length, truncated answers, mean of every reward."""
    loss_M = mean_loss(signals, lambda values_MN: values_MN.mean(axis=1), loss_reduction)
    return {
        teacher: {
            "loss": float(loss_M[m]),
            "n_tokens_mean": float(signals.n_tokens_MN[m].mean()),
            "truncated": int(truncated_M[m]),
            "rewards": {name: float(grid[m].mean()) for name, grid in signals.rewards.items()},
        }
        for m, teacher in enumerate(signals.teachers)
    }
