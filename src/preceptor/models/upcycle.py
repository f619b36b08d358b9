"""A mixture of experts from dense checkpoints (Komatsuzaki et al. 2023, arXiv 2212.05055).

Shapes: E experts, D hidden width.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import GenerationConfig, MixtralConfig, PretrainedConfig

from preceptor.core.errors import ModelError, SettingsError
from preceptor.models.load import DTYPES, Card, load_causal_lm
from preceptor.models.pairing import compare_tokenizers

Router = Literal["zeros", "random"]
Merge = Literal["first", "mean"]
Dtype = Literal["float32", "bfloat16", "float16"]
State = dict[str, torch.Tensor]

_WORK = ("llama", "mistral")  # the block is Mixtral's but for the feed-forward part
_ROUTER_STD = 0.02  # Mixtral's own initialisation
# settings that decide what a weight means: the dense checkpoints must agree in them
_SAME = (
    "model_type vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads "
    "num_key_value_heads head_dim hidden_act rms_norm_eps rope_parameters tie_word_embeddings"
).split()
_KEPT = [
    *_SAME[1:],
    *"max_position_embeddings initializer_range use_cache attention_dropout".split(),
    *"pad_token_id bos_token_id eos_token_id".split(),
]
_PARTS = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}  # dense name -> Mixtral's on disk


def upcycle(
    cards: Sequence[Card],
    experts: int,
    per_token: int,
    out: Path,
    *,
    router: Router,
    seed: int,
    dtype: Dtype,
    router_aux_loss_coef: float,
    output_router_logits: bool = False,
    merge: Merge = "first",
    shard_bytes: int = 5_000_000_000,
) -> Path:
    """Write a Mixtral checkpoint whose experts are the feed-forward blocks of dense checkpoints.

    Expert e is the block of card e modulo the number of cards; what is not an expert (embeddings,
    attention, norms, head), the tokenizer and the generation config come from the first card.
    Mixtral's top-k weights sum to 1, so with one card the logits are those of the dense model, up
    to rounding, whatever the router says. `out` is either whole or not there.

    Args:
        cards: Llama or Mistral checkpoints, all of one architecture and one tokenizer.
        experts: E, experts a layer; at least one for each card.
        per_token: experts a token is sent to, in 1 .. E.
        out: the new folder, not there yet or empty.
        router: `zeros` sends all tokens alike (ties go to the same experts until training breaks
            them); `random` draws from N(0, 0.02²) with `seed`.
        dtype: of the saved weights.
        router_aux_loss_coef: weight of the load-balancing loss, kept in the config.
        output_router_logits: whether the config asks for the router's logits, and so for the
            load-balancing loss, in every forward pass; set it to train.
        merge: `first` takes what is not an expert from the first card, `mean` averages it over the
            cards (in fp32).
        shard_bytes: largest size of a weight file.

    Returns:
        `out`.

    Raises:
        ModelError: checkpoints that do not go together, or a folder that cannot be written.
        SettingsError: numbers or names that make no sense.
    """
    _check_numbers(len(cards), experts, per_token, router, merge)
    _check_cards(cards)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelError("the folder is taken", where=str(out), next_step="name a new folder")
    kind = DTYPES[dtype]
    config = _mixtral_config(cards[0].config, experts, per_token, kind)
    config.router_aux_loss_coef = router_aux_loss_coef
    config.output_router_logits = output_router_logits
    shared, blocks, generation = _read(cards, kind, merge)
    gates = _gates(config, router, seed, kind)
    partial = out.with_name(f".{out.name}.partial")  # of a killed run, it may be there
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        config.save_pretrained(partial)
        generation.save_pretrained(partial)
        cards[0].tokenizer.save_pretrained(partial)
        _write(list(_entries(shared, blocks, gates, experts)), partial, shard_bytes)
        partial.rename(out)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            "the checkpoint cannot be written",
            where=str(out),
            found=str(error),
            next_step="make room or mend the permissions",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def _check_numbers(n_cards: int, experts: int, per_token: int, router: str, merge: str) -> None:
    mistakes = {
        "no checkpoints to upcycle": n_cards < 1,
        "fewer experts than checkpoints": experts < n_cards,
        "a token cannot go to more experts than there are": per_token > experts,
        "a token goes to at least one expert": per_token < 1,
        "the router starts as zeros or random": router not in ("zeros", "random"),
        "what is not an expert is merged by first or mean": merge not in ("first", "mean"),
    }
    for mistake, made in mistakes.items():
        if made:
            raise SettingsError(
                mistake,
                where="upcycling",
                found=f"{n_cards} checkpoints, {experts} experts, {per_token} a token, "
                f"router {router}, merge {merge}",
                next_step="mend the settings",
            )


def _check_cards(cards: Sequence[Card]) -> None:
    for card in cards:
        config = card.config
        reason = ""
        if config.model_type not in _WORK:
            reason = f"model type {config.model_type}"
        elif not any(
            name.endswith("ForCausalLM") for name in config.architectures or ["ForCausalLM"]
        ):
            reason = f"no language model: {', '.join(config.architectures or ())}"
        elif getattr(config, "quantization_config", None) is not None:
            reason = "quantised weights"
        for name in ("attention_bias", "mlp_bias"):
            if getattr(config, name, False):
                reason = f"{name}: Mixtral has no such bias"
        if reason:
            raise ModelError(
                "the checkpoint cannot be upcycled",
                where=card.reference,
                found=reason,
                next_step=f"these work: {', '.join(_WORK)} language models without biases",
            )
    first = cards[0]
    for card in cards[1:]:
        for name in (*_SAME, "sliding_window"):
            mine, other = (getattr(c.config, name, None) for c in (first, card))
            if mine != other:
                raise ModelError(
                    "checkpoints of different architecture cannot share a mixture",
                    where=f"{first.reference} and {card.reference}",
                    found=f"{name} is {mine} and {other}",
                    next_step="upcycle checkpoints trained from one base model",
                )
        compare_tokenizers(first, card)


def _mixtral_config(
    dense: PretrainedConfig, experts: int, per_token: int, dtype: torch.dtype
) -> MixtralConfig:
    kept = {name: copy.deepcopy(getattr(dense, name)) for name in _KEPT}
    return MixtralConfig(
        **kept,
        sliding_window=getattr(dense, "sliding_window", None),
        num_local_experts=experts,
        num_experts_per_tok=per_token,
        architectures=["MixtralForCausalLM"],
        dtype=dtype,
    )


def _read(
    cards: Sequence[Card], dtype: torch.dtype, merge: Merge
) -> tuple[State, list[State], GenerationConfig]:
    """What is not an expert, each card's blocks, and the first card's generation config."""
    shared: State = {}
    blocks: list[State] = []
    generations: list[Any] = []
    for card in cards:
        model = load_causal_lm(card, dtype, torch.device("cpu"))
        generations.append(model.generation_config)
        state = model.state_dict()
        if card.config.tie_word_embeddings:
            state.pop("lm_head.weight", None)
        blocks.append({name: tensor for name, tensor in state.items() if ".mlp." in name})
        rest = {name: tensor for name, tensor in state.items() if ".mlp." not in name}
        if not shared:
            shared = {n: t.float() for n, t in rest.items()} if merge == "mean" else rest
        elif merge == "mean":
            shared = {name: total + rest[name].float() for name, total in shared.items()}
    if merge == "mean":
        shared = {name: (total / len(cards)).to(dtype) for name, total in shared.items()}
    return shared, blocks, generations[0]


def _gates(config: MixtralConfig, router: Router, seed: int, dtype: torch.dtype) -> State:
    generator = torch.Generator().manual_seed(seed)
    gates: State = {}
    for layer in range(config.num_hidden_layers):
        weight_ED = torch.zeros(config.num_local_experts, config.hidden_size)
        if router == "random":
            weight_ED.normal_(0.0, _ROUTER_STD, generator=generator)
        gates[f"model.layers.{layer}.block_sparse_moe.gate.weight"] = weight_ED.to(dtype)
    return gates


def _entries(
    shared: State, blocks: list[State], gates: State, experts: int
) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights under the names that Mixtral checkpoints have on disk; a copy is not made yet."""
    yield from shared.items()
    yield from gates.items()
    for name in blocks[0]:  # model.layers.L.mlp.PART.weight
        prefix, _, part = name.removesuffix(".weight").partition(".mlp.")
        for expert in range(experts):
            source = blocks[expert % len(blocks)][name]
            yield f"{prefix}.block_sparse_moe.experts.{expert}.{_PARTS[part]}.weight", source


def _write(entries: list[tuple[str, torch.Tensor]], out: Path, shard_bytes: int) -> None:
    """Weight files of at most `shard_bytes`, one in memory at a time, and their index."""
    shards: list[State] = []
    room = 0
    for name, tensor in entries:
        if not shards or tensor.nbytes > room:
            shards.append({})
            room = shard_bytes
        shards[-1][name] = tensor
        room -= tensor.nbytes
    if len(shards) == 1:
        _save(shards[0], out / "model.safetensors")
        return
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _save(shard, out / file)
        places |= dict.fromkeys(shard, file)
    size = sum(tensor.nbytes for _, tensor in entries)
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(places.items()))}
    (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _save(shard: State, path: Path) -> None:
    # experts that are copies share their memory until here
    save_file({name: tensor.clone() for name, tensor in shard.items()}, path, {"format": "pt"})
