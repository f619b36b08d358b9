"""The only place that opens and loads models: safetensors only, remote code only on request."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from preceptor.core.errors import ModelError

_FINGERPRINTED = (".safetensors", ".json", ".jinja", ".model", ".txt", ".tiktoken", ".py")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Card:
    """What is known of a model before a weight is loaded.

    Attributes:
        limit: the longest sequence it takes, in tokens: its positions, or the tokenizer's maximum
            where that is shorter.
        vocabulary: how many token ids it knows.
        fingerprint: sha256 over config, tokenizer and weight files of a local folder, or the
            commit of a hub revision.
    """

    reference: str
    config: PretrainedConfig
    tokenizer: Any  # a PreTrainedTokenizerBase; its stubs are too wide to be of use
    limit: int
    vocabulary: int
    fingerprint: str


def pick_device(device: str = "auto") -> torch.device:
    """The named device, or the best there is (raises ModelError for one that is not there)."""
    if device == "auto":
        own = int(os.environ.get("LOCAL_RANK", "0"))  # of several processes, each has a GPU
        return torch.device("cuda", own) if torch.cuda.is_available() else torch.device("cpu")
    try:
        picked = torch.device(device)
        torch.empty(1, device=picked)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(
            "the device cannot be used",
            where=f"device {device!r}",
            found=_first_line(error),
            next_step="set `device` to auto, cpu, cuda or cuda:N",
        ) from error
    return picked


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """`auto`: bf16 on an accelerator, fp32 on a CPU (exact, at about half the speed of bf16)."""
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return DTYPES[dtype]


def open_card(reference: str, trust_remote_code: bool = False, fingerprinted: bool = True) -> Card:
    """Read config and tokenizer of a checkpoint folder or hub id, and fingerprint it.

    Args:
        fingerprinted: without it no weight file is read, and the fingerprint is empty.

    Raises:
        ModelError: no such model, or no tokenizer with it.
    """
    try:
        config = open_config(reference, trust_remote_code)
    except (OSError, ValueError) as error:
        raise ModelError(
            "the model cannot be opened",
            where=reference,
            found=_first_line(error),
            next_step="name a folder that holds a transformers checkpoint, or a hub id",
        ) from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(reference, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            "the model has no usable tokenizer",
            where=reference,
            found=_first_line(error),
            next_step="save its tokenizer beside the weights (tokenizer.save_pretrained)",
        ) from error
    text_config = config.get_text_config()
    limit = min(
        int(getattr(text_config, "max_position_embeddings", None) or 1 << 60),
        int(tokenizer.model_max_length),
    )
    vocabulary = int(text_config.vocab_size)
    print_ = fingerprint(reference, config) if fingerprinted else ""
    return Card(reference, config, tokenizer, limit, vocabulary, print_)


def open_config(reference: str, trust_remote_code: bool = False) -> PretrainedConfig:
    """The config of a checkpoint folder or hub id (raises OSError or ValueError)."""
    return AutoConfig.from_pretrained(reference, trust_remote_code=trust_remote_code)


def generation_config(card: Card) -> GenerationConfig | None:
    """How the checkpoint would generate by itself; None where it does not say."""
    try:
        return GenerationConfig.from_pretrained(card.reference)
    except OSError:  # no generation_config.json
        return None


def fingerprint(reference: str, config: PretrainedConfig) -> str:
    """sha256 of a local checkpoint's files, in the order of their names; a hub commit otherwise."""
    folder = Path(reference)
    if not folder.is_dir():
        return f"commit:{getattr(config, '_commit_hash', None) or 'unknown'}"
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in _FINGERPRINTED:
            digest.update(file.name.encode())
            with open(file, "rb") as handle:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
    return f"sha256:{digest.hexdigest()}"


def tokenizer_fingerprint(card: Card) -> str:
    """sha256 over vocabulary, special tokens and chat template: what token ids mean."""
    tokenizer = card.tokenizer
    added = tokenizer.added_tokens_decoder.items()
    content = {
        "vocabulary": sorted(tokenizer.get_vocab().items()),
        "special": sorted((int(i), str(token)) for i, token in added if token.special),
        "roles": [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id],
        "template": tokenizer.chat_template,
    }
    text = json.dumps(content, sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def load_causal_lm(
    card: Card,
    dtype: torch.dtype,
    device: torch.device,
    trust_remote_code: bool = False,
    load_in: Literal["4bit", "8bit"] | None = None,
) -> PreTrainedModel:
    """The language model of a card, in eval mode (raises ModelError).

    Args:
        load_in: quantise the layers with bitsandbytes while loading: `4bit` (NF4) or `8bit`; for
            models that are only read. Head and embedding keep `dtype`, and products run in it.
    """
    if load_in is None:
        return _load(AutoModelForCausalLM, card, dtype, device, trust_remote_code)
    quantisation = _quantisation(card, dtype, load_in)
    return _load(
        AutoModelForCausalLM,
        card,
        dtype,
        device,
        trust_remote_code,
        {"quantization_config": quantisation, "device_map": {"": device}},
    )


def _quantisation(card: Card, dtype: torch.dtype, load_in: str) -> BitsAndBytesConfig:
    for package in ("bitsandbytes", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise ModelError(
                f"loading in {load_in} needs {package}",
                where=card.reference,
                found=f"{package} is not installed",
                next_step=f"pip install {package}, or load the model in full",
            )
    return BitsAndBytesConfig(
        load_in_4bit=load_in == "4bit",
        load_in_8bit=load_in == "8bit",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
    )


def load_reward_model(
    card: Card, dtype: torch.dtype, device: torch.device, trust_remote_code: bool = False
) -> PreTrainedModel:
    """The sequence-classification reward model of a card, in eval mode (raises ModelError)."""
    return _load(AutoModelForSequenceClassification, card, dtype, device, trust_remote_code)


def _load(
    factory: Any,
    card: Card,
    dtype: torch.dtype,
    device: torch.device,
    trust_remote_code: bool,
    quantised: dict[str, Any] | None = None,
) -> PreTrainedModel:
    bars_on = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # the run has one progress display of its own
    try:
        model = factory.from_pretrained(
            card.reference,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            **(quantised or {}),
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            "the weights cannot be loaded",
            where=card.reference,
            found=_first_line(error),
            next_step="weights must be safetensors that fit the config beside them",
        ) from error
    finally:
        if bars_on:
            transformers_logging.enable_progress_bar()
    return model.eval() if quantised else model.to(device).eval()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
