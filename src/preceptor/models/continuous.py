"""Continuous batching with `transformers`: a row that ends makes room for the next prompt at once.

The engine is `transformers`' own (`generation.continuous_batching`): a paged cache, and a thread
that runs while a group is answered. It has one random stream for all rows, so only greedy answers
are independent of their neighbours; and it gives log-probabilities of the chosen tokens alone, so
no labels. Written against transformers 5.23.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from packaging.version import Version
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, GenerationConfig
from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available

from preceptor.core.errors import ModelError
from preceptor.core.types import Request
from preceptor.models.generation import Generated, room_for, until_end
from preceptor.models.load import Card

SINCE = "5.23"  # the version of transformers whose engine this file was written for
PAGE = 256  # tokens of a cache page; flash attention reads no smaller ones
PREFILL = 512  # prompt tokens of a step where the attention mask is a dense matrix
_INSTEAD = "set `continuous: false` for this teacher"
_LAYERS = {"full_attention", "sliding_attention"}


def refuse_unfit(card: Card, device: torch.device) -> None:
    """Raise ModelError where a config can tell that the engine cannot run the model."""
    found, next_step = "", _INSTEAD
    layers = set(getattr(card.config.get_text_config(), "layer_types", None) or ())
    known = type(card.config) in MODEL_FOR_CAUSAL_LM_MAPPING
    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(card.config)] if known else None
    if Version(transformers.__version__) < Version(SINCE):
        found = f"transformers {transformers.__version__}, needed {SINCE} or newer"
    elif device.type == "cpu" and importlib.util.find_spec("psutil") is None:
        found, next_step = "psutil is not installed", f"pip install psutil, or {next_step}"
    elif layers - _LAYERS:
        found = f"layers of kind {', '.join(sorted(layers - _LAYERS))}"
    elif model_class is not None and not _fits(model_class, device):
        found = f"{model_class.__name__} computes its attention in its own way"
    if found:
        raise _unfit(card, found, next_step)


def _fits(model_class: Any, device: torch.device) -> bool:
    """Whether its attention can be the engine's; a model without sdpa needs flash attention."""
    return model_class._supports_attention_backend and (
        model_class._supports_sdpa or device.type == "cuda"
    )


def _unfit(card: Card, found: str, next_step: str = _INSTEAD) -> ModelError:
    return ModelError(
        "the teacher cannot be asked with continuous batching",
        where=card.reference,
        found=found,
        next_step=next_step,
    )


class ContinuousGenerator:
    """Answers greedy requests, `batch_size` at a time, refilled as answers end.

    Args:
        model: in eval mode, on its device.
        card: of the model.
        ends: tokens that end an answer.
        batch_size: rows at a time; the cache has room for that many of the longest ones.
    """

    def __init__(self, model: Any, card: Card, ends: Sequence[int], batch_size: int) -> None:
        self.model, self.card, self.ends = model, card, list(ends)
        self.batch_size = batch_size
        # its faults come back as errors of ours; nothing but the progress display prints
        logging.getLogger("ContinuousBatchingLogger").setLevel(logging.CRITICAL + 1)
        self.flash = _use_flash(model)
        if not self.flash and model.config._attn_implementation != "sdpa":
            raise _unfit(card, "its attention needs flash attention, which is not installed")

    def __call__(
        self, requests: Sequence[Request], prompts: Sequence[list[int]]
    ) -> list[Generated]:
        """One answer for each request.

        Raises:
            ModelError: a prompt fills the limit, or the engine gave up.
        """
        limit, name = self.card.limit, self.card.reference
        rooms = [
            room_for(request, prompt, limit, name)
            for request, prompt in zip(requests, prompts, strict=True)
        ]
        longest = max(len(prompt) + room for prompt, room in zip(prompts, rooms, strict=True))
        try:
            manager = self.model.init_continuous_batching(
                generation_config=GenerationConfig(do_sample=False, eos_token_id=self.ends),
                continuous_batching_config=self._config(len(prompts), longest),
            )
        except (ValueError, RuntimeError) as error:
            raise self._gave_up(error) from error
        manager.start()
        try:
            for row, (prompt, room) in enumerate(zip(prompts, rooms, strict=True)):
                manager.add_request(
                    prompt, request_id=str(row), max_new_tokens=room, eos_token_id=self.ends
                )
            outputs = self._collect(manager, len(prompts))
        finally:
            manager.stop(block=True, hard_stop=True)  # all is answered, or given up
            manager.destroy()
        found = []
        for row in range(len(prompts)):
            ids, stopped = until_end(outputs[row].generated_tokens, self.ends)
            found.append(Generated(ids, stopped, sum(outputs[row].logprobs[: len(ids)])))
        return found

    def _collect(self, manager: Any, n: int) -> dict[int, Any]:
        found: dict[int, Any] = {}
        while len(found) < n:
            output = manager.get_result(timeout=1)
            if output is None:
                if not manager.is_running():
                    raise self._gave_up(manager.background_thread_status.fatal_error)
            elif output.error is not None:
                raise self._gave_up(output.error)
            elif output.is_finished():
                found[int(output.request_id)] = output
        return found

    def _config(self, n: int, longest: int) -> Any:
        from transformers import ContinuousBatchingConfig

        rows = min(self.batch_size, n)
        pages = -(-longest // PAGE)
        return ContinuousBatchingConfig(
            page_size=PAGE,
            num_blocks=rows * pages,
            max_requests_per_batch=rows,
            max_batch_tokens=None if self.flash else max(PREFILL, rows),
            max_blocks_per_request=pages + pages % 2 if self.flash else 0,
            safety_margin=0.0,  # there is a page for every token of every row
            return_logprobs=True,
            auto_switch_to_flash=False,  # it may fetch kernels from the hub
        )

    def _gave_up(self, error: Any) -> ModelError:
        lines = str(error or "it ended without a word").strip().splitlines()
        return ModelError(
            "continuous batching gave up",
            where=self.card.reference,
            found=lines[0] if lines else type(error).__name__,
            next_step=f"lower batch_size, or {_INSTEAD}",
        )


def _use_flash(model: Any) -> bool:
    """Switch to an installed flash attention where it fits; the engine is made for it."""
    half = model.dtype in (torch.bfloat16, torch.float16)
    if model.device.type != "cuda" or not half or not model._supports_flash_attn:
        return False
    if is_flash_attn_3_available():
        model.set_attn_implementation("flash_attention_3")
    elif is_flash_attn_2_available():
        model.set_attn_implementation("flash_attention_2")
    else:
        return False
    return True
