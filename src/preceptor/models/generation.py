"""Generation with a loaded model: prompts as token ids in, what was generated out.

Shapes: B rows, T tokens, V vocabulary.

How an answer is decoded is said by the request alone: of the checkpoint's generation settings only
the end tokens are read, so that a repetition penalty, say, that stands there changes nothing.

Sampling is inverse transform sampling: each request has a stream of uniform numbers of its own
seed, one for a token, and the token is the first in the vocabulary's order whose cumulated
probability exceeds the number. So a sampled answer does not depend on what else is in the batch,
nor on the kind of device, up to the rounding of the logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from preceptor.core.errors import ModelError
from preceptor.core.types import Reply, Request
from preceptor.models.load import Card, generation_config


@dataclass(frozen=True)
class Generated:
    """What a model generated for one prompt.

    Attributes:
        ids: the generated tokens; the end token is the last where one came.
        stopped: an end token came.
        logprob: sum of the tokens' log-probabilities under the model itself (temperature 1), in
            nats.
        label_logprobs: of the request's labels as the first token, in nats.
    """

    ids: list[int]
    stopped: bool
    logprob: float | None = None
    label_logprobs: tuple[float | None, ...] = ()


def until_end(ids: Sequence[int], ends: Sequence[int]) -> tuple[list[int], bool]:
    """The tokens up to the first end token, it included, and whether there is one."""
    for place, token in enumerate(ids):
        if token in ends:
            return list(ids[: place + 1]), True
    return list(ids), False


def reply_of(tokenizer: Any, generated: Generated, n_prompt: int) -> Reply:
    """Generated tokens as a reply: its text has neither the end token nor other special ones."""
    text = generated.ids[:-1] if generated.stopped else generated.ids
    return Reply(
        tokenizer.decode(text, skip_special_tokens=True),
        "stop" if generated.stopped else "length",
        len(generated.ids),
        n_prompt,
        generated.logprob,
        generated.label_logprobs,
    )


def end_ids(card: Card) -> list[int]:
    """Tokens that end an answer (raises ModelError where there is none).

    Those of the checkpoint's generation config; of its config where it has none; else of its
    tokenizer.
    """
    own = generation_config(card)
    ends = getattr(own or card.config.get_text_config(), "eos_token_id", None)
    if ends is None:
        ends = card.tokenizer.eos_token_id
    if ends is None:
        raise ModelError(
            "the teacher has no end-of-text token",
            where=card.reference,
            next_step="set eos_token_id in its generation_config.json",
        )
    return [int(end) for end in ends] if isinstance(ends, list | tuple) else [int(ends)]


def label_id(tokenizer: Any, label: str) -> int:
    """The one token that a label is, as the first of an answer (raises ModelError)."""
    ids = tokenizer(label, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ModelError(
            "a label is not one token of the judge's vocabulary",
            where=str(tokenizer.name_or_path),
            found=f"{label!r} is {len(ids)} tokens",
            next_step="use other labels, or a judge that writes its verdict",
        )
    return int(ids[0])


def room_for(request: Request, prompt: Sequence[int], limit: int, name: str) -> int:
    """Tokens that an answer may have: its own bound, or what the model's limit leaves of it.

    Raises:
        ModelError: the prompt fills the limit.
    """
    room = min(request.decoding.max_new_tokens, limit - len(prompt))
    if room < 1:
        raise ModelError(
            "an instruction is longer than the teacher can read",
            where=name,
            found=f"{len(prompt)} tokens, limit {limit}",
            next_step="drop long instructions, or use a teacher with a longer limit",
        )
    return room


class BatchGenerator:
    """Answers batches of requests of one decoding, padded on the left, with `generate`.

    Args:
        model: in eval mode, on its device.
        card: of the model.
        ends: tokens that end an answer.
    """

    def __init__(self, model: Any, card: Card, ends: Sequence[int]) -> None:
        self.model, self.card, self.ends = model, card, list(ends)
        pad = card.tokenizer.pad_token_id
        self.pad = int(pad) if pad is not None else self.ends[0]
        model.generation_config = GenerationConfig(eos_token_id=self.ends, pad_token_id=self.pad)
        text = model.config.get_text_config()
        if getattr(text, "output_router_logits", False):
            text.output_router_logits = False  # `generate` would balance routers, and fails at it

    def __call__(
        self, requests: Sequence[Request], prompts: Sequence[list[int]]
    ) -> list[Generated]:
        """One answer for each request (raises ModelError for a prompt that fills the limit)."""
        limit, name = self.card.limit, self.card.reference
        own = [
            room_for(request, prompt, limit, name)
            for request, prompt in zip(requests, prompts, strict=True)
        ]
        found = self._pass(requests, prompts, min(own))
        # the longest prompt bounds the pass; whoever has room left is asked again without it
        cut = [
            row
            for row, answer in enumerate(found)
            if not answer.stopped and len(answer.ids) < own[row]
        ]
        if cut:
            again = self([requests[row] for row in cut], [prompts[row] for row in cut])
            for row, answer in zip(cut, again, strict=True):
                found[row] = answer
        return found

    def _pass(
        self, requests: Sequence[Request], prompts: Sequence[list[int]], room: int
    ) -> list[Generated]:
        """Answers of at most `room` tokens."""
        width = max(map(len, prompts))
        ids_BT = torch.full((len(prompts), width), self.pad)
        mask_BT = torch.zeros_like(ids_BT)
        for row, prompt in enumerate(prompts):
            ids_BT[row, width - len(prompt) :] = torch.tensor(prompt)
            mask_BT[row, width - len(prompt) :] = 1
        place = self.model.device
        choice = Choice(requests, self.card.tokenizer, room, place)
        with torch.inference_mode():
            generated_BT = self.model.generate(
                input_ids=ids_BT.to(place),
                attention_mask=mask_BT.to(place),
                max_new_tokens=room,
                do_sample=False,  # `choice` leaves one token to choose from
                logits_processor=LogitsProcessorList([choice]),
            )[:, width:]
        logprob_BT = torch.stack(choice.logprobs, dim=1).tolist()
        found = []
        for row, ids in enumerate(generated_BT.tolist()):
            kept, stopped = until_end(ids, self.ends)
            logprob = sum(logprob_BT[row][: len(kept)])
            found.append(Generated(kept, stopped, logprob, choice.label_logprobs[row]))
        return found


class Choice(LogitsProcessor):
    """Chooses the next token of every row, and notes how likely it was.

    Args:
        requests: a row each, all of one decoding.
        tokenizer: for the requests' labels.
        room: tokens of the longest answer.
        device: where the logits are.

    Attributes:
        logprobs: a tensor (B,) for each step: the chosen tokens' log-probabilities under the
            model itself, in nats.
        label_logprobs: a row each: of the request's labels as the first token, in nats.
    """

    def __init__(
        self, requests: Sequence[Request], tokenizer: Any, room: int, device: torch.device
    ) -> None:
        decoding = requests[0].decoding
        self.label_ids = [[label_id(tokenizer, label) for label in r.labels] for r in requests]
        self.label_logprobs: list[tuple[float, ...]] = [()] * len(requests)
        self.logprobs: list[torch.Tensor] = []
        self.warpers = LogitsProcessorList()
        self.uniform_BT: torch.Tensor | None = None
        if not decoding.greedy:
            self.warpers.append(TemperatureLogitsWarper(decoding.temperature))
            if decoding.top_p < 1:
                self.warpers.append(TopPLogitsWarper(decoding.top_p))
            drawn = np.stack([np.random.default_rng(r.seed).random(room) for r in requests])
            self.precise = torch.float32 if device.type == "mps" else torch.float64
            self.uniform_BT = torch.from_numpy(drawn).to(dtype=self.precise).to(device)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        logp_BV = scores.float().log_softmax(dim=-1)
        step = len(self.logprobs)
        if step == 0 and any(self.label_ids):
            self.label_logprobs = [
                tuple(logp_BV[row, own].tolist()) for row, own in enumerate(self.label_ids)
            ]
        if self.uniform_BT is None:
            self.logprobs.append(logp_BV.amax(dim=-1))
            return scores
        warped_BV = self.warpers(input_ids, scores.float())
        cumulated_BV = warped_BV.to(self.precise).softmax(dim=-1).cumsum(dim=-1)
        aim_B1 = self.uniform_BT[:, step : step + 1] * cumulated_BV[:, -1:]
        token_B1 = torch.searchsorted(cumulated_BV, aim_B1, right=True)
        token_B1.clamp_(max=cumulated_BV.shape[1] - 1)
        self.logprobs.append(logp_BV.gather(1, token_B1)[:, 0])
        return torch.full_like(scores, -torch.inf).scatter_(1, token_B1, 0.0)
