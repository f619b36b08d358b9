"""Which samples a training set holds: best-of-n, worst-of-n, one-of-n, greedy, all.

Every pick chooses from a *pool*: the samples of one set's teacher and decoding point.

- best: the sample with the highest reward, the first of equals (best-of-n);
- worst: the sample with the lowest reward, the first of equals (worst-of-n);
- one: one sample, drawn uniformly by the seed and the instruction's id (one-of-n);
- greedy: the answer at temperature 0;
- all: every sample.

Samples without a score are no candidates for best and worst. Best, worst, one and greedy over the
same instructions are the sets of the rejection-sampling study of arXiv 2411.07133 (n = 5).

Shapes: S samples of the run, N its instructions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from preceptor.core.errors import DataError, SettingsError, nearest
from preceptor.recipes.settings.asking import ExportSet

_compute: Any = pyarrow.compute  # its functions are made at import and have no stubs
REWARD = "reward."  # begins the columns of rewards


@dataclass(frozen=True)
class Pool:
    """The columns of `samples.parquet` that picking reads; unknown numbers are NaN.

    `instruction_S` numbers the instructions by their first appearance.
    """

    instruction_ids: list[str]
    instruction_S: np.ndarray
    teachers: list[str]
    teacher_S: np.ndarray
    temperature_S: np.ndarray
    top_p_S: np.ndarray
    sample_S: np.ndarray
    rewards: dict[str, np.ndarray]


def read_pool(table: pa.Table) -> Pool:
    """What picking reads of `samples.parquet`."""

    def numbers(name: str) -> np.ndarray:
        return table[name].cast(pa.float64()).to_numpy()

    ids, instruction_S = _coded(table["instruction_id"])
    teachers, teacher_S = _coded(table["teacher"])
    names = [name for name in table.column_names if name.startswith(REWARD)]
    return Pool(
        ids,
        instruction_S,
        teachers,
        teacher_S,
        numbers("temperature"),
        numbers("top_p"),
        table["sample"].to_numpy(),
        {name.removeprefix(REWARD): numbers(name) for name in names},
    )


def _coded(column: Any) -> tuple[list[str], np.ndarray]:
    """Distinct values in the order of appearance, and the number of each row's."""
    coded = _compute.dictionary_encode(column.combine_chunks())
    return coded.dictionary.to_pylist(), coded.indices.to_numpy()


def pick(pool: Pool, name: str, wanted: ExportSet, seed: int) -> np.ndarray:
    """Rows of the run that the set holds, in the order of instructions and samples.

    Args:
        name: of the set, for error texts.
        wanted: the set's settings.
        seed: of `one`.

    Raises:
        SettingsError: a teacher, reward or point that the run does not have, or several points.
        DataError: no row is left.
    """
    if wanted.reward and wanted.reward not in pool.rewards:
        raise SettingsError(
            f"the run has no reward {wanted.reward!r}",
            where=f"sets: {name}: reward",
            found=nearest(wanted.reward, pool.rewards) if pool.rewards else "no rewards at all",
            next_step="correct it, or score the samples: `preceptor ask` with `answers`",
        )
    rows = _candidates(pool, name, wanted)
    reward_S = pool.rewards.get(wanted.reward)
    order = np.lexsort((rows, pool.instruction_S[rows]))
    if wanted.pick in ("best", "worst"):
        assert reward_S is not None
        rows = rows[np.isfinite(reward_S[rows])]
        value = -reward_S[rows] if wanted.pick == "best" else reward_S[rows]
        order = np.lexsort((rows, value, pool.instruction_S[rows]))
    rows = rows[order]
    if wanted.pick != "all":
        rows = rows[_chosen(pool, rows, seed if wanted.pick == "one" else None)]
    if wanted.min_reward is not None:
        assert reward_S is not None
        rows = rows[reward_S[rows] >= wanted.min_reward]
    if not len(rows):
        raise DataError(
            "a set would be empty",
            where=f"sets: {name}",
            found="no sample fits",
            next_step="ask for what it needs, or loosen `samples` and `min_reward`",
        )
    return rows


def pick_together(pool: Pool, sets: Mapping[str, ExportSet], seed: int) -> dict[str, np.ndarray]:
    """Rows of each set, of the instructions that every set has a row for.

    Raises:
        SettingsError: as of `pick`.
        DataError: an empty set, or no instruction with a row in every set.
    """
    picked = {name: pick(pool, name, own, seed) for name, own in sets.items()}
    kept_N = np.ones(len(pool.instruction_ids), dtype=bool)
    for rows in picked.values():
        there_N = np.zeros_like(kept_N)
        there_N[pool.instruction_S[rows]] = True
        kept_N &= there_N
    if not kept_N.any():
        raise DataError(
            "no instruction has a row in every set",
            where="sets",
            found=", ".join(f"{name} {len(rows):,} rows" for name, rows in picked.items()),
            next_step="export the sets apart, or loosen `samples` and `min_reward`",
        )
    return {name: rows[kept_N[pool.instruction_S[rows]]] for name, rows in picked.items()}


