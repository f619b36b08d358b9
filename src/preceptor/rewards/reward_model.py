"""Sequence-classification reward models, asked with their own chat template."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from preceptor.core.errors import ModelError, nearest
from preceptor.core.types import Answer, RewardSource, Runtime, Score, even_batches, length_batches
from preceptor.data.rendering import Renderer
from preceptor.models.load import load_reward_model, open_card, pick_device, pick_dtype

_FIELD = re.compile(r"[A-Za-z_]\w*(\.\d+)?")
BATCH_TOKENS = {"cpu": 4096, "cuda": 32768}
BLOCK = 4096  # answers whose tokens are counted together


Weights = dict[int | str, float]  # place in the logits, or field of the output -> weight


def open_reward(setting: Any, runtime: Runtime) -> RewardSource:
    """What a reward model gives, in the model's own unit (unbounded, if the setting has no range).

    Which of its outputs is the reward says `setting.output`:
    - a number: that place in `logits`;
    - a label of the config (`id2label`): its place in `logits`;
    - another name, for models that bring code of their own: that field of the output, as `score`
      of ArmoRM, or one place in it, as `rewards.4`;
    - label, number or field -> weight: the weighted sum, from one pass.

    Config and tokenizer are read now, weights on the first score. Conversations beyond the
    model's limit are cut as `Renderer.fit` says.

    Raises:
        ModelError: no tokenizer, or no such output.
    """
    card = open_card(setting.model, runtime.trust_remote_code)
    weights = _outputs(setting, card.config, runtime.trust_remote_code)
    device = pick_device(runtime.device)
    renderer = Renderer(card.tokenizer, card.limit, card.reference)
    budget = runtime.batch_tokens or BATCH_TOKENS.get(device.type, 32768)

    def lengths(answers: Sequence[Answer]) -> list[int]:
        found: list[int] = []
        for places in even_batches(len(answers), BLOCK):  # ids of all answers would fill memory
            block = [answers[place] for place in places]
            rows = renderer.render([a.instruction for a in block], [a.response for a in block])
            found += [len(row.ids) for row in rows]
        return found

    return RewardSource(
        lambda answers: length_batches(lengths(answers), budget),
        partial(
            open_score,
            setting.model,
            weights,
            runtime.dtype,
            runtime.device,
            runtime.trust_remote_code,
        ),
        card.fingerprint,
        low=-math.inf if setting.low is None else setting.low,
        high=math.inf if setting.high is None else setting.high,
        spread=True,
    )


def _outputs(setting: Any, config: Any, trust_remote_code: bool) -> Weights:
    """The setting's outputs by place or field, with their weights (raises ModelError)."""
    wanted = setting.output if isinstance(setting.output, dict) else {setting.output: 1.0}
    labels = {str(label): int(place) for place, label in config.id2label.items()}
    brings_code = trust_remote_code and bool(getattr(config, "auto_map", None))
    weights: Weights = {}
    for output, weight in wanted.items():
        known_as = labels.get(str(output))
        place: int | str = output if known_as is None else known_as
        if isinstance(place, str) and place.isdecimal():
            place = int(place)
        is_field = isinstance(place, str) and brings_code and _FIELD.fullmatch(place) is not None
        is_place = isinstance(place, int) and 0 <= place < config.num_labels
        if not (is_field or is_place):
            known = ", ".join(itertools.islice(labels, 20))
            raise ModelError(
                "the reward model has no such output",
                where=f"reward {setting.name!r}, output {output}",
                found=f"{config.num_labels} outputs: {known}",
                next_step="set `output` to the number or the label of one; a field of the output "
                "(`score`) needs a model with code of its own, and trust_remote_code",
            )
        weights[place] = float(weight)
    return weights


def open_score(
    reference: str, weights: Weights, dtype: str, device: str, trust_remote_code: bool
) -> Score:
    """Load the reward model; what comes back scores a batch of answers."""
    card, place = open_card(reference, trust_remote_code, fingerprinted=False), pick_device(device)
    renderer = Renderer(card.tokenizer, card.limit, card.reference)
    model = load_reward_model(card, pick_dtype(dtype, place), place, trust_remote_code)

    def score(answers: Sequence[Answer]) -> list[float]:
        rows = renderer.render([a.instruction for a in answers], [a.response for a in answers])
        found = _run(model, [list(row.ids) for row in rows], card.vocabulary)
        total_B = sum(
            weight * _column(found, output, len(rows), reference)
            for output, weight in weights.items()
        )
        return total_B.tolist()  # type: ignore[union-attr]

    return score


@torch.inference_mode()
def _run(model: Any, rows: list[list[int]], vocabulary: int) -> Any:
    """The model's output for a batch.

    Pooling looks for the padding token: some models take the last token that is another one, some
    the one before its first. So it is a token that stands in no row, or, where the vocabulary is
    that small, one that ends no row.
    """
    inside, ends = {token for row in rows for token in row}, {row[-1] for row in rows}
    pad = next(
        (token for token in range(vocabulary) if token not in inside),
        next(token for token in range(len(ends) + 1) if token not in ends),
    )
    width = max(map(len, rows))
    ids_BT = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    mask_BT = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    model.config.get_text_config().pad_token_id = pad
    model.config.pad_token_id = pad
    return model(input_ids=ids_BT.to(model.device), attention_mask=mask_BT.to(model.device))


def _column(found: Any, output: int | str, n_rows: int, where: str) -> torch.Tensor:
    """One number a row, float64: a place in the logits, or a field of the output."""
    field, place = _split(output) if isinstance(output, str) else ("logits", output)
    try:
        values = found[field]
    except (KeyError, AttributeError):
        values = None
    if not isinstance(values, torch.Tensor):
        raise ModelError(
            "the reward model's output has no such field",
            where=f"{where}, output {output}",
            found=nearest(field, [name for name in found if isinstance(name, str)]),
            next_step="name a field with a number for each conversation",
        )
    values = values.detach().double().cpu().reshape(n_rows, -1)
    if place is None and values.shape[1] == 1:
        place = 0
    if place is None or place >= values.shape[1]:
        raise ModelError(
            "the reward model's output is not one number for each conversation",
            where=f"{where}, output {output}",
            found=f"{values.shape[1]} numbers",
            next_step=f"name one of them: `output: {field}.0`",
        )
    return values[:, int(place)]


def _split(output: str) -> tuple[str, int | None]:
    field, dot, place = output.partition(".")
    return field, int(place) if dot else None
