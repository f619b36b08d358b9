"""A finished selection, figures without a screen, and the made-up folders of the report tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import preceptor

REPORTING = Path(__file__).parents[1] / "reporting"

CRITERIA = ["car", "mean_reward", "perplexity"]


def answers_of(texts: tuple[str, ...]) -> list[dict[str, Any]]:
    """Three teachers' answers, a row each; the longest are the best."""
    return [
        {
            "instruction": text,
            "generator": teacher,
            "response": " ".join(["the cat is in the house", "and the dog"][:words]) + f" {n}",
            "reward": 0.2 * words + 0.05 * (n % 3),
            "task": ("sum", "place")[n % 2],
        }
        for n, text in enumerate(texts)
        for words, teacher in enumerate(("ash", "beech", "cherry"))
    ]


@pytest.fixture(scope="session")
def rows(instruction_texts: tuple[str, ...]) -> list[dict[str, Any]]:
    """72 recorded answers, to 24 instructions of two tasks."""
    return answers_of(tuple(f"{text} Number {n}." for text in instruction_texts for n in range(4)))


@pytest.fixture(scope="session")
def least(base: Path) -> dict[str, Any]:
    """Settings of a selection that takes a second, without its answers."""
    return {
        "base": str(base),
        "rewards": ["reward"],
        "criteria": CRITERIA,
        "resamples": 200,
        "device": "cpu",
    }


@pytest.fixture(scope="session")
def selected(
    tmp_path_factory: pytest.TempPathFactory, least: dict[str, Any], rows: list[dict[str, Any]]
) -> preceptor.Selection:
    """A selection from a list of rows."""
    return preceptor.select(least, answers=rows, out=tmp_path_factory.mktemp("api") / "selected")


@pytest.fixture(scope="session")
def made_up() -> dict[str, Any]:
    """The modules that make up evaluations and studies for the report tests, by name."""
    sys.path.append(str(REPORTING))
    return {name: import_module(name) for name in ("evaluations", "studies")}


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], bytes]]:
    """`pictures(axes)`: the figure as PNG; figures are closed after the test."""
    import matplotlib
    import matplotlib.pyplot as plt

    matplotlib.use("Agg")

    def saved(axes: Any) -> bytes:
        path = tmp_path / "figure.png"
        axes.figure.savefig(path)
        return path.read_bytes()

    yield saved
    plt.close("all")
