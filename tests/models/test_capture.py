"""Captured queries and keys give the model's own attention maps, and change nothing else."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from preceptor.core.errors import DataError, ModelError
from preceptor.models.capture import capture_attention, refuse_uncapturable, segments_of
from preceptor.models.signals import LayerAttention

VOCABULARY, TOKENS = 64, 24
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ALTERNATE = ["sliding_attention", "full_attention"] * 2
MOE = {"num_local_experts": 4, "num_experts_per_tok": 2}
QWEN_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 7},
    "mixtral": {"sliding_window": 9} | MOE,
    "qwen2": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2},
    "qwen2_moe": QWEN_MOE
    | {"use_sliding_window": True, "sliding_window": 5, "layer_types": ALTERNATE},
    "qwen3": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    "qwen3_moe": QWEN_MOE | {"use_sliding_window": True, "sliding_window": 6},
    "gemma2": {"attn_logit_softcapping": 5.0, "sliding_window": 6, "query_pre_attn_scalar": 16},
    "gemma3_text": {"sliding_window": 6, "layer_types": ALTERNATE},
    "phi3": {"sliding_window": 8},
    "phimoe": MOE | {"sliding_window": 8, "router_jitter_noise": 0.0, "input_jitter_noise": 0.0},
    "gpt2": {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 128}
    | {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
}
WINDOWS: dict[str, list[int | None]] = {
    "llama": [None] * 4,
    "mistral": [7] * 4,
    "mixtral": [9] * 4,
    "qwen2": [None, None, 5, 5],
    "qwen2_moe": [5, None] * 2,
    "qwen3": [None, 5, 5, 5],
    "qwen3_moe": [6] * 4,
    "gemma2": [6, None] * 2,
    "gemma3_text": [6, None] * 2,
    "phi3": [8] * 4,
    "phimoe": [8] * 4,
    "gpt2": [None] * 4,
}


def _config(family: str, **extra: Any) -> Any:
    return AutoConfig.for_model(family, **(SHAPE | FAMILIES[family] | extra))


def _model(family: str, implementation: str = "sdpa", seed: int = 0, **extra: Any) -> Any:
    config = _config(family, **extra)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        factory: Any = AutoModelForCausalLM
        return factory.from_config(config, attn_implementation=implementation).eval()


def _runs_in(family: str) -> str:
    return "eager" if family == "gemma2" else "sdpa"  # SDPA refuses soft capping


def _ids(rows: int = 2, tokens: int = TOKENS, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (rows, tokens), generator=generator)


def _padded(side: str) -> dict[str, torch.Tensor]:
    mask = torch.ones(2, TOKENS, dtype=torch.int64)
    if side == "left":
        mask[1, :6] = 0
    else:
        mask[1, -6:] = 0
    return {"input_ids": _ids().masked_fill(mask == 0, 0), "attention_mask": mask}


def _packed() -> dict[str, torch.Tensor]:
    positions = torch.cat([torch.arange(n) for n in (10, 3, 11)])[None]
    return {"input_ids": _ids(1), "position_ids": positions}


def _map(seen: LayerAttention, segments_BT: torch.Tensor) -> torch.Tensor:
    """The attention map written out; rows of padding are zero."""
    query, key = seen.query_BHTC, seen.key_BGTC
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    logits = query.float() @ key.float().transpose(2, 3) * seen.scaling
    if seen.softcap is not None:
        logits = seen.softcap * torch.tanh(logits / seen.softcap)
    place = torch.arange(query.shape[2])
    distance = place[:, None] - place
    allowed = (distance >= 0) & (distance < (seen.window or place.numel()))
    allowed = allowed & (segments_BT[:, :, None] == segments_BT[:, None, :])
    allowed = (allowed & (segments_BT >= 0)[:, None, :])[:, None]
    return logits.masked_fill(~allowed, -torch.inf).softmax(-1).nan_to_num(0.0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("batch", ["plain", "left", "right", "packed"])
def test_captured_attention_gives_the_models_own_maps(family, batch):
    if batch == "plain":
        inputs: dict[str, Any] = {"input_ids": _ids()}
    else:
        inputs = _packed() if batch == "packed" else _padded(batch)
    model, reference = _model(family, _runs_in(family)), _model(family, "eager")
    with torch.no_grad(), capture_attention(model) as captured:
        model(**inputs, use_cache=False)
    with torch.no_grad():
        maps = reference(**inputs, output_attentions=True, use_cache=False).attentions
    segments_BT = segments_of(inputs)
    real_BT = segments_BT >= 0
    assert list(captured) == [0, 1, 2, 3]
    for layer, map_BHTT in enumerate(maps):
        rebuilt = _map(captured[layer], segments_BT)
        rows = real_BT[:, None, :].expand(rebuilt.shape[:3])
        torch.testing.assert_close(rebuilt[rows], map_BHTT[rows], rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_capture_changes_neither_outputs_nor_gradients(family):
    model = _model(family, _runs_in(family)).train()
    found = []
    for context in (nullcontext(), capture_attention(model)):
        model.zero_grad()
        with context:
            logits_BTV = model(**_padded("right"), use_cache=False).logits
        logits_BTV.square().mean().backward()
        found.append((logits_BTV, [p.grad for p in model.parameters() if p.grad is not None]))
    (plain, plain_grads), (captured, captured_grads) = found
    assert torch.equal(plain, captured)
    assert plain_grads
    assert all(map(torch.equal, plain_grads, captured_grads))


@pytest.mark.parametrize("family", FAMILIES)
def test_windows_scaling_and_heads_of_each_family(family):
    model = _model(family, _runs_in(family))
    with torch.no_grad(), capture_attention(model) as captured:
        model(_ids(), use_cache=False)
    assert [captured[layer].window for layer in range(4)] == WINDOWS[family]
    groups = 4 if family == "gpt2" else 2
    for seen in captured.values():
        assert seen.query_BHTC.shape == (2, 4, TOKENS, 8)
        assert seen.key_BGTC.shape == (2, groups, TOKENS, 8)
        assert seen.softcap == (5.0 if family == "gemma2" else None)
    if family == "gemma2":
        assert captured[0].scaling == 0.25  # query_pre_attn_scalar ** -0.5 = 16 ** -0.5


def _attention_loss(captured: dict[int, LayerAttention], segments_BT: torch.Tensor) -> Any:
    return sum(_map(seen, segments_BT).square().sum() for seen in captured.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_the_weights_also_under_checkpointing(family):
    model = _model(family, _runs_in(family)).train()
    inputs = _padded("left")
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.activation_checkpointing_enable()
        model.zero_grad()
        with capture_attention(model) as captured:
            logits_BTV = model(**inputs, use_cache=False).logits
        before = {layer: seen.query_BHTC for layer, seen in captured.items()}
        loss = _attention_loss(captured, segments_of(inputs)) + logits_BTV.square().mean()
        loss.backward()
        assert all(captured[layer].query_BHTC is query for layer, query in before.items())
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    plain, checkpointed = gradients
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(gradient, checkpointed[name], rtol=1e-5, atol=1e-6)
    with capture_attention(model) as captured:
        model(**inputs, use_cache=False)
    queries = captured[3].query_BHTC.sum()
    first = next(p for n, p in model.named_parameters() if "layers.0" in n or "h.0" in n)
    assert torch.autograd.grad(queries, first)[0].abs().sum() > 0


def test_recomputation_inside_the_context_is_not_recorded():
    model = _model("llama").train()
    model.activation_checkpointing_enable()
    with capture_attention(model) as captured:
        model(_ids(), use_cache=False)
        before = captured[0]
        _attention_loss(captured, segments_of({"input_ids": _ids()})).backward()
        assert captured[0] is before


def test_reentrant_checkpointing_is_refused_where_gradients_are_wanted():
    model = _model("llama").train()
    model.activation_checkpointing_enable({"use_reentrant": True})
    with pytest.raises(ModelError, match="use_reentrant"), capture_attention(model):
        pass
    with torch.no_grad(), capture_attention(model.eval(), [0]) as captured:
        model(_ids(), use_cache=False)
    assert 0 in captured


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # raised by PEFT
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_gradients_reach_lora_weights(implementation):
    from peft import LoraConfig, get_peft_model

    model = _model("llama", implementation)
    lora = LoraConfig(r=4, target_modules=["q_proj", "k_proj"], task_type="CAUSAL_LM")
    wrapped: Any = get_peft_model(model, lora)
    with capture_attention(wrapped, [1, 3]) as captured:
        wrapped(input_ids=_ids(), use_cache=False)
    assert sorted(captured) == [1, 3]
    _attention_loss(captured, segments_of({"input_ids": _ids()})).backward()
    # A's gradient is zero while B is zero, as at the start
    reached = {n for n, p in wrapped.named_parameters() if p.grad is not None and p.grad.any()}
    adapted = {n for n, _ in wrapped.named_parameters() if "lora_B" in n}
    assert reached == adapted and len(adapted) == 8


def test_nested_and_successive_captures_do_not_mix():
    student, teacher = _model("llama", seed=1), _model("llama", "eager", seed=2)
    alone = {}
    for name, model in (("student", student), ("teacher", teacher)):
        with torch.no_grad(), capture_attention(model) as captured:
            model(_ids(), use_cache=False)
        alone[name] = captured
    with torch.no_grad(), capture_attention(student, [0, 2]) as outer:
        student(_ids(), use_cache=False)
        with capture_attention(teacher, [3]) as inner:
            teacher(_ids(), use_cache=False)
            student(_ids(), use_cache=False)
    assert sorted(outer) == [0, 2] and sorted(inner) == [3]
    assert torch.equal(outer[2].query_BHTC, alone["student"][2].query_BHTC)
    assert torch.equal(inner[3].query_BHTC, alone["teacher"][3].query_BHTC)
    with torch.no_grad():
        teacher(_ids(seed=5), use_cache=False)
    assert torch.equal(inner[3].query_BHTC, alone["teacher"][3].query_BHTC)


def test_two_captures_of_one_model_each_see_it():
    model = _model("llama")
    with torch.no_grad(), capture_attention(model, [0]) as outer:
        with capture_attention(model, [0, 1]) as inner:
            model(_ids(), use_cache=False)
        assert inner[0].query_BHTC is outer[0].query_BHTC
        model(_ids(seed=1), use_cache=False)
    assert sorted(outer) == [0] and sorted(inner) == [0, 1]
    assert not torch.equal(outer[0].query_BHTC, inner[0].query_BHTC)


def test_a_second_forward_pass_overwrites_the_first():
    model = _model("llama")
    with torch.no_grad(), capture_attention(model) as captured:
        model(_ids(seed=1), use_cache=False)
        first = captured[0].query_BHTC
        model(_ids(seed=2), use_cache=False)
    assert not torch.equal(first, captured[0].query_BHTC)


@pytest.mark.parametrize("fails", [False, True])
def test_config_and_attention_functions_are_as_before(tmp_path, fails):
    model = _model("llama")
    model.save_pretrained(tmp_path)  # writes its class and dtype into the config
    names, config = dict(AttentionInterface()), copy.deepcopy(model.config)
    with (
        pytest.raises(ZeroDivisionError) if fails else nullcontext(),
        torch.no_grad(),
        capture_attention(model),
    ):
        assert model.config._attn_implementation == "sdpa"
        model(_ids(), use_cache=False)
        model.save_pretrained(tmp_path)
        if fails:
            raise ZeroDivisionError
    assert dict(AttentionInterface()) == names
    assert model.config == config
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config._attn_implementation == "sdpa"


def test_an_attention_function_of_the_user_is_captured():
    calls = []

    def counted(module, *args, **kwargs):
        calls.append(module.layer_idx)
        return sdpa_attention_forward(module, *args, **kwargs)

    AttentionInterface.register("counted_attention", counted)
    model = _model("llama", "counted_attention")
    with torch.no_grad(), capture_attention(model, [2]) as captured:
        model(_ids(), use_cache=False)
    assert calls == [0, 1, 2, 3]
    assert list(captured) == [2]
    assert AttentionInterface()["counted_attention"] is counted


def test_prefill_with_a_cache_is_captured_and_cached_keys_are_refused():
    model = _model("llama")
    with torch.no_grad(), capture_attention(model, [0]) as captured:
        cache = model(_ids(), use_cache=True).past_key_values
        assert captured[0].key_BGTC.shape[2] == TOKENS
        with pytest.raises(ModelError, match="keys of a cache"):
            model(_ids(tokens=2), past_key_values=cache, use_cache=True)


def test_the_implementation_may_change_while_a_capture_is_open():
    model = _model("llama", "eager")
    with torch.no_grad(), capture_attention(model) as captured:
        model.set_attn_implementation("sdpa")
        model(_ids(), use_cache=False)
    assert len(captured) == 4


# refusals


def _sinks() -> Any:
    config = AutoConfig.for_model(
        "gpt_oss",
        **(SHAPE | MOE | {"layer_types": ALTERNATE, "sliding_window": 6}),
    )
    factory: Any = AutoModelForCausalLM
    return factory.from_config(config, attn_implementation="eager")


def test_sinks_are_refused_by_config_and_by_the_running_model(monkeypatch):
    model = _sinks()
    with pytest.raises(ModelError, match="sinks"):
        refuse_uncapturable(model.config)
    monkeypatch.setattr("preceptor.models.capture._SINKS", frozenset())  # a type not yet known
    with (
        torch.no_grad(),
        pytest.raises(ModelError, match=r"(?s)layer 0 \(GptOssAttention\).*s_aux"),
        capture_attention(model),
    ):
        model(_ids(), use_cache=False)
    assert "eager" not in AttentionInterface()


def test_arguments_not_known_are_refused_by_name():
    model = _model("llama")
    with (
        torch.no_grad(),
        pytest.raises(ModelError, match=r"(?s)layer 0.*position_bias"),
        capture_attention(model),
    ):
        model(_ids(), use_cache=False, position_bias=torch.zeros(1, 4, TOKENS, TOKENS))


def test_attention_to_later_tokens_is_refused():
    model = _model("llama")
    with (
        torch.no_grad(),
        pytest.raises(ModelError, match="later tokens"),
        capture_attention(model),
    ):
        model(_ids(), use_cache=False, is_causal=False)


@pytest.mark.parametrize(
    ("family", "extra", "reason"),
    [
        ("mamba", {}, "mamba"),
        ("jamba", {}, "linear_attention"),
        ("qwen3_next", {}, "linear_attention"),
        ("llama4_text", {}, "chunked_attention"),
        ("deepseek_v32", {}, "indexed_attention"),
        ("bloom", {}, "BloomForCausalLM"),
        ("mpt", {}, "MptForCausalLM"),
        ("gptj", {}, "GPTJForCausalLM"),
        ("t5", {}, "encoder-decoder"),
        ("gpt_oss", {}, "sinks"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "later tokens"),
    ],
)
def test_uncapturable_kinds_are_refused_by_config(family, extra, reason):
    with pytest.raises(ModelError, match=reason):
        refuse_uncapturable(AutoConfig.for_model(family, **extra))


@pytest.mark.parametrize("family", [*FAMILIES, "deepseek_v3", "olmo2", "granite", "cohere2"])
def test_capturable_kinds_pass(family):
    refuse_uncapturable(AutoConfig.for_model(family))


def test_latent_attention_is_captured():
    latent = {
        "q_lora_rank": 8,
        "kv_lora_rank": 8,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 6,
        "v_head_dim": 5,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "moe_intermediate_size": 16,
        "num_key_value_heads": 4,
    }
    shape = {key: value for key, value in SHAPE.items() if key != "head_dim"}
    config = AutoConfig.for_model("deepseek_v3", **(shape | latent))
    factory: Any = AutoModelForCausalLM
    models = [factory.from_config(copy.deepcopy(config)).eval()]
    models.append(copy.deepcopy(models[0]))
    models[1].set_attn_implementation("eager")
    with torch.no_grad(), capture_attention(models[0]) as captured:
        models[0](_ids(), use_cache=False)
        maps = models[1](_ids(), output_attentions=True, use_cache=False).attentions
    for layer, map_BHTT in enumerate(maps):
        rebuilt = _map(captured[layer], segments_of({"input_ids": _ids()}))
        torch.testing.assert_close(rebuilt, map_BHTT, rtol=0, atol=1e-5)


def test_layers_out_of_range_and_other_modules_are_refused(base: Path):
    model = AutoModelForCausalLM.from_pretrained(base)
    with pytest.raises(ModelError, match="0 to 1"), capture_attention(model, [1, 2]):
        pass
    with pytest.raises(ModelError, match="Linear"), capture_attention(torch.nn.Linear(2, 2)):
        pass


def test_a_context_without_a_forward_pass_is_refused_on_leaving():
    model = _model("llama")
    with pytest.raises(ModelError, match="no forward pass"), capture_attention(model, [0]):
        pass


# segments


def test_segments_of_padded_batches():
    right = {"input_ids": _ids(2, 4), "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])}
    left = {"input_ids": _ids(2, 4), "attention_mask": torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])}
    assert segments_of(right).tolist() == [[0, 0, 0, 0], [0, 0, -1, -1]]
    assert segments_of(left).tolist() == [[0, 0, 0, 0], [-1, -1, 0, 0]]
    assert segments_of(right).dtype == torch.int64


def test_segments_of_packed_rows():
    positions = torch.tensor([[0, 1, 2, 0, 0, 1]])
    numbers = torch.tensor([[7, 7, 7, 8, 9, 9]], dtype=torch.int32)
    ids = _ids(1, 6)
    expected = [[0, 0, 0, 1, 2, 2]]
    assert segments_of({"input_ids": ids, "position_ids": positions}).tolist() == expected
    assert segments_of({"input_ids": ids, "position_ids": positions[0]}).tolist() == expected
    assert segments_of({"input_ids": ids, "seq_idx": numbers}).tolist() == expected
    both = {"input_ids": ids, "position_ids": positions, "seq_idx": numbers}
    assert segments_of(both).tolist() == expected
    embedded = {"inputs_embeds": torch.zeros(1, 6, 3), "position_ids": positions}
    assert segments_of(embedded).tolist() == expected


def test_segments_of_masks_and_positions_together():
    inputs = {
        "input_ids": _ids(3, 6),
        "attention_mask": torch.tensor(
            [[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 0, 1, 1, 1]]
        ),
        "position_ids": torch.tensor(
            [[1, 1, 0, 1, 2, 3], [0, 1, 0, 1, 0, 0], [4, 5, 0, 6, 7, 8]],
        ),
    }
    expected = [[-1, -1, 0, 0, 0, 0], [0, 0, 1, 1, -1, -1], [0, 0, -1, 0, 0, 0]]
    assert segments_of(inputs).tolist() == expected


@pytest.mark.parametrize("packed", [False, True])
def test_segments_of_what_trl_collates(packed):
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    examples: list[dict[str, Any]] = [{"input_ids": [5, 6, 7]}, {"input_ids": [8, 9]}]
    if packed:
        examples[0]["seq_lengths"], examples[1]["seq_lengths"] = [2, 1], [2]
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=packed)
    found = segments_of(collate(examples)).tolist()
    assert found == ([[0, 0, 1, 2, 2]] if packed else [[0, 0, 0], [0, 0, -1]])


def test_segments_refuse_shapes_that_do_not_fit():
    with pytest.raises(DataError, match="position_ids"):
        segments_of({"input_ids": _ids(2, 4), "position_ids": torch.zeros(3, 2, 4)})
    with pytest.raises(DataError, match="attention_mask"):
        segments_of({"input_ids": _ids(2, 4), "attention_mask": torch.ones(2, 1, 4, 4)})
