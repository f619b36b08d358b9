"""The race benchmark asks as a race asks, and reads the table of a finished run."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench import race
from preceptor.criteria.mean_reward import mean_reward
from preceptor.recipes.settings.race import Race


def test_a_race_asks_for_less_and_names_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "ORDERS", 4)
    pool = race.made_up_pool(m=6, n=300)
    row = race.one_row("made up", pool, mean_reward, Race(growth=1.0))
    assert (row["right"], row["lost"], row["peer"]) == (1.0, 0.0, "full run")
    assert 20 / 300 <= row["answers"] <= row["answers_p90"] < 0.7
    active, leader, asked, rounds = race.run_race(
        pool, mean_reward, np.arange(300), Race(first=300)
    )
    assert (asked, rounds, leader) == (6 * 300, 1, 0) and leader in active


def test_equal_teachers_are_asked_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "STUDIES", 3)
    row = race.known_truth("car", 0.0, 0.95, m=3)
    assert row["lost"] == 0.0 and row["case"] == "equal, car"


def test_a_recorded_table_has_a_row_a_teacher(tmp_path: Path) -> None:
    pool = race.made_up_pool(m=2, n=5)
    assert pool.reward_MN is not None
    columns = {
        "teacher": np.repeat(pool.teachers, 5),
        "n_tokens": pool.n_tokens_MN.ravel(),
        "nll": pool.nll_MN.ravel(),
        "n_tokens_reference": pool.n_tokens_MN.ravel(),
        "nll_reference": 2 * pool.nll_MN.ravel(),
        "reward.mine": pool.reward_MN.ravel(),
    }
    pq.write_table(pa.table(columns), tmp_path / "signals.parquet")
    base, reference = race.recorded_pool(tmp_path / "signals.parquet")
    assert base.teachers == pool.teachers and reference is not None
    np.testing.assert_array_equal(base.nll_MN, pool.nll_MN)
    np.testing.assert_array_equal(reference.nll_MN, 2 * pool.nll_MN)
    np.testing.assert_array_equal(base.reward_MN, pool.reward_MN)
    part = race.cut(base, [1], np.array([4, 0]))
    assert part.teachers == ("teacher 2",)
    np.testing.assert_array_equal(part.nll_MN, pool.nll_MN[1:, [4, 0]])
