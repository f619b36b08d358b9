"""What a study's answers take: teachers asked at every point, and rewards of all answers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from preceptor.core.types import Decoding, Runtime
from preceptor.data.answer_store import AnswerStore
from preceptor.data.answer_table import Answers
from preceptor.data.answers import read_instructions, read_recorded
from preceptor.data.paired import pair
from preceptor.data.sources import read_source
from preceptor.models.load import pick_device
from preceptor.recipes.ask import points_of
from preceptor.recipes.inputs.respondents import open_teacher, requests_of
from preceptor.recipes.planning.asking import (
    CHARACTERS,
    Asked,
    generating_need,
    known_size,
    plan_asking,
    vllm_need,
)
from preceptor.recipes.planning.benchmarks import ANSWER, JUDGE, QUESTION
from preceptor.recipes.planning.distant import TABLES, Named, at_hand, billions_of, located
from preceptor.recipes.planning.draft import ASSUMED, BOUND, EXACT, UNKNOWN, Draft, Stage
from preceptor.recipes.planning.scoring import (
    Sequences,
    plan_reward,
    reading_need,
    recorded_as_asked,
)
from preceptor.recipes.settings.asking import Ask
from preceptor.recipes.settings.shared import Source, teacher_name
from preceptor.recipes.settings.study import Study
from preceptor.rewards import reward_model


@dataclass(frozen=True)
class Learned:
    """One source: what a student learns from, as far as it is known.

    Attributes:
        model: checkpoint of the teacher; "" where there is none.
        asked: an answer an instruction.
        longest: tokens that an answer may have.
    """

    name: str
    model: str
    asked: Asked
    longest: int


@dataclass(frozen=True)
class Pool:
    """Instructions and recorded answers of a study, read where they are on this machine.

    Attributes:
        texts: of the instructions; empty where they are not here.
        n: how many; None where nothing tells.
        recorded: answers by teacher; without texts where they are not here.
        n_unread: tables of which not even the number of teachers is known.
        published: how the counts of a table on the hub are known, by table.
    """

    settings: Study
    texts: list[str]
    n: int | None
    recorded: list[Asked]
    n_unread: int
    published: dict[str, str]

    @property
    def prompt(self) -> float:
        """Mean tokens of an instruction, about."""
        texts = self.texts or [text for one in self.recorded for text in one.instructions]
        return statistics.fmean(map(len, texts)) / CHARACTERS if texts else QUESTION

    @property
    def longest_prompt(self) -> int:
        texts = self.texts or [text for one in self.recorded for text in one.instructions]
        return round(max(map(len, texts)) / CHARACTERS) if texts else 4 * QUESTION


def open_pool(settings: Study) -> Pool:
    """Read what is here of a study's instructions and answers (raises DataError)."""
    texts: list[str] = []
    n, limit = settings.max_instructions, settings.max_instructions
    if settings.instructions is not None and at_hand(settings.instructions):
        texts = _texts(settings.instructions, limit)
        n = len(texts)
    near = [source for source in settings.answers if at_hand(source)]
    far = [source for source in settings.answers if not at_hand(source)]
    recorded: list[Asked] = []
    if near:
        parts = [
            read_recorded(read_source(own.path, own.split), own.columns.model_dump(), own.path)
            for own in near
        ]
        paired = pair(Answers.join(parts), 0.01, limit)
        held = len(paired.instruction_ids)
        n = held if n is None else min(n, held)
        recorded = [
            recorded_as_asked(paired.answers[place * held : (place + 1) * held], name)
            for place, name in enumerate(paired.teachers)
        ]
    told = {own.path: TABLES[own.path] for own in far if own.path in TABLES}
    for path, table in told.items():
        n = min(n or table.instructions, table.instructions)
        recorded += [Asked(f"{path} {i + 1}", [], [], n) for i in range(table.teachers)]
    published = {path: table.source for path, table in told.items()}
    return Pool(settings, texts, n, recorded, len(far) - len(told), published)


def _texts(source: Source, limit: int | None) -> list[str]:
    table = read_source(source.path, source.split, limit)
    rows = read_instructions(table, source.columns.model_dump(), source.path, limit)
    return [text for _, text, _ in rows]


