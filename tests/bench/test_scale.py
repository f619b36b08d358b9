"""The made-up answers of the scale benchmark are what they say, and `select` can read them."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bench.scale import TEACHERS, make_answers, row
from preceptor.data.answers import read_recorded
from preceptor.data.paired import pair


def test_made_up_answers(tmp_path: Path) -> None:
    n = make_answers(tmp_path / "a.parquet", 300)
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.num_rows == n < TEACHERS * 300  # some are missing
    lengths = [len(text) for text in table["response"].to_pylist()]
    assert 300 < sum(lengths) / n < 500
    paired = pair(read_recorded(table, {}, "made up"), 0.5)
    assert paired.shape[0] == TEACHERS and paired.n_dropped > 0
    make_answers(tmp_path / "b.parquet", 300)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_ratios_are_against_the_smaller_run() -> None:
    small = {"seconds": 2.0, "peak": 800e6, "before": 500e6, "answers": 90}
    large = {"seconds": 20.0, "peak": 1600e6, "before": 500e6, "answers": 900}
    found = row("case", 1000, large, small)
    assert (found["time_ratio"], found["memory_ratio"]) == (10.0, 2.0)
    assert found["growth_ratio"] == pytest.approx(1100 / 300)
    assert found["answers_per_second"] == 50.0
    assert row("case", 100, small, None)["time_ratio"] is None
