"""Label log-probabilities: by hand, from judges of known bias, and from a real tiny model."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from preceptor.core.errors import DataError
from preceptor.core.types import Answer, Reply, Runtime
from preceptor.recipes.inputs.respondents import open_reward
from preceptor.recipes.settings.rewards import PairwiseLogprobReward
from preceptor.rewards.pairwise_logprob import first_better
from preceptor.selection.rewarding import score_answers

Make = Callable[..., Answer]


def setting(teacher: Any, **more: Any) -> PairwiseLogprobReward:
    return PairwiseLogprobReward.model_validate(
        {
            "kind": "pairwise_logprob",
            "name": "duel",
            "teacher": teacher,
            "baseline": "rival",
            **more,
        }
    )


def scored(source: Any, answers: list[Answer]) -> list[float]:
    return score_answers("duel", source, answers, None).tolist()


@pytest.mark.parametrize(
    ("labels", "chance"),
    [
        ((math.log(0.6), math.log(0.2)), 0.75),
        ((math.log(0.2), math.log(0.6)), 0.25),
        ((-3.0, -3.0), 0.5),
        ((0.0, -2000.0), 1.0),
        ((-2000.0, 0.0), 0.0),
        ((0.0, -math.inf), 1.0),
        ((None, -0.1), None),
        ((-0.1, None), None),
        ((), None),
    ],
)
def test_the_softmax_of_two_labels(
    reply: Callable[..., Reply], labels: Any, chance: float | None
) -> None:
    found = first_better(reply("A", labels))
    assert math.isnan(found) if chance is None else found == pytest.approx(chance)


def test_orders_are_averaged(plugs: Any, runtime: Runtime, answer: Make) -> None:
    source = open_reward(setting({"kind": "own_judges:open_longer"}), runtime)
    answers = [
        answer("long words", rival="short"),
        answer("x", rival="short"),
        answer("short", rival="short"),
    ]
    chance = math.exp(-0.5) / (math.exp(-0.5) + math.exp(-1.5))
    assert scored(source, answers) == pytest.approx([chance, 1 - chance, 0.5])
    assert (source.low, source.high) == (0.0, 1.0)
    assert source.facts["first_position_mean"] == pytest.approx(0.5)
    assert (source.facts["games"], source.facts["contradictions"]) == (4, 0)
    assert (source.facts["identical"], source.facts["missing_labels"]) == (1, 0)
    request = plugs.asked[0]
    assert request.labels == ("A", "B")
    assert request.decoding.greedy and request.decoding.max_new_tokens == 1


def test_the_bias_of_a_judge_cancels(plugs: Any, runtime: Runtime, answer: Make) -> None:
    source = open_reward(setting({"kind": "own_judges:open_always_first"}), runtime)
    assert scored(source, [answer("good", rival="bad"), answer("x", rival="y")]) == [0.5, 0.5]
    bias = math.exp(-0.1) / (math.exp(-0.1) + math.exp(-2.5))
    assert source.facts["first_position_mean"] == pytest.approx(bias)
    assert source.facts["contradictions"] == 2


def test_a_missing_label_leaves_no_score(plugs: Any, runtime: Runtime, answer: Make) -> None:
    source = open_reward(setting({"kind": "own_judges:open_mute_if_first_is_short"}), runtime)
    values = scored(source, [answer("x", rival="long"), answer("long", rival="other")])
    assert math.isnan(values[0]) and values[1] == 0.5
    assert source.facts["missing_labels"] == 1
    mute = open_reward(setting({"kind": "own_judges:open_mute"}), runtime)
    with pytest.raises(DataError, match="no reply of the judge holds a verdict"):
        scored(mute, [answer("a", rival="b")])


def test_a_real_model_by_hand(
    tiny_model: Callable[..., Path],
    chat_template: str,
    runtime: Runtime,
    answer: Make,
    tmp_path: Path,
) -> None:
    """The softmax of the two labels of the model's own logits, in both orders."""
    folder = tiny_model("chatter", chat_template=chat_template, seed=1)
    file = tmp_path / "short.txt"
    file.write_text("{{ instruction }} A: {{ response_a }} B: {{ response_b }}")
    source = open_reward(
        setting({"model": str(folder), "temperature": 2.0}, prompt=str(file)), runtime
    )
    answers = [answer("The cat.", rival="The dog is in."), answer("Two", rival="Three and one")]
    found = scored(source, answers)

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    labels = [tokenizer(label, add_special_tokens=False)["input_ids"] for label in "AB"]
    assert [len(ids) for ids in labels] == [1, 1]

    def chance(a: str, b: str) -> float:
        turn = [{"role": "user", "content": f"Say it. A: {a} B: {b}"}]
        text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            logp = model(input_ids=ids).logits[0, -1].log_softmax(-1)
        return torch.stack([logp[labels[0][0]], logp[labels[1][0]]]).softmax(0)[0].item()

    wanted = []
    for each in answers:
        own, rival = each.response, each.row["rival"]
        wanted.append((chance(own, rival) + 1 - chance(rival, own)) / 2)
    assert found == pytest.approx(wanted, abs=1e-5)
    assert abs(found[0] - 0.5) > 1e-4
