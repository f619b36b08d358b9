"""Token ids to the pieces of text that they stand for: a token each, or those of one character.

A byte-level tokenizer may cut a character (an emoji, a rare sign) into several tokens, none of
which is text by itself: they are one piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_LOST = "\ufffd"  # what decoders write for bytes that are no character


@dataclass(frozen=True)
class Piece:
    """A stretch of a text, and how many tokens make it. Text "" is what ends a response."""

    text: str
    n_tokens: int


class Pieces:
    """Cuts responses of one tokenizer into pieces.

    Each token is decoded once, behind a letter: by itself it would lose the space that some
    tokenizers drop at the start of a text.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        anchor = tokenizer("a", add_special_tokens=False)["input_ids"]
        self._anchor = list(anchor)[-1:]
        self._head = self._decode(self._anchor)
        self._special = set(tokenizer.all_special_ids)
        self._known: dict[int, str] = {}

    def _decode(self, ids: Sequence[int]) -> str:
        return str(
            self._tokenizer.decode(
                list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    def _behind(self, ids: Sequence[int]) -> str:
        """The text of tokens within a text."""
        whole = self._decode([*self._anchor, *ids])
        return whole[len(self._head) :] if whole.startswith(self._head) else self._decode(ids)

    def _one(self, token: int) -> str:
        if token not in self._known:
            self._known[token] = self._behind([token])
        return self._known[token]

    def cut(self, ids: Sequence[int], response: str) -> list[Piece]:
        """The pieces of a response's tokens.

        Args:
            ids: of the response as a model reads it: its first token may begin in the prompt, its
                last ones may end the turn.
            response: its text.

        Returns:
            Pieces whose texts, joined, are the response (its beginning, where the model's limit
            cut it), then one with text "" of the tokens that end it, if any. Where the tokenizer
            changes texts (lower case, say) they are what it makes of the response.
        """
        pieces = self._plain(ids)
        for text in (response, response.strip()):
            found = _aligned(pieces, text)
            if found is not None:
                return found
        return self._without_specials(ids, pieces)

    def _plain(self, ids: Sequence[int]) -> list[Piece]:
        """Every token by itself, or the fewest tokens that make whole characters."""
        found: list[Piece] = []
        run: list[int] = []
        for token in ids:
            text = self._one(token)
            if not run and text and _LOST not in text:
                found.append(Piece(text, 1))
                continue
            text = self._behind([*run, token])
            if text and _LOST not in text:
                found.append(Piece(text, len(run) + 1))
                run = []
            elif run and self._one(token) and _LOST not in self._one(token):
                found += [Piece(self._behind(run), len(run)), Piece(self._one(token), 1)]
                run = []  # those bytes were no character
            else:
                run.append(token)
        return [*found, Piece(self._behind(run), len(run))] if run else found

    def _without_specials(self, ids: Sequence[int], pieces: list[Piece]) -> list[Piece]:
        """The same, special tokens at the end without their text."""
        n = 0
        while n < len(ids) and ids[len(ids) - 1 - n] in self._special:
            n += 1
        left = len(ids) - n
        kept = []
        for piece in pieces:
            if left <= 0:
                break
            kept.append(piece)
            left -= piece.n_tokens
        ended = len(ids) - sum(piece.n_tokens for piece in kept)
        return [*kept, Piece("", ended)] if ended else kept


def _aligned(pieces: Sequence[Piece], text: str) -> list[Piece] | None:
    """The pieces cut to a text that begins in the first of them; None where they hold another."""
    whole = "".join(piece.text for piece in pieces)
    reach = len(pieces[0].text) if pieces else 0
    start = whole.find(text, 0, reach + len(text))
    if start < 0:  # the limit may have cut the text
        cut = (skip for skip in range(reach) if text.startswith(whole[skip:]))
        start = next(cut, -1)
    if start < 0:
        return None
    end = start + len(text)
    found: list[Piece] = []
    place = waiting = 0
    for piece in pieces:
        own = piece.text[max(0, start - place) : max(0, end - place)]
        place += len(piece.text)
        if own:
            found.append(Piece(own, piece.n_tokens + waiting))
            waiting = 0
        else:
            waiting += piece.n_tokens
    return [*found, Piece("", waiting)] if waiting else found
