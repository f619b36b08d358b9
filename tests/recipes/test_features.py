"""What criteria make of tokens and gradients: block by block, from files, checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preceptor.core.criterion import Criterion, Mean, Signals, TokenBlock, as_criterion, criterion
from preceptor.core.errors import RunFolderError, SettingsError
from preceptor.core.types import Answer
from preceptor.data.answer_table import Answers
from preceptor.data.rendering import Renderer
from preceptor.data.sequences import Tokens, tokenize
from preceptor.data.token_store import TokenStore
from preceptor.recipes.selecting import features as module
from preceptor.recipes.selecting.features import features_of_gradients, features_of_tokens

TEXTS = ["one\ntwo\nthree", "four", "", "five\nsix", "one\ntwo\nthree"]


def counts(block: TokenBlock, over: float = 2.0) -> dict[str, np.ndarray]:
    """How many tokens are dearer than `over`, and how many begin a step."""
    assert block.nll_T is not None
    return {"dear": block.sum(block.nll_T > over), "steps": block.sum(block.first_of_step_T())}


@criterion(direction="lower", unit="share", tokens=("nll", "step"), features=counts)
def dear(signals: Signals, mean: Mean) -> np.ndarray:
    """Share of the tokens that are dear."""
    return mean(signals.features["dear.dear"]) / mean(signals.n_tokens_MN)


@criterion(
    direction="lower",
    unit="rank",
    tokens=("rank",),
    features=lambda block: {"worst": np.maximum.reduceat(block.rank_T, block.starts[:-1])},
)
def worst_rank(signals: Signals, mean: Mean) -> np.ndarray:
    """Mean of the worst rank of an answer."""
    return mean(signals.features["worst_rank.worst"])


@pytest.fixture
def stored(
    tmp_path: Path, make_tokenizer: Callable[..., Any]
) -> tuple[Path, np.ndarray, Tokens, dict[str, list[np.ndarray]]]:
    """Five answers, of which the last is the first once more: (folder, starts, tokens, values)."""
    renderer = Renderer(make_tokenizer(), 128)
    answers = Answers.of([Answer(str(n), "Say it.", "ash", text) for n, text in enumerate(TEXTS)])
    tokens = tokenize(renderer, answers)
    rng = np.random.default_rng(0)
    lengths = tokens.n_response[:4].astype(np.int64)
    values = {
        "nll": [rng.gamma(2.0, 1.5, n).astype(np.float32) for n in lengths],
        "rank": [rng.integers(1, 90, n) for n in lengths],
    }
    with TokenStore(tmp_path / "tokens", lengths, tuple(values)) as store:
        flat = {name: np.concatenate(parts) for name, parts in values.items()}
        store.write(np.arange(4), flat)
        starts = store.starts[:-1][[0, 1, 2, 3, 0]]
    return tmp_path / "tokens", starts, tokens, {n: [*v, v[0]] for n, v in values.items()}


def opened(*functions: Callable[..., Any], **options: Any) -> list[Criterion]:
    return [as_criterion(function.__name__, function, options) for function in functions]


@pytest.mark.parametrize("block", [1, 2, 4096])
def test_features_of_tokens(
    stored: tuple[Path, np.ndarray, Tokens, dict[str, list[np.ndarray]]],
    block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, starts, tokens, values = stored
    monkeypatch.setattr(module, "BLOCK", block)
    found = features_of_tokens(opened(dear, worst_rank), folder, starts, tokens, "\n")
    assert {name: column.tolist() for name, column in found.items()} == {
        "feature.dear.dear": [float((nll > 2).sum()) for nll in values["nll"]],
        "feature.dear.steps": [3.0, 1.0, 1.0, 2.0, 3.0],
        "feature.worst_rank.worst": [float(rank.max()) for rank in values["rank"]],
    }


def test_options_reach_the_features(
    stored: tuple[Path, np.ndarray, Tokens, dict[str, list[np.ndarray]]],
) -> None:
    folder, starts, tokens, values = stored
    found = features_of_tokens(opened(dear, over=0.5), folder, starts, tokens, "\n")
    assert found["feature.dear.dear"].tolist() == [(nll > 0.5).sum() for nll in values["nll"]]


def test_other_separators_make_other_steps(
    stored: tuple[Path, np.ndarray, Tokens, dict[str, list[np.ndarray]]],
) -> None:
    folder, starts, tokens, _ = stored
    found = features_of_tokens(opened(dear), folder, starts, tokens, "\n\n")
    assert found["feature.dear.steps"].tolist() == [1.0] * 5


@pytest.mark.parametrize(
    ("made", "found"),
    [
        (lambda block: {"x": block.nll_T}, "0 not finite; 5 answers"),
        (lambda block: {"x": np.float64(3)}, "shape ()"),
        (lambda block: {"x": np.zeros((5, 1))}, "shape (5, 1)"),
        (lambda block: {"x": np.array([1, 2, np.nan, 4, np.inf])}, "2 not finite; 5 answers"),
    ],
)
def test_features_that_are_no_number_an_answer(
    stored: tuple[Path, np.ndarray, Tokens, dict[str, list[np.ndarray]]],
    made: Callable[[TokenBlock], dict[str, np.ndarray]],
    found: str,
) -> None:
    folder, starts, tokens, _ = stored
    odd = dataclasses.replace(opened(dear)[0], name="odd", features=made)
    with pytest.raises(SettingsError, match="one finite number an answer") as caught:
        features_of_tokens([odd], folder, starts, tokens, "\n")
    assert caught.value.where == "criterion odd, feature x"
    assert found in caught.value.found and caught.value.next_step


def test_a_file_of_tokens_that_is_gone(
    stored: tuple[Path, np.ndarray, Tokens, dict[str, list[np.ndarray]]],
) -> None:
    folder, starts, tokens, _ = stored
    (folder / "rank.npy").unlink()
    with pytest.raises(RunFolderError, match="token signals cannot be read") as caught:
        features_of_tokens(opened(worst_rank), folder, starts, tokens, "\n")
    assert caught.value.where == str(folder / "rank.npy")


def test_features_of_gradients_come_teacher_by_teacher() -> None:
    seen = []

    def norms(gradient_ND: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(gradient_ND.shape)
        return {"norm": np.linalg.norm(gradient_ND, axis=1)}

    @criterion(direction="lower", unit="norm", gradients=True, features=norms)
    def own(signals: Signals, mean: Mean) -> np.ndarray:
        """Mean norm."""
        return mean(signals.features["own.norm"])

    gradients = np.array([[3.0, 4.0], [0.0, 1.0], [6.0, 8.0]], dtype=np.float32)
    rows = np.array([0, 1, 2, 1, 1, 0])  # two teachers, three instructions
    found = features_of_gradients(opened(own), gradients, rows, (2, 3))
    assert found["feature.own.norm"].tolist() == [5.0, 1.0, 10.0, 1.0, 1.0, 5.0]
    assert seen == [(3, 2), (3, 2)]
    short = dataclasses.replace(opened(own)[0], features=lambda g: {"norm": np.ones(2)})
    with pytest.raises(SettingsError, match="one finite number an answer"):
        features_of_gradients([short], gradients, rows, (2, 3))


def test_a_mark_without_something_to_read_is_refused() -> None:
    blind = criterion(direction="lower", unit="x", features=counts)(lambda signals, mean: mean)
    with pytest.raises(SettingsError, match="have nothing to read"):
        as_criterion("blind", blind)
    mute = criterion(direction="lower", unit="x", tokens=("nll",))(lambda signals, mean: mean)
    with pytest.raises(SettingsError, match="without saying what it makes of them"):
        as_criterion("mute", mute)
    odd = criterion(direction="lower", unit="x", tokens=("nlls",), features=counts)(
        lambda signals, mean: mean
    )
    with pytest.raises(SettingsError, match="a signal of tokens that does not exist") as caught:
        as_criterion("odd", odd)
    assert caught.value.found == "'nlls', did you mean 'nll'?"
