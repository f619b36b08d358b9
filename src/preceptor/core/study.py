"""What `study.json` holds: bases x sources x arms x seeds, and what became of every student.

A source is a set of answers to the same instructions. The outcome (AP) of a student is the mean of
the study's measures; higher is better.

Intervals are percentile intervals of a bootstrap over the items of every benchmark (the same draw
for all students of the study) and over seeds. Of S seeds, S - 1 are drawn with replacement, so that
the variance is that of a mean of S (Rao and Wu 1988, JASA 83, section 2); of one seed nothing is
known of the spread, and the interval is over items alone.

`docs/reference/run-folder.md` describes every key.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from preceptor.core.comparison import Comparison, Measured

STUDY, STUDY_PAGE, OUTCOMES = "study.json", "study.html", "outcomes.json"
STUDY_VERSION = 1


class StudySource(TypedDict):
    """A set of answers that students learn from."""

    name: str
    teacher: str
    temperature: float | None  # None where nobody noted it
    top_p: float | None
    pick: str  # one | best | worst | greedy
    samples: NotRequired[int]  # of an instruction at this point, the most of any
    family: str | None
    size: float | None  # of the teacher, in billions of parameters


class StudyOutcome(TypedDict):
    """What the outcome is the mean of."""

    title: str
    measures: list[str]  # BENCHMARK.MEASURE


class StudyCell(TypedDict):
    """One training and its exam."""

    base: str
    source: str
    arm: str
    seed: int
    status: Literal["done", "left", "failed"]
    outcome: float | None  # None where it is not done, or where some measure does not exist
    scores: dict[str, float | None]  # BENCHMARK.MEASURE -> score
    seconds: float | None  # of training and exam
    folder: str  # below the folder of the study
    reason: str  # of a failure


class StudyRow(TypedDict):
    """The students of one base, source and arm together."""

    base: str
    source: str
    arm: str
    outcome: Measured
    seeds: int  # that are done
    rank: int | None  # among the sources of the same base and arm; 1 is the best
    rank_low: int | None  # the interval of the rank, on the same resamples
    rank_high: int | None


class StudyBase(TypedDict):
    """A base before any training."""

    base: str
    outcome: float | None
    low: float | None  # over items
    high: float | None
    scores: dict[str, float | None]


class Largest(TypedDict):
    """The largest teacher of those whose size is known, on one base (first arm)."""

    base: str
    source: str
    size: float
    rank: int
    low: int  # the interval of the rank
    high: int
    of: int  # sources that are ranked


class Family(TypedDict):
    """Teachers of one family, smallest first, on one base (first arm)."""

    base: str
    family: str
    sources: list[str]
    sizes: list[float]  # billions of parameters
    outcome: list[float]
    largest_is_best: bool
    spearman: float | None  # of size and outcome; None of fewer than three
    # of each teacher less the next smaller one of the family: sources[i + 1] - sources[i]
    steps: list[Measured]


class StudyBudget(TypedDict):
    """A study that was not to take longer."""

    hours: float
    used: float  # hours of this invocation
    order: list[str]  # folders of the cells that this invocation began, in their order


class StudySentence(TypedDict):
    """A sentence of the verdict."""

    kind: str  # best | base | arms | criteria | paradox | left | failed
    text: str


class Study(TypedDict):
    """The whole of `study.json`."""

    version: int
    confidence: float
    n_resamples: int
    seed: int
    bases: list[str]
    sources: list[StudySource]
    arms: list[str]
    seeds: list[int]
    n_instructions: int  # that every source answered; students learn from these
    outcome: StudyOutcome
    cells: list[StudyCell]
    matrix: list[StudyRow]
    base_scores: list[StudyBase]
    criteria: Comparison | None  # as compare.json; None where too few outcomes are known
    largest: list[Largest]
    paradox: list[Family]
    paradox_words: list[str]
    budget: StudyBudget | None
    verdict: list[StudySentence]
    warnings: list[str]
    facts: dict[str, Any]  # hours of all cells, mean seconds of a cell
