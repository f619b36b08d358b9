"""Asking a teacher: what the answer store holds is read there, the rest is asked and kept."""

from __future__ import annotations

import operator
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from preceptor.core.errors import DataError
from preceptor.core.progress import progress
from preceptor.core.types import Reply, Request, TeacherSource
from preceptor.data.answer_store import AnswerStore, whole_text


class Asker:
    """Asks sources over one answer store, and counts what was asked.

    Attributes:
        facts: name -> answers, reused, prompt_tokens, generated_tokens, cost, seconds, and what
            the source counts (retries, say).
    """

    def __init__(self, store: AnswerStore) -> None:
        self.store = store
        self.facts: dict[str, dict[str, Any]] = {}

    def __call__(
        self, name: str, source: TeacherSource, requests: Sequence[Request]
    ) -> list[Reply]:
        """Replies in the order of the requests; asks what the store does not hold.

        Each group of the source is kept when it is answered. A request that stands twice is
        asked once.

        Raises:
            DataError: a request that cannot be kept, an answer that cannot, or none.
            PreceptorError: the source gave up, or the store cannot be read or written; what was
                answered before is kept.
        """
        started = time.monotonic()
        _check(name, requests)
        keys = [request.key(source.identity) for request in requests]
        with self.store.part(source.identity) as part:
            found = part.replies(keys)
            n_reused = sum(key in found for key in keys)
            groups = _missing(source.groups(requests), keys, found)
            if groups:
                asked = [[requests[place] for place in group] for group in groups]
                total = n_reused + sum(map(len, groups))
                with (
                    progress(f"asking {name}", total, "answers", n_reused) as advance,
                    _closing(source.ask(asked)) as stream,
                ):
                    for number, replies in stream:
                        own = [keys[place] for place in groups[number]]
                        kept = _checked(name, asked[number], replies)
                        if own[0] in found:
                            continue  # a source that tells twice is heard once
                        part.add(own, asked[number], kept, source.price)
                        found.update(zip(own, kept, strict=True))
                        advance(len(own), sum(reply.n_generated for reply in kept))
        lost = sum(key not in found for key in keys)
        if lost:
            raise DataError(
                "a teacher did not answer everything",
                where=f"teacher {name}",
                found=f"{lost} of {len(keys)} requests without an answer",
                next_step="run the same command again; what was answered is kept",
            )
        replies = [found[key] for key in keys]
        self._count(name, source, replies, n_reused, time.monotonic() - started)
        return replies

    def _count(
        self,
        name: str,
        source: TeacherSource,
        replies: Sequence[Reply],
        n_reused: int,
        seconds: float,
    ) -> None:
        facts = self.facts.setdefault(name, {})
        n_prompt = sum(reply.n_prompt or 0 for reply in replies)
        n_generated = sum(reply.n_generated for reply in replies)
        counted = {
            "answers": len(replies),
            "reused": n_reused,
            "prompt_tokens": n_prompt,
            "generated_tokens": n_generated,
            "cost": sum(source.price(r.n_prompt or 0, r.n_generated) for r in replies),
            "seconds": round(seconds, 1),
        }
        for key, value in counted.items():
            facts[key] = facts.get(key, 0) + value
        facts.update(source.facts)


@contextmanager
def _closing(stream: Iterator[Any]) -> Iterator[Iterator[Any]]:
    """A generator is closed; another iterator has nothing to let go of."""
    try:
        yield stream
    finally:
        getattr(stream, "close", lambda: None)()


def _missing(
    groups: Sequence[Sequence[int]], keys: Sequence[str], found: dict[str, Reply]
) -> list[list[int]]:
    """The groups' places whose keys are not found, each key once; empty groups left out."""
    seen: set[str] = set(found)
    left = []
    for group in groups:
        places = []
        for place in group:
            if keys[place] not in seen:
                seen.add(keys[place])
                places.append(place)
        if places:
            left.append(places)
    return left


def _check(name: str, requests: Sequence[Request]) -> None:
    """Numbers that the store has no room for are refused before anything is asked."""
    for request in requests:
        for what, value, bits in (
            ("seed", request.run_seed, 63),
            ("sample", request.sample, 31),
            ("max_new_tokens", request.decoding.max_new_tokens, 31),
        ):
            if not -(2**bits) <= value < 2**bits:
                raise DataError(
                    f"{what} is too large",
                    where=f"teacher {name}",
                    found=str(value),
                    next_step=f"set it below 2**{bits}",
                )


def _checked(name: str, requests: Sequence[Request], replies: Sequence[Reply]) -> list[Reply]:
    """The replies as the store keeps them, so that they are the same when they are read again."""
    if len(replies) != len(requests):
        raise DataError(
            "a teacher gave another number of answers than it was asked for",
            where=f"teacher {name}",
            found=f"{len(replies)} answers to {len(requests)} requests",
            next_step="mend the teacher's `ask`: each group has a reply for each request",
        )
    return [_as_kept(name, *pair) for pair in zip(requests, replies, strict=True)]


def _as_kept(name: str, request: Request, reply: Reply) -> Reply:
    try:
        kept = Reply(
            whole_text(reply.response),
            whole_text(reply.finish_reason),
            operator.index(reply.n_generated),
            None if reply.n_prompt is None else operator.index(reply.n_prompt),
            None if reply.logprob is None else float(reply.logprob),
            tuple(None if value is None else float(value) for value in reply.label_logprobs),
        )
        if max(kept.n_generated, kept.n_prompt or 0) >= 2**31:
            raise ValueError("more than 2**31 tokens")
        if len(kept.label_logprobs) not in (0, len(request.labels)):
            raise ValueError(f"{len(kept.label_logprobs)} log-probabilities of labels")
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(
            "a teacher's answer cannot be kept",
            where=f"teacher {name}, {request.messages[-1][1][:60]!r}",
            found=f"{error}; {reply!r:.200}",
            next_step="mend the teacher's `ask`: it gives a `Reply` with text and whole numbers",
        ) from error
    return kept
