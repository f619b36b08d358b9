"""Asking a teacher: what the answer store holds is read there, the rest is asked and kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from preceptor.core.errors import DataError
from preceptor.core.progress import progress
from preceptor.core.types import Reply, Request, TeacherSource
from preceptor.data.answer_store import AnswerStore


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
            DataError: the source did not answer every request.
            PreceptorError: the source gave up; what it answered before is kept.
        """
        started = time.monotonic()
        keys = [request.key(source.identity) for request in requests]
        with self.store.part(source.identity) as part:
            found = part.replies(keys)
            n_reused = sum(key in found for key in keys)
            groups = _missing(source.groups(requests), keys, found)
            if groups:
                asked = [[requests[place] for place in group] for group in groups]
                with (
                    progress(f"asking {name}", len(keys), "answers", n_reused) as advance,
                    closing(source.ask(asked)) as stream,  # type: ignore[type-var]
                ):
                    for number, replies in stream:
                        own = [keys[place] for place in groups[number]]
                        part.add(own, asked[number], replies, source.price)
                        found.update(zip(own, replies, strict=True))
                        advance(len(own), sum(reply.n_generated for reply in replies))
        lost = [place for place, key in enumerate(keys) if key not in found]
        if lost:
            raise DataError(
                "a teacher did not answer everything",
                where=f"teacher {name}",
                found=f"{len(lost)} of {len(keys)} requests without an answer",
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
