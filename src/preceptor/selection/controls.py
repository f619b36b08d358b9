"""What else would explain an order of teachers: how long their answers are, their family, size.

A ranking that merely follows the length of the answers, or puts one family first, may have found
out no more than that. Rank correlations are Spearman's; a criterion's order counts with its better
end first, so a positive one means that longer (larger) teachers rank better.

Shapes: M teachers, N instructions, F families.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from preceptor.data.answer_table import numbered
from preceptor.selection.agreement import PERMUTATIONS, p_value, signs, spearman


def controls_of(
    ranking: Mapping[str, Any],
    signals: pa.Table,
    family: Mapping[str, str | None],
    size: Mapping[str, float | None],
) -> dict[str, Any]:
    """The part `controls` of `ranking.json`.

    Args:
        ranking: the rest of it: orders of the criteria, and the teachers' mean lengths.
        signals: `signals.parquet`; teachers may have different numbers of rows.
        family, size: of each teacher, the latter in billions of parameters; None if unknown.
    """
    teachers = ranking["teachers"]
    length = {name: own["n_tokens_mean"] for name, own in teachers.items()}
    criteria = {}
    for name, criterion in ranking["criteria"].items():
        rows = criterion["teachers"]
        named = [row["teacher"] for row in rows]
        good_M = -np.array([row["rank"] for row in rows], dtype=np.float64)
        length_M = np.array([length[teacher] for teacher in named], dtype=np.float64)
        criteria[name] = {
            "n": len(named),
            "length": _numbers(good_M, length_M, ranking["seed"]),
            "size": _size(good_M, length_M, [size.get(own) for own in named], ranking["seed"]),
            "family": _family(good_M, [family.get(own) for own in named], ranking["seed"]),
            "first_without_length": named[_first_without(good_M, length_M)],
        }
    return {
        "teachers": {own: {"family": family.get(own), "size": size.get(own)} for own in teachers},
        "criteria": criteria,
        "within": _within(signals),
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _numbers(good_M: np.ndarray, other_M: np.ndarray, seed: int) -> dict[str, float | None]:
    """Rank correlation of an order with another number of the teachers."""
    return {
        "spearman": _known(float(spearman(good_M, other_M))),
        "p_value": _known(p_value(good_M, other_M, seed)),
    }


def partial_spearman(x_M: np.ndarray, y_M: np.ndarray, held_M: np.ndarray) -> float:
    """Rank correlation of x and y, a third order held fixed; NaN where that leaves nothing.

    (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2) (1 - r_yz^2)) of Spearman's coefficients.
    """
    xy, xz, yz = (float(spearman(a, b)) for a, b in ((x_M, y_M), (x_M, held_M), (y_M, held_M)))
    left = (1.0 - xz * xz) * (1.0 - yz * yz)
    return (xy - xz * yz) / math.sqrt(left) if left > 1e-9 else math.nan


def _size(
    good_M: np.ndarray, length_M: np.ndarray, size: Sequence[float | None], seed: int
) -> dict[str, Any] | None:
    """Of the teachers whose size is known; None where it is of fewer than three."""
    known = np.array([value is not None for value in size], dtype=bool)
    if known.sum() < 3:
        return None
    good, length = good_M[known], length_M[known]
    own = np.array([value for value in size if value is not None], dtype=np.float64)
    return {
        "n": int(known.sum()),
        **_numbers(good, own, seed),
        "without_length": _known(partial_spearman(good, own, length)),
        "length_without_size": _known(partial_spearman(good, length, own)),
    }


def _family(good_M: np.ndarray, family: Sequence[str | None], seed: int) -> dict[str, Any] | None:
    """Share of the variance of ranks that lies between families (eta squared).

    By chance alone it is (F - 1) / (M - 1) on average; the p-value is the share of orders, drawn at
    random, whose share is as large. None without two families, or where no family has two members.
    """
    known = np.array([value is not None for value in family], dtype=bool)
    named = sorted({value for value in family if value is not None})
    n = int(known.sum())
    if not 2 <= len(named) < n:
        return None
    rank_M = signs(good_M[known]).sum(-1)  # centred mid-ranks, times two
    total = float((rank_M * rank_M).sum())
    if total == 0.0:
        return None
    member_FM = np.array(
        [[value == each for value in family if value is not None] for each in named], dtype=float
    )

    def share(order: np.ndarray) -> np.ndarray:
        sums = order @ member_FM.T
        return (sums * sums / member_FM.sum(axis=1)).sum(-1) / total

    found = float(share(rank_M))
    rng = np.random.default_rng([seed, 3])
    drawn = rng.permuted(np.tile(rank_M, (PERMUTATIONS, 1)), axis=1)
    drawn[0] = rank_M
    return {
        "n": n,
        "families": len(named),
        "share": found,
        "chance": (len(named) - 1) / (n - 1),
        "p_value": float((share(drawn) >= found - 1e-9).mean()),
    }


def _first_without(good_M: np.ndarray, length_M: np.ndarray) -> int:
    """Who is first once the part of the ranks that length predicts is taken off."""
    rank_M, other_M = (signs(values).sum(-1) for values in (good_M, length_M))
    spread = float(other_M @ other_M)
    left_M = rank_M - (float(rank_M @ other_M) / spread if spread else 0.0) * other_M
    return int(np.flatnonzero(left_M >= left_M.max() - 1e-9)[0])


def _within(signals: pa.Table) -> dict[str, float | None]:
    """Mean over instructions of the rank correlation with the answer's length, over teachers.

    Of each reward, as it gave it, and of the loss a token, where it was measured.
    """
    teacher, key = (numbered(signals[name])[1] for name in ("teacher", "instruction_id"))
    shape = (int(teacher.max()) + 1, int(key.max()) + 1)

    def grid(values: np.ndarray) -> np.ndarray:
        found = np.full(shape, np.nan)
        found[teacher, key] = values
        return found

    tokens = signals["n_tokens"].to_numpy().astype(np.float64)
    length_MN = grid(tokens)
    found: dict[str, float | None] = {}
    for name in signals.column_names:
        if name.startswith("reward."):
            found[name] = mean_spearman(grid(signals[name].to_numpy()), length_MN)
    if not signals["nll"].null_count:
        loss = signals["nll"].to_numpy() / np.maximum(tokens, 1.0)
        found["loss"] = mean_spearman(grid(loss), length_MN)
    return found


def mean_spearman(x_MN: np.ndarray, y_MN: np.ndarray) -> float | None:
    """Mean over instructions of Spearman's rho over the teachers.

    Teachers that lack a number (NaN) are left out of that instruction, and instructions on which
    either side is constant of the mean; None where none is left.
    """
    there = np.isfinite(x_MN) & np.isfinite(y_MN)
    a, b = (_centred(np.where(there, values, np.nan)) for values in (x_MN, y_MN))
    scale_N = np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0).astype(np.float64))
    used = scale_N > 0
    if not used.any():
        return None
    return float(((a * b).sum(axis=0)[used] / scale_N[used]).mean())


def _centred(values_MN: np.ndarray) -> np.ndarray:
    """Centred mid-ranks of each column, times two; 0 for NaN."""
    found = np.zeros(values_MN.shape, dtype=np.int32)
    for rival_N in values_MN:
        found += values_MN > rival_N
        found -= values_MN < rival_N
    return found
