"""How large a model is and how many bytes its work takes, from its config alone: no weight loads.

A model is built on the meta device, where tensors have a shape and no content, and its parameters
are counted. Bytes of activations are sums over what `transformers`' decoder layers keep; the terms
stand in the docstrings, and `tests/models/test_model_size.py` compares them with real models.

Symbols: L layers, D width, F inner width of the feed-forward part (of all experts that a token
visits), H heads, G key heads, C head width, V vocabulary, N scored positions; T tokens counts
padding. s is the bytes of one value.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
)

from preceptor.core.errors import ModelError
from preceptor.models.load import open_config

FULL = 4  # bytes of a value in fp32
# bytes of a parameter that stays quantised: NF4 with an fp32 scale for 64 values, int8 with rows'
QUANTISED = {"4bit": 0.5 + 4 / 64, "8bit": 1.0}
# copies of the trained weights that an optimiser keeps
STATES = {
    "adamw": 2.0,
    "adam": 2.0,
    "adafactor": 0.05,
    "sgd": 0.0,
    "lion": 1.0,
    "adagrad": 1.0,
    "rmsprop": 1.0,
}
TAKEN_8BIT = 0.25  # states of the 8-bit optimisers: a byte for a value of four


@dataclass(frozen=True)
class Size:
    """Proportions of a language model.

    Attributes:
        parameters: tied ones counted once.
        linear: parameters of linear layers, the head left out: what quantisation shrinks.
        width, layers, inner, heads, vocabulary: D, L, F, H, V.
        attended: query values of a token in a layer, H C.
        keyed, valued: values of a token in a layer's key and value cache, G C each.
        cached_layers: layers with such a cache (a hybrid has fewer than L).
        window, windowed_layers: layers that keep no more than `window` tokens.
        gated: whether the feed-forward part multiplies two branches.
        routed: experts that a token visits; 1 for a dense model.
        normed: whether queries and keys have a norm of their own.
        file_bytes: of the weight files, where the model is a local folder; else 0.
    """

    parameters: int
    linear: int
    width: int
    layers: int
    inner: int
    heads: int
    vocabulary: int
    attended: int
    keyed: int
    valued: int
    cached_layers: int
    window: int = 0
    windowed_layers: int = 0
    gated: bool = True
    routed: int = 1
    normed: bool = False
    file_bytes: int = 0

    @property
    def head(self) -> int:
        """Parameters of the output layer."""
        return self.vocabulary * self.width


def read_size(reference: str, trust_remote_code: bool = False, classifies: bool = False) -> Size:
    """Count a model of which the config is there; `classifies` for reward models.

    Raises:
        ModelError: no config, or one that no model can be made of.
    """
    factory: Any = AutoModelForSequenceClassification if classifies else AutoModelForCausalLM
    try:
        config = open_config(reference, trust_remote_code)
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of initialisations that nothing is left to do for
            model = factory.from_config(config, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, RuntimeError, ImportError, AttributeError) as error:
        raise ModelError(
            "the model cannot be sized",
            where=reference,
            found=f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}",
            next_step="its config must describe a model that transformers knows",
        ) from error
    return size_of(model, config, _file_bytes(reference))


def size_of(model: Any, config: PretrainedConfig, file_bytes: int = 0) -> Size:
    """Count a model (also one on the meta device)."""
    text = config.get_text_config()
    head = model.get_output_embeddings()
    linear = sum(
        module.weight.numel()
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    )
    heads = int(text.num_attention_heads)
    keyed, valued = _cached_values(text, heads)
    kinds = list(getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers)
    window = int(getattr(text, "sliding_window", None) or 0)
    if not getattr(text, "layer_types", None) and window:
        kinds = ["sliding_attention"] * len(kinds)
    routed = int(getattr(text, "num_experts_per_tok", None) or 1)
    return Size(
        parameters=sum(weight.numel() for weight in model.parameters()),
        linear=linear,
        width=int(text.hidden_size),
        layers=int(text.num_hidden_layers),
        inner=_inner(text) * routed,
        heads=heads,
        vocabulary=int(text.vocab_size),
        attended=heads * int(getattr(text, "head_dim", None) or text.hidden_size // heads),
        keyed=keyed,
        valued=valued,
        cached_layers=sum("attention" in kind and "linear" not in kind for kind in kinds),
        window=window,
        windowed_layers=sum("sliding" in kind for kind in kinds) if window else 0,
        gated=any("gate_" in name or ".w3." in name for name, _ in model.named_parameters()),
        routed=routed,
        normed=any("q_norm" in name for name, _ in model.named_parameters()),
        file_bytes=file_bytes,
    )


def _inner(text: Any) -> int:
    routed = getattr(text, "num_experts_per_tok", None)
    names = ("moe_intermediate_size",) * bool(routed) + ("intermediate_size", "n_inner", "ffn_dim")
    found = (getattr(text, name, None) for name in names)
    return int(next((value for value in found if value), None) or 4 * text.hidden_size)


def _cached_values(text: Any, heads: int) -> tuple[int, int]:
    """(key values, value values) of a token in one layer's cache."""
    if getattr(text, "kv_lora_rank", None) and getattr(text, "v_head_dim", None):
        rope = int(text.qk_nope_head_dim) + int(text.qk_rope_head_dim)
        return heads * rope, heads * int(text.v_head_dim)
    width = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    groups = int(getattr(text, "num_key_value_heads", None) or heads)
    return groups * width, groups * width


def _file_bytes(reference: str) -> int:
    folder = Path(reference)
    if not folder.is_dir():
        return 0
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def weight_bytes(size: Size, s: int, load_in: str | None = None) -> int:
    """Weights in memory: s a parameter; with `load_in` (4bit, 8bit) linear layers shrink."""
    if load_in is None:
        return size.parameters * s
    return round(size.linear * QUANTISED[load_in]) + (size.parameters - size.linear) * s


