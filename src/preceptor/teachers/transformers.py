"""Local teachers: generation with `transformers`, in padded batches or with continuous batching.

An answer depends on its own request alone, up to the rounding of batches
(`preceptor.models.generation` says how). Continuous batching answers greedy requests; those that
sample or have labels are answered in padded batches all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from preceptor.core.types import Reply, Request, Runtime, TeacherSource
from preceptor.data.rendering import prompt_ids
from preceptor.models.continuous import ContinuousGenerator, refuse_unfit
from preceptor.models.generation import BatchGenerator, end_ids, reply_of
from preceptor.models.load import load_causal_lm, open_card, pick_device, pick_dtype

REFILLS = 16  # times that a group of continuous batching fills the batch

Answer = Callable[[Sequence[Request]], list[Reply]]


def open_teacher(setting: Any, runtime: Runtime) -> TeacherSource:
    """A checkpoint that answers in this process, or on the runtime's fleet.

    Reads `setting.model` (folder or hub id), `batch_size`, `continuous`. Requests of about equal
    length and of the same decoding share a group. Config and tokenizer are read now, weights by
    the workers.

    Raises:
        ModelError: no such model, no tokenizer, no end token, or an instruction beyond the
            model's limit; a model that continuous batching cannot run.
    """
    card = open_card(setting.model, runtime.trust_remote_code)
    end_ids(card)
    if setting.continuous:
        refuse_unfit(card, pick_device(runtime.device))
    open_worker = partial(
        open_generator,
        setting.model,
        runtime.dtype,
        runtime.device,
        runtime.trust_remote_code,
        setting.batch_size if setting.continuous else None,
    )

    def ask(groups: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Reply]]]:
        return runtime.fleet(open_worker, groups)

    def groups_of(requests: Sequence[Request]) -> list[list[int]]:
        return groups_by_length(requests, setting.batch_size, setting.continuous)

    return TeacherSource(
        identity=local_identity(setting.model, card.fingerprint), groups=groups_of, ask=ask
    )


def local_identity(reference: str, fingerprint: str) -> dict[str, str]:
    """Who answers: the model's short name, and its weights (a hub commit where it is no folder)."""
    folder = Path(reference)
    return {
        "model": folder.name if folder.is_dir() else reference,
        "fingerprint": fingerprint,
    }


def groups_by_length(
    requests: Sequence[Request], size: int, continuous: bool = False
) -> list[list[int]]:
    """Positions in groups: one decoding each, the longest conversations first.

    A group has at most `size` requests; REFILLS times as many where they are answered with
    continuous batching.
    """
    alike: dict[Any, list[int]] = {}
    for place, request in enumerate(requests):
        refilled = continuous and _refillable(request)
        alike.setdefault((request.decoding, refilled), []).append(place)
    groups = []
    for (_, refilled), places in alike.items():
        places.sort(key=lambda place: (-_characters(requests[place]), place))
        step = size * REFILLS if refilled else size
        groups += [places[low : low + step] for low in range(0, len(places), step)]
    return groups


def _refillable(request: Request) -> bool:
    return request.decoding.greedy and not request.labels


def _characters(request: Request) -> int:
    return sum(len(text) for _, text in request.messages)


def open_generator(
    reference: str,
    dtype: str,
    device: str,
    trust_remote_code: bool,
    continuous: int | None = None,
) -> Answer:
    """Load the model; what comes back answers a group of requests of one decoding.

    Args:
        continuous: rows of continuous batching; None for padded batches alone.
    """
    card = open_card(reference, trust_remote_code, fingerprinted=False)
    place = pick_device(device)
    model = load_causal_lm(card, pick_dtype(dtype, place), place, trust_remote_code)
    ends = end_ids(card)
    in_batches = BatchGenerator(model, card, ends)
    refilled = None if continuous is None else ContinuousGenerator(model, card, ends, continuous)

    def answer(requests: Sequence[Request]) -> list[Reply]:
        prompts = [prompt_ids(card.tokenizer, request.messages) for request in requests]
        generate = in_batches
        if refilled is not None and all(map(_refillable, requests)):
            generate = refilled
        return [
            reply_of(card.tokenizer, generated, len(prompt))
            for generated, prompt in zip(generate(requests, prompts), prompts, strict=True)
        ]

    return answer
