"""What training and storing share: answers that are learned from, tokenizers, what is cut."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from preceptor.core.types import Runtime
from preceptor.data.answer_store import AnswerStore
from preceptor.data.rendering import Renderer
from preceptor.models.load import Card
from preceptor.models.pairing import compare_tokenizers
from preceptor.recipes.inputs.respondents import decoding_of, requests_of
from preceptor.recipes.planning.asking import Asked, light_card, plan_asking
from preceptor.recipes.planning.draft import SAMPLED, Draft, Refusal, Verdict
from preceptor.recipes.planning.scoring import Sequences, recorded_as_asked
from preceptor.recipes.settings.shared import model_location
from preceptor.recipes.settings.training import InProcess
from preceptor.recipes.teaching.lessons import Lessons


def compare(draft: Draft, role: str, student: Card, teacher: InProcess, runtime: Runtime) -> None:
    """Add the verdict of two tokenizers (raises ModelError where they differ)."""
    card = light_card(model_location(teacher.model), runtime.trust_remote_code)
    shared = compare_tokenizers(student, card)
    same = student.vocabulary == card.vocabulary
    detail = f"{shared:,} tokens are compared"
    if not same:
        detail += f": the student has {student.vocabulary:,}, the teacher {card.vocabulary:,}"
    verdict = "same tokenizer" if same else "same tokenizer, padded vocabulary"
    draft.tokenizers.append(Verdict(role, teacher.model, verdict, detail))


def refuse_cut(draft: Draft, found: Sequences, settings: Any, renderer: Renderer) -> None:
    """The run refuses data of which too much is cut; so does its plan, where it can see that."""
    allowed = settings.data.max_truncated_share
    if found.truncated <= allowed:
        return
    draft.refusals.append(
        Refusal(
            "too many responses do not fit into the longest sequence",
            f"max_length {renderer.limit}",
            f"{found.truncated:.1%} lose their end, {allowed:.1%} may"
            + (f" ({SAMPLED} of {len(found.lengths):,})" if len(found.lengths) < found.n else ""),
            "raise max_length, drop long answers, or set max_truncated_share to "
            f"{math.ceil(found.truncated * 100) / 100}",
        )
    )


def plan_lessons(
    draft: Draft,
    lessons: Lessons,
    respondents: Mapping[str, Any],
    choose: Any,
    store: AnswerStore,
    seed: int,
    runtime: Runtime,
    stand_in: Card,
) -> list[Asked]:
    """Add the stages of asking for the answers that are learned from, if they are not recorded."""
    if not lessons.questions:
        return [recorded_as_asked(lessons.answers)]
    chosen = [choose(row) for _, _, row in lessons.questions]
    found = []
    for name, (teacher, source) in respondents.items():
        texts = [
            question[1]
            for question, own in zip(lessons.questions, chosen, strict=True)
            if own == name
        ]
        if texts:
            requests = requests_of(texts, decoding_of(teacher), seed)
            found.append(
                plan_asking(draft, name, teacher, source, requests, store, runtime, stand_in)
            )
    return found