def _candidates(pool: Pool, name: str, wanted: ExportSet) -> np.ndarray:
    """Rows of the set's teacher and point, its first n samples; one point a teacher."""
    keep_S = np.ones(len(pool.sample_S), dtype=bool)
    if wanted.teacher:
        if wanted.teacher not in pool.teachers:
            raise SettingsError(
                f"the run has no teacher {wanted.teacher!r}",
                where=f"sets: {name}: teacher",
                found=nearest(wanted.teacher, pool.teachers),
                next_step="correct it",
            )
        keep_S &= pool.teacher_S == pool.teachers.index(wanted.teacher)
    points = _points(pool, keep_S)
    greedy = wanted.pick == "greedy"
    temperature = 0.0 if greedy else wanted.temperature
    top_p = None if greedy else wanted.top_p
    for own_S, value in ((pool.temperature_S, temperature), (pool.top_p_S, top_p)):
        if value is not None:
            keep_S &= np.isclose(own_S, value, rtol=0, atol=1e-9)
    if not keep_S.any():
        raise SettingsError(
            "the run has no greedy answers" if greedy else "the run has no samples at this point",
            where=f"sets: {name}",
            found="it has " + _listed(points),
            next_step="add temperature 0 to `decodings` of `preceptor ask` and ask again"
            if greedy
            else "correct `temperature` and `top_p`",
        )
    _refuse_several(pool, name, wanted, keep_S)
    if wanted.samples is not None:
        keep_S &= _among_the_first(pool, keep_S, wanted.samples)
    return np.flatnonzero(keep_S)


def _points(pool: Pool, keep_S: np.ndarray) -> list[tuple[str, float, float]]:
    found = zip(
        pool.teacher_S[keep_S].tolist(),
        pool.temperature_S[keep_S].tolist(),
        pool.top_p_S[keep_S].tolist(),
        strict=True,
    )
    distinct = {repr(point): point for point in found}.values()  # NaN differs from itself
    return [(pool.teachers[teacher], *point) for teacher, *point in distinct]  # type: ignore[misc]


def _listed(points: list[tuple[str, float, float]]) -> str:
    shown = [
        f"{teacher} (recorded)"
        if np.isnan(temperature)
        else f"{teacher} at temperature {temperature:g}, top_p {top_p:g}"
        for teacher, temperature, top_p in points[:6]
    ]
    return "; ".join(shown) + (f" and {len(points) - 6} more" if len(points) > 6 else "")


def _refuse_several(pool: Pool, name: str, wanted: ExportSet, keep_S: np.ndarray) -> None:
    points = _points(pool, keep_S)
    teachers = {teacher for teacher, _, _ in points}
    if len(points) > len(teachers):
        raise SettingsError(
            "a set takes the samples of one decoding point, and the run has several",
            where=f"sets: {name}",
            found=_listed(points),
            next_step="set `temperature` and `top_p`",
        )
    shared = len(np.unique(pool.instruction_S[keep_S])) < keep_S.sum()  # not after routing
    if wanted.pick == "greedy" and len(teachers) > 1 and shared:
        raise SettingsError(
            "several teachers have greedy answers",
            where=f"sets: {name}",
            found=", ".join(sorted(teachers)),
            next_step="set `teacher`",
        )


def _among_the_first(pool: Pool, keep_S: np.ndarray, n: int) -> np.ndarray:
    """Samples 0 .. n-1, of instructions to which every teacher of the pool has that many."""
    keep_S = keep_S & (pool.sample_S < n)
    rows = np.flatnonzero(keep_S)
    teachers, own = np.unique(pool.teacher_S[rows], return_inverse=True)
    count = np.zeros((len(teachers), len(pool.instruction_ids)), dtype=np.int64)
    np.add.at(count, (own, pool.instruction_S[rows]), 1)
    complete_N = np.all(count >= n, axis=0)
    return keep_S & np.asarray(complete_N)[pool.instruction_S]


def _chosen(pool: Pool, rows: np.ndarray, seed: int | None) -> np.ndarray:
    """Places in `rows`, sorted by instruction: the first of each, or one drawn by `seed`."""
    instruction, start, count = np.unique(
        pool.instruction_S[rows], return_index=True, return_counts=True
    )
    if seed is None:
        return start
    drawn = [
        _draw(seed, pool.instruction_ids[number], int(m))
        for number, m in zip(instruction, count, strict=True)
    ]
    return start + np.array(drawn, dtype=np.int64)


def _draw(seed: int, instruction_id: str, m: int) -> int:
    """Uniform in 0 .. m-1, the same whatever else is exported."""
    digest = hashlib.blake2b(f"{seed} {instruction_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % m
