"""A reward model in batches gives what `transformers` gives for each conversation alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from preceptor.core.errors import ModelError
from preceptor.core.types import Answer, Runtime
from preceptor.recipes.shared_settings import ModelReward
from preceptor.rewards.reward_model import open_reward

ANSWERS = [
    Answer("1", "Where is the cat?", "ash", "In the house."),
    Answer("2", "Where is the cat?", "ash", ""),
    Answer("3", "Name the colour of the sky.", "ash", "The colour of the sky is blue. " * 3),
    Answer("4", "One?", "ash", "!"),
    Answer("5", "One?", "ash", "\x01\x02"),
]


@pytest.fixture(scope="module")
def folder(tiny_model: Callable[..., Path], chat_template: str) -> Path:
    return tiny_model("judge", chat_template=chat_template, labels=2, seed=5)


def setting(folder: Path, output: int = 0) -> ModelReward:
    return ModelReward.model_validate(
        {"kind": "reward_model", "name": "judge", "model": str(folder), "output": output}
    )


def alone(folder: Path, answer: Answer, output: int) -> float:
    """The model's own way: the rendered conversation, no padding."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    messages = [
        {"role": "user", "content": answer.instruction},
        {"role": "assistant", "content": answer.response},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        return model(input_ids=ids).logits[0, output].item()


@pytest.mark.parametrize("output", [0, 1])
@pytest.mark.parametrize("batch_tokens", [None, 60, 1])
def test_batches_agree_with_one_by_one(folder: Path, output: int, batch_tokens: int | None) -> None:
    source = open_reward(setting(folder, output), Runtime("cpu", "float32", batch_tokens))
    batches = source.batches(ANSWERS)
    assert sorted(item for batch in batches for item in batch) == [0, 1, 2, 3, 4]
    assert len(batches) == {None: 1, 60: 3, 1: 5}[batch_tokens]
    found = {}
    for batch in batches:
        found |= dict(zip(batch, source.open()([ANSWERS[n] for n in batch]), strict=True))
    wanted = [alone(folder, answer, output) for answer in ANSWERS]
    assert [found[n] for n in range(5)] == pytest.approx(wanted, abs=1e-4)
    assert max(wanted) - min(wanted) > 0.1


def test_an_output_too_many_is_refused_before_weights(folder: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (bare / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelError, match="no such output") as caught:
        open_reward(setting(bare, output=2), Runtime("cpu"))
    assert caught.value.where == "reward 'judge', output 2"
    assert caught.value.found == "2 outputs"
    source = open_reward(setting(bare), Runtime("cpu"))
    with pytest.raises(ModelError, match="the weights cannot be loaded"):
        source.open()(ANSWERS[:1])


def test_the_fingerprint_is_of_the_files(folder: Path, tmp_path: Path) -> None:
    fingerprint = open_reward(setting(folder), Runtime("cpu")).fingerprint
    assert fingerprint.startswith("sha256:")
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert open_reward(setting(copy), Runtime("cpu")).fingerprint == fingerprint
    (copy / "generation_config.json").write_text("{}")
    assert open_reward(setting(copy), Runtime("cpu")).fingerprint != fingerprint


def test_a_device_that_is_not_there(folder: Path) -> None:
    with pytest.raises(ModelError, match="the device cannot be used") as caught:
        open_reward(setting(folder), Runtime("abacus"))
    assert caught.value.where == "device 'abacus'"
