"""A synthetic selection run: twenty teachers, their answers, and the ranking that follows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hostile import FEW as HOSTILE

from preceptor.core import artifacts

TEACHERS = [
    "phi-3-mini-4k-instruct",
    "phi-3-small-8k-instruct",
    "phi-3-medium-4k-instruct",
    "gemma-2-2b-it",
    "gemma-2-9b-it",
    "gemma-2-27b-it",
    "llama-3-8b-instruct",
    "llama-3-70b-instruct",
    "llama-3.1-8b-instruct",
    "llama-3.1-70b-instruct",
    "llama-3.1-405b-instruct",
    "qwen2-1.5b-instruct",
    "qwen2-7b-instruct",
    "qwen2-72b-instruct",
    "qwen2.5-3b-instruct",
    "qwen2.5-7b-instruct",
    "qwen2.5-14b-instruct",
    "qwen2.5-32b-instruct",
    "qwen2.5-72b-instruct",
    "gpt-4-turbo-2024-04-09",
]
TOPICS = [
    "Explain why the sky is blue to a ten-year-old.",
    "Write a function that merges two sorted lists and say how long it takes.",
    "My landlord keeps the deposit without giving a reason. What can I do?",
    "Summarise the causes of the First World War in three sentences.",
    "Plan a vegetarian dinner for six people with one oven.",
    "Prove that the square root of two is irrational.",
    "Translate 'the early bird catches the worm' into four languages.",
]
BETAS = [0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0]
PARAGRAPH = (
    "Light from the sun holds every colour. When it meets the small molecules of the air, the "
    "short blue waves are scattered far more than the long red ones, so blue reaches the eye from "
    "all over the sky. Towards evening the path through the air is longer and most of the blue "
    "has been lost on the way; what remains is red and orange.\n\n"
)


def _rows(scores_RT: np.ndarray, point_T: np.ndarray, names: list[str], higher: bool) -> list[Any]:
    """Ranked rows with percentile intervals from R resamples of T teachers' scores."""
    sign = -1 if higher else 1
    ranks_RT = np.argsort(np.argsort(sign * scores_RT, axis=1), axis=1) + 1
    order = np.argsort(sign * point_T, kind="stable")
    low_T, high_T = np.quantile(scores_RT, [0.025, 0.975], axis=0)
    rank_low_T, rank_high_T = np.quantile(ranks_RT, [0.025, 0.975], axis=0).round()
    return [
        {
            "teacher": names[t],
            "score": float(point_T[t]),
            "low": float(low_T[t]),
            "high": float(high_T[t]),
            "rank": rank,
            "rank_low": int(rank_low_T[t]),
            "rank_high": int(rank_high_T[t]),
            "p_best": float((ranks_RT[:, t] == 1).mean()),
        }
        for rank, t in enumerate(order, start=1)
    ]


def _criterion(
    rows: list[Any], direction: str, unit: str, reward: str | None, words: str
) -> dict[str, Any]:
    tied = [row["teacher"] for row in rows[1:] if row["rank_low"] == 1]
    return {
        "direction": direction,
        "unit": unit,
        "reward": reward,
        "description": words,
        "tied_with_first": tied,
        "teachers": rows,
    }


def _ranking(
    names: list[str], signals: dict[str, np.ndarray], beta: float, with_car: bool
) -> dict[str, Any]:
    """The ranking of arrays shaped (instructions, teachers); every criterion has intervals."""
    rng = np.random.default_rng(1)
    n = len(signals["loss"])
    weights_RN = rng.multinomial(n, np.full(n, 1 / n), size=400) / n
    plain = {key: (weights_RN @ value, value.mean(axis=0)) for key, value in signals.items()}
    rewards = [key for key in signals if key not in ("loss", "tokens", "ifd")]
    criteria: dict[str, Any] = {}
    for name in rewards:
        suffix = "" if name == rewards[0] else f".{name}"
        (r_RT, r_T), (loss_RT, loss_T) = plain[name], plain["loss"]
        if with_car:
            rows = _rows(r_RT / (1 + beta * loss_RT), r_T / (1 + beta * loss_T), names, True)
            words = "Mean reward, discounted by the loss of the answers under the base model."
            criteria[f"car{suffix}"] = _criterion(rows, "higher", "reward", name, words)
        rows = _rows(r_RT, r_T, names, True)
        words = "Mean score of the answers under the reward model."
        criteria[f"mean_reward{suffix}"] = _criterion(rows, "higher", "reward", name, words)
    others = {
        "perplexity": (np.exp(plain["loss"][0]), np.exp(plain["loss"][1]), "lower", "per token"),
        "perplexity_reference": (*[np.exp(0.9 * x) for x in plain["loss"]], "lower", "per token"),
        "ifd": (*plain["ifd"], "higher", "ratio"),
        "length": (*plain["tokens"], "higher", "tokens"),
    }
    for key, (scores_RT, point_T, direction, unit) in others.items():
        rows = _rows(scores_RT, point_T, names, direction == "higher")
        words = f"What {key.replace('_', ' ')} says of the answers, averaged over instructions."
        criteria[key] = _criterion(rows, direction, unit, None, words)
    return {"criteria": criteria, "plain": plain, "rewards": rewards}


def _sensitivity(names: list[str], r_T: np.ndarray, loss_T: np.ndarray) -> list[dict[str, Any]]:
    grid = []
    for beta in BETAS:
        score_T = r_T / (1 + beta * loss_T)
        rows = [
            {"teacher": names[t], "score": float(score_T[t]), "rank": rank}
            for rank, t in enumerate(np.argsort(-score_T, kind="stable"), start=1)
        ]
        grid.append({"beta": beta, "teachers": rows})
    return grid


