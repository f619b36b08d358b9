"""The workshop that trains the lab: from a seed, always the same checkpoint."""

from dataclasses import replace
from itertools import islice

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from preceptor.lab import build
from preceptor.lab.cast import MEMBERS


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["aster-s", "cedar-moe", "dahlia-m", "base-school"])
def test_two_steps_of_training_make_the_same_loadable_checkpoint_twice(name, tmp_path):
    member = replace(MEMBERS[name], steps=2)
    for copy in ("first", "second"):
        build.train(member, tmp_path / copy, seed=3)
    weights = [(tmp_path / copy / "model.safetensors").read_bytes() for copy in ("first", "second")]
    assert weights[0] == weights[1]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "first")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "first")
    assert model.config.model_type == member.architecture
    assert model.dtype == torch.bfloat16
    assert model.generation_config.max_new_tokens == 96
    assert bool(tokenizer.chat_template) == member.chat_template
    assert not list(tmp_path.glob(".*.tmp"))


def test_only_the_reply_of_a_teacher_carries_loss():
    member = MEMBERS["aster-m"]
    tokenizer = build.build_tokenizer(member.tokenizer, seed=11)
    tokenizer.chat_template = build.CHAT_TEMPLATES[member.tokenizer]
    for ids, n_prompt in islice(build.samples(member, tokenizer, seed=0), 20):
        assert tokenizer.decode(ids[:n_prompt]).endswith("<|assistant|>")
        assert ids[-1] == tokenizer.eos_token_id
        assert 0 < n_prompt < len(ids)


def test_batches_hide_padding_and_prompts_from_the_loss():
    samples = [([5, 6, 7, 8], 2), ([9, 10], 1), ([11, 12, 13], 1)] * 16
    ids_BT, labels_BT = next(build.batches(iter(samples), rows=3, pad=0))
    for ids, labels in zip(ids_BT.tolist(), labels_BT.tolist(), strict=True):
        for token, label in zip(ids, labels, strict=True):
            assert label in (-100, token)
            assert (token == 0) <= (label == -100)
    assert (labels_BT != -100).any()


def test_digits_are_tokens_of_their_own():
    tokenizer = build.build_tokenizer("common", seed=11)
    ids = tokenizer("48 + 7", add_special_tokens=False)["input_ids"]
    assert [tokenizer.decode([i]) for i in ids][:2] == ["4", "8"]