def cache_bytes(size: Size, rows: int, tokens: int, s: int) -> int:
    """Key and value cache of `rows` sequences of `tokens`: s (GC + GC) a token and layer.

    Layers with a window keep no more than that many tokens.
    """
    short = min(tokens, size.window) if size.windowed_layers else 0
    full = size.cached_layers - size.windowed_layers
    return rows * (full * tokens + size.windowed_layers * short) * (size.keyed + size.valued) * s


def forward_bytes(size: Size, tokens: int, s: int) -> int:
    """What one layer holds at once without gradients, T tokens.

    Residual, its copy in fp32 and the normed states, s 2D + 4D, and beside them the larger of
    attention (query, key, value, rotated ones and the output: s (3HC + 4GC)) and feed-forward
    part (two branches and their product, s 3F; experts also gather their inputs, s D each).
    """
    attention = s * (3 * size.attended + 2 * (size.keyed + size.valued))
    gathered = size.width * size.routed if size.routed > 1 else 0
    forward = s * ((3 if size.gated else 2) * size.inner + gathered)
    return tokens * ((2 * s + FULL) * size.width + max(attention, forward))


def scoring_bytes(size: Size, tokens: int, scored: int, s: int, tile: int) -> int:
    """A pass that scores N positions: the larger of a layer and the head.

    The head needs the last states, sTD, those of the N positions, sND, and two tiles of logits.
    """
    last = s * tokens * size.width
    return max(forward_bytes(size, tokens, s), last + s * scored * size.width + 2 * tile)


def generating_bytes(size: Size, rows: int, prompt: int, new: int, s: int) -> int:
    """Cache of prompt and answer, one layer's cache twice while it grows, and the larger of the
    prompt's pass and three copies of one position's logits in fp32."""
    cache = cache_bytes(size, rows, prompt + new, s)
    growing = cache // max(size.cached_layers, 1)
    return (
        cache
        + growing
        + max(forward_bytes(size, rows * prompt, s), rows * size.vocabulary * 3 * FULL)
    )


def saved_bytes(size: Size, tokens: int, s: int) -> int:
    """What all layers keep for the backward pass of T tokens.

    A layer keeps, of both norms, the input in fp32 and two states (2D (4 + 2s)); query, attention's
    output, key and value (s (2HC + 2GC)) with a number a head (4H), and where queries and keys are
    normed, those as they were ((4 + s) (HC + GC)); and of the feed-forward part both branches, the
    activated one and the product (s 4F; s 2F where there is one branch). Experts gather inputs and
    outputs, s 2D each.
    """
    norms = 2 * size.width * (FULL + 2 * s)
    attention = s * (2 * size.attended + size.keyed + size.valued) + FULL * size.heads
    if size.normed:
        attention += (FULL + s) * (size.attended + size.keyed)
    forward = s * (4 if size.gated else 2) * size.inner
    gathered = s * 2 * size.width * size.routed if size.routed > 1 else 0
    return tokens * size.layers * (norms + attention + forward + gathered)


def checkpointed_bytes(size: Size, tokens: int, s: int) -> int:
    """The same under gradient checkpointing: each layer's input, sTD, and one layer whole."""
    return size.layers * tokens * size.width * s + saved_bytes(size, tokens, s) // size.layers


def lora_parameters(size: Size, r: int) -> int:
    """Parameters of adapters of rank r over all linear layers, about: r times their in + out.

    A layer has four projections of attention (D and HC or GC) and two or three of width F.
    """
    attention = 2 * (size.width + size.attended) + 2 * size.width + size.keyed + size.valued
    branches = 3 if size.gated else 2
    return size.layers * r * (attention + branches * (size.width + size.inner))


def optimiser_states(name: str) -> float:
    """Copies of the trained weights that the optimiser `name` of `transformers` keeps."""
    kept = next((copies for start, copies in STATES.items() if start in name), 2.0)
    return kept * TAKEN_8BIT if "8bit" in name else kept


def training_bytes(
    size: Size,
    *,
    tokens: int,
    s: int,
    trained: int,
    optimiser: str,
    extra_gradients: bool = False,
    checkpointing: bool = False,
    autocast: int | None = None,
    batched_update: bool = False,
) -> Mapping[str, int]:
    """Parts of a training step's peak on one device, in bytes, losses left out.

    Args:
        tokens: padded, of one forward pass.
        s: of the weights.
        trained: parameters that are trained; all, or those of adapters.
        optimiser: its name in `transformers`.
        extra_gradients: gradients of single losses are formed beside the summed one.
        checkpointing: of activations.
        autocast: bytes of a value in products, where they differ from the weights'; linear weights
            are then held in that dtype too.
        batched_update: the optimiser updates all weights at once (`foreach`, on CUDA), which takes
            one more copy of what is trained.

    Returns:
        weights, gradients, optimiser, activations: the last is the larger of activations and what
        the update takes, which never stand beside each other.
    """
    moved = autocast or s
    keep = checkpointed_bytes if checkpointing else saved_bytes
    # a layer's gradients on the way back are as large as what its forward pass holds
    active = keep(size, tokens, moved) + forward_bytes(size, tokens, moved)
    active += size.linear * moved if autocast and autocast != s else 0
    gradients = trained * s * (2 if extra_gradients else 1)
    return {
        "weights": size.parameters * s,
        "gradients": gradients,
        "optimiser": round(trained * s * optimiser_states(optimiser)),
        "activations": max(active, trained * s if batched_update else 0),
    }
