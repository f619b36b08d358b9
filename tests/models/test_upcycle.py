"""Upcycled checkpoints: the dense model's logits, every expert in its place, whole or not there."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from preceptor.core.errors import ModelError, SettingsError
from preceptor.models.load import open_card
from preceptor.models.upcycle import upcycle

Make = Callable[..., Path]
ROPE = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
DENSE: dict[str, dict[str, Any]] = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "mistral": {"architecture": "mistral", "sliding_window": 7},
    "scaled": {"rope_parameters": ROPE, "rms_norm_eps": 1e-4, "hidden_act": "gelu"},
    "wide": {"head_dim": 24},
}


@pytest.fixture
def dense(tiny_model: Make, chat_template: str) -> Callable[..., Path]:
    """`dense(name, seed=0)`: one of `DENSE` as a checkpoint."""

    def make(name: str, seed: int = 0) -> Path:
        return tiny_model(
            f"dense-{name}-{seed}", chat_template=chat_template, seed=seed, **DENSE[name]
        )

    return make


def _upcycle(folders: list[Path], out: Path, **options: Any) -> Path:
    settings = {
        "experts": 4,
        "per_token": 2,
        "router": "zeros",
        "seed": 0,
        "dtype": "float32",
        "router_aux_loss_coef": 0.01,
    }
    return upcycle([open_card(str(folder)) for folder in folders], out=out, **(settings | options))


def _load(folder: Path) -> Any:
    factory: Any = AutoModelForCausalLM
    options = {"dtype": torch.float32, "output_loading_info": True}
    model, loading = factory.from_pretrained(folder, **options)
    for fault in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not loading[fault], fault
    return model.eval()


def _logits(model: Any) -> torch.Tensor:
    ids = torch.randint(0, 300, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(ids, use_cache=False).logits


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("router", ["zeros", "random"])
def test_copies_of_one_checkpoint_give_its_logits(dense, tmp_path, name, router):
    found = _load(_upcycle([dense(name)], tmp_path / "moe", router=router))
    expected_BTV, found_BTV = _logits(_load(dense(name))), _logits(found)
    assert type(found).__name__ == "MixtralForCausalLM"
    assert (expected_BTV - found_BTV).abs().max() <= 1e-6 * expected_BTV.abs().max()
    assert torch.equal(expected_BTV.argmax(-1), found_BTV.argmax(-1))
    tied = name == "tied"
    assert found.config.tie_word_embeddings is tied
    assert (found.lm_head.weight is found.model.embed_tokens.weight) is tied


@pytest.mark.parametrize(("experts", "per_token"), [(1, 1), (3, 3), (4, 1)])
def test_any_number_of_experts(dense, tmp_path, experts, per_token):
    folder = _upcycle(
        [dense("plain")], tmp_path / "moe", experts=experts, per_token=per_token, router="random"
    )
    found, expected_BTV = _load(folder), _logits(_load(dense("plain")))
    assert found.config.num_local_experts == experts
    assert found.config.num_experts_per_tok == per_token
    torch.testing.assert_close(_logits(found), expected_BTV, rtol=1e-5, atol=1e-5)


def _experts_of(model: Any, layer: int, expert: int) -> list[torch.Tensor]:
    experts = model.model.layers[layer].mlp.experts
    return [*experts.gate_up_proj[expert].chunk(2), experts.down_proj[expert]]


def test_each_expert_comes_from_its_checkpoint(dense, tmp_path):
    folders = [dense("plain", 0), dense("plain", 1), dense("plain", 2)]
    sources = [_load(folder) for folder in folders]
    found = _load(_upcycle(folders, tmp_path / "moe", experts=5))
    for layer in range(2):
        for expert in range(5):
            block = sources[expert % 3].model.layers[layer].mlp
            parts = [block.gate_proj.weight, block.up_proj.weight, block.down_proj.weight]
            assert all(map(torch.equal, _experts_of(found, layer, expert), parts))
    shared = {n: p for n, p in found.named_parameters() if ".mlp." not in n}
    first = dict(sources[0].named_parameters())
    assert len(shared) == 15
    assert all(torch.equal(tensor, first[name]) for name, tensor in shared.items())


def test_a_forced_router_gives_the_logits_of_one_checkpoint(dense, tmp_path):
    folders = [dense("plain", 0), dense("plain", 1)]
    found = _load(_upcycle(folders, tmp_path / "moe", experts=2, per_token=1))
    mixed = copy.deepcopy(_load(folders[0]))  # attention of the first, blocks of the second
    for layer, block in enumerate(_load(folders[1]).model.layers):
        mixed.model.layers[layer].mlp = block.mlp
    for layer in found.model.layers:
        layer.mlp.gate.forward = _always(1, layer.mlp.gate)
    torch.testing.assert_close(_logits(found), _logits(mixed), rtol=1e-5, atol=1e-5)


def _always(expert: int, gate: Any) -> Callable[..., Any]:
    def route(hidden: torch.Tensor) -> Any:
        logits, scores, index = type(gate).forward(gate, hidden)
        return logits, torch.ones_like(scores), torch.full_like(index, expert)

    return route


def test_the_mean_of_what_is_not_an_expert(dense, tmp_path):
    folders = [dense("plain", 0), dense("plain", 1)]
    sources = [dict(_load(folder).named_parameters()) for folder in folders]
    found = _load(_upcycle(folders, tmp_path / "moe", merge="mean"))
    for name, tensor in found.named_parameters():
        if ".mlp." not in name:
            expected = (sources[0][name] + sources[1][name]) / 2
            torch.testing.assert_close(tensor, expected, rtol=1e-6, atol=1e-7)
    block = _load(folders[1]).model.layers[0].mlp
    assert torch.equal(_experts_of(found, 0, 3)[1], block.up_proj.weight)


def test_routers_start_as_asked(dense, tmp_path):
    def gates(name: str, **options: Any) -> torch.Tensor:
        model = _load(_upcycle([dense("plain")], tmp_path / name, **options))
        return torch.stack([layer.mlp.gate.weight for layer in model.model.layers])

    assert not gates("zeros").any()
    drawn = gates("a", router="random", seed=3)
    assert torch.equal(drawn, gates("b", router="random", seed=3))
    assert not torch.equal(drawn, gates("c", router="random", seed=4))
    assert not torch.equal(drawn[0], drawn[1])
    assert 0.015 < drawn.std() < 0.025  # 256 draws from N(0, 0.02²)


def test_the_checkpoint_is_complete_and_in_the_asked_dtype(dense, tmp_path):
    source = dense("plain")
    folder = _upcycle([source], tmp_path / "new" / "moe", dtype="bfloat16")
    assert sorted(file.name for file in folder.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert [file.name for file in folder.parent.iterdir()] == ["moe"]
    weights = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    config = json.loads((folder / "config.json").read_text())
    assert config["dtype"] == "bfloat16" and config["architectures"] == ["MixtralForCausalLM"]
    assert config["router_aux_loss_coef"] == 0.01 and config["output_router_logits"] is False
    tokenizer, original = map(AutoTokenizer.from_pretrained, (folder, source))
    assert tokenizer.get_vocab() == original.get_vocab()
    assert tokenizer.chat_template == original.chat_template
    assert GenerationConfig.from_pretrained(folder).eos_token_id == original.eos_token_id


def test_names_on_disk_are_those_of_transformers(dense, tmp_path):
    folder = _upcycle([dense("plain")], tmp_path / "moe")
    _load(folder).save_pretrained(tmp_path / "again")
    ours, theirs = (load_file(f / "model.safetensors") for f in (folder, tmp_path / "again"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_large_checkpoints_are_cut_into_files(dense, tmp_path):
    whole = _upcycle([dense("plain")], tmp_path / "whole", router="random")
    cut = _upcycle([dense("plain")], tmp_path / "cut", router="random", shard_bytes=60_000)
    files = sorted(cut.glob("*.safetensors"))
    assert len(files) > 2 and files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    assert all(file.stat().st_size < 70_000 for file in files)
    pieces: dict[str, torch.Tensor] = {}
    for file in files:
        pieces |= load_file(file)
    assert all(torch.equal(pieces[n], t) for n, t in load_file(whole / "model.safetensors").items())
    index = json.loads((cut / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in pieces.values())
    assert torch.equal(_logits(_load(cut)), _logits(_load(whole)))


def test_the_auxiliary_loss_trains_a_router_of_zeros(dense, tmp_path):
    folder = _upcycle([dense("plain")], tmp_path / "moe", output_router_logits=True)
    model = _load(folder).train()
    ids = torch.randint(0, 300, (2, 20), generator=torch.Generator().manual_seed(1))
    output = model(ids, labels=ids, use_cache=False)
    # all tokens go to the same 2 of 4 experts, each with router probability 1/4:
    # 4 experts * 2 hit experts * 1/4 = 2, whatever the data (Switch Transformer, eq. 4)
    torch.testing.assert_close(output.aux_loss.item(), 2.0, rtol=1e-5, atol=0)
    output.loss.backward()
    before = [layer.mlp.gate.weight.detach().clone() for layer in model.model.layers]
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    for layer, weight in zip(model.model.layers, before, strict=True):
        assert (layer.mlp.gate.weight - weight).abs().max() > 1e-6


# refusals


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"per_token": 5}, "more experts than there are"),
        ({"per_token": 0}, "at least one"),
        ({"experts": 0, "per_token": 0}, "fewer experts"),
        ({"router": "ones"}, "zeros or random"),
        ({"merge": "last"}, "first or mean"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(dense, tmp_path, options, reason):
    with pytest.raises(SettingsError, match=reason):
        _upcycle([dense("plain")], tmp_path / "moe", **options)
    assert not list(tmp_path.iterdir())


def test_more_checkpoints_than_experts_are_refused(dense, tmp_path):
    folders = [dense("plain", 0), dense("plain", 1)]
    with pytest.raises(SettingsError, match="fewer experts"):
        _upcycle(folders, tmp_path / "moe", experts=1, per_token=1)
    with pytest.raises(SettingsError, match="no checkpoints"):
        _upcycle([], tmp_path / "moe")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"architecture": "qwen2"}, r"(?s)qwen2.*llama, mistral"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"labels": 2}, "LlamaForSequenceClassification"),
    ],
)
def test_other_architectures_are_refused(tiny_model: Make, tmp_path, options, reason):
    folder = tiny_model("refused-" + "-".join(options), **options)
    with pytest.raises(ModelError, match=reason):
        _upcycle([folder], tmp_path / "moe")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"intermediate_size": 48}, "intermediate_size is 64 and 48"),
        ({"hidden_size": 48, "intermediate_size": 48}, "hidden_size is 32 and 48"),
        ({"rms_norm_eps": 1e-3}, "rms_norm_eps"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings is False and True"),
        ({"architecture": "mistral"}, "model_type is llama and mistral"),
    ],
)
def test_the_first_differing_setting_is_named(dense, tiny_model: Make, tmp_path, options, reason):
    other = tiny_model("other-" + "-".join(map(str, options.items())), **options)
    with pytest.raises(ModelError, match=reason):
        _upcycle([dense("plain"), other], tmp_path / "moe")


def test_different_tokenizers_are_refused(dense, tmp_path):
    first, second = (open_card(str(dense("plain", seed))) for seed in (0, 1))
    tokenizer = copy.deepcopy(second.tokenizer)
    tokenizer.add_tokens(["<|tool|>"])
    with pytest.raises(ModelError, match=r"<\|tool\|>"):
        upcycle(
            [replace(first, tokenizer=tokenizer), second],
            2,
            1,
            tmp_path / "moe",
            router="zeros",
            seed=0,
            dtype="float32",
            router_aux_loss_coef=0.0,
        )


def test_a_folder_that_is_taken_is_left_alone(dense, tmp_path):
    taken = tmp_path / "moe"
    taken.mkdir()
    _upcycle([dense("plain")], taken)  # an empty one is filled
    before = (taken / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(ModelError, match="taken"):
        _upcycle([dense("plain")], taken)
    assert (taken / "model.safetensors").stat().st_mtime_ns == before
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "moe"):
        with pytest.raises(ModelError, match=r"taken|cannot be written"):
            _upcycle([dense("plain")], out)


def test_a_run_that_fails_leaves_nothing(dense, tmp_path):
    card = replace(open_card(str(dense("plain"))), tokenizer=None)  # found when it is saved
    with pytest.raises(AttributeError):
        upcycle(
            [card],
            2,
            1,
            tmp_path / "moe",
            router="zeros",
            seed=0,
            dtype="float32",
            router_aux_loss_coef=0.0,
        )
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_left_is_cleared(dense, tmp_path):
    left = tmp_path / ".moe.partial"
    left.mkdir()
    (left / "model-00001-of-00009.safetensors").touch()
    folder = _upcycle([dense("plain")], tmp_path / "moe")
    assert not left.exists()
    assert len(list(folder.glob("*.safetensors"))) == 1
