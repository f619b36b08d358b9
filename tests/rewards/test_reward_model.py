"""A reward model in batches gives what `transformers` gives for each conversation alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from preceptor.core.errors import ModelError
from preceptor.core.types import Answer, Runtime
from preceptor.recipes.settings.rewards import ModelReward
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


def setting(folder: Path, output: Any = 0) -> ModelReward:
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
    assert len(batches) == {None: 1, 60: 4, 1: 5}[batch_tokens]
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
    assert caught.value.found == "2 outputs: LABEL_0, LABEL_1"
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


def test_outputs_by_label_and_weighted_sums(folder: Path, tmp_path: Path) -> None:
    """A multi-objective head: its places, its labels, and a weighted sum from one pass."""
    named = tmp_path / "named"
    named.mkdir()
    for file in folder.iterdir():
        (named / file.name).write_bytes(file.read_bytes())
    config = json.loads((named / "config.json").read_text())
    config |= {"id2label": {"0": "helpful", "1": "harmless"}}
    config["label2id"] = {label: int(place) for place, label in config["id2label"].items()}
    (named / "config.json").write_text(json.dumps(config))

    def found(output: Any) -> list[float]:
        source = open_reward(setting(named, output), Runtime("cpu", "float32"))
        return list(source.open()(ANSWERS))

    first, second = found(0), found(1)
    assert found("helpful") == first and found("harmless") == second
    mixed = [0.7 * a - 0.2 * b for a, b in zip(first, second, strict=True)]
    assert found({"helpful": 0.7, "harmless": -0.2}) == pytest.approx(mixed, abs=1e-5)
    assert found({"0": 0.7, "1": -0.2}) == pytest.approx(mixed, abs=1e-5)
    with pytest.raises(ModelError, match="no such output") as caught:
        found("helpfull")
    assert caught.value.found == "2 outputs: helpful, harmless"
    with pytest.raises(ModelError, match="no such output"):
        found(-1)


CUSTOM = '''
from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaModel, LlamaPreTrainedModel
from transformers.utils import ModelOutput


@dataclass
class Scored(ModelOutput):
    rewards: torch.Tensor = None
    logits: torch.Tensor = None
    score: torch.Tensor = None


class LlamaForObjectives(LlamaPreTrainedModel):
    """Objectives at the token before the first padding token, and one number made of them."""

    def __init__(self, config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = LlamaModel(config)
        self.regression_layer = torch.nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, **other):
        hidden = self.model(input_ids, attention_mask=attention_mask)[0]
        last = torch.eq(input_ids, self.config.pad_token_id).int().argmax(-1) - 1
        last = last % input_ids.shape[-1]
        rewards = self.regression_layer(hidden[torch.arange(len(hidden)), last])
        score = (rewards * torch.tensor([0.5, 0.25, -1.0])).sum(-1)
        return Scored(rewards=rewards, logits=score, score=score)
'''


def test_a_model_with_fields_of_its_own(
    tiny_model: Callable[..., Path], chat_template: str, tmp_path: Path
) -> None:
    """The form of ArmoRM: a gated `score` and several `rewards`, from code beside the weights."""
    plain = tiny_model("objectives", chat_template=chat_template, labels=3, seed=6)
    folder = tmp_path / "custom"
    folder.mkdir()
    for file in plain.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "objectives.py").write_text(CUSTOM)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "objectives.LlamaForObjectives"}
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    weights["regression_layer.weight"] = weights.pop("score.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})

    def found(output: Any, trusted: bool = True) -> list[float]:
        runtime = Runtime("cpu", "float32", trust_remote_code=trusted)
        return list(open_reward(setting(folder, output), runtime).open()(ANSWERS))

    parts = [found(f"rewards.{place}") for place in range(3)]
    wanted = [alone(plain, answer, 1) for answer in ANSWERS]
    assert parts[1] == pytest.approx(wanted, abs=1e-4)
    gated = [0.5 * a + 0.25 * b - c for a, b, c in zip(*parts, strict=True)]
    assert found("score") == pytest.approx(gated, abs=1e-5)
    assert found({"score": 1.0, "rewards.2": 1.0}) == pytest.approx(
        [a + b for a, b in zip(gated, parts[2], strict=True)], abs=1e-5
    )
    with pytest.raises(ModelError, match="no such output"):
        found("score", trusted=False)
    with pytest.raises(ModelError, match="no such field") as caught:
        found("scores")
    assert caught.value.found == "did you mean 'score'?"
    with pytest.raises(ModelError, match="not one number for each"):
        found("rewards")
    with pytest.raises(ModelError, match="not one number for each"):
        found("rewards.3")


def test_a_declared_range_is_carried(folder: Path) -> None:
    ranged = ModelReward.model_validate(
        {"kind": "reward_model", "name": "j", "model": str(folder), "low": 0, "high": 1}
    )
    source = open_reward(ranged, Runtime("cpu"))
    assert (source.low, source.high) == (0.0, 1.0)
    assert open_reward(setting(folder), Runtime("cpu")).low == float("-inf")
