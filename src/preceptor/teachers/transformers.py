"""Local teachers: batched generation with `transformers`.

Shapes: B rows, T tokens, V vocabulary.

An answer depends on its own request alone: each row draws from a generator of its own seed
(Gumbel noise on the warped logits, whose largest entry is a draw from their softmax), so sampled
answers do not change with what else is in the batch, up to the rounding of padded batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from preceptor.core.errors import ModelError
from preceptor.core.types import Decoding, Reply, Request, Runtime, TeacherSource
from preceptor.data.rendering import prompt_ids
from preceptor.models.load import load_causal_lm, open_card, pick_device, pick_dtype

Generate = Any  # list[Request] -> list[Reply]


def open_teacher(setting: Any, runtime: Runtime) -> TeacherSource:
    """A checkpoint that answers in this process, or on the runtime's fleet.

    Reads `setting.model` (folder or hub id), `batch_size`. Requests of about equal length and of
    the same decoding share a batch. Config and tokenizer are read now, weights by the workers.

    Raises:
        ModelError: no such model, no tokenizer, or an instruction beyond the model's limit.
    """
    card = open_card(setting.model, runtime.trust_remote_code)
    open_worker = partial(
        open_generator, setting.model, runtime.dtype, runtime.device, runtime.trust_remote_code
    )

    def ask(groups: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Reply]]]:
        return runtime.fleet(open_worker, groups)

    return TeacherSource(
        identity=local_identity(setting.model, card.fingerprint),
        groups=lambda requests: batches_by_length(requests, setting.batch_size),
        ask=ask,
    )


def local_identity(reference: str, fingerprint: str) -> dict[str, str]:
    """Who answers: the model's short name, and its weights (a hub commit where it is no folder)."""
    folder = Path(reference)
    return {
        "model": folder.name if folder.is_dir() else reference,
        "fingerprint": fingerprint,
    }


def batches_by_length(requests: Sequence[Request], size: int) -> list[list[int]]:
    """Positions in groups of at most `size`: one decoding each, the longest conversations first."""
    by_decoding: dict[Decoding, list[int]] = {}
    for place, request in enumerate(requests):
        by_decoding.setdefault(request.decoding, []).append(place)
    groups = []
    for places in by_decoding.values():
        places.sort(key=lambda place: (-_characters(requests[place]), place))
        groups += [places[low : low + size] for low in range(0, len(places), size)]
    return groups


def _characters(request: Request) -> int:
    return sum(len(text) for _, text in request.messages)


def open_generator(reference: str, dtype: str, device: str, trust_remote_code: bool) -> Generate:
    """Load the model; what comes back answers a batch of requests of one decoding."""
    card = open_card(reference, trust_remote_code)
    place = pick_device(device)
    model: Any = load_causal_lm(card, pick_dtype(dtype, place), place, trust_remote_code)
    tokenizer = card.tokenizer
    ends = end_ids(model, tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]

    def generate(requests: Sequence[Request]) -> list[Reply]:
        decoding = requests[0].decoding
        prompts = [prompt_ids(tokenizer, request.messages) for request in requests]
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
        mask_BT = torch.zeros_like(ids_BT)
        for row, prompt in enumerate(prompts):
            ids_BT[row, width - len(prompt) :] = torch.tensor(prompt)
            mask_BT[row, width - len(prompt) :] = 1
        noted = _Noted(requests, tokenizer)
        with torch.inference_mode():
            generated_BT = model.generate(
                input_ids=ids_BT.to(place),
                attention_mask=mask_BT.to(place),
                max_new_tokens=room,
                eos_token_id=ends,
                pad_token_id=pad,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                logits_processor=_processors(requests, place, noted),
            )[:, width:]
        return [
            _reply(tokenizer, ids, ends, len(prompts[row]), noted, row)
            for row, ids in enumerate(generated_BT.tolist())
        ]

    return generate


class _Noted(LogitsProcessor):
    """Notes the log-probabilities that the requests' labels have as the first token."""

    def __init__(self, requests: Sequence[Request], tokenizer: Any) -> None:
        self.ids = [[label_id(tokenizer, label) for label in r.labels] for r in requests]
        self.wanted = any(self.ids)
        self.first: list[tuple[float, ...]] | None = None

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if self.first is None:
            logp_BV = scores.float().log_softmax(dim=-1)
            self.first = [
                tuple(logp_BV[row, own].tolist()) if own else () for row, own in enumerate(self.ids)
            ]
        return scores


class _Gumbel(LogitsProcessor):
    """Adds Gumbel noise, each row from a generator of its own: the largest entry is a sample."""

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        uniform_BV = torch.empty_like(scores, dtype=torch.float32)
        for row, generator in zip(uniform_BV, self.generators, strict=True):
            row.uniform_(generator=generator)
        tiny = torch.finfo(torch.float32).tiny
        return scores.float() - (-uniform_BV.clamp_min(tiny).log()).clamp_min(tiny).log()


def _processors(
    requests: Sequence[Request], device: torch.device, noted: _Noted
) -> LogitsProcessorList:
    decoding = requests[0].decoding
    found = LogitsProcessorList([noted] if noted.wanted else [])
    if not decoding.greedy:
        found.append(TemperatureLogitsWarper(decoding.temperature))
        if decoding.top_p < 1:
            found.append(TopPLogitsWarper(decoding.top_p))
        found.append(_Gumbel([request.seed for request in requests], device))
    return found


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


def end_ids(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an answer (raises ModelError where there is none)."""
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


def _reply(
    tokenizer: Any, ids: list[int], ends: list[int], n_prompt: int, noted: _Noted, row: int
) -> Reply:
    stop = next((place for place, token in enumerate(ids) if token in ends), None)
    kept = ids if stop is None else ids[:stop]
    return Reply(
        tokenizer.decode(kept, skip_special_tokens=True),
        "length" if stop is None else "stop",
        len(kept) if stop is None else stop + 1,
        n_prompt,
        label_logprobs=noted.first[row] if noted.first else (),
    )
