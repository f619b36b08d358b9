"""Rendering by blocks gives what rendering one by one gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from preceptor.data import sequences
from preceptor.data.answers import read_recorded
from preceptor.data.rendering import Renderer
from preceptor.data.sequences import Lazy, tokenize


@pytest.mark.parametrize("block", [1, 5, 4096])
@pytest.mark.parametrize("limit", [12, 128])
def test_blocks_change_nothing(
    tall: list[dict[str, Any]],
    make_tokenizer: Callable[..., Any],
    chat_template: str,
    monkeypatch: pytest.MonkeyPatch,
    block: int,
    limit: int,
) -> None:
    monkeypatch.setattr(sequences, "BLOCK", block)
    answers = read_recorded(pa.Table.from_pylist(tall[::-1]), {}, "table")
    renderer = Renderer(make_tokenizer(chat_template), limit)
    wanted = [renderer.render([a.instruction], [a.response])[0] for a in answers]
    tokens = tokenize(renderer, answers)
    assert list(tokens.sequences) == wanted
    assert tokens.n_response.tolist() == [row.n_response for row in wanted]
    assert tokens.truncated.tolist() == [row.truncated for row in wanted]
    assert tokens.truncated.any() == (limit == 12)
    assert tokens.largest == max(max(row.ids) for row in wanted)
    counts = tokenize(renderer, answers, keep_ids=False)
    assert counts.n_response.tolist() == tokens.n_response.tolist() and not counts.sequences


def test_a_prompt_is_made_once(
    tall: list[dict[str, Any]], make_tokenizer: Callable[..., Any], chat_template: str
) -> None:
    renderer = Renderer(make_tokenizer(chat_template), 128)
    answers = read_recorded(pa.Table.from_pylist(tall), {}, "table")
    renderer.prompt.cache_clear()
    tokenize(renderer, answers)
    assert renderer.prompt.cache_info().misses == 6


def test_a_lazy_sequence_makes_what_is_asked_for() -> None:
    made: list[int] = []
    squares = Lazy(lambda place: made.append(place) or place**2, 5)
    assert (squares[3], squares[-1], squares[1:4]) == (9, 16, [1, 4, 9])
    assert made == [3, 4, 1, 2, 3]
    assert list(squares) == [0, 1, 4, 9, 16] and len(squares) == 5
    with pytest.raises(IndexError):
        squares[5]
