"""What `compare.json` holds: criteria against each other, and against known outcomes.

`docs/reference/run-folder.md` describes every key.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

COMPARE, COMPARE_PAGE = "compare.json", "compare.html"
COMPARE_VERSION = 1


class Measured(TypedDict):
    """A value with its interval; None where it does not exist."""

    value: float | None
    low: float | None
    high: float | None


class Tried(Measured):
    """A value whose interval is over teachers and instructions at once, and over each alone."""

    teachers: list[float | None]  # [low, high]
    instructions: list[float | None] | None  # None where the criterion cannot be computed again


class Trial(TypedDict):
    """A criterion, or a control, against known outcomes."""

    kind: str  # reward | likelihood | reference | other | control
    first: list[str]  # whom it puts first; several where they tie
    spearman: Tried
    kendall: Tried
    regret: Tried
    p_value: float | None  # of spearman; None for means over bases


class Difference(Measured):
    """Spearman's rho of `first` less that of `second`, on the same resamples."""

    first: str
    second: str


class Agreement(TypedDict):
    """Two criteria on one base; intervals over instructions."""

    first: str
    second: str
    spearman: Measured
    kendall: Measured


class Standing(TypedDict):
    """A criterion on one base, as the run ranks by it."""

    kind: str  # reward | likelihood | reference | other | control
    direction: str
    unit: str
    description: str
    first: list[str]
    tied_with_first: list[str]
    scores: list[float]  # parallel to the base's `teachers`
    recomputed: bool  # from signals.parquet, with the scores of ranking.json


class Fit(TypedDict):
    """Beta fitted on known outcomes."""

    beta: float
    plateau: list[float]  # [low, high]: betas that are as good
    rho: float  # on the teachers it was fitted on
    rho_left_out: float | None  # each teacher ranked at a beta fitted without it
    left_out: dict[str, float]  # teacher -> beta fitted without it
    rho_at_zero: float | None  # of the mean reward alone
    run_beta: float | None  # None where the runs differ
    rho_at_run_beta: float | None
    suggested: float  # the run's, unless the fit does better on teachers left out
    same_everywhere: bool  # no beta is worse than another
    curve: list[list[float | None]]  # [beta, rho], thinned


class Outcomes(TypedDict):
    """Known outcomes of one base; higher is better."""

    teachers: list[str]
    outcome: list[float]
    n_rows: list[int]
    criteria: dict[str, Trial]
    differences: list[Difference]
    beta: dict[str, Fit]  # by reward


class Base(TypedDict):
    """One run."""

    name: str  # of the base; with the run's folder where several runs share it
    base: str
    run: str
    family: str | None
    deciding: str
    n_instructions: int
    teachers: list[str]
    criteria: dict[str, Standing]
    agreement: list[Agreement]
    outcomes: Outcomes | None


class Mean(TypedDict):
    """Means over the bases whose outcomes are known, where there are several."""

    bases: list[str]
    criteria: dict[str, Trial]
    differences: list[Difference]
    beta: dict[str, Fit]


class Sentence(TypedDict):
    """A sentence of the verdict; `base` is None where it is about all of them."""

    base: str | None
    # agree, disagree, close, split, family, advice; with outcomes: best, regret, control, few, beta
    kind: str
    text: str


class Comparison(TypedDict):
    """The whole of `compare.json`."""

    version: int
    confidence: float
    n_resamples: int
    seed: int
    command: NotRequired[str]  # that compares again; "" where nobody typed one
    inputs: dict[str, str]
    warnings: list[str]
    verdict: list[Sentence]
    bases: list[Base]
    mean: Mean | None
