"""Known outcomes: what became of students that were trained from each teacher.

A small table (CSV, Parquet, JSON or JSON lines) with the columns `teacher` and `outcome` (higher
is better), and optionally `base`, `seed` and `n` (how many items an outcome was measured on: its
weight among the rows of the same teacher and base).

Shapes: M teachers, R resamples.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from preceptor.core.errors import DataError, nearest
from preceptor.core.run import hash_input

NEEDED, OPTIONAL = ("teacher", "outcome"), ("base", "seed", "n")


@dataclass(frozen=True)
class Repeats:
    """The outcomes of one teacher on one base: a value a row, and their weights."""

    values: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    seeds: list[str] = field(default_factory=list)

    @property
    def mean(self) -> float:
        return float(np.average(self.values, weights=self.weights))


@dataclass(frozen=True)
class OutcomeTable:
    """Outcomes by base ("" where the table has no bases) and teacher, in the file's order."""

    path: str
    sha256: str
    bases: dict[str, dict[str, Repeats]]
    n_empty: int = 0  # rows without an outcome

    @property
    def with_bases(self) -> bool:
        return set(self.bases) != {""}

    def of(self, base: str) -> dict[str, Repeats]:
        """The outcomes on a base; empty where it has none. `owner/name` and `name` are the same."""
        if not self.with_bases:
            return self.bases[""]
        key = self.key_of(base)
        return {} if key is None else self.bases[key]

    def key_of(self, base: str) -> str | None:
        """The base as this table calls it."""
        if base in self.bases:
            return base
        short = [key for key in self.bases if _short(key) == _short(base)]
        return short[0] if len(short) == 1 else None


def _short(name: str) -> str:
    return name.rpartition("/")[2].lower()


def read_outcomes(path: Path) -> OutcomeTable:
    """Read and check a table of outcomes.

    Raises:
        DataError: unreadable, a column is missing, an outcome is no finite number, or one teacher
            stands twice on a base without a seed that tells the rows apart.
    """
    try:
        table = _read(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        first = str(error).strip().splitlines()
        raise DataError(
            "the outcomes cannot be read",
            where=str(path),
            found=first[0] if first else type(error).__name__,
            next_step="give a CSV, Parquet or JSON file with the columns teacher and outcome",
        ) from error
    for name in NEEDED:
        if name not in table.column_names:
            raise DataError(
                f"the outcomes have no column {name!r}",
                where=str(path),
                found=nearest(name, table.column_names) if table.column_names else "no columns",
                next_step="name the columns teacher and outcome (and base, seed, n)",
            )
    rows = table.select([c for c in (*NEEDED, *OPTIONAL) if c in table.column_names]).to_pylist()
    bases: dict[str, dict[str, Repeats]] = {}
    n_empty = 0
    for number, row in enumerate(rows, start=1):
        if row["outcome"] is None:
            n_empty += 1
            continue
        _add(bases, row, f"{path}, row {number}")
    if not bases:
        raise DataError("the outcomes hold no rows", where=str(path), next_step="add some")
    return OutcomeTable(str(path), hash_input(str(path), table), bases, n_empty)


def _read(path: Path) -> pa.Table:
    kind = path.suffix.lower()
    if kind == ".parquet":
        return pq.read_table(path)
    if kind in (".csv", ".tsv"):
        texts = {name: pa.string() for name in ("teacher", "base", "seed")}
        numbers = {name: pa.float64() for name in ("outcome", "n")}
        return pa_csv.read_csv(
            io.BytesIO(path.read_bytes()),
            parse_options=pa_csv.ParseOptions(delimiter="\t" if kind == ".tsv" else ","),
            convert_options=pa_csv.ConvertOptions(column_types=texts | numbers),
        )
    if kind in (".json", ".jsonl"):
        text = path.read_text(encoding="utf-8-sig")
        lines = [line for line in text.splitlines() if line.strip()]
        whole = text.lstrip().startswith("[")
        rows = json.loads(text) if whole else [json.loads(line) for line in lines]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("not a list of objects")
        return pa.Table.from_pylist(rows)
    raise ValueError(f"unknown kind of file: {kind or 'no ending'}")


def _add(bases: dict[str, dict[str, Repeats]], row: dict[str, Any], where: str) -> None:
    """One row; several of a teacher and base are its repeats."""
    teacher, base = row["teacher"], row.get("base")
    if not isinstance(teacher, str) or not teacher or ("base" in row and not base):
        raise DataError(
            "an outcome does not say whose it is",
            where=where,
            found=f"teacher {teacher!r}" + (f", base {base!r}" if "base" in row else ""),
            next_step="give every row its teacher (and base)",
        )
    own = bases.setdefault(str(base or ""), {}).setdefault(teacher, Repeats())
    value, weight = (_number(row, name, where) for name in ("outcome", "n"))
    seed = row.get("seed")
    if own.values and (seed is None or str(seed) in own.seeds):
        raise DataError(
            "a teacher has two outcomes on one base",
            where=where,
            found=f"{teacher!r}" + (f" on {base!r}" if base else ""),
            next_step="keep one, or tell repeats apart by a column seed",
        )
    own.values.append(value)
    own.weights.append(weight)
    own.seeds.append("" if seed is None else str(seed))


def _number(row: dict[str, Any], name: str, where: str) -> float:
    """The outcome, or its weight (1 where none is given)."""
    given = row.get(name)
    if name == "n" and given is None:
        return 1.0
    try:
        value = float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value) or (name == "n" and value <= 0):
        raise DataError(
            f"{'an outcome' if name == 'outcome' else 'n'} is no "
            f"{'finite' if name == 'outcome' else 'positive'} number",
            where=where,
            found=repr(given),
            next_step="correct it, or leave it empty",
        )
    return value


def resampled_outcomes(outcomes: list[Repeats], resamples: int, seed: int) -> np.ndarray | None:
    """Means of resampled repeats: shape (M, R); None where no teacher has several.

    A teacher with one outcome keeps it: nothing is known of its spread.
    """
    if all(len(own.values) == 1 for own in outcomes):
        return None
    rng = np.random.default_rng([seed, 3])
    rows = []
    for own in outcomes:
        k = len(own.values)
        count_Rk = rng.multinomial(k, np.full(k, 1.0 / k), size=resamples)
        weight_Rk = count_Rk * np.array(own.weights)
        rows.append((weight_Rk @ np.array(own.values)) / weight_Rk.sum(axis=1))
    return np.stack(rows)
