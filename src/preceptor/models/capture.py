"""Queries and keys of every layer, from transformers models as they are.

transformers looks its attention function up by name at every call. While a capture is open, each
function of that table stands behind one that notes queries and keys, then calls it. The model's
config does not change, so masks, kernels and outputs are those of a run without capture.

Shapes: B samples, T tokens, H query heads, G key heads, C head width.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from transformers import AttentionInterface, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils.generic import TransformersKwargs

from preceptor.core.errors import DataError, ModelError
from preceptor.models.signals import LayerAttention

_WITHOUT = "train without the attention loss, or choose a model of another architecture"
_LAYER_KINDS = ("full_attention", "sliding_attention")
# a learned sink takes a share of each row, so the row over the keys does not sum to 1
_SINKS = frozenset(
    "gpt_oss granite_swa granitemoe_swa flint openai_privacy_filter deepseek_v4 hy_v4 "
    "mimo_v2_flash inkling inkling2".split()
)
_WINDOW_IN_MASK_ALONE = frozenset({"phimoe"})  # every layer; `sliding_window` is not passed on
_UNDERSTOOD = {"scaling", "sliding_window", "softcap", "is_causal"}
# arguments that leave the map before dropout as it is
_HARMLESS = frozenset(TransformersKwargs.__annotations__) | set(
    "dropout cache_position past_key_values use_cache return_dict position_embeddings "
    "kernel_options deterministic labels token_type_ids".split()
)


class _Sink:
    """Where one open capture stores what the layers of its model show."""

    def __init__(self, wanted: Collection[int]) -> None:
        self.wanted = frozenset(wanted)
        self.captured: dict[int, LayerAttention] = {}
        self._owners: dict[int, torch.nn.Module] = {}

    def take(self, module: torch.nn.Module, seen: LayerAttention) -> None:
        layer = _layer_of(module)
        if self._owners.setdefault(layer, module) is not module:
            raise _refusal(module, "the layer has two attentions", type(module).__name__)
        self.captured[layer] = seen


_LOCK = threading.Lock()
_OPEN: dict[torch.nn.Module, list[_Sink]] = {}  # attention module -> captures that want it
_ORIGINALS: dict[str, Callable[..., Any] | None] = {}  # None: each model brings its own (eager)


@contextlib.contextmanager
def capture_attention(
    model: Any, layers: Collection[int] | None = None
) -> Iterator[dict[int, LayerAttention]]:
    """What the forward passes inside the context attend with: layer number (from 0) -> attention.

    A later forward pass overwrites an earlier one. The tensors carry gradients as the forward pass
    does, also under non-reentrant gradient checkpointing; recomputation in a backward pass is not
    recorded. Captures of several models may be nested or run in several threads. Masks are not
    captured: they are taken to be causal, within `window` and within documents (`segments_of`).

    Args:
        model: a causal language model of transformers, also inside PEFT, DDP or FSDP.
        layers: the layers to record; all of them if None.

    Raises:
        ModelError: an attention that `LayerAttention` cannot express, cached keys, reentrant
            gradient checkpointing, a layer number out of range, or, on leaving, a wanted layer that
            showed no queries and keys.
    """
    inner = _transformer(model)
    refuse_uncapturable(inner.config)
    _refuse_reentrant(inner)
    decoder = inner.get_decoder()
    n_layers = int(inner.config.get_text_config().num_hidden_layers)
    sink = _Sink(_wanted(layers, n_layers))
    modules = [module for module in decoder.modules() if _layer_of(module) in sink.wanted]
    _open(sink, modules)
    try:
        yield sink.captured
    finally:
        _close(sink, modules)
    if missing := sorted(sink.wanted - set(sink.captured)):
        raise ModelError(
            "layers showed no queries and keys",
            where=f"{type(inner).__name__}, layers {missing}",
            found="they do not attend, do not use transformers' attention functions, or no "
            "forward pass was run",
            next_step=_WITHOUT,
        )


def refuse_uncapturable(config: PretrainedConfig) -> None:
    """Refuse by config, before weights load, an attention that `LayerAttention` cannot express.

    Raises:
        ModelError: recurrent, chunked or sparse layers, attention sinks, attention to later tokens,
            an encoder-decoder, or a model that does not use transformers' attention functions.
    """
    text = config.get_text_config()
    where = f"model type {text.model_type}"
    for layer, kind in enumerate(getattr(text, "layer_types", None) or ()):
        if kind not in _LAYER_KINDS:
            raise ModelError(
                "a layer has no attention map to compare",
                where=f"{where}, layer {layer}",
                found=kind,
                next_step=_WITHOUT,
            )
    reason = ""
    if text.model_type in _SINKS:
        reason = "attention sinks take a share of each row"
    elif getattr(text, "is_encoder_decoder", False):
        reason = "an encoder-decoder"
    elif getattr(text, "use_bidirectional_attention", None) or not getattr(text, "is_causal", True):
        reason = "tokens attend to later tokens"
    elif type(text) in MODEL_FOR_CAUSAL_LM_MAPPING:
        kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(text)]
        if not getattr(kind, "_supports_attention_backend", False):
            reason = f"{kind.__name__} does not use transformers' attention functions"
    if reason:
        raise ModelError(
            "the attention cannot be captured", where=where, found=reason, next_step=_WITHOUT
        )


def segments_of(inputs: Mapping[str, Any]) -> torch.Tensor:
    """Number of the document of each token, from what a collator gives to the model.

    `attention_mask` says what is padding, on either side. A document begins at the first token of a
    row, at each position 0 of `position_ids`, and where `seq_idx` changes. transformers itself
    separates packed documents only where no `attention_mask` is given.

    Returns:
        segments_BT: int64; -1 for padding, else documents from 0 in each row.

    Raises:
        DataError: shapes that do not fit the batch.
    """
    tokens = inputs["input_ids"] if inputs.get("input_ids") is not None else inputs["inputs_embeds"]
    shape = tuple(tokens.shape[:2])
    mask_BT = _rows_of(inputs, "attention_mask", shape, tokens.device)
    positions_BT = _rows_of(inputs, "position_ids", shape, tokens.device)
    packed_BT = _rows_of(inputs, "seq_idx", shape, tokens.device)
    real_BT = torch.ones(shape, dtype=torch.bool, device=tokens.device)
    if mask_BT is not None:
        real_BT = mask_BT > 0
    starts_BT = real_BT.cumsum(1) == 1
    if positions_BT is not None:
        starts_BT = starts_BT | (positions_BT == 0)
    if packed_BT is not None:
        starts_BT = starts_BT | (packed_BT.diff(prepend=packed_BT[:, :1]) != 0)
    return ((starts_BT & real_BT).cumsum(1) - 1).masked_fill(~real_BT, -1)


def _rows_of(
    inputs: Mapping[str, Any], name: str, shape: tuple[int, ...], device: torch.device
) -> torch.Tensor | None:
    value = inputs.get(name)
    if value is None:
        return None
    if value.ndim == 1:
        value = value[None]
    if value.ndim != 2 or value.shape[1] != shape[1] or value.shape[0] not in (1, shape[0]):
        raise DataError(
            f"`{name}` does not give a number to each token",
            where=f"a batch of {shape[0]} rows of {shape[1]} tokens",
            found=f"shape {tuple(value.shape)}",
            next_step="use a collator that gives masks and positions of shape (rows, tokens)",
        )
    return value.to(device=device, dtype=torch.int64).expand(shape)


def _open(sink: _Sink, modules: list[torch.nn.Module]) -> None:
    with _LOCK:
        for module in modules:
            _OPEN.setdefault(module, []).append(sink)
        table = dict(AttentionInterface())
        for name, function in (table if "eager" in table else table | {"eager": None}).items():
            if name not in _ORIGINALS:
                _ORIGINALS[name] = function
                AttentionInterface.register(name, _noting(function))


def _close(sink: _Sink, modules: list[torch.nn.Module]) -> None:
    with _LOCK:
        for module in modules:
            _OPEN[module].remove(sink)
            if not _OPEN[module]:
                del _OPEN[module]
        if _OPEN:
            return
        for name, function in _ORIGINALS.items():
            if function is None:  # the interface has no public way to take a name back
                AttentionInterface._global_mapping.pop(name, None)
            else:
                AttentionInterface.register(name, function)
        _ORIGINALS.clear()


def _noting(function: Callable[..., Any] | None) -> Callable[..., Any]:
    def attend(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: Any = None,
        **kwargs: Any,
    ) -> Any:
        sinks = _OPEN.get(module)
        # a backward pass that recomputes the layer shows it a second time
        if sinks and torch._C._current_graph_task_id() == -1:
            seen = _describe(module, query, key, attention_mask, kwargs)
            for sink in sinks:
                sink.take(module, seen)
        underlying = function or _eager_of(module)
        return underlying(module, query, key, value, attention_mask, **kwargs)

    return attend


def _describe(
    module: torch.nn.Module,
    query_BHTC: torch.Tensor,
    key_BGTC: torch.Tensor,
    mask: Any,
    kwargs: Mapping[str, Any],
) -> LayerAttention:
    for name, value in kwargs.items():
        if value is not None and name not in _UNDERSTOOD and name not in _HARMLESS:
            raise _refusal(module, "an argument of the attention may change its map", name)
    if getattr(module, "sinks", None) is not None:
        raise _refusal(module, "attention sinks take a share of each row", "sinks")
    causal = kwargs.get("is_causal")
    if not (getattr(module, "is_causal", True) if causal is None else causal):
        raise _refusal(module, "tokens attend to later tokens", "is_causal=False")
    if isinstance(mask, torch.Tensor) and mask.ndim == 4 and mask.shape[1] > 1:
        raise _refusal(module, "each head has a mask of its own", f"mask {tuple(mask.shape)}")
    (_, heads, length, width), keys = query_BHTC.shape, key_BGTC.shape
    if keys[2] != length:
        found = f"{length} queries, {keys[2]} keys"
        raise _refusal(module, "keys of a cache or a prefix precede the batch", found)
    if keys[3] != width or heads % keys[1]:
        found = f"queries {tuple(query_BHTC.shape)}, keys {tuple(keys)}"
        raise _refusal(module, "queries and keys do not form a map", found)
    scaling = kwargs.get("scaling")
    return LayerAttention(
        query_BHTC,
        key_BGTC,
        float(width**-0.5 if scaling is None else scaling),
        _window(module, kwargs),
        kwargs.get("softcap") or None,
    )


def _window(module: torch.nn.Module, kwargs: Mapping[str, Any]) -> int | None:
    if "sliding_window" in kwargs:
        return kwargs["sliding_window"]
    config: Any = getattr(module, "config", None)
    if config is None or "flash" in (config._attn_implementation or ""):
        return None  # FlashAttention reads no mask: a window that is not passed on is none
    kinds = getattr(config, "layer_types", None)
    windowed = (
        kinds[_layer_of(module)] == "sliding_attention"
        if kinds
        else config.model_type in _WINDOW_IN_MASK_ALONE
    )
    return config.sliding_window if windowed else None


def _eager_of(module: torch.nn.Module) -> Callable[..., Any]:
    """The plain attention function of the file that the module's class comes from."""
    for kind in type(module).__mro__:
        forward = vars(kind).get("forward")
        if forward is not None:
            function = _globals_of(forward).get("eager_attention_forward")
            if function is not None:
                return function
    raise _refusal(module, "the model has no eager attention function", type(module).__module__)


