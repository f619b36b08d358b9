"""What reading answers takes: their tokens under a model, rewards and judges."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from preceptor.core.types import Answer, Runtime
from preceptor.data.rendering import Rendered, Renderer
from preceptor.models import size as sizes
from preceptor.models.load import Card, pick_device
from preceptor.recipes.planning.asking import (
    CHARACTERS,
    Asked,
    dtype_ways,
    even_places,
    generating_need,
    itemsize,
    known_size,
    light_card,
    local_card,
)
from preceptor.recipes.planning.draft import (
    BOUND,
    EXACT,
    SAMPLED,
    STORED,
    Draft,
    Need,
    Refusal,
    Stage,
    Verdict,
    halves,
)
from preceptor.recipes.settings.shared import model_location, model_name
from preceptor.rewards import reward_model
from preceptor.rewards.judging.prompt import PACKAGED


@dataclass(frozen=True)
class Sequences:
    """Instructions with their answers as a model reads them.

    Attributes:
        n: sequences in all, repeats counted.
        tokens: of those that are read, each once.
        scored: response tokens of all of them.
        scored_once: of those that are read, each once.
        distinct: how many those are.
        bare: tokens of the pass without the instructions, each sequence once.
        longest: tokens of the longest one.
        longest_response: its response tokens.
        truncated: share of a sample that the model's limit cuts.
        lengths: of the sample.
        basis: how all this is known.
    """

    n: int
    tokens: int
    scored: int
    scored_once: int
    distinct: int
    bare: int
    longest: int
    longest_response: int
    truncated: float
    lengths: list[int]
    basis: str


def recorded_as_asked(answers: Sequence[Answer], name: str = "recorded") -> Asked:
    """Recorded answers, an even sample of them with their texts."""
    kept = [answers[place] for place in even_places(len(answers))]
    return Asked(
        name,
        [answer.instruction for answer in kept],
        [answer.response for answer in kept],
        len(answers),
    )


def sequences(renderer: Renderer, asked: Sequence[Asked]) -> Sequences:
    """Tokens of all answers under one model's rendering.

    A known answer counts as it stands. One that is not known yet counts as its prompt and the mean
    of the teacher's known answers, or of the tokens that it is expected to generate.
    """
    seen: set[tuple[bytes, int]] = set()
    bare_seen: set[bytes] = set()
    total = scored = bare = scored_once = distinct = 0.0
    lengths: list[int] = []
    longest = longest_response = cut = 0
    doubts: set[str] = set()
    for one in asked:
        known = [place for place, text in enumerate(one.responses) if text is not None]
        unknown = [place for place, text in enumerate(one.responses) if text is None]
        scale = one.n / len(one.instructions) if one.instructions else 0.0
        rows = renderer.render(
            [one.instructions[place] for place in known],
            [one.responses[place] or "" for place in known],
        )
        for row in rows:
            key, content = (row.ids.tobytes(), row.n_response), row.response_ids.tobytes()
            new = scale * (key not in seen)
            total += new * len(row.ids)
            scored_once += new * row.n_response
            distinct += new
            bare += scale * (row.n_response + 1) * (content not in bare_seen)
            seen.add(key)
            bare_seen.add(content)
            cut += row.truncated
        scored += scale * sum(row.n_response for row in rows)
        lengths += [len(row.ids) for row in rows]
        longest = max(longest, *map(_length, rows), 0)
        longest_response = max(longest_response, *(row.n_response for row in rows), 0)
        doubts |= {SAMPLED} if scale > 1 else set()
        if unknown:
            prompts = [
                len(row.ids) - row.n_response
                for row in renderer.render(
                    [one.instructions[p] for p in unknown], [""] * len(unknown)
                )
            ]
            others = renderer.render([""] * len(one.others), one.others)
            like = [row.n_response for row in (*rows, *others)]
            response = statistics.fmean(like) if like else min(one.generated + 1, renderer.limit)
            most = max(like, default=round(response))
            own = [min(renderer.limit, round(prompt + response)) for prompt in prompts]
            total += scale * sum(own)
            scored += scale * response * len(unknown)
            scored_once += scale * response * len(unknown)
            distinct += scale * len(unknown)
            bare += scale * (response + 1) * len(unknown)
            lengths += own
            longest = max(longest, min(renderer.limit, max(prompts) + most))
            longest_response = max(longest_response, min(renderer.limit, most))
            doubts.add(STORED if like else BOUND)
    basis = next((name for name in (BOUND, STORED, SAMPLED) if name in doubts), EXACT)
    return Sequences(
        n=sum(one.n for one in asked),
        tokens=round(total),
        scored=round(scored),
        scored_once=round(scored_once),
        distinct=round(distinct),
        bare=round(bare),
        longest=longest,
        longest_response=longest_response,
        truncated=cut / max(len(lengths), 1),
        lengths=lengths,
        basis=basis,
    )


def _length(row: Rendered) -> int:
    return len(row.ids)


def host_bytes(reference: str, runtime: Runtime) -> int:
    """Weights on their way through the machine's memory."""
    size = known_size(reference, runtime.trust_remote_code)
    return size.parameters * itemsize(runtime, runtime.dtype)


