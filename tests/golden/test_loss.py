"""The measuring pass against `model(input_ids, labels).loss`, one answer at a time, no padding."""

from array import array

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from preceptor.data.rendering import Rendered
from preceptor.selection.measure import Scorer, make_plan

ARCHITECTURES = {
    "llama": {},
    "mistral": {"sliding_window": 8},
    "mixtral": {"num_local_experts": 4, "sliding_window": None},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "final_logit_softcapping": 4.0, "sliding_window": 8},
    "gemma3_text": {"head_dim": 8, "sliding_window": 8},
    "phi3": {"pad_token_id": 0},
    "cohere": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 3.0},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
}
VOCABULARY = 97


def build(architecture: str):
    torch.manual_seed(1)
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    }
    shape = {"vocab_size": VOCABULARY} if architecture == "gpt2" else shape
    config = AutoConfig.for_model(architecture, **(shape | ARCHITECTURES[architecture]))
    config.initializer_range = 0.3  # far from uniform, so that mistakes show
    return AutoModelForCausalLM.from_config(config).eval()


def ten_answers() -> list[Rendered]:
    rng = np.random.default_rng(0)
    answers = []
    for _ in range(10):
        n_prompt, n_response = rng.integers(1, 20), rng.integers(1, 30)
        ids = rng.integers(1, VOCABULARY, n_prompt + n_response).tolist()
        answers.append(Rendered(array("i", ids), int(n_response)))
    return answers


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_ten_answers(architecture):
    model = build(architecture)
    answers = ten_answers()
    plan = make_plan(answers, batch_tokens=100)
    assert any(len(batch.rows) > 1 for batch in plan.batches)
    scorer = Scorer(model)
    found = np.empty(len(answers))
    for batch in plan.batches:
        found[list(batch.rows)] = scorer.score([plan.unique[row] for row in batch.rows])["nll"]
    for answer, nll in zip(answers, found, strict=True):
        ids_BT = torch.tensor(answer.ids, dtype=torch.long)[None]
        labels_BT = ids_BT.clone()
        labels_BT[0, : len(answer.ids) - answer.n_response] = -100
        wanted = model(input_ids=ids_BT, labels=labels_BT).loss.item()
        assert nll / answer.n_response == pytest.approx(wanted, rel=1e-4)


@torch.no_grad()
def test_an_answer_of_known_loss():
    """A model whose logits are all equal pays ln V for each response token."""
    model = build("llama")
    model.lm_head.weight.zero_()
    answer = Rendered(array("i", [5, 6, 7, 8]), n_response=3)
    assert Scorer(model).score([answer])["nll"] == pytest.approx([3 * np.log(VOCABULARY)])
