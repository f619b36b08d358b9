"""AlpacaEval 2: answers against a baseline's, by the probability that a judge prefers them.

Source: Dubois et al., arXiv 2404.04475 (length control); the preference is the probability of the
judge's label, as `weighted_alpaca_eval_gpt4_turbo` of the public code reads it.

Shapes: M examinees, N questions, R weightings of the questions.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from preceptor.benchmarks.conversations.questions import Asked, read_questions
from preceptor.benchmarks.formulas import length_controlled
from preceptor.benchmarks.judged.labelled import Labels, open_labels
from preceptor.benchmarks.judged.pairwise import (
    BOTH,
    Opponent,
    counts,
    open_judge,
    open_opponent,
    pairs_of,
    play,
)
from preceptor.core.benchmark import (
    Benchmark,
    Examinee,
    Exchange,
    Game,
    Graded,
    Marks,
    Measure,
    Scorer,
    weighted_mean,
)
from preceptor.core.errors import DataError, SettingsError, nearest
from preceptor.core.types import Runtime
from preceptor.rewards.judging.games import FIRST, SECOND
from preceptor.rewards.judging.judge_model import JudgeModel
from preceptor.rewards.pairwise_logprob import ONE_TOKEN, first_better

PAPER = "arXiv 2404.04475"
MEASURES = (
    Measure("length_controlled", "length-controlled win rate", source=f"{PAPER}, section 3"),
    Measure("win_rate", "win rate", item="preference", source=f"{PAPER}, section 2"),
    Measure("discrete_win_rate", "share of wins, ties half", source=f"{PAPER}, section 2"),
    Measure(
        "mean_length", "characters of an answer", high=math.inf, direction="lower", item="length"
    ),
)
JOINT = "joint"

Preferences = Callable[[Sequence[Exchange], Mapping[str, str]], tuple[dict[str, float], list[Game]]]
"""(exchanges, key -> the baseline's answer) -> key -> preference, and the games behind them."""


def open_benchmark(setting: Any, runtime: Runtime) -> Benchmark:
    """Win rates against a baseline, raw and length-controlled, in per cent.

    The preference for an answer is P(A) or P(B), by where it stood, from the judge's
    log-probabilities of these labels as the first token of its reply; one token is generated,
    greedily, whatever the judge's own decoding. Each pair is judged once, in an order that the
    run's seed draws for the question, the same for every examinee; with `swap`, in both orders, and
    the two preferences averaged. A game without both log-probabilities has no preference, and
    neither has an item that lost a game. An answer that is the baseline's own, word for word, has
    1/2 and is not judged.

    With `recorded`, preferences are read from that column of the recorded answers, and nobody is
    asked.

    Marks: `preference`, `length` and `length_gap` (to the baseline's answer), in characters.
    Facts of grading: see `pairwise.counts`.

    Raises:
        SettingsError: not exactly one of `judge` and `recorded`, or a prompt that cannot be used.
        DataError: questions, baseline, labels or difficulties that cannot be read; while grading,
            no reply with both log-probabilities, or a recorded preference outside of [0, 1].
        ModelError: a judge or baseline that cannot be opened.
    """
    asked = read_questions(setting, (), ("category", "dataset"))
    opponent = open_opponent(setting, runtime, asked.questions)
    difficulty_N = _difficulties(setting, asked)
    facts: dict[str, Any] = {}
    made = {"questions": asked.fingerprint, "baseline": opponent.fingerprint}
    labels: Labels | None = None
    if setting.recorded:
        _refuse_a_judge(setting)
        prefer = _recorded(setting)
        made["recorded"] = setting.recorded
    else:
        judge = open_judge(setting, runtime, "alpaca_eval", ONE_TOKEN, (FIRST, SECOND))
        labels = open_labels(setting, judge, first_better, facts)
        order = "both" if setting.swap else f"drawn with seed {runtime.seed}"
        prefer = _judged(judge, _orders(setting, runtime))
        made |= {"judge": judge.fingerprint(), "order": order}
        if labels is not None:
            made["labels"] = labels.fingerprint

    def grade(examinee: Examinee, exchanges: Sequence[Exchange]) -> Graded:
        if labels is not None:
            labels.ask()
        return _grade(asked, opponent, prefer, exchanges)

    return Benchmark(
        name=setting.name,
        questions=asked.questions,
        measures=MEASURES,
        grade=grade,
        score=lambda marks: _scorer(marks, difficulty_N),
        max_new_tokens=setting.max_new_tokens,
        fingerprint=json.dumps(made, sort_keys=True),
        facts=facts,
        recorded=setting.recorded,
    )


def _refuse_a_judge(setting: Any) -> None:
    if setting.judge is not None or setting.labels is not None:
        raise SettingsError(
            "recorded preferences are not judged",
            where=f"benchmark {setting.name!r}",
            found="`recorded` beside `judge` or `labels`",
            next_step="leave out `recorded`, or the judge and its labels",
        )


def _difficulties(setting: Any, asked: Asked) -> np.ndarray | None:
    """Of the questions, from a column; None where they are fitted (raises DataError)."""
    column = setting.difficulty
    if column == JOINT:
        return None
    values = [own.row.get(column) for own in asked.questions]
    for own, value in zip(asked.questions, values, strict=True):
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise DataError(
                f"a question has no number in the column {column!r}",
                where=f"benchmark {setting.name!r}: difficulty, question {own.key}",
                found=repr(value) if column in own.row else nearest(column, own.row),
                next_step="name a column of numbers, or leave it at `joint`",
            )
    return np.array(values, dtype=np.float64)


def _orders(setting: Any, runtime: Runtime) -> Callable[[str], tuple[bool, ...]]:
    """In which orders a question's pair is judged."""

    def drawn(key: str) -> tuple[bool, ...]:
        digest = hashlib.blake2b(f"{runtime.seed}\n{key}".encode(), digest_size=1).digest()
        return (bool(digest[0] & 1),)

    return (lambda key: BOTH) if setting.swap else drawn


def _judged(judge: JudgeModel, orders: Callable[[str], tuple[bool, ...]]) -> Preferences:
    def prefer(
        exchanges: Sequence[Exchange], rivals: Mapping[str, str]
    ) -> tuple[dict[str, float], list[Game]]:
        pairs, identical = pairs_of(exchanges, rivals, orders)
        games = play(judge, pairs, first_better)
        found = dict.fromkeys(identical, 0.5)
        parts: dict[str, list[float]] = {}
        for game in games:
            parts.setdefault(game.key, []).append(game.preference)
        return found | {key: math.fsum(own) / len(own) for key, own in parts.items()}, games

    return prefer


def _recorded(setting: Any) -> Preferences:
    def prefer(
        exchanges: Sequence[Exchange], rivals: Mapping[str, str]
    ) -> tuple[dict[str, float], list[Game]]:
        return {own.question.key: _preference(setting, own) for own in exchanges}, []

    return prefer


def _preference(setting: Any, own: Exchange) -> float:
    """The recorded preference of an answer; NaN where the row holds none (raises DataError)."""
    column = setting.recorded
    value = own.row.get(column)
    if column in own.row and value is None:
        return math.nan
    number = float(value) if isinstance(value, int | float) else math.inf
    if math.isnan(number) or 0 <= number <= 1:
        return number
    counted = 1 < number <= 2
    raise DataError(
        "a recorded answer has no preference in [0, 1]",
        where=f"benchmark {setting.name!r}: recorded, question {own.question.key}",
        found=repr(value) if column in own.row else f"no {column!r}; {_hint(column, own.row)}",
        next_step="subtract 1 from preferences that count from 1 to 2, as AlpacaEval's files do"
        if counted
        else "name a column of the recorded answers: 1 where the answer wins, 0 where the baseline",
    )


def _hint(column: str, row: Mapping[str, Any]) -> str:
    return nearest(column, row) if row else "a live model has no recorded preferences"


def _grade(
    asked: Asked, opponent: Opponent, prefer: Preferences, exchanges: Sequence[Exchange]
) -> Graded:
    rivals = opponent.answers()
    preference, games = prefer(exchanges, rivals)
    length = {own.question.key: float(len(own.response)) for own in exchanges}
    gap = {key: own - len(rivals[key]) for key, own in length.items()}
    identical = sum(own.response == rivals[own.question.key] for own in exchanges)
    marks = asked.marks(preference=preference, length=length, length_gap=gap)
    return Graded(marks, tuple(games), counts(len(asked.questions), exchanges, games, identical))


def _scorer(marks: Mapping[str, Marks], difficulty_N: np.ndarray | None) -> Scorer:
    places = {name: place for place, name in enumerate(marks)}
    preference_MN, gap_MN = (
        np.stack([own.values[name] for own in marks.values()])
        for name in ("preference", "length_gap")
    )
    fitted = length_controlled.fit(preference_MN, gap_MN, difficulty_N)

    def of(name: str, weight_RN: np.ndarray) -> dict[str, np.ndarray]:
        values = marks[name].values
        preference_N = values["preference"]
        won_N = np.where(np.isnan(preference_N), np.nan, (np.sign(preference_N - 0.5) + 1) / 2)
        return {
            "length_controlled": fitted.scorer(places[name], weight_RN),
            "win_rate": 100 * weighted_mean(preference_N, weight_RN),
            "discrete_win_rate": 100 * weighted_mean(won_N, weight_RN),
            "mean_length": weighted_mean(values["length"], weight_RN),
        }

    return of
