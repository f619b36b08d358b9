"""Sequence-classification reward models, asked with their own chat template."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from preceptor.core.errors import ModelError
from preceptor.core.types import Answer, RewardSource, Runtime, Score, length_batches
from preceptor.data.rendering import Renderer
from preceptor.models.load import load_reward_model, open_card, pick_device, pick_dtype

BATCH_TOKENS = {"cpu": 4096, "cuda": 32768}


def open_reward(setting: Any, runtime: Runtime) -> RewardSource:
    """A reward model's logit number `setting.output`, in the model's own (unbounded) unit.

    Config and tokenizer are read now, weights on the first score. Conversations beyond the
    model's limit are cut as `Renderer.fit` says.

    Raises:
        ModelError: no tokenizer, or fewer outputs than `setting.output`.
    """
    card = open_card(setting.model, runtime.trust_remote_code)
    if setting.output >= card.config.num_labels:
        raise ModelError(
            "the reward model has no such output",
            where=f"reward {setting.name!r}, output {setting.output}",
            found=f"{card.config.num_labels} outputs",
            next_step="set `output` below that",
        )
    device = pick_device(runtime.device)
    renderer = Renderer(card.tokenizer, card.limit, card.reference)
    budget = runtime.batch_tokens or BATCH_TOKENS.get(device.type, 32768)

    def lengths(answers: Sequence[Answer]) -> list[int]:
        rendered = renderer.render([a.instruction for a in answers], [a.response for a in answers])
        return [len(row.ids) for row in rendered]

    return RewardSource(
        lambda answers: length_batches(lengths(answers), budget),
        partial(
            open_score,
            setting.model,
            setting.output,
            runtime.dtype,
            runtime.device,
            runtime.trust_remote_code,
        ),
        card.fingerprint,
        spread=True,
    )


def open_score(
    reference: str, output: int, dtype: str, device: str, trust_remote_code: bool
) -> Score:
    """Load the reward model; what comes back scores a batch of answers."""
    card, place = open_card(reference, trust_remote_code), pick_device(device)
    renderer = Renderer(card.tokenizer, card.limit, card.reference)
    model = load_reward_model(card, pick_dtype(dtype, place), place, trust_remote_code)

    def score(answers: Sequence[Answer]) -> list[float]:
        rows = renderer.render([a.instruction for a in answers], [a.response for a in answers])
        return _logits(model, [list(row.ids) for row in rows], output)

    return score


@torch.inference_mode()
def _logits(model: Any, rows: list[list[int]], output: int) -> list[float]:
    """One logit a row. The padding token is one that ends no row: pooling looks for it."""
    ends = {row[-1] for row in rows}
    pad = next(token for token in range(len(ends) + 1) if token not in ends)
    width = max(map(len, rows))
    ids_BT = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    mask_BT = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    model.config.get_text_config().pad_token_id = pad
    model.config.pad_token_id = pad
    logits_BK = model(
        input_ids=ids_BT.to(model.device), attention_mask=mask_BT.to(model.device)
    ).logits
    return logits_BK[:, output].float().tolist()
