"""Pairing of layers, heads and tokenizers, and what is refused before weights load."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from preceptor.core.errors import ModelError
from preceptor.models.load import Card, open_card
from preceptor.models.pairing import (
    chat_templates_differ,
    check_attention_pair,
    check_heads,
    compare_tokenizers,
    extra_tokens,
    layer_pairs,
)

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


@pytest.mark.parametrize(
    ("spec", "student", "teacher", "pairs"),
    [
        ("one_to_one", 3, 3, ((0, 0), (1, 1), (2, 2))),
        # round((s + 1) 4 / 2) - 1 = 1, 3
        ("uniform", 2, 4, ((0, 1), (1, 3))),
        # (s + 1) 5 / 3 = 1.67, 3.33, 5 -> 2, 3, 5
        ("uniform", 3, 5, ((0, 1), (1, 2), (2, 4))),
        # a deeper student: (s + 1) 2 / 4 = 0.5, 1, 1.5, 2 -> 1, 1, 2, 2
        ("uniform", 4, 2, ((0, 0), (1, 0), (2, 1), (3, 1))),
        # (s + 1) / 4 = 0.25, 0.5, 0.75, 1: never below layer 0
        ("uniform", 4, 1, ((0, 0), (1, 0), (2, 0), (3, 0))),
        ("last_k:2", 3, 5, ((1, 3), (2, 4))),
        (("last", 2), 3, 5, ((1, 3), (2, 4))),
        (["last", 1], 3, 5, ((2, 4),)),
        ([(2, 4), (0, 1)], 3, 5, ((0, 1), (2, 4))),
        ([[-1, -1], [0, 0]], 3, 5, ((0, 0), (2, 4))),
        ([(0, 1), (1, 1)], 3, 5, ((0, 1), (1, 1))),
    ],
)
def test_layers_are_paired(spec, student, teacher, pairs):
    assert layer_pairs(spec, student, teacher) == pairs


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("one_to_one", "uniform, last_k:K"),
        ("unifrom", "did you mean 'uniform'"),
        ("last_k:4", "1 to 3"),
        ("last_k:0", "1 to 3"),
        ("last_k:two", "last_k:two"),
        ([(0, 5)], r"\(0, 5\)"),
        ([(-4, 0)], r"\(-4, 0\)"),
        ([(2, 0), (-1, 1)], "student layer 2 with teacher layers 0 and 1"),
        ([(0, 1, 2)], r"\(0, 1, 2\)"),
        ([(0, True)], "True"),
        ([0, 1], "give two layer numbers"),
        ([], "at least one"),
    ],
)
def test_layers_that_cannot_be_paired_are_refused(spec, reason):
    with pytest.raises(ModelError, match=reason):
        layer_pairs(spec, 3, 5)


def test_one_head_count_must_divide_the_other():
    for student, teacher in ((4, 4), (4, 12), (12, 4), (1, 7)):
        check_heads(student, teacher)
    with pytest.raises(ModelError, match="4 heads of the student, 6 of the teacher"):
        check_heads(4, 6)


def test_attention_pairs_come_from_configs_alone():
    from transformers import AutoConfig

    small = AutoConfig.for_model("llama", num_hidden_layers=2, num_attention_heads=8)
    large = AutoConfig.for_model("mixtral", num_hidden_layers=4, num_attention_heads=16)
    assert check_attention_pair(small, large, "uniform") == ((0, 1), (1, 3))
    with pytest.raises(ModelError, match="one to one"):
        check_attention_pair(small, large, "one_to_one")
    odd = AutoConfig.for_model("llama", num_hidden_layers=2, hidden_size=96, num_attention_heads=12)
    with pytest.raises(ModelError, match="divides"):
        check_attention_pair(odd, small, "uniform")
    with pytest.raises(ModelError, match="sinks"):
        check_attention_pair(small, AutoConfig.for_model("gpt_oss"), "uniform")
    composite = AutoConfig.for_model("gemma3")
    layers = composite.get_text_config().num_hidden_layers
    assert len(check_attention_pair(composite, composite, "one_to_one")) == layers


@pytest.fixture
def card(base: Path) -> Card:
    return open_card(str(base))


def _edited(card: Card, edit: Callable[[dict[str, Any]], None]) -> Card:
    """The card with its tokenizer's JSON edited."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    content = json.loads(card.tokenizer.backend_tokenizer.to_str())
    edit(content)
    built: Any = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )
    return replace(card, reference="edited", tokenizer=built)


def _added(card: Card, tokens: list[str], special: bool = True) -> Card:
    tokenizer = copy.deepcopy(card.tokenizer)
    tokenizer.add_tokens(tokens, special_tokens=special)
    return replace(card, reference="added", tokenizer=tokenizer)


def test_same_tokenizers_give_the_smaller_vocabulary(card):
    assert compare_tokenizers(card, card) == card.vocabulary
    padded = replace(card, vocabulary=card.vocabulary + 64)
    assert compare_tokenizers(card, padded) == card.vocabulary
    assert compare_tokenizers(padded, card) == card.vocabulary
    assert extra_tokens(card, padded) is None