def place_of_teacher(settings: Study, teacher: Any) -> str:
    """Where a teacher's checkpoint is; "" for servers and own code."""
    if teacher.kind not in ("transformers", "vllm"):
        return ""
    facts = (settings.selection.get("teacher_facts") or {}).get(teacher_name(teacher)) or {}
    return located(teacher.model, facts.get("size"))


def picks(settings: Study, point: Decoding) -> list[str]:
    """The sources at a point, as `list_sources` of the recipe names them."""
    if point.greedy:
        return ["greedy"]
    drawn = [pick for pick in settings.picks if pick != "greedy"]
    return drawn if settings.decodings.samples > 1 or not drawn else ["one"]


def plan_asked(
    draft: Draft, pool: Pool, runtime: Runtime, store: AnswerStore
) -> tuple[list[Learned], list[Asked]]:
    """Add the asking of every live teacher at every point.

    Returns:
        The sources, in the order of the recipe, and all answers that rewards score.
    """
    n, asking = pool.n or 0, cast(Ask, pool.settings)  # its grid is read, and nothing else
    learned: list[Learned] = []
    scored: list[Asked] = []
    for teacher in pool.settings.teachers:
        name, model = teacher_name(teacher), getattr(teacher, "model", "")
        place = place_of_teacher(pool.settings, teacher)
        known = bool(pool.texts) and not isinstance(place, Named)
        source = open_teacher(teacher, runtime) if known else None
        for point in points_of(asking, teacher):
            shown = f"temperature {point.temperature:g}, top-p {point.top_p:g}"
            title = f"asking {name} ({shown})"
            samples = 1 if point.greedy else pool.settings.decodings.samples
            if source is not None:
                requests = requests_of(pool.texts, point, pool.settings.seed, samples)
                asked = plan_asking(
                    draft, name, teacher, source, requests, store, runtime, title=title
                )
            else:
                asked = _ask_from_afar(draft, pool, teacher, place, point, samples, title, runtime)
            scored.append(asked)
            checkpoint = model if place else ""
            learned += [
                Learned(
                    f"{name} {shown} {pick}", checkpoint, asked.limited(n), point.max_new_tokens
                )
                for pick in picks(pool.settings, point)
            ]
    learned += [Learned(own.name, "", own.limited(n), 4 * ANSWER) for own in pool.recorded]
    return learned, [*scored, *pool.recorded]


def _ask_from_afar(
    draft: Draft,
    pool: Pool,
    teacher: Any,
    place: str,
    point: Decoding,
    samples: int,
    title: str,
    runtime: Runtime,
) -> Asked:
    """A teacher, or instructions, that are not on this machine."""
    name, items = teacher_name(teacher), (pool.n or 0) * samples
    tokens = items * min(ANSWER, point.max_new_tokens)
    price = getattr(teacher, "price", None)
    per_minute = getattr(teacher, "requests_per_minute", None)
    basis = BOUND if point.max_new_tokens <= ANSWER else ASSUMED
    fleet = getattr(teacher, "fleet", None) or pool.settings.fleet
    stage = Stage(
        title,
        "ask",
        f"ask.{name}",
        model=getattr(teacher, "model", "") or name,
        items=items,
        prompt_tokens=round(items * pool.prompt),
        generated_tokens=tokens,
        tokens=tokens,
        unit="generated tokens",
        tokens_from=UNKNOWN if pool.n is None else basis,
        here=bool(place) and not isinstance(place, Named),
        workers=fleet.workers if isinstance(fleet.workers, int) else fleet.workers[1],
        least_seconds=60 * items / per_minute if per_minute else 0.0,
    )
    if price is not None:
        stage.money = (price.input * stage.prompt_tokens + price.output * tokens) / 1e6
    if place and (not isinstance(place, Named) or billions_of(place)):
        longest, new = pool.longest_prompt, point.max_new_tokens
        if teacher.kind == "vllm":
            own = teacher.model_copy(update={"model": place})
            stage.need = vllm_need(own, runtime, longest + new)
        else:
            rows = {"batch_size": teacher.batch_size}
            stage.need = generating_need(place, runtime, longest, new, rows)
    draft.stages.append(stage)
    return Asked(name, [], [], items, generated=min(ANSWER, point.max_new_tokens), bound=True)


