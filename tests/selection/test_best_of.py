"""Best and worst of k samples, against every subset; intervals drawn on the same instructions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from preceptor.selection.best_of import add_intervals, extremes_KN, steps_to


@pytest.mark.parametrize(
    ("n", "steps"), [(1, [1]), (2, [1, 2]), (5, [1, 2, 4, 5]), (8, [1, 2, 4, 8])]
)
def test_steps(n: int, steps: list[int]) -> None:
    assert steps_to(n) == steps


@pytest.mark.parametrize("largest", [True, False])
def test_the_extreme_is_the_mean_over_all_subsets(largest: bool) -> None:
    rng = np.random.default_rng(0)
    counts = [5, 3, 7, 3]
    instruction = rng.permutation(np.repeat(np.arange(4), counts))
    value = np.round(rng.normal(size=len(instruction)), 1)  # with equals
    found_KN = extremes_KN(value, instruction, [1, 2, 3], largest)
    pick = max if largest else min
    for k in (1, 2, 3):
        for n in range(4):
            subsets = itertools.combinations(value[instruction == n], k)
            wanted = np.mean([pick(subset) for subset in subsets])
            assert found_KN[k - 1, n] == pytest.approx(wanted)


def test_intervals_hold_the_mean_and_shrink_with_the_instructions() -> None:
    rng = np.random.default_rng(1)
    small, large = rng.normal(size=50), rng.normal(size=5000)
    cells = [({}, small), ({}, small + 1), ({}, large)]
    add_intervals(cells, 0.95, 400, 3)
    first, second, third = (cell for cell, _ in cells)
    assert first["mean"] == pytest.approx(small.mean())
    assert first["low"] < first["mean"] < first["high"]
    assert second["low"] == pytest.approx(first["low"] + 1)  # the same resamples
    assert (first["high"] - first["low"]) > 5 * (third["high"] - third["low"])
    error = 2 * 1.96 * small.std() / np.sqrt(50)
    assert first["high"] - first["low"] == pytest.approx(error, rel=0.2)
