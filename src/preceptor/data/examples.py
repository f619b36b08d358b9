"""Answers as training examples: token ids, labels on the response, and who teaches each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from preceptor.core.errors import DataError
from preceptor.core.progress import say
from preceptor.core.types import Answer
from preceptor.data.rendering import Rendered, Renderer


def build_examples(
    answers: Sequence[Answer],
    renderer: Renderer,
    max_truncated_share: float,
    routes: Sequence[str] | None = None,
) -> tuple[dict[str, list[Any]], list[Rendered]]:
    """Columns that SFTTrainer takes as prepared data, and the sequences they were made of.

    `input_ids` and `labels` (-100 on the prompt: the response and its end token are learned),
    `sample` (number of the row) and, where `routes` is given, `route` (name of its teacher).

    Args:
        answers: one a row, in order.
        renderer: of the student; its limit is the longest sequence.
        max_truncated_share: refuse when a larger share of the responses lost its end.

    Raises:
        DataError: no answers, or too many that do not fit.
    """
    if not answers:
        raise DataError(
            "there is nothing to train on",
            where="data",
            found="no answers",
            next_step="check `where`, `teacher` and `max_rows`",
        )
    rendered = renderer.render(
        [answer.instruction for answer in answers], [answer.response for answer in answers]
    )
    cut = sum(row.truncated for row in rendered)
    if cut > max_truncated_share * len(rendered):
        raise DataError(
            "too many responses do not fit into the longest sequence",
            where=f"max_length {renderer.limit}",
            found=f"{cut:,} of {len(rendered):,} lost their end",
            next_step="raise max_length, drop long answers, or raise max_truncated_share",
        )
    if cut:
        say(f"warning: {cut:,} of {len(rendered):,} responses are cut at {renderer.limit:,} tokens")
    columns: dict[str, list[Any]] = {
        "input_ids": [list(row.ids) for row in rendered],
        "labels": [
            [-100] * (len(row.ids) - row.n_response) + list(row.response_ids) for row in rendered
        ],
        "sample": list(range(len(rendered))),
    }
    if routes is not None:
        columns["route"] = list(routes)
    return columns, rendered
