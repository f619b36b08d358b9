"""The parts of a study: which cells tell most, intervals over seeds, and sizes of teachers."""

from __future__ import annotations

import math
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from preceptor.recipes.settings.loading import Located
from preceptor.recipes.studying.budget import (
    Standing,
    expected_gain,
    first_seeds,
    gain_of,
    next_seeds,
    telling_order,
)
from preceptor.recipes.studying.cells import Cell
from preceptor.recipes.studying.paradox import paradox_words
from preceptor.recipes.studying.scores import _seed_shares
from preceptor.reporting.terminal.study import print_study


def ranking(**criteria: list[str]) -> dict[str, Any]:
    """Criteria with their sources, best first; the first criterion decides."""
    return {
        "recommended_by": next(iter(criteria)),
        "criteria": {
            name: {"teachers": [{"teacher": t, "rank": place} for place, t in enumerate(order, 1)]}
            for name, order in criteria.items()
        },
    }


def cells(bases: str, sources: str, seeds: int) -> list[Cell]:
    return [
        Cell(base, source, "sft", seed, f"cells/{base}/{source}/sft/seed-{seed}")
        for seed in range(seeds)
        for base in bases
        for source in sources
    ]


def test_first_choices_come_first_then_extremes_then_whom_criteria_dispute() -> None:
    found = ranking(
        car=["a", "b", "c", "d", "e", "f"],
        length=["b", "a", "d", "e", "c", "f"],
        perplexity=["b", "d", "a", "e", "c", "f"],
    )
    # b is first of two, a of one; f last of all; ranks of d: 4 3 2, c: 3 5 5, e: 5 4 4
    assert telling_order(found) == ["b", "a", "f", "c", "d", "e"]


def test_bases_take_turns() -> None:
    rankings = {"x": ranking(car=["a", "b"]), "y": ranking(car=["b", "a"])}
    first, more = first_seeds(cells("xy", "ab", 2), rankings)
    shown = [(cell.base, cell.source, cell.seed) for cell in first]
    assert shown == [("x", "a", 0), ("y", "b", 0), ("x", "b", 0), ("y", "a", 0)]
    assert {cell.seed for cell in more} == {1} and len(more) == 4


def test_the_gain_of_a_tie_is_an_arc() -> None:
    """Two normals of correlation rho = sqrt(1 - w / v) differ in sign with arccos(rho) / pi."""
    for before, after in ((1.0, 0.5), (2.0, 1.5), (1.0, 0.05)):
        wanted = 0.5 - math.acos(math.sqrt(1.0 - after / before)) / math.pi
        assert expected_gain(0.0, before, after) == pytest.approx(wanted, abs=2e-3)
    assert expected_gain(0.0, 1.0, 1.0) == 0.0


def test_the_gain_agrees_with_simulation() -> None:
    rng = np.random.default_rng(0)
    difference, before, after = 0.7, 1.0, 0.4
    truth = rng.normal(difference, math.sqrt(before), 400_000)
    # what one student more makes of the estimate: its mean given the truth, and its noise
    gain = before - after
    estimate = difference + gain / before * (truth - difference)
    estimate += rng.normal(0.0, math.sqrt(gain * after / before), len(truth))
    wanted = (truth < 0).mean() - ((estimate > 0) != (truth > 0)).mean()
    assert expected_gain(difference, before, after) == pytest.approx(wanted, abs=3e-3)


def standing(base: str, means: list[float], n: int = 2) -> Standing:
    sources = list("abcdef"[: len(means)])
    return Standing(base, "sft", sources, np.array(means), np.full(len(means), float(n)), 1.0)


