"""The lab's cast and, where they are built, its checkpoints."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from preceptor.lab.cast import BASES, MEMBERS, TEACHERS, Member
from preceptor.lab.place import MODELS_FOLDER
from preceptor.lab.voices import DOCUMENTS, VOICES

needs_checkpoints = pytest.mark.skipif(
    not MODELS_FOLDER.is_dir(), reason="the lab's checkpoints are not built (make lab)"
)
LIMIT_BYTES = 16 * 1024 * 1024


def test_the_size_of_the_cast() -> None:
    assert len(BASES) >= 3 and len(TEACHERS) >= 8
    assert len(MEMBERS) == len(BASES) + len(TEACHERS)
    assert len({member.family for member in TEACHERS}) >= 4
    assert len({member.shape for member in TEACHERS if not member.shape.experts}) >= 3
    assert len({member.architecture for member in TEACHERS}) >= 4


def test_one_mixture_and_one_tokenizer_of_its_own() -> None:
    assert [m.name for m in MEMBERS.values() if m.shape.experts] == ["cedar-moe"]
    assert MEMBERS["cedar-moe"].architecture == "mixtral"
    assert Counter(m.tokenizer for m in MEMBERS.values())["own"] == 1


def test_members_read_and_write_what_there_is() -> None:
    for member in BASES:
        assert member.role == "base" and set(member.mix) <= set(DOCUMENTS) and member.mix
    for member in TEACHERS:
        assert member.role == "teacher" and member.voice in VOICES and not member.mix
    assert [m.name for m in MEMBERS.values() if not m.chat_template] == ["base-school"]
    assert [m.name for m in MEMBERS.values() if m.shop_share] == ["marlow-expert"]


@needs_checkpoints
@pytest.mark.parametrize("member", MEMBERS.values(), ids=lambda member: member.name)
def test_a_checkpoint_loads_and_is_what_the_cast_says(member: Member) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    folder = MODELS_FOLDER / member.name
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    assert model.config.model_type == member.architecture
    assert model.config.hidden_size == member.shape.width
    assert model.config.num_hidden_layers == member.shape.layers
    assert model.config.vocab_size == len(tokenizer)
    assert bool(tokenizer.chat_template) is member.chat_template
    decoding = GenerationConfig.from_pretrained(folder)
    assert decoding.eos_token_id == tokenizer.eos_token_id
    assert decoding.do_sample is False and decoding.max_new_tokens == 96
    text = "What is 12 plus 30? é ☃"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert all(torch.isfinite(weight).all() for weight in model.parameters())


@needs_checkpoints
def test_checkpoints_are_there_small_and_alike() -> None:
    folders = sorted(path.name for path in MODELS_FOLDER.iterdir() if path.is_dir())
    assert folders == sorted(MEMBERS)
    size = sum(path.stat().st_size for path in MODELS_FOLDER.rglob("*") if path.is_file())
    assert size <= LIMIT_BYTES
    assert {path.suffix for path in _weights()} == {".safetensors"}


@needs_checkpoints
def test_all_but_one_share_a_tokenizer() -> None:
    import json

    vocabularies = {
        name: json.dumps(
            json.loads((MODELS_FOLDER / name / "tokenizer.json").read_text("utf-8"))["model"]
        )
        for name in MEMBERS
    }
    common = vocabularies["base-notes"]
    assert [name for name, text in vocabularies.items() if text != common] == ["dahlia-m"]


def _weights() -> list[Path]:
    endings = (".safetensors", ".bin", ".pt", ".pth")
    return [path for path in MODELS_FOLDER.rglob("*") if path.suffix in endings]