def add_verdict(draft: Draft, role: str, card: Card, found: Sequences) -> None:
    """How a model renders text, and what its limit cuts."""
    verdict = "chat template" if card.tokenizer.chat_template else "plain rendering"
    detail = f"sequences up to {found.longest:,} of {card.limit:,} tokens"
    if found.truncated:
        detail += f"; {found.truncated:.1%} are cut"
    draft.tokenizers.append(Verdict(role, model_name(card.reference), verdict, detail))


def reading_need(
    reference: str,
    runtime: Runtime,
    budget: int,
    found: Sequences,
    tile: int,
    classifies: bool = False,
    compares: bool = False,
) -> Need:
    """Memory of a model that reads; `compares`: the activations of its last MLP, too."""
    size = known_size(reference, runtime.trust_remote_code, classifies)

    def parts(knobs: Any) -> dict[str, int]:
        s = itemsize(runtime, knobs["dtype"])
        # the longest batch: rows of about the longest length, as many as the budget holds
        width = max(found.longest, 1)
        tokens = min(max(1, knobs["batch_tokens"] // width) * width, max(found.tokens, width))
        scored = round(tokens * found.longest_response / width)
        active = sizes.scoring_bytes(size, tokens, scored, s, tile)
        if compares:  # they are kept beside the head's work, and then normalised in fp32
            active = max(
                active + s * tokens * size.inner, (s + 2 * sizes.FULL) * tokens * size.inner
            )
        return {"weights": sizes.weight_bytes(size, s), "activations": active}

    knobs = {"batch_tokens": budget, "dtype": runtime.dtype}
    return Need(parts, knobs, {"batch_tokens": halves(budget)} | dtype_ways(runtime))


def plan_reward(
    draft: Draft, reward: Any, asked: Sequence[Asked], runtime: Runtime, title: str = ""
) -> None:
    """Add the stage of scoring every answer with one reward."""
    n = sum(one.n for one in asked)
    stage = Stage(
        title or f"scoring {reward.name}", "score", f"score.{reward.name}", items=n, unit="answers"
    )
    if reward.kind == "reward_model":
        location = model_location(reward.model)
        card = light_card(location, runtime.trust_remote_code)
        found = sequences(Renderer(card.tokenizer, card.limit, card.reference), asked)
        add_verdict(draft, f"reward {reward.name}", card, found)
        device = pick_device(runtime.device)
        budget = runtime.batch_tokens or reward_model.BATCH_TOKENS.get(device.type, 32768)
        stage.model, stage.unit = location, "tokens"
        stage.tokens, stage.tokens_from = found.tokens, found.basis
        stage.need = reading_need(location, runtime, budget, found, 0, classifies=True)
        stage.host = host_bytes(location, runtime)
    elif getattr(reward, "teacher", None) is not None:
        _plan_judge(draft, stage, reward, asked, runtime)
    else:
        stage.tokens, stage.free = n, reward.kind != "verifier" or reward.function == "lab"
    draft.stages.append(stage)


def _plan_judge(
    draft: Draft, stage: Stage, reward: Any, asked: Sequence[Asked], runtime: Runtime
) -> None:
    """A judge reads its question with the texts in it, once an answer or once an order."""
    teacher = reward.teacher
    compared = hasattr(reward, "baseline")
    orders, shown = (2, 2) if compared else (1, 1)
    question = reward.prompt or PACKAGED / f"{reward.kind}.txt"
    with open(question, encoding="utf-8") as file:
        text = file.read()
    card = local_card(teacher, runtime)
    new = 1 if reward.kind == "pairwise_logprob" else teacher.max_new_tokens
    prompt, longest = 0.0, 0
    for one in asked:
        known = [text for text in (*one.responses, *one.others) if text is not None]
        answer = statistics.fmean(map(len, known)) if known else one.generated * CHARACTERS
        own = statistics.fmean(map(len, one.instructions)) + shown * answer + len(text)
        prompt += orders * one.n * own / CHARACTERS
        longest = max(
            longest,
            max(map(len, one.instructions)) + shown * max(map(len, known), default=round(answer)),
        )
    requests = orders * stage.items
    stage.items, stage.model, stage.unit = requests, teacher.model, "generated tokens"
    stage.prompt_tokens, stage.generated_tokens = round(prompt), requests * new
    stage.tokens, stage.tokens_from = requests * new, EXACT if new == 1 else BOUND
    price = getattr(teacher, "price", None)
    if price is not None:
        stage.money = (price.input * prompt + price.output * stage.generated_tokens) / 1e6
    if card is None:
        stage.here = False
        return
    widest = round((longest + len(text)) / CHARACTERS)
    if teacher.kind == "transformers":
        batch = {f"{reward.name}: batch_size": teacher.batch_size}
        stage.need = generating_need(card.reference, runtime, widest, new, batch)
    if widest + 1 > card.limit:
        draft.refusals.append(
            Refusal(
                "the judge's prompts are longer than it can read",
                f"reward {reward.name}",
                f"about {widest:,} tokens, limit {card.limit:,}",
                "use a judge with a longer limit, or drop the longest answers",
            )
        )
