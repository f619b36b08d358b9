"""What examining gave, an examinee on a benchmark at a time: kept whole, then made into tables.

A pair is three small files under `work/`; the one with the marks appears last, and stands for all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from preceptor.core import artifacts
from preceptor.core.artifacts import write_table, write_tables
from preceptor.core.benchmark import Exchange, Graded
from preceptor.evaluation.tables import exchanges_table, games_table, marks_table

TABLES = {
    artifacts.EXCHANGES: artifacts.EXCHANGES_SCHEMA,
    artifacts.JUDGEMENTS: artifacts.JUDGEMENTS_SCHEMA,
    artifacts.MARKS: artifacts.MARKS_SCHEMA,
}
_FACTS, _OF_BENCHMARK = b"facts", b"benchmark"


class Examined:
    """The pairs of a run that are done. Its folder holds them by number, and is made if missing.

    Args:
        folder: belongs to this alone.
        benchmarks: names, in the order of the tables; fixed by the identity of the run.
        models: names, in the order of the tables within a benchmark; fixed likewise.
    """

    def __init__(self, folder: Path, benchmarks: Sequence[str], models: Sequence[str]) -> None:
        self.folder = folder
        self.pairs = [(benchmark, model) for benchmark in benchmarks for model in models]
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink()

    def _place(self, table: str, benchmark: str, model: str) -> Path:
        return self.folder / f"{self.pairs.index((benchmark, model)):06d}-{table}"

    def done(self, benchmark: str, model: str) -> bool:
        """Whether this run, or an earlier one that was stopped, has kept the pair."""
        return self._place(artifacts.MARKS, benchmark, model).exists()

    def keep(
        self,
        benchmark: str,
        model: str,
        exchanges: Sequence[Exchange],
        graded: Graded,
        facts: Mapping[str, Any],
    ) -> None:
        """Keep what examining a model on a benchmark gave.

        Args:
            facts: of the benchmark itself, as they are now.
        """
        marks = marks_table(benchmark, model, graded.marks).replace_schema_metadata(
            {
                _FACTS: json.dumps(plain(graded.facts)),
                _OF_BENCHMARK: json.dumps(plain(facts)),
            }
        )
        parts = {
            artifacts.EXCHANGES: exchanges_table(benchmark, model, exchanges),
            artifacts.JUDGEMENTS: games_table(benchmark, model, graded.games),
            artifacts.MARKS: marks,  # last
        }
        for name, table in parts.items():
            write_table(self._place(name, benchmark, model), table)

    def write(self, folder: Path) -> None:
        """The tables of all pairs that are done; one pair at a time is in memory."""
        for name, schema in TABLES.items():
            write_tables(folder / name, schema, self._tables(name, schema))

    def _tables(self, name: str, schema: pa.Schema) -> Iterator[pa.Table]:
        for benchmark, model in self.pairs:
            if self.done(benchmark, model):
                yield pq.read_table(self._place(name, benchmark, model)).cast(schema)

    def facts(self, benchmark: str, model: str) -> dict[str, Any]:
        """What grading this model counted; empty where the pair is not there."""
        return self._kept(_FACTS, benchmark, model)

    def benchmark_facts(self, benchmark: str) -> dict[str, Any]:
        """What is known of the benchmark itself, of the first model that it was asked of."""
        kept = (self._kept(_OF_BENCHMARK, *pair) for pair in self.pairs if pair[0] == benchmark)
        return next((facts for facts in kept if facts), {})

    def _kept(self, key: bytes, benchmark: str, model: str) -> dict[str, Any]:
        if not self.done(benchmark, model):
            return {}
        place = self._place(artifacts.MARKS, benchmark, model)
        return json.loads((pq.read_metadata(place).metadata or {}).get(key, b"{}"))


def plain(value: Any) -> Any:
    """The same for JSON: NumPy's numbers and arrays as Python's, None for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
