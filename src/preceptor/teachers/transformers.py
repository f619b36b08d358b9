"""Local teachers: batched generation with `transformers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from preceptor.core.errors import ModelError
from preceptor.core.types import Ask, Decoding, Reply
from preceptor.data.rendering import prompt_ids
from preceptor.models.load import Card, load_causal_lm


def open_teacher(
    card: Card,
    decoding: Decoding,
    dtype: torch.dtype,
    device: torch.device,
    trust_remote_code: bool = False,
) -> Ask:
    """Load a teacher and return `ask(instructions, seed) -> replies`, one batch a call.

    Greedy replies do not depend on the seed; sampled ones depend on it and on the batch.
    """
    model: Any = load_causal_lm(card, dtype, device, trust_remote_code)
    tokenizer = card.tokenizer
    ends = _end_ids(model, tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]
    options: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None}
    if decoding.temperature > 0:
        options = {
            "do_sample": True,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
        }

    def ask(instructions: Sequence[str], seed: int) -> list[Reply]:
        prompts = [prompt_ids(tokenizer, text) for text in instructions]
        width = max(map(len, prompts))
        room = min(decoding.max_new_tokens, card.limit - width)
        if room < 1:
            raise ModelError(
                "an instruction is longer than the teacher can read",
                where=card.reference,
                found=f"{width} tokens, limit {card.limit}",
                next_step="drop long instructions, or use a teacher with a longer limit",
            )
        ids_BT = torch.full((len(prompts), width), pad)
        for row, prompt in enumerate(prompts):
            ids_BT[row, width - len(prompt) :] = torch.tensor(prompt)
        mask_BT = torch.zeros_like(ids_BT)
        for row, prompt in enumerate(prompts):
            mask_BT[row, width - len(prompt) :] = 1
        torch.manual_seed(seed)
        with torch.inference_mode():
            generated_BT = model.generate(
                input_ids=ids_BT.to(device),
                attention_mask=mask_BT.to(device),
                max_new_tokens=room,
                eos_token_id=ends,
                pad_token_id=pad,
                top_k=0 if decoding.temperature > 0 else None,
                **options,
            )[:, width:]
        return [_reply(tokenizer, row, ends) for row in generated_BT.tolist()]

    return ask


def _end_ids(model: Any, tokenizer: Any) -> list[int]:
    ends = model.generation_config.eos_token_id
    if ends is None:
        ends = tokenizer.eos_token_id
    if ends is None:
        raise ModelError(
            "the teacher has no end-of-text token",
            where=model.name_or_path,
            next_step="set eos_token_id in its generation_config.json",
        )
    return [int(end) for end in ends] if isinstance(ends, list) else [int(ends)]


def _reply(tokenizer: Any, ids: list[int], ends: list[int]) -> Reply:
    stop = next((place for place, token in enumerate(ids) if token in ends), None)
    kept = ids if stop is None else ids[:stop]
    text = tokenizer.decode(kept, skip_special_tokens=True)
    if stop is None:
        return Reply(text, "length", len(kept))
    return Reply(text, "stop", stop + 1)