def lengths(pool: Pool, asked: Sequence[Asked], longest: int, limit: int) -> Sequences:
    """Sequences of which no text is known: an instruction and an answer of assumed lengths."""
    n = sum(one.n for one in asked)
    prompt = pool.prompt
    answer = statistics.fmean([one.generated or ANSWER for one in asked] or [ANSWER])
    mean = min(limit, round(prompt + answer) + 1)
    return Sequences(
        n=n,
        tokens=round(n * mean),
        scored=round(n * answer),
        scored_once=round(n * answer),
        distinct=n,
        bare=round(n * (answer + 1)),
        longest=min(limit, pool.longest_prompt + longest),
        longest_response=min(limit, longest),
        truncated=0.0,
        lengths=[mean],
        basis=UNKNOWN if pool.n is None else ASSUMED,
    )


def plan_scored(
    draft: Draft, pool: Pool, scored: Sequence[Asked], runtime: Runtime
) -> dict[str, float]:
    """Add the scoring of all answers by every reward.

    Returns:
        Parameters of the reward models that are not on this machine, by the name of their rate.
    """
    known = all(one.instructions for one in scored)
    parameters: dict[str, float] = {}
    for reward in pool.settings.rewards:
        own: Any = reward
        teacher = getattr(own, "teacher", None)
        model = own.model if own.kind == "reward_model" else getattr(teacher, "model", "")
        local = own.kind == "reward_model" or getattr(teacher, "kind", "") in (
            "transformers",
            "vllm",
        )
        place = located(model) if local else ""
        if known and not isinstance(place, Named):
            plan_reward(draft, reward, scored, runtime)
        elif own.kind == "reward_model":
            _score_from_afar(draft, pool, own, place, scored, runtime)
            if isinstance(place, Named) and (told := billions_of(place)):
                parameters[f"score.{own.name}"] = told[1] * 1e9
        elif teacher is not None:
            _judge_from_afar(draft, pool, own, scored)
        else:
            n = sum(one.n for one in scored)
            free = own.kind != "verifier" or own.function == "lab"
            draft.stages.append(
                Stage(
                    f"scoring {own.name}",
                    "score",
                    f"score.{own.name}",
                    items=n,
                    tokens=n,
                    unit="answers",
                    tokens_from=UNKNOWN if pool.n is None else EXACT,
                    free=free,
                )
            )
    return parameters


def _score_from_afar(
    draft: Draft, pool: Pool, reward: Any, place: str, scored: Sequence[Asked], runtime: Runtime
) -> None:
    """A reward model, or answers, that are not on this machine."""
    found = lengths(pool, scored, 4 * ANSWER, 1 << 20)
    budget = runtime.batch_tokens or reward_model.BATCH_TOKENS.get(
        pick_device(runtime.device).type, 32768
    )
    stage = Stage(
        f"scoring {reward.name}",
        "score",
        f"score.{reward.name}",
        model=str(reward.model),
        items=found.n,
        tokens=found.tokens,
        tokens_from=found.basis,
        here=not isinstance(place, Named),
    )
    if not isinstance(place, Named) or billions_of(place):
        stage.need = reading_need(place, runtime, budget, found, 0, classifies=True)
        stage.host = known_size(place, runtime.trust_remote_code, True).parameters * 4
    draft.stages.append(stage)


def _judge_from_afar(draft: Draft, pool: Pool, reward: Any, scored: Sequence[Asked]) -> None:
    """A judge that is not on this machine, or that reads answers which are not."""
    found = lengths(pool, scored, 4 * ANSWER, 1 << 20)
    compared = hasattr(reward, "baseline")
    calls = found.n * (2 if compared else 1)
    new = 1 if reward.kind == "pairwise_logprob" else reward.teacher.max_new_tokens
    answer = found.scored / max(found.n, 1)
    read = round(calls * (JUDGE + pool.prompt + (2 if compared else 1) * answer))
    price = getattr(reward.teacher, "price", None)
    draft.stages.append(
        Stage(
            f"scoring {reward.name}",
            "score",
            f"score.{reward.name}",
            model=reward.teacher.model,
            items=calls,
            prompt_tokens=read,
            generated_tokens=calls * new,
            tokens=calls * new,
            unit="generated tokens",
            tokens_from=found.basis,
            here=False,
            money=(price.input * read + price.output * calls * new) / 1e6 if price else 0.0,
        )
    )


def limited(learned: Learned, n: int | None) -> Asked:
    """The answers of a source, where only n of them are used."""
    return learned.asked if n is None else replace(learned.asked, n=min(n, learned.asked.n))
