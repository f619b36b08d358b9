"""`race`: what share of the answers a race asks for, and how often it names the full run's best.

The peer is the full run: every teacher, every instruction. Each case is run over many random orders
of its instructions, teachers dropped as `preceptor select --race` drops them. The pool is made up,
20 teachers on 800 instructions; with PRECEPTOR_RACE_SIGNALS set to the `signals.parquet` of a
finished run, that run's teachers and first reward take its place (`car` with beta 3, under the base
and, where it was measured, under the reference).

- `right`: share of the orders in which the race's first teacher is the full run's.
- `lost`: share in which the best teacher was dropped; at most 1 - confidence is promised.
- `answers`, `answers_p90`: share of the full run's answers that was asked for (median, 90th
  percentile over the orders).
- `rounds`: median number of rounds, each of which loads the models anew.

The last cases have a known truth: teachers that are equal, and one that is best by a hair.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from preceptor.core.criterion import Signals
from preceptor.criteria.car import car
from preceptor.criteria.mean_reward import mean_reward
from preceptor.recipes.settings.race import Race
from preceptor.selection.racing import alpha_of, look, round_sizes

ORDERS = 200  # of the instructions
STUDIES = 500  # drawn from a known truth
CONFIDENCES = (0.8, 0.9, 0.95, 0.99)
GROWTHS = (1.0, 1.25, 1.5, 2.0, 3.0)
SIGNALS = "PRECEPTOR_RACE_SIGNALS"
Formula = Callable[..., np.ndarray]
DEFAULT = Race()


def made_up_pool(m: int = 20, n: int = 800, seed: int = 0) -> Signals:
    """Teachers from good to poor on instructions from easy to hard, and their answers' losses."""
    rng = np.random.default_rng(seed)
    quality_M1 = np.linspace(0.65, 0.25, m)[:, None] + np.where(np.arange(m) == 0, 0.03, 0)[:, None]
    easiness_N = rng.normal(0, 0.12, n)
    reward_MN = np.clip(quality_M1 + easiness_N + rng.normal(0, 0.15, (m, n)), 0, 1)
    n_tokens_MN = rng.integers(20, 400, (m, n)).astype(float)
    level_M1 = rng.uniform(0.7, 1.6, (m, 1))
    loss_MN = level_M1 * np.exp(rng.normal(0, 0.3, n) + rng.normal(0, 0.2, (m, n)))
    teachers = tuple(f"teacher {k + 1}" for k in range(m))
    return Signals(teachers, n_tokens_MN, loss_MN * n_tokens_MN, reward_MN=reward_MN)


def recorded_pool(path: Path) -> tuple[Signals, Signals | None]:
    """A finished run's table under its base, and under its reference where there is one."""
    table = pq.read_table(path)
    teachers = list(dict.fromkeys(table["teacher"].to_pylist()))
    reward = next(name for name in table.column_names if name.startswith("reward."))

    def grid(name: str) -> np.ndarray | None:
        if name not in table.column_names or table[name].null_count:
            return None
        return table[name].to_numpy().astype(np.float64).reshape(len(teachers), -1)

    n_tokens, nll, score = grid("n_tokens"), grid("nll"), grid(reward)
    if n_tokens is None or nll is None or score is None:
        raise SystemExit(f"{path}: no losses under the base; run `select` with `car`")
    base = Signals(tuple(teachers), n_tokens, nll, reward_MN=score)
    n_other, other = grid("n_tokens_reference"), grid("nll_reference")
    if n_other is None or other is None:
        return base, None
    return base, replace(base, n_tokens_MN=n_other, nll_MN=other)


def cases() -> dict[str, tuple[Signals, Formula]]:
    """Name -> the table, and the criterion of it."""
    by_car = partial(car, beta=3.0)
    path = os.environ.get(SIGNALS)
    if path is None:
        pool = made_up_pool()
        return {"made up, mean_reward": (pool, mean_reward), "made up, car": (pool, by_car)}
    base, reference = recorded_pool(Path(path))
    found: dict[str, tuple[Signals, Formula]] = {
        "recorded, mean_reward": (base, mean_reward),
        "recorded, car, base": (base, by_car),
    }
    return found | ({"recorded, car, reference": (reference, by_car)} if reference else {})


