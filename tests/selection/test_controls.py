"""Length, family and size against an order: worked out by hand, or by scipy."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from preceptor.core.artifacts import signals_schema
from preceptor.selection.controls import controls_of, mean_spearman, partial_spearman


def ranking_of(order: list[str], length: dict[str, float], seed: int = 0) -> dict[str, Any]:
    rows = [{"teacher": name, "rank": place} for place, name in enumerate(order, 1)]
    return {
        "seed": seed,
        "teachers": {name: {"n_tokens_mean": own} for name, own in length.items()},
        "criteria": {"car": {"teachers": rows}},
    }


def signals_of(rows: list[tuple[str, str, int, float | None, float]]) -> pa.Table:
    names = ("teacher", "instruction_id", "n_tokens", "nll", "reward.r")
    schema = signals_schema(["r"], measured=False)
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    n = len(rows)
    return pa.table(
        {
            field.name: columns.get(field.name)
            or ([False] * n if field.name == "truncated" else [None] * n)
            for field in schema
        },
        schema=schema,
    )


@pytest.fixture
def signals() -> pa.Table:
    """Two teachers; the longer answer earns more in two of three instructions."""
    return signals_of(
        [
            ("a", "x", 10, 20.0, 1.0), ("a", "y", 10, 20.0, 1.0), ("a", "z", 10, 20.0, 0.0),
            ("b", "x", 5, 20.0, 0.0), ("b", "y", 5, 20.0, 0.0), ("b", "z", 5, 20.0, 1.0),
        ]
    )  # fmt: skip


def test_an_order_that_is_that_of_length(signals: pa.Table) -> None:
    length = {"a": 50.0, "b": 40.0, "c": 30.0, "d": 20.0, "e": 10.0}
    found = controls_of(ranking_of(list("abcde"), length), signals, {}, {})["criteria"]["car"]
    assert found["n"] == 5
    assert found["length"]["spearman"] == pytest.approx(1.0)
    assert found["length"]["p_value"] == pytest.approx(2 / 120)  # it, and its reverse
    assert found["size"] is None and found["family"] is None
    assert found["first_without_length"] == "a"


def test_who_is_first_without_the_part_of_length(signals: pa.Table) -> None:
    """Ranks 1..4 and lengths of ranks 4, 1, 3, 2: twice centred (3, 1, -1, -3), (3, -3, 1, -1).

    The slope is 8 / 20, so what is left is (1.8, 2.2, -1.4, -2.6).
    """
    length = {"a": 40.0, "b": 10.0, "c": 30.0, "d": 20.0}
    found = controls_of(ranking_of(list("abcd"), length), signals, {}, {})["criteria"]["car"]
    assert found["length"]["spearman"] == pytest.approx(0.4)
    assert found["first_without_length"] == "b"


def test_families_by_hand(signals: pa.Table) -> None:
    """x, x, y, y: of the sum of squares 5 of the ranks 1..4, 4 lie between the two families."""
    length = dict.fromkeys("abcd", 1.0)
    family = {"a": "x", "b": "x", "c": "y", "d": "y"}
    found = controls_of(ranking_of(list("abcd"), length), signals, family, {})
    own = found["criteria"]["car"]["family"]
    assert (own["n"], own["families"]) == (4, 2)
    assert own["share"] == pytest.approx(0.8)
    assert own["chance"] == pytest.approx(1 / 3)
    shares = [
        sum(2 * ((order[i] + order[j]) / 2 - 2.5) ** 2 for i, j in ((0, 1), (2, 3))) / 5
        for order in permutations((1, 2, 3, 4))
    ]
    exact = sum(share >= 0.8 - 1e-9 for share in shares) / 24
    assert own["p_value"] == pytest.approx(exact, abs=0.02)
    assert sum(shares) / 24 == pytest.approx(own["chance"])
    assert found["criteria"]["car"]["length"] == {"spearman": None, "p_value": None}
    assert found["teachers"]["a"] == {"family": "x", "size": None}


def test_unknown_families_and_sizes_are_left_out(signals: pa.Table) -> None:
    length = {"a": 5.0, "b": 3.0, "c": 4.0, "d": 1.0, "e": 2.0}
    family = {"a": "x", "b": "x", "c": "y", "d": None}
    size = {"a": 1.0, "b": 2.0, "c": 7.0, "d": 3.0, "e": None}
    found = controls_of(ranking_of(list("abcde"), length), signals, family, size)
    own = found["criteria"]["car"]
    assert own["family"]["n"] == 3 and own["family"]["families"] == 2
    assert own["size"]["n"] == 4
    good, sizes, lengths = [-1, -2, -3, -4], [1.0, 2.0, 7.0, 3.0], [5.0, 3.0, 4.0, 1.0]
    assert own["size"]["spearman"] == pytest.approx(stats.spearmanr(good, sizes)[0])
    fixed = partial_spearman(*map(np.array, (good, sizes, lengths)))
    assert own["size"]["without_length"] == pytest.approx(fixed)
    apart = {"a": "x", "b": "y", "c": "z"}
    each = controls_of(ranking_of(list("abc"), length), signals, apart, {})
    assert each["criteria"]["car"]["family"] is None  # every family has one member


def test_the_partial_correlation_is_that_of_residuals() -> None:
    rng = np.random.default_rng(3)
    held = rng.integers(0, 9, 30).astype(float)
    x, y = held + rng.normal(0, 3, 30), held + rng.normal(0, 3, 30)
    ranks = [stats.rankdata(values) for values in (x, y, held)]
    design = np.column_stack([np.ones(30), ranks[2]])
    left = [own - design @ np.linalg.lstsq(design, own, rcond=None)[0] for own in ranks[:2]]
    wanted = stats.pearsonr(*left)[0]
    assert partial_spearman(x, y, held) == pytest.approx(wanted)
    assert np.isnan(partial_spearman(x, y, x))


def test_within_an_instruction_by_hand(signals: pa.Table) -> None:
    """The rewards' rhos are 1, 1 and -1. The longer answer has the lower loss a token: -1."""
    found = controls_of(ranking_of(list("ab"), {"a": 10.0, "b": 5.0}), signals, {}, {})
    assert found["within"] == {"reward.r": pytest.approx(1 / 3), "loss": pytest.approx(-1.0)}


def test_within_is_scipys_mean_over_instructions() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 4, (6, 9)).astype(float)
    y = rng.normal(size=(6, 9))
    x[2, 3] = x[0, 4] = y[5, 4] = np.nan  # teachers that were not asked
    x[:, 7] = 1.0  # constant: no correlation
    rhos = []
    for n in range(9):
        there = np.isfinite(x[:, n]) & np.isfinite(y[:, n])
        if len(set(x[there, n])) > 1:
            rhos.append(stats.spearmanr(x[there, n], y[there, n])[0])
    assert len(rhos) == 8
    assert mean_spearman(x, y) == pytest.approx(np.mean(rhos))
    assert mean_spearman(x[:, 7:8], y[:, 7:8]) is None


def test_without_losses_nothing_is_said_of_them() -> None:
    table = signals_of([("a", "x", 3, None, 1.0), ("b", "x", 2, None, 0.0)])
    found = controls_of(ranking_of(list("ab"), {"a": 3.0, "b": 2.0}), table, {}, {})
    assert found["within"] == {"reward.r": pytest.approx(1.0)}