def test_other_texts_for_an_id_are_named(card):
    def swap(content):
        vocabulary = content["model"]["vocab"]
        first, second = "A", "B"
        vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]

    ids = card.tokenizer.get_vocab()
    lower = min(ids["A"], ids["B"])
    with pytest.raises(ModelError, match=f"id {lower} is 'A' to the student and 'B'"):
        compare_tokenizers(card, _edited(card, swap))


def test_other_merges_with_the_same_tokens_are_refused(card):
    def reverse(content):
        content["model"]["merges"].reverse()

    with pytest.raises(ModelError, match="merges"):
        compare_tokenizers(card, _edited(card, reverse))


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("normalizer", {"type": "Lowercase"}),
        ("normalizer", {"type": "NFC"}),
        ("normalizer", {"type": "NFKC"}),
        ("normalizer", {"type": "Strip", "strip_left": True, "strip_right": False}),
        ("pre_tokenizer", BYTES | {"add_prefix_space": True}),
        (
            "pre_tokenizer",
            {
                "type": "Sequence",
                "pretokenizers": [
                    {
                        "type": "Split",
                        "pattern": {"String": " "},
                        "behavior": "Isolated",
                        "invert": False,
                    },
                    BYTES,
                ],
            },
        ),
    ],
)
def test_other_treatment_of_text_with_the_same_tokens_is_refused(card, part, value):
    other = _edited(card, lambda content: content.update({part: value}))
    assert other.tokenizer.get_vocab() == card.tokenizer.get_vocab()
    with pytest.raises(ModelError, match=f"differ in {part}"):
        compare_tokenizers(card, other)


def test_settings_that_change_no_ids_are_let_pass(card):
    edited = _edited(card, lambda content: content.update({"decoder": None, "padding": None}))
    edited.tokenizer.eos_token = "<|user|>"
    assert compare_tokenizers(card, edited) == card.vocabulary


def test_scores_of_unigram_pieces_count(card):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    def unigram(score: float) -> Card:
        pieces = [("<unk>", 0.0), ("a", -1.0), ("b", -1.0), ("ab", score)]
        built: Any = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.Unigram(pieces, unk_id=0)), unk_token="<unk>"
        )
        return replace(card, tokenizer=built, vocabulary=4)

    assert compare_tokenizers(unigram(-1.5), unigram(-1.5)) == 4
    with pytest.raises(ModelError, match="scores"):
        compare_tokenizers(unigram(-1.5), unigram(-2.5))


def test_added_tokens_beyond_the_other_tokenizer_are_let_pass_and_named(card):
    wide = replace(card, vocabulary=card.vocabulary + 8)
    teacher = _added(wide, ["<|tool|>", "<|end|>"])
    assert compare_tokenizers(card, teacher) == card.vocabulary
    assert extra_tokens(card, teacher) == "only the teacher's tokenizer knows '<|tool|>', '<|end|>'"
    student = _added(wide, ["word"], special=False)
    assert compare_tokenizers(student, wide) == wide.vocabulary
    assert "student" in str(extra_tokens(student, wide))


def test_a_students_token_without_a_row_in_the_teacher_is_refused(card):
    student = _added(replace(card, vocabulary=card.vocabulary + 8), ["<|mine|>"])
    with pytest.raises(ModelError, match=r"(?s)no embedding.*<\|mine\|>"):
        compare_tokenizers(student, card)


def test_different_added_tokens_at_one_id_are_refused(card):
    wide = replace(card, vocabulary=card.vocabulary + 8)
    with pytest.raises(ModelError, match=r"'<\|a\|>' to the student and '<\|b\|>'"):
        compare_tokenizers(_added(wide, ["<|a|>"]), _added(wide, ["<|b|>"]))


def test_further_plain_tokens_are_refused(card, make_tokenizer):
    large = replace(card, tokenizer=make_tokenizer(vocab=400), vocabulary=400)
    small = replace(card, tokenizer=make_tokenizer(vocab=300), vocabulary=400)
    assert len(large.tokenizer) > len(small.tokenizer)
    with pytest.raises(ModelError, match="None to the student"):
        compare_tokenizers(small, large)


def test_chat_templates(card, chatter: Path, chat_template: str):
    teacher = open_card(str(chatter))
    assert chat_templates_differ(teacher, teacher) is None
    assert chat_templates_differ(card, card) is None
    assert "no chat template" in str(chat_templates_differ(card, teacher))
    assert card.reference in str(chat_templates_differ(card, teacher))
    for changed in (chat_template.replace("<|user|>", "<|assistant|>"), "{{ messages.missing() }}"):
        other = replace(teacher, tokenizer=copy.deepcopy(teacher.tokenizer), reference="other")
        other.tokenizer.chat_template = changed
        assert "other" in str(chat_templates_differ(teacher, other))
