"""What a benchmark is: questions, marks for the answers to them, and scores of weighted marks.

A benchmark grades one examinee at a time, and item by item; what its judge said, and what else a
formula needs, is kept as marks. Scores are functions of marks and weights alone, so that intervals,
categories and paired differences come from the same formula, without asking anybody again.

Shapes: N items of a benchmark, R weightings of the items (one for a point, many for resamples).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from preceptor.core.types import Reply


@dataclass(frozen=True)
class Question:
    """One item of a benchmark.

    Attributes:
        key: of the item, unique within the benchmark.
        turns: what the user says, turn by turn; at least one.
        category: "" where the benchmark has none.
        temperature: of the examinee's answer, where the benchmark says so; None leaves it to the
            examinee's own decoding.
        row: the other columns of the item (a reference, constraints ...).
    """

    key: str
    turns: tuple[str, ...]
    category: str = ""
    temperature: float | None = None
    row: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Exchange:
    """What an examinee replied to a question: a reply a turn.

    Attributes:
        row: columns that came with a recorded answer; empty for live ones.
    """

    question: Question
    replies: tuple[Reply, ...]
    row: Mapping[str, Any] = field(default_factory=dict)

    @property
    def response(self) -> str:
        """The reply to the last turn."""
        return self.replies[-1].response


@dataclass(frozen=True)
class Examinee:
    """A model that sits benchmarks.

    Attributes:
        name: in tables; unique within a run.
        location: folder or hub id of its checkpoint; "" where it sits behind a server, or only its
            recorded answers are known.
    """

    name: str
    location: str = ""


@dataclass(frozen=True)
class Game:
    """One comparison of two answers that a judge was shown.

    Attributes:
        key: of the item.
        turn: number of the turn that is judged, from 0.
        first: whether the examinee's answer was the first that the judge saw.
        preference: of the examinee's answer, in [0, 1]; 1 it wins, 0.5 a tie, NaN where the reply
            cannot be read.
        length_gap: characters of the examinee's answer minus those of its rival.
        reply: what the judge wrote.
    """

    key: str
    turn: int
    first: bool
    preference: float
    length_gap: int
    reply: str = ""


@dataclass(frozen=True)
class Marks:
    """Numbers of one examinee on the items of a benchmark.

    Attributes:
        keys: of the items, in the order of the questions.
        categories: of the items, in the same order.
        values: name -> float64 of shape (N,); NaN where an item has no such number (a reply of the
            judge that cannot be read).
    """

    keys: tuple[str, ...]
    categories: tuple[str, ...]
    values: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Graded:
    """What grading one examinee gave.

    Attributes:
        games: every comparison of the judge, for its calibration; empty where none was made.
        facts: counts for the provenance ("unreadable", say).
    """

    marks: Marks
    games: tuple[Game, ...] = ()
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Measure:
    """A number that a benchmark gives each examinee.

    Attributes:
        name: in tables and in conditions (`alpaca_eval.win_rate`).
        title: for readers, in a few words.
        low, high: the ends of its scale; -inf or inf where it has none.
        direction: which end is better.
        item: name of the marks whose mean it is; "" where it is no mean. Items are compared one by
            one where there is one: McNemar's test where the marks are 0 or 1.
        source: paper and equation.
    """

    name: str
    title: str
    low: float = 0.0
    high: float = 100.0
    direction: Literal["higher", "lower"] = "higher"
    item: str = ""
    source: str = ""


Scorer = Callable[[str, np.ndarray], Mapping[str, np.ndarray]]
"""(name of an examinee, weight_RN >= 0) -> name of a measure -> (R,); NaN where the weights leave
nothing to score."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark, ready. Opening one reads its questions and checks its settings; no weights.

    Attributes:
        name: in tables; unique within a run.
        questions: what examinees are asked; empty where the benchmark asks them itself.
        measures: what it gives; the first is the one that it is known by.
        grade: marks of one examinee; judges are asked through the run's answer store, so that what
            was judged is not judged again. Exchanges come in the order of the questions.
        score: from the marks of all examinees, a scorer of each of them. Fits what they share (item
            difficulties, say) once; weights of all ones give the points.
        max_new_tokens: longest answer of an examinee.
        fingerprint: of questions, judge and prompts: what marks depend on beside the answers.
        facts: of the run, for the provenance (calibration on known labels, say).
        recorded: the column of recorded answers that marks are read from, if they are; live models
            cannot sit such a benchmark.
    """

    name: str
    questions: tuple[Question, ...]
    measures: tuple[Measure, ...]
    grade: Callable[[Examinee, Sequence[Exchange]], Graded]
    score: Callable[[Mapping[str, Marks]], Scorer]
    max_new_tokens: int = 512
    fingerprint: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    recorded: str = ""


def mean_scorer(measures: Sequence[Measure], scale: float = 1.0) -> Any:
    """A `score` for benchmarks whose measures are weighted means of marks (NaN left out).

    Args:
        scale: what means are multiplied by (100 for per cent).
    """

    def score(marks: Mapping[str, Marks]) -> Scorer:
        def of(name: str, weight_RN: np.ndarray) -> dict[str, np.ndarray]:
            values = marks[name].values
            return {m.name: scale * weighted_mean(values[m.item], weight_RN) for m in measures}

        return of

    return score


def weighted_mean(value_N: np.ndarray, weight_RN: np.ndarray) -> np.ndarray:
    """Mean over the items that have a value, shape (R,); NaN where no weight is on any of them."""
    known_N = np.isfinite(value_N)
    weight_RN = weight_RN * known_N
    total_R = weight_RN.sum(axis=1)
    sum_R = weight_RN @ np.where(known_N, value_N, 0.0)
    return np.divide(sum_R, total_R, out=np.full(len(total_R), np.nan), where=total_R > 0)