def _signals(n: int, n_teachers: int, second: bool) -> dict[str, np.ndarray]:
    """Per-answer arrays shaped (instructions, teachers); stronger teachers are less compatible."""
    rng = np.random.default_rng(0)
    skill_T = np.clip(rng.normal(0.58, 0.09, n_teachers), 0.3, 0.8)
    loss_T = np.clip(0.35 + 0.5 * skill_T + rng.normal(0, 0.09, n_teachers), 0.3, 1.2)
    length_T = rng.uniform(180, 520, n_teachers)
    hardness = rng.normal(0, 0.08, (n, 1))
    signals = {
        "reward": np.clip(skill_T + hardness + rng.normal(0, 0.12, (n, n_teachers)), 0.01, 0.99),
        "loss": np.abs(loss_T + rng.normal(0, 0.15, (n, n_teachers))) + 0.05,
        "tokens": np.ceil(length_T * rng.lognormal(0, 0.4, (n, n_teachers))),
        "ifd": np.clip(0.7 + 0.1 * (loss_T - 0.6) + rng.normal(0, 0.1, (n, n_teachers)), 0, 2),
    }
    if second:
        signals["armo"] = np.clip(0.5 * signals["reward"] + rng.uniform(0, 0.2, n_teachers), 0, 1)
    return signals


def _tables(
    folder: Path, names: list[str], signals: dict[str, np.ndarray], rewards: list[str]
) -> None:
    n, n_teachers = signals["loss"].shape
    ids = [f"i{i:05d}" for i in range(n)]
    answers, rows = [], []
    for i in range(n):
        instruction = f"{TOPICS[i % len(TOPICS)]} (variant {i})"
        for t in range(n_teachers):
            tokens = int(signals["tokens"][i, t])
            body = (PARAGRAPH * 14)[: tokens * 5] or "-"
            text = f"Answer {i} by {names[t]}.\n{HOSTILE[(i + t) % len(HOSTILE)]}\n\n{body}"
            answers.append((ids[i], instruction, names[t], text, "recorded", None))
            row = {
                "teacher": names[t],
                "instruction_id": ids[i],
                "n_tokens": tokens,
                "nll": float(signals["loss"][i, t] * tokens),
                "truncated": bool(tokens > 900),
            }
            rows.append(row | {f"reward.{r}": float(signals[r][i, t]) for r in rewards})
    columns = list(zip(*answers, strict=True))
    arrays = dict(zip(artifacts.ANSWERS_SCHEMA.names, columns, strict=True))
    table = pa.table(arrays, schema=artifacts.ANSWERS_SCHEMA)
    artifacts.write_table(folder / artifacts.ANSWERS, table)
    table = pa.Table.from_pylist(rows, schema=artifacts.signals_schema(rewards))
    artifacts.write_table(folder / artifacts.SIGNALS, table)


def build_run_folder(
    folder: Path,
    *,
    n_instructions: int = 30,
    teachers: list[str] | None = None,
    second_reward: bool = False,
    with_car: bool = True,
) -> Path:
    """Write a finished selection run into `folder`; the same arguments give the same files."""
    names = list(teachers or TEACHERS)
    folder.mkdir(parents=True, exist_ok=True)
    signals = _signals(n_instructions, len(names), second_reward)
    beta = 3.0
    ranked = _ranking(names, signals, beta, with_car)
    plain, rewards, criteria = ranked["plain"], ranked["rewards"], ranked["criteria"]
    _tables(folder, names, signals, rewards)
    main = next(iter(criteria))
    recipe = {"kind": "column", "map": "none", "low": 0.0, "high": 1.0}
    ranking = {
        "version": artifacts.RANKING_VERSION,
        "base": "en-terse",
        "reference": "en-verbose",
        "n_instructions": n_instructions,
        "n_instructions_dropped": 0,
        "n_answers": n_instructions * len(names),
        "recommended": criteria[main]["teachers"][0]["teacher"],
        "recommended_by": main,
        "beta": beta if with_car else None,
        "confidence": 0.95,
        "n_resamples": 400,
        "seed": 0,
        "rewards": dict.fromkeys(rewards, recipe),
        "warnings": ["22 empty responses were scored as they stand", "12 answers were truncated"],
        "teachers": {
            name: {
                "loss": float(plain["loss"][1][t]),
                "n_tokens_mean": float(plain["tokens"][1][t]),
                "truncated": int((signals["tokens"][:, t] > 900).sum()),
                "rewards": {r: float(plain[r][1][t]) for r in rewards},
            }
            for t, name in enumerate(names)
        },
        "criteria": criteria,
        "beta_sensitivity": {r: _sensitivity(names, plain[r][1], plain["loss"][1]) for r in rewards}
        if with_car
        else {},
    }
    artifacts.write_json(folder / artifacts.RANKING, ranking)
    provenance = {
        "preceptor": "0.1.0",
        "command": "preceptor select settings.yaml --out runs/zoo",
        "versions": {"python": "3.11.9", "torch": "2.9.0", "transformers": "4.57.1"},
        "inputs": {
            "answers.jsonl": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
        },
        "models": {"en-terse": {"parameters": 1_200_000, "dtype": "float32"}},
        "seed": 0,
        "wall_seconds": 812.4,
        "tokens": 5_231_442,
    }
    artifacts.write_json(folder / artifacts.PROVENANCE, provenance)
    settings = "base: en-terse\nreference: en-verbose\nbeta: 3.0\nseed: 0\n"
    artifacts.write_bytes(folder / artifacts.SETTINGS, settings.encode())
    return folder