def _globals_of(function: Callable[..., Any]) -> Mapping[str, Any]:
    return getattr(inspect.unwrap(function), "__globals__", {})


def _layer_of(module: torch.nn.Module) -> int:
    layer = getattr(module, "layer_idx", None)
    return layer if isinstance(layer, int) else -1


def _wanted(layers: Collection[int] | None, n_layers: int) -> frozenset[int]:
    wanted = frozenset(range(n_layers) if layers is None else layers)
    if not wanted or not wanted <= set(range(n_layers)):
        raise ModelError(
            "layers to capture are not in the model",
            where=f"a model of {n_layers} layers",
            found=f"layers {sorted(wanted)}",
            next_step=f"name layers from 0 to {n_layers - 1}",
        )
    return wanted


def _transformer(model: Any) -> PreTrainedModel:
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            return module
    raise ModelError(
        "not a model of transformers",
        where=type(model).__name__,
        next_step="give a causal language model of transformers",
    )


def _refuse_reentrant(model: PreTrainedModel) -> None:
    """Its forward pass runs without gradients, so the attention loss would train nothing."""
    for module in model.modules():
        checkpoint = getattr(module, "_gradient_checkpointing_func", None)
        options = getattr(checkpoint, "keywords", None) or {}
        active = module.training and getattr(module, "gradient_checkpointing", False)
        if active and options.get("use_reentrant") and torch.is_grad_enabled():
            raise ModelError(
                "reentrant gradient checkpointing hides the gradients of queries and keys",
                where=type(model).__name__,
                next_step="set gradient_checkpointing_kwargs to {'use_reentrant': False}",
            )


def _refusal(module: torch.nn.Module, reason: str, found: str) -> ModelError:
    return ModelError(
        f"the attention cannot be captured: {reason}",
        where=f"layer {_layer_of(module)} ({type(module).__name__})",
        found=found,
        next_step=_WITHOUT,
    )
