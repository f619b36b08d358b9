"""Whether an answer is the right one, word for word."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from preceptor.rewards.verifiers.reference import reference_of


def exact_match(
    instruction: str,
    response: str,
    row: Mapping[str, Any],
    *,
    column: str | None = None,
    ignore_case: bool = True,
    ignore_punctuation: bool = False,
) -> float:
    """1 if the response is the right answer, else 0.

    Both are compared in Unicode's composed form (NFC), with runs of white space as one space and
    none at the ends.

    Args:
        column: of the right answer; `answer`, `reference` or `solution` if None.
        ignore_case: compare without case (Unicode case folding).
        ignore_punctuation: leave out every character of Unicode's punctuation classes.

    Raises:
        KeyError: the row has no right answer.
    """
    wanted = reference_of(row, column)
    pair = (_normal(text, ignore_case, ignore_punctuation) for text in (response, wanted))
    return float(len(set(pair)) == 1)


def _normal(text: str, ignore_case: bool, ignore_punctuation: bool) -> str:
    text = unicodedata.normalize("NFC", text)
    if ignore_case:
        text = unicodedata.normalize("NFC", text.casefold())
    if ignore_punctuation:
        text = "".join(c for c in text if not unicodedata.category(c).startswith("P"))
    return " ".join(text.split())
