"""Tokens to text and back: the pieces of a response are its text, whatever the tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from preceptor.data.pieces import Piece, Pieces
from preceptor.data.rendering import Renderer

TEXTS = [
    "It is 3 in the house.",
    " two  spaces,\n\nand lines\r\n\tand a tab ",
    "naïve café – “quotes” … ½",
    "emoji 👩\u200d👩\u200d👧\u200d👦 and 🏴\u200d☠️, 漢字, עברית, \u202eoverride\u202c",
    "lost \ufffd bytes \ufffd\ufffd here",
    "nul \x00 and escape \x1b[31m",
    "</script><script>alert(1)</script>",
    "</s> is text here, and so is <|user|>",
    "x",
    "",
]


@pytest.mark.parametrize("template", [False, True])
@pytest.mark.parametrize("text", TEXTS)
def test_pieces_joined_are_the_response(
    make_tokenizer: Callable[..., Any], chat_template: str, text: str, template: bool
) -> None:
    tokenizer = make_tokenizer(chat_template if template else None)
    [row] = Renderer(tokenizer, 4096).render(["Where is the cat?"], [text])
    pieces = Pieces(tokenizer).cut(list(row.response_ids), text)
    assert "".join(piece.text for piece in pieces) == text
    assert sum(piece.n_tokens for piece in pieces) == row.n_response
    assert pieces[-1].text == "" and all(piece.text for piece in pieces[:-1])
    assert all(piece.n_tokens > 0 for piece in pieces)


def test_a_character_of_several_tokens_is_one_piece(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer()
    ids = tokenizer("a👩é!", add_special_tokens=False)["input_ids"]
    found = Pieces(tokenizer).cut(ids, "a👩é!")
    assert [(piece.text, piece.n_tokens) for piece in found] == [
        ("a", 1),
        ("👩", 4),
        ("é", 2),
        ("!", 1),
    ]


def test_bytes_that_are_no_character_stay_one_piece(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer()
    lost = tokenizer("é", add_special_tokens=False)["input_ids"][:1]
    then = tokenizer("a", add_special_tokens=False)["input_ids"]
    for ids, wanted in (([*lost, *then], 2), (lost, 1)):
        found = Pieces(tokenizer).cut(ids, "something else")
        assert len(found) == wanted and "\ufffd" in found[0].text


def test_what_the_limit_cut_is_not_there(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer()
    [row] = Renderer(tokenizer, 24).render(["Where is the cat?"], ["The cat is in the house " * 9])
    assert row.truncated
    found = Pieces(tokenizer).cut(list(row.response_ids), "The cat is in the house " * 9)
    joined = "".join(piece.text for piece in found)
    assert joined and ("The cat is in the house " * 9).startswith(joined)
    assert all(piece.text for piece in found)
    assert sum(piece.n_tokens for piece in found) == row.n_response


def test_a_token_that_begins_in_the_prompt_loses_that_part(
    make_tokenizer: Callable[..., Any],
) -> None:
    tokenizer = make_tokenizer()
    known = Pieces(tokenizer)
    seam = next(
        token
        for token in range(len(tokenizer))
        if len(known._one(token)) == 2 and known._one(token).isalpha()
    )
    rest = tokenizer(" cat", add_special_tokens=False)["input_ids"]
    text = known._one(seam)[1:] + " cat"
    found = known.cut([seam, *rest, tokenizer.eos_token_id], text)
    assert "".join(piece.text for piece in found) == text
    assert found[0] == Piece(text[0], 1) and found[-1] == Piece("", 1)
    alone = known.cut([seam, *rest], " cat")  # all of it is the prompt's
    assert alone[0].n_tokens == 2 and alone[0].text.startswith(" ")
    assert sum(piece.n_tokens for piece in alone) == 1 + len(rest)


def _spaced(lower: bool) -> Any:
    """A tokenizer that marks spaces, and drops the first one where it decodes."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    if lower:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=120, special_tokens=["<unk>", "</s>"], show_progress=False
    )
    tokenizer.train_from_iterator(["The cat is in the house.", "a dog Is here"] * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", model_max_length=128
    )


def test_tokenizers_that_mark_spaces() -> None:
    tokenizer = _spaced(lower=False)
    [row] = Renderer(tokenizer, 128).render(["The dog"], ["a cat is in the house"])
    found = Pieces(tokenizer).cut(list(row.response_ids), "a cat is in the house")
    assert "".join(piece.text for piece in found) == "a cat is in the house"
    assert sum(piece.n_tokens for piece in found) == row.n_response
    assert any(piece.text.startswith(" ") for piece in found)


def test_a_tokenizer_that_changes_texts_shows_what_it_makes_of_them() -> None:
    tokenizer = _spaced(lower=True)
    [row] = Renderer(tokenizer, 128).render(["The dog"], ["The Cat Is Here"])
    found = Pieces(tokenizer).cut(list(row.response_ids), "The Cat Is Here")
    assert "".join(piece.text for piece in found).strip() == "the cat is here"
    assert found[-1] == Piece("", 1)
    assert sum(piece.n_tokens for piece in found) == row.n_response
