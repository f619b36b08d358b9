"""What benchmarks take: answers of the examined, and calls of judges.

A table that is on this machine is read; of one that is not, published counts stand in.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from preceptor.core.types import Runtime
from preceptor.data.answers import USUAL
from preceptor.data.chat_server import HOSTED
from preceptor.data.sources import read_source
from preceptor.recipes.examining.examinees import open_benchmark
from preceptor.recipes.planning.asking import CHARACTERS, generating_need, itemsize, known_size
from preceptor.recipes.planning.distant import Named, at_hand, billions_of
from preceptor.recipes.planning.draft import ASSUMED, BOUND, UNKNOWN, Draft, Stage
from preceptor.recipes.settings.benchmarks import BenchmarkSetting, benchmark_name
from preceptor.recipes.settings.shared import OpenAITeacher, Source, Teacher, teacher_name

ANSWER = 500  # tokens of an answer of which nothing is known, or as many as it may have
QUESTION = 60  # tokens of a question of which nothing is known
JUDGE = 300  # tokens of a judge's question beside the texts in it
PUBLISHED = {  # questions: arXiv 2404.04475; 2406.11939 and its version 2.0; 2306.05685
    "alpaca_eval": 805,
    "arena_hard v0.1": 500,
    "arena_hard v2.0": 750,
    "mt_bench": 80,
}
TURNS = {"mt_bench": 2}
ASKED_BY_US = ("alpaca_eval", "arena_hard", "mt_bench", "verifiable", "lab")
KEY = "OPENAI_API_KEY"


@dataclass(frozen=True)
class Sheet:
    """One benchmark, as far as it is known without asking anybody.

    Attributes:
        n: questions; None where they are not known here.
        turns: of a question.
        texts: the first turns, where the table is on this machine.
        prompt, longest: mean and most tokens of a question, about.
        new: longest answer.
        calls: of the judge, for each question and model.
        verdict: tokens of the judge's reply, at most.
        basis: how the number of questions is known.
    """

    name: str
    kind: str
    setting: BenchmarkSetting
    n: int | None
    turns: int
    texts: tuple[str, ...]
    prompt: float
    longest: int
    new: int
    calls: int
    verdict: int
    basis: str

    @property
    def judge(self) -> Teacher | None:
        return getattr(self.setting, "judge", None)

    @property
    def answer(self) -> int:
        """Tokens that an answer counts as."""
        return min(ANSWER, self.new)


def read_sheet(setting: Any, runtime: Runtime) -> Sheet:
    """What a benchmark's setting tells (raises DataError: a table that cannot be read)."""
    texts, turns = _texts(setting, runtime)
    kind = f"arena_hard {setting.version}" if setting.kind == "arena_hard" else setting.kind
    n, basis = (len(texts), "its table") if texts else (PUBLISHED.get(kind), "what is published")
    if n is not None and not texts and setting.max_questions is not None:
        n = min(n, setting.max_questions)
    if n is None and setting.kind in ASKED_BY_US:
        n, basis = setting.max_questions, "max_questions"
    if n is not None and not texts and getattr(setting, "unconstrained", ""):
        n *= 2  # each is also asked without its constraints
    lengths = [len(text) / CHARACTERS for text in texts] or [QUESTION]
    calls, verdict = _calls(setting, turns)
    return Sheet(
        benchmark_name(setting),
        setting.kind,
        setting,
        n,
        turns,
        tuple(texts[:n]),
        statistics.fmean(lengths),
        round(max(lengths)),
        setting.max_new_tokens,
        calls,
        verdict,
        basis,
    )


def _texts(setting: Any, runtime: Runtime) -> tuple[list[str], int]:
    """(first turns, turns) of a benchmark whose questions are on this machine; ([], turns) else.

    One without a judge is opened as the run opens it; a harness asks its own questions.
    """
    turns = TURNS.get(setting.kind, 1)
    source = getattr(setting, "questions", None)
    if setting.kind == "lm_eval" or (source is not None and not at_hand(source)):
        return [], turns
    if source is None or setting.kind == "verifiable":
        questions = open_benchmark(setting, runtime).questions
        return [own.turns[0] for own in questions], max(
            (len(q.turns) for q in questions), default=1
        )
    table = read_source(source.path, source.split, setting.max_questions)
    return questions_of(table, source)[: setting.max_questions], turns


def questions_of(table: pa.Table, source: Source) -> list[str]:
    """The first turn of each row; empty texts where the table has no known column for it."""
    names = (source.columns.instruction, *USUAL["instruction"], "turns")
    column = next((name for name in names if name and name in table.column_names), None)
    if column is None:
        return [""] * table.num_rows
    return [_first(value) for value in table[column].to_pylist()]


def _first(value: Any) -> str:
    """A text, or the first of several turns, each a text or a message."""
    value = value[0] if isinstance(value, list) and value else value
    return str(value.get("content", "") if isinstance(value, dict) else value)