def cut(signals: Signals, teachers: list[int], instructions: np.ndarray) -> Signals:
    """Some teachers' rows of some instructions."""
    grids = {
        each.name: grid[teachers][:, instructions]
        for each in fields(signals)
        if (grid := getattr(signals, each.name)) is not None and each.name.endswith("_MN")
    }
    return replace(signals, teachers=tuple(signals.teachers[m] for m in teachers), **grids)


def run_race(
    signals: Signals, formula: Formula, order: np.ndarray, setting: Race
) -> tuple[list[int], int, int, int]:
    """Who is left, who leads, how many answers were asked for, and in how many rounds."""
    m, total = signals.n_tokens_MN.shape
    alpha, active, n, asked = alpha_of(setting.confidence, m), list(range(m)), 0, 0
    for number, size in enumerate(round_sizes(setting.first, setting.growth), 1):
        size = min(size, total - n)
        n, asked = n + size, asked + size * len(active)
        seen = cut(signals, active, order[:n])
        found = look(seen, formula, higher_is_better=True, alpha=alpha)
        leader = active[found.leader]
        active = [name for place, name in enumerate(active) if place not in found.out]
        if len(active) == 1 or n == total:
            return active, leader, asked, number
    raise AssertionError("rounds have no end")


def one_row(name: str, signals: Signals, formula: Formula, setting: Race) -> dict[str, Any]:
    """A case over all orders."""
    m, n = signals.n_tokens_MN.shape
    best = int(np.argmax(formula(signals, lambda grid_MN: grid_MN.mean(axis=1))))
    right, lost, shares, rounds = 0, 0, [], []
    for seed in range(ORDERS):
        order = np.random.default_rng(seed).permutation(n)
        active, leader, asked, number = run_race(signals, formula, order, setting)
        right += leader == best
        lost += best not in active
        shares.append(asked / (m * n))
        rounds.append(number)
    return {
        "case": name,
        "peer": "full run",
        "confidence": setting.confidence,
        "growth": setting.growth,
        "right": right / ORDERS,
        "lost": lost / ORDERS,
        "answers": float(np.median(shares)),
        "answers_p90": float(np.quantile(shares, 0.9)),
        "rounds": float(np.median(rounds)),
    }


def known_truth(kind: str, gap: float, confidence: float, m: int = 20) -> dict[str, Any]:
    """How often the best of m teachers is dropped where all are equal but for a gap.

    Args:
        kind: `gaussian` rewards, `right or wrong` (0 or 1), `car` of rewards and losses, or
            `skewed`: the best teacher is mostly below the others and now and then far above.
        gap: by which the first teacher is better, in standard deviations of a paired difference.
    """
    setting, lost = Race(confidence=confidence), 0
    for seed in range(STUDIES):
        rng = np.random.default_rng(seed)
        n, level_N = 800, rng.normal(0, 1, 800)
        noise_MN = rng.normal(0, 1, (m, n))
        if kind == "right or wrong":
            reward_MN = ((level_N + noise_MN) > 0).astype(float)
        else:
            reward_MN = np.maximum(5 + level_N + noise_MN, 0)
        if kind == "skewed":
            reward_MN[0] = 4 + level_N + rng.exponential(1, n)
        reward_MN[0] += gap * math.sqrt(2)
        loss_MN = np.exp(rng.normal(0, 0.3, (m, n)))
        signals = Signals(tuple(map(str, range(m))), np.ones((m, n)), loss_MN, reward_MN=reward_MN)
        formula = partial(car, beta=3.0) if kind == "car" else mean_reward
        active, *_ = run_race(signals, formula, np.arange(n), setting)
        lost += 0 not in active
    return {
        "case": f"{'equal' if gap == 0 else 'a hair apart'}, {kind}",
        "peer": "known truth",
        "confidence": confidence,
        "growth": setting.growth,
        "lost": lost / STUDIES,
    }


def run(repeats: int = 3) -> list[dict[str, Any]]:
    """Rows of the `race` benchmark; orders and studies stand for the repeats."""
    del repeats
    rows = []
    for name, (signals, formula) in cases().items():
        for confidence in CONFIDENCES:
            rows.append(one_row(name, signals, formula, Race(confidence=confidence)))
        for growth in GROWTHS:
            if growth != DEFAULT.growth:
                rows.append(one_row(name, signals, formula, Race(growth=growth)))
    for kind in ("gaussian", "right or wrong", "car", "skewed"):
        for gap in (0.0, 0.01):
            rows += [known_truth(kind, gap, confidence) for confidence in (0.8, 0.95)]
    return rows