def test_seeds_go_where_the_best_is_in_doubt() -> None:
    close, clear = standing("x", [5.0, 4.9, 0.0]), standing("y", [9.0, 2.0, 0.0])
    assert gain_of(close, 0) > gain_of(close, 2)
    assert gain_of(close, 1) > gain_of(clear, 1)
    left = [cell for cell in cells("xy", "abc", 3) if cell.seed == 2]
    chosen = next_seeds([close, clear], left, lambda cell: 60.0, 2)
    assert {(cell.base, cell.source) for cell in chosen} == {("x", "a"), ("x", "b")}
    # the same information in less time comes first
    twin = standing("y", [5.0, 4.9, 0.0])
    quick = next_seeds([close, twin], left, lambda c: 60.0 if c.base == "x" else 6.0, 1)
    assert quick[0].base == "y"
    # a source without a student has no mean: its cells come last, none is forgotten
    everything = next_seeds([close], left, lambda cell: None, 100)
    assert [cell.base for cell in everything] == ["x"] * 3 + ["y"] * 3


def test_the_bootstrap_of_seeds_has_the_variance_of_their_mean() -> None:
    value_S = np.array([1.0, 2.0, 6.0])
    share_RS = _seed_shares(3, 200_000, [0])
    assert share_RS.sum(axis=1) == pytest.approx(1.0)
    resampled_R = share_RS @ value_S
    assert resampled_R.mean() == pytest.approx(3.0, abs=0.02)
    assert resampled_R.var() == pytest.approx(value_S.var(ddof=1) / 3, rel=0.02)
    assert (_seed_shares(1, 5, [0]) == 1).all()


def test_words_on_larger_teachers() -> None:
    largest: list[Any] = [
        {"base": "x", "source": "big", "size": 70.0, "rank": 4, "low": 2, "high": 6, "of": 9},
        {"base": "y", "source": "big", "size": 70.0, "rank": 2, "low": 1, "high": 3, "of": 9},
    ]
    up = {"value": 1.0, "low": 0.5, "high": 1.5}
    down = {"value": -1.0, "low": -1.5, "high": -0.5}
    open_ = {"value": 0.1, "low": -0.5, "high": 0.6}
    families: list[Any] = [
        {"largest_is_best": True, "steps": [up, open_]},
        {"largest_is_best": False, "steps": [down]},
    ]
    first, second, third = paradox_words(largest, families)
    assert first == (
        "The largest teacher, big, is the best for 0 of 2 bases (x: rank 4 of 9 [2, 6]; "
        "y: rank 2 of 9 [1, 3]). For 1 base of these its rank may still be 1."
    )
    assert "rises with the size in 2 of 3 steps" in second
    assert "1 rise and 1 fall by more than the interval, 1 cannot be told" in second
    assert "best of it in 1 of 2 cases" in third
    assert paradox_words([], []) == []


def test_a_located_path_can_be_sent_to_another_process() -> None:
    import pickle

    sent: Any = pickle.loads(pickle.dumps(Located("model", Path("/settings"))))
    assert sent.folder == Path("/settings")
    assert sent == "model"


def test_the_table_on_the_terminal() -> None:
    study = {
        "confidence": 0.95,
        "arms": ["sft"],
        "bases": ["x"],
        "sources": [{"name": "poor"}, {"name": "rich"}],
        "outcome": {"title": "mean of lab.reward"},
        "matrix": [
            {
                "base": "x",
                "source": name,
                "arm": "sft",
                "outcome": {"value": value, "low": value - 0.05, "high": value + 0.05},
                "seeds": 2,
                "rank": rank,
            }
            for name, value, rank in (("poor", 0.2, 2), ("rich", 0.6, 1))
        ],
        "base_scores": [{"base": "x", "outcome": 0.125, "low": 0.1, "high": 0.15}],
        "criteria": None,
        "cells": [{"status": "failed", "reason": "no room"}] * 2,
        "verdict": [{"kind": "best", "text": "x learns best from rich."}],
    }
    text = StringIO()
    print_study(study, Path("run"), Console(file=text, width=100))
    lines = text.getvalue().splitlines()
    rich, poor = (
        next(n for n, own in enumerate(lines) if name in own) for name in ("rich", "poor")
    )
    assert rich < poor and "0.60 [0.55, 0.65] (1)" in lines[rich]
    assert "x learns best from rich." in lines
    assert "failed (2): no room" in lines and lines[-1].endswith("run/study.html")
