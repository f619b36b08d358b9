"""Sizes counted from configs, against sums worked out by hand and against real models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from preceptor.core.errors import ModelError
from preceptor.models import size as sizes
from preceptor.models.size import Size, read_size

# D 8, L 2, F 16, H 4, C 2, G 2, V 100; untied: embedding and head 800 each
SMALL = Size(
    parameters=2800,
    linear=1152,
    width=8,
    layers=2,
    inner=16,
    heads=4,
    vocabulary=100,
    attended=8,
    keyed=4,
    valued=4,
    cached_layers=2,
)


def test_bytes_by_hand() -> None:
    """Every sum of the docstrings, once."""
    assert sizes.weight_bytes(SMALL, 2) == 5600
    assert sizes.weight_bytes(SMALL, 2, "8bit") == 1152 + 1648 * 2
    assert sizes.weight_bytes(SMALL, 2, "4bit") == 648 + 1648 * 2  # 1152 * 0.5625
    # 2 layers, 3 rows, 10 tokens, 4 + 4 values, 4 bytes
    assert sizes.cache_bytes(SMALL, 3, 10, 4) == 2 * 3 * 10 * 8 * 4
    windowed = replace(SMALL, window=6, windowed_layers=1)
    assert sizes.cache_bytes(windowed, 3, 10, 4) == 3 * (10 + 6) * 8 * 4
    # a token: (2 * 4 + 4) * 8 = 96, and the larger of 4 (24 + 16) = 160 and 4 * 48 = 192
    assert sizes.forward_bytes(SMALL, 5, 4) == 5 * (96 + 192)
    # the head: 4 * 5 * 8 + 4 * 2 * 8 + two tiles of 2000, above a layer's 1440
    assert sizes.scoring_bytes(SMALL, 5, 2, 4, 2000) == 160 + 64 + 4000
    assert sizes.scoring_bytes(SMALL, 5, 2, 4, 0) == 5 * 288
    # cache of 3 x 12: 2304, half of it again, and 3 copies of 3 x 100 logits against 3 x 2 tokens
    assert sizes.generating_bytes(SMALL, 3, 2, 10, 4) == 2304 + 1152 + 3600
    # a token and layer: norms 2 * 8 * 12 = 192, attention 4 (16 + 8) + 16 = 112, forward 256
    assert sizes.saved_bytes(SMALL, 5, 4) == 5 * 2 * (192 + 112 + 256)
    assert sizes.checkpointed_bytes(SMALL, 5, 4) == 2 * 5 * 8 * 4 + 5 * 560
    # a layer: r (2 (8 + 8) + 2 * 8 + 8 + 3 (8 + 16)) = 128 r
    assert sizes.lora_parameters(SMALL, 2) == 2 * 2 * 128


def test_a_training_step_by_hand() -> None:
    """AdamW in fp32: 4 + 4 + 8 bytes a parameter, and activations beside them."""
    parts = sizes.training_bytes(SMALL, tokens=5, s=4, trained=2800, optimiser="adamw_torch")
    assert dict(parts) == {
        "weights": 11200,
        "gradients": 11200,
        "optimiser": 22400,
        "activations": 5600 + 1440,
    }
    more = sizes.training_bytes(
        SMALL, tokens=5, s=4, trained=280, optimiser="adamw_bnb_8bit", extra_gradients=True
    )
    assert (more["gradients"], more["optimiser"]) == (2240, 560)
    mixed = sizes.training_bytes(
        SMALL, tokens=5, s=4, trained=2800, optimiser="sgd", autocast=2, batched_update=True
    )
    assert mixed["optimiser"] == 0 and mixed["activations"] == 11200  # the update is the larger


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {"head_dim": 16},
    "phi3": {},
    "gemma2": {"head_dim": 16, "sliding_window": 8},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
}


@pytest.fixture
def folder(request: Any, tiny_model: Callable[..., Path]) -> Path:
    name = request.param
    return tiny_model(f"size-{name}", architecture=name, **ARCHITECTURES[name])


@pytest.mark.parametrize("folder", ARCHITECTURES, indirect=True)
def test_parameters_and_files(folder: Path) -> None:
    """As many parameters as the loaded model has, without loading it."""
    found = read_size(str(folder))
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert found.parameters == sum(weight.numel() for weight in model.parameters())
    assert found.file_bytes >= 4 * found.parameters
    assert found.vocabulary == model.config.vocab_size


@pytest.mark.parametrize("folder", ARCHITECTURES, indirect=True)
def test_the_cache(folder: Path) -> None:
    """Bytes of the cache that a real pass fills (a windowed layer keeps its window)."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        out = model(input_ids=torch.arange(20)[None].repeat(3, 1), use_cache=True)
    layers = out.past_key_values.layers
    real = sum(part.numel() * 4 for layer in layers for part in (layer.keys, layer.values))
    planned = sizes.cache_bytes(read_size(str(folder)), 3, 20, 4)
    assert planned == pytest.approx(real, rel=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("folder", ["llama", "qwen3", "phi3", "mixtral"], indirect=True)
def test_what_is_kept_for_the_backward_pass(folder: Path, dtype: torch.dtype) -> None:
    """Within a quarter of what autograd really keeps."""
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="sdpa"
    ).train()
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        ids_BT = torch.arange(2 * 60).reshape(2, 60)
        out = model.base_model(input_ids=ids_BT, use_cache=False)  # noqa: F841 - keeps the graph
    real = sum(storage.nbytes() for storage in kept.values())
    planned = sizes.saved_bytes(read_size(str(folder)), 120, dtype.itemsize)
    assert planned == pytest.approx(real, rel=0.25)


def test_a_model_without_weights_is_sized(tmp_path: Path, base: Path) -> None:
    """A config is enough; and what is no model says so."""
    AutoConfig.from_pretrained(base).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path)
    assert read_size(str(tmp_path)) == replace(read_size(str(base)), file_bytes=0)
    with pytest.raises(ModelError, match="cannot be sized"):
        read_size(str(tmp_path / "nothing"))