def _calls(setting: Any, turns: int) -> tuple[int, int]:
    """(calls of the judge for a question, tokens of its reply)."""
    judge = getattr(setting, "judge", None)
    if judge is None:
        return 0, 0
    if setting.kind == "alpaca_eval":
        return 1 + bool(setting.swap), 1  # the probabilities of the labels are read
    if setting.kind == "arena_hard":
        return 2, judge.max_new_tokens
    pairwise = getattr(setting, "protocol", "single") == "pairwise"
    return turns * (2 if pairwise else 1), judge.max_new_tokens


def plan_answers(
    draft: Draft,
    sheet: Sheet,
    who: str,
    place: str,
    runtime: Runtime,
    *,
    rate: str,
    models: int = 1,
    batch: int = 64,
    workers: int = 1,
    price: Any = None,
) -> None:
    """Add the stage of examinees that answer a benchmark.

    Args:
        who: named in the stage.
        place: of the checkpoint, or of the base of all of them; a `Named` is not compared with this
            machine's memory; "" for one behind a server.
        models: how many answer.
        workers: that share the work.
        price: money for a million tokens.
    """
    items = models * (sheet.n or 0)
    written = items * sheet.turns * sheet.answer
    # a later turn is asked with all that was said before
    read = sum(sheet.prompt * (turn + 1) + sheet.answer * turn for turn in range(sheet.turns))
    stage = Stage(
        f"{sheet.name}: {who}",
        "ask",
        rate,
        model=place or who,
        items=items,
        prompt_tokens=round(items * read),
        generated_tokens=written,
        tokens=written,
        unit="generated tokens",
        tokens_from=_basis(sheet),
        here=bool(place) and not isinstance(place, Named),
        workers=workers,
    )
    if price is not None:
        stage.money = (price.input * stage.prompt_tokens + price.output * written) / 1e6
    if place and (not isinstance(place, Named) or billions_of(place)):
        longest = round(sheet.turns * sheet.longest + (sheet.turns - 1) * sheet.new)
        rows = {"batch_size": min(batch, max(sheet.n or batch, 1))}
        stage.need = generating_need(place, runtime, longest, sheet.new, rows)
        stage.host = known_size(place, runtime.trust_remote_code).parameters * itemsize(
            runtime, runtime.dtype
        )
    draft.stages.append(stage)


def _basis(sheet: Sheet) -> str:
    if sheet.n is None:
        return UNKNOWN
    return BOUND if sheet.new <= ANSWER else ASSUMED


def plan_judging(draft: Draft, sheet: Sheet, models: int) -> None:
    """Add the calls of a benchmark's judge for so many models, and what they cost."""
    judge = sheet.judge
    if judge is None or not sheet.calls:
        return
    calls = models * (sheet.n or 0) * sheet.calls
    shown = 1 if getattr(sheet.setting, "protocol", "") == "single" else 2
    read = round(calls * (JUDGE + sheet.prompt + shown * sheet.answer))
    written = calls * sheet.verdict
    price = getattr(judge, "price", None)
    per_minute = getattr(judge, "requests_per_minute", None)
    draft.stages.append(
        Stage(
            f"{sheet.name}: judged by {teacher_name(judge)}",
            "score",
            f"score.{sheet.name}",
            model=getattr(judge, "model", ""),
            items=calls,
            prompt_tokens=read,
            generated_tokens=written,
            tokens=written,
            unit="generated tokens",
            tokens_from=_basis(sheet) if sheet.n is None else f"{BOUND}; {sheet.calls} a question",
            here=False,
            money=(price.input * read + price.output * written) / 1e6 if price else 0.0,
            least_seconds=60 * calls / per_minute if per_minute else 0.0,
        )
    )


def keys_missing(judges: Sequence[Teacher | None]) -> list[str]:
    """Environment variables with a server's key that the run will need, and that are not set."""
    wanted = [
        own.key_env or ("" if own.url and own.url != HOSTED else KEY)
        for own in judges
        if isinstance(own, OpenAITeacher)
    ]
    return sorted({name for name in wanted if name and name not in os.environ})


def note_unread(draft: Draft, sheets: Sequence[Sheet]) -> None:
    """Say which benchmarks cannot be counted, and which keys are missing."""
    for sheet in sheets:
        if sheet.n is not None:
            draft.notes.append(f"{sheet.name}: {sheet.n:,} questions, from {sheet.basis}")
        else:
            draft.notes.append(
                f"{sheet.name}: how many questions it asks is not known before it runs"
                + ("; max_questions tells" if sheet.kind in ASKED_BY_US else "")
            )
    for name in keys_missing([sheet.judge for sheet in sheets]):
        draft.notes.append(f"the run needs a server's key in {name}, which is not set here")
