"""`preceptor select`: ask or read the teachers' answers, score, measure, rank, report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from preceptor.core import artifacts
from preceptor.core.criterion import Signals
from preceptor.core.progress import say
from preceptor.core.run import Run, open_run
from preceptor.criteria.perplexity import mean_loss
from preceptor.data.answer_table import Answers
from preceptor.data.paired import Paired, pair
from preceptor.recipes.inputs.respondents import decoding_of, requests_of
from preceptor.recipes.selecting.by import rank_by
from preceptor.recipes.selecting.measuring import measure_answers, read_signals
from preceptor.recipes.selecting.preparing import Prepared, live_answers, prepare
from preceptor.recipes.selecting.race import race, refuse_unfit
from preceptor.recipes.selecting.sample_tokens import keep_sample_tokens
from preceptor.recipes.settings.select import Select
from preceptor.recipes.settings.shared import model_name
from preceptor.reporting.pages.select import report as select_report
from preceptor.selection.controls import controls_of
from preceptor.selection.ranking import apply_map, beta_sensitivity, guard_sign, rank_all
from preceptor.selection.rewarding import VALUES_SCHEMA, left_out, refuse_too_few, score_answers

LEFT_OUT = b"left_out"  # in the metadata of `signals.parquet`: why some instructions are not there


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
    if settings.race is not None:
        refuse_unfit(prepared)
    with open_run(out, prepared.identity, command) as run:
        if run.finished:
            say(f"{out} holds the finished run of these settings")
            select_report.write(out)
            return json.loads(run.path(artifacts.RANKING).read_text(encoding="utf-8"))
        if settings.race is not None:
            ranking = race(prepared, run, _rank)
            signals = pq.read_table(run.path(artifacts.SIGNALS))
            ranking["controls"] = _controls(prepared, ranking, signals)
            artifacts.write_json(run.path(artifacts.RANKING), ranking)
            _close(prepared, run, ranking)
            return ranking
        answers = _gather(prepared, run)
        for warning in answers.warnings:
            say(f"warning: {warning}")
        if run.path(artifacts.SIGNALS).exists():
            signals = pq.read_table(run.path(artifacts.SIGNALS))
            scored = _of_signals(answers, signals)
        else:
            scored, rewards, why = _reward(prepared, run, answers)
            signals = measure_answers(prepared, run, scored, rewards)
            if why:
                signals = signals.replace_schema_metadata({LEFT_OUT: why.encode()})
            artifacts.write_table(run.path(artifacts.SIGNALS), signals)
        ranking = _rank(prepared, scored, signals)
        if settings.by is not None:
            ranking["by"] = rank_by(prepared, scored, signals, ranking, out)
        ranking["controls"] = _controls(prepared, ranking, signals)
        artifacts.write_json(run.path(artifacts.RANKING), ranking)
        if settings.pilot is not None:
            from preceptor.recipes.selecting.pilot import run_pilot  # needs the extra `train`

            ranking |= run_pilot(prepared, run, scored, ranking, command)
            artifacts.write_json(run.path(artifacts.RANKING), ranking)
        run.facts["asked"] = prepared.asker.facts
        run.facts["answers"] = len(answers.answers)
        run.facts["tokens"] = int(np.sum(signals["n_tokens"].to_numpy()))
        _close(prepared, run, ranking)
    return ranking


def _controls(prepared: Prepared, ranking: dict[str, Any], signals: pa.Table) -> dict[str, Any]:
    """The part `controls` of a ranking that is otherwise whole."""
    return controls_of(ranking, signals, prepared.facts.family, prepared.facts.size)


def _close(prepared: Prepared, run: Run, ranking: dict[str, Any]) -> None:
    """The quoted answers token by token, the final provenance, and the page."""
    keep_sample_tokens(prepared, run, ranking)
    run.finish()
    select_report.write(run.folder)


def _gather(prepared: Prepared, run: Run) -> Paired:
    """All answers, recorded and live, paired; written to `answers.parquet`."""
    settings = prepared.settings
    parts = [prepared.recorded] if len(prepared.recorded) else []
    texts = [text for _, text, _ in prepared.questions]
    for name, (teacher, source) in prepared.teachers.items():
        requests = requests_of(texts, decoding_of(teacher), settings.seed)
        parts.append(live_answers(name, prepared.questions, prepared.asker(name, source, requests)))
    paired = pair(Answers.join(parts), settings.min_paired_share, settings.max_instructions)
    if not run.path(artifacts.ANSWERS).exists():
        artifacts.write_tables(
            run.path(artifacts.ANSWERS), artifacts.ANSWERS_SCHEMA, paired.answers.tables()
        )
    return paired


def _reward(
    prepared: Prepared, run: Run, answers: Paired
) -> tuple[Paired, dict[str, np.ndarray], str]:
    """Every reward of every answer, as the reward itself gave it; CAR's sign guard.

    Instructions that lack a score are left out for all teachers; the text says which and why.
    """
    values = {}
    for number, reward in enumerate(prepared.settings.rewards):
        with run.stage(f"reward-{number:03d}", VALUES_SCHEMA) as stage:
            source = prepared.rewards[reward.name]
            values[reward.name] = score_answers(
                reward.name, source, answers.answers, stage, prepared.runtime.fleet
            )
            run.note_seconds(f"scoring {reward.name}", stage)
            if source.facts:
                run.facts.setdefault("rewards", {})[reward.name] = source.facts
        if any(criterion.needs_positive_reward for criterion in prepared.criteria):
            mapped = apply_map(values[reward.name], reward.map, reward.scale, reward.shift)
            guard_sign(reward.name, mapped)
    kept_N, why = left_out(values, answers.teachers)
    if not why:
        return answers, values, why
    refuse_too_few(kept_N, prepared.settings.min_paired_share, why)
    say(f"warning: {why}")
    kept = np.tile(kept_N, len(answers.teachers))
    return answers.keep(kept_N, [why]), {n: found[kept] for n, found in values.items()}, why


def _of_signals(answers: Paired, signals: pa.Table) -> Paired:
    """The answers that `signals.parquet` has rows of."""
    why = (signals.schema.metadata or {}).get(LEFT_OUT)
    if why is None:
        return answers
    n = signals.num_rows // len(answers.teachers)
    own = set(signals["instruction_id"].slice(0, n).to_pylist())
    kept_N = np.array([key in own for key in answers.instruction_ids])
    return answers.keep(kept_N, [why.decode()])


def _rank(prepared: Prepared, answers: Paired, table: pa.Table) -> dict[str, Any]:
    """The content of `ranking.json`."""
    settings = prepared.settings
    signals = read_signals(settings, prepared.facts, answers, table)
    ranked = rank_all(
        signals,
        prepared.criteria,
        settings.parameters,
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
        "beta_sensitivity": (
            beta_sensitivity(signals, car, settings.parameters, betas) if car else {}
        ),
    }


def _profiles(signals: Signals, loss_reduction: str, truncated_M: np.ndarray) -> dict[str, Any]:
    """Per teacher: loss L (None if not measured), mean length, truncated answers, mean rewards."""
    loss_M = mean_loss(signals, lambda values_MN: values_MN.mean(axis=1), loss_reduction)
    return {
        teacher: {
            "loss": None if np.isnan(loss_M[m]) else float(loss_M[m]),
            "n_tokens_mean": float(signals.n_tokens_MN[m].mean()),
            "truncated": int(truncated_M[m]),
            "rewards": {name: float(grid[m].mean()) for name, grid in signals.rewards.items()},
        }
        for m, teacher in enumerate(signals.teachers)
    }
