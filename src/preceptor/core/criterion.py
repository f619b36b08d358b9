"""What a criterion is: a plain function of the per-answer table, with direction and unit.

Shapes: M teachers, N instructions (the same for all teachers: paired), A answers of a block, T
their response tokens one answer after the other, D numbers of a projected gradient.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial, update_wrapper
from typing import Any, Literal, Protocol

import numpy as np

from preceptor.core.errors import SettingsError, nearest
from preceptor.core.options import checked_options

REFERENCE_SIGNALS = ("nll", "nll_unconditional")  # those that a reference model is measured for
SIGNALS = (  # what a criterion may need
    "reward",
    *REFERENCE_SIGNALS,
    "nll_question",
    "entropy",
    "brier",
    "similarity",
    "local",
    "family",
    "size",
    "price",
)
TOKENS = ("nll", "rank", "entropy", "brier", "step")  # what it may need of every token
PARAMETERS = ("beta", "loss_reduction")  # settings that a criterion may take
Direction = Literal["higher", "lower"]


@dataclass(frozen=True)
class Signals:
    """The per-answer table as arrays of shape (M, N); nll in nats, summed over response tokens.

    `reward_MN` is one chosen reward; `rewards` holds them all by name. Signals that were not
    measured are None; `nll_MN` is NaN throughout where no criterion needs it.

    Attributes:
        n_tokens_MN: response tokens, the end token included.
        n_question_MN, nll_question_MN: tokens of the instruction, and its loss with nothing before
            it.
        entropy_MN: of the base's next-token distributions at the response tokens, summed, nats.
        brier_MN: sum over response tokens of sum_v p_v^2 - 2 p_y + 1, each in [0, 2].
        similarity_answer_MN: mean cosine of the activations at two response tokens of an answer.
        similarity_question_MN: the same of a response token and a token of the question.
        local_MN: mean over an answer's steps of mean log p given a local window, nats, <= 0.
        family_M, size_M, price_M: of the teachers: whether it is of the base's family (1 or 0),
            billions of parameters, money for a million tokens.
        features: what criteria have made of tokens and gradients, by `criterion.feature`.
    """

    teachers: tuple[str, ...]
    n_tokens_MN: np.ndarray
    nll_MN: np.ndarray
    nll_unconditional_MN: np.ndarray | None = None
    n_tokens_reference_MN: np.ndarray | None = None
    nll_reference_MN: np.ndarray | None = None
    nll_reference_unconditional_MN: np.ndarray | None = None
    n_question_MN: np.ndarray | None = None
    nll_question_MN: np.ndarray | None = None
    entropy_MN: np.ndarray | None = None
    brier_MN: np.ndarray | None = None
    similarity_answer_MN: np.ndarray | None = None
    similarity_question_MN: np.ndarray | None = None
    local_MN: np.ndarray | None = None
    family_M: np.ndarray | None = None
    size_M: np.ndarray | None = None
    price_M: np.ndarray | None = None
    reward_MN: np.ndarray | None = None
    rewards: dict[str, np.ndarray] = field(default_factory=dict)
    features: dict[str, np.ndarray] = field(default_factory=dict)

    def with_reward(self, name: str) -> Signals:
        """The same table with `name` as the chosen reward."""
        return replace(self, reward_MN=self.rewards[name])

    def of_reference(self) -> Signals:
        """The same table as the reference model sees it."""
        assert self.n_tokens_reference_MN is not None and self.nll_reference_MN is not None
        return replace(
            self,
            n_tokens_MN=self.n_tokens_reference_MN,
            nll_MN=self.nll_reference_MN,
            nll_unconditional_MN=self.nll_reference_unconditional_MN,
        )


@dataclass(frozen=True)
class TokenBlock:
    """Some answers, token by token: answer a has the tokens starts[a] .. starts[a + 1] - 1.

    What a criterion did not ask for is None.

    Attributes:
        starts: int64 of shape (A + 1,).
        nll_T: -log p of each response token, nats.
        rank_T: 1 + number of tokens of the vocabulary that the base holds for likelier; 65,535
            means that or more.
        entropy_T: of the base's distribution there, nats.
        brier_T: sum_v p_v^2 - 2 p_y + 1.
        step_T: number of the step that a token belongs to, from 0 in each answer.
    """

    starts: np.ndarray
    nll_T: np.ndarray | None = None
    rank_T: np.ndarray | None = None
    entropy_T: np.ndarray | None = None
    brier_T: np.ndarray | None = None
    step_T: np.ndarray | None = None

    @property
    def n_tokens_A(self) -> np.ndarray:
        return np.diff(self.starts)

    def sum(self, values_T: np.ndarray) -> np.ndarray:
        """Sum over each answer's tokens: float64 of shape (A,)."""
        if not len(values_T):
            return np.zeros(len(self.starts) - 1)
        padded_T = np.append(values_T.astype(np.float64), 0.0)
        return np.where(self.n_tokens_A > 0, np.add.reduceat(padded_T, self.starts[:-1]), 0.0)

    def first_of_step_T(self) -> np.ndarray:
        """Whether a token is the first one of its step."""
        assert self.step_T is not None
        first_T = np.ones(len(self.step_T), dtype=bool)
        first_T[1:] = np.diff(self.step_T) != 0
        first_T[self.starts[:-1][self.n_tokens_A > 0]] = True
        return first_T


FeaturesOfTokens = Callable[..., Mapping[str, np.ndarray]]
"""`features(block, **options) -> {name: (A,)}`; called block by block."""
FeaturesOfGradients = Callable[..., Mapping[str, np.ndarray]]
"""`features(gradient_ND, **options) -> {name: (N,)}`; called teacher by teacher."""


class Mean(Protocol):
    """Mean over instructions: (M, N) -> (M,), or (M, resamples) inside the bootstrap."""

    def __call__(self, values_MN: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Criterion:
    """A score of teachers.

    Attributes:
        score: `score(signals, mean, **parameters) -> scores`; it must reduce over instructions
            through `mean` alone, which makes the bootstrap one matrix product. The user's options
            are bound already.
        direction: whether a higher or a lower score is better.
        unit: unit of the score.
        needs: signals it reads, of `SIGNALS`.
        parameters: names of the settings it takes (`beta`, `loss_reduction`).
        needs_positive_reward: CAR's sign guard.
        tokens: what `features` reads of every token, of `TOKENS`.
        gradients: `features` reads projected gradients instead.
        features: makes numbers of each answer, which `score` finds as `signals.features`, named
            `criterion.feature`; options bound.
    """

    name: str
    score: Callable[..., np.ndarray]
    direction: Direction
    unit: str
    needs: frozenset[str]
    parameters: tuple[str, ...] = ()
    needs_positive_reward: bool = False
    tokens: frozenset[str] = frozenset()
    gradients: bool = False
    features: Callable[..., Mapping[str, np.ndarray]] | None = None

    @property
    def description(self) -> str:
        lines = (self.score.__doc__ or "").strip().splitlines()
        return lines[0] if lines else self.name

    def formula(self, parameters: Mapping[str, Any]) -> Callable[..., np.ndarray]:
        """`formula(signals, mean) -> scores`: the score, its parameters bound."""
        return partial(self.score, **{name: parameters[name] for name in self.parameters})

    @property
    def of_any_model(self) -> bool:
        """Whether it can be computed under a reference model as well."""
        return bool(self.needs) and self.needs <= set(REFERENCE_SIGNALS) and not self.features


def criterion(
    *,
    direction: Direction,
    unit: str,
    needs: tuple[str, ...] = (),
    parameters: tuple[str, ...] = (),
    needs_positive_reward: bool = False,
    tokens: tuple[str, ...] = (),
    gradients: bool = False,
    features: Callable[..., Mapping[str, np.ndarray]] | None = None,
) -> Callable[[Callable[..., np.ndarray]], Callable[..., np.ndarray]]:
    """Mark a plain function as a criterion; the function itself stays as it is.

    Keyword arguments with a default, of the function and of `features`, are the criterion's
    options (`criterion_options` in the settings).
    """

    def mark(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        function.__dict__["criterion"] = {
            "direction": direction,
            "unit": unit,
            "needs": frozenset(needs),
            "parameters": parameters,
            "needs_positive_reward": needs_positive_reward,
            "tokens": frozenset(tokens),
            "gradients": gradients,
            "features": features,
        }
        return function

    return mark


def as_criterion(
    name: str, function: Callable[..., Any], options: Mapping[str, Any] | None = None
) -> Criterion:
    """The criterion behind a marked function.

    Args:
        name: as in the settings; `module:function` is called by its function.
        options: the user's, by keyword.

    Raises:
        SettingsError: an unmarked function, a mark that cannot be met, an option it lacks, or a
            value that does not fit the option's annotation.
    """
    marks = getattr(function, "criterion", None)
    where = f"{function.__module__}:{function.__qualname__}"
    if marks is None:
        raise SettingsError(
            f"{name!r} is not marked as a criterion",
            where=where,
            next_step="decorate it with preceptor.core.criterion.criterion(...)",
        )
    marks = dict(marks)
    for kind, given, known in (
        ("signal", marks["needs"], SIGNALS),
        ("signal of tokens", marks["tokens"], TOKENS),
        ("parameter", marks["parameters"], PARAMETERS),
    ):
        for unknown in sorted(set(given) - set(known)):
            raise SettingsError(
                f"the criterion {name!r} asks for a {kind} that does not exist",
                where=where,
                found=f"{unknown!r}, {nearest(unknown, known)}",
                next_step="correct the decorator",
            )
    if (marks["features"] is None) == bool(marks["tokens"] or marks["gradients"]):
        raise SettingsError(
            f"the criterion {name!r} reads tokens or gradients without saying what it makes of them"
            if marks["features"] is None
            else f"the features of the criterion {name!r} have nothing to read",
            where=where,
            next_step="give the decorator `features` together with `tokens` or `gradients`",
        )
    own = {"score": function, "features": marks.pop("features")}
    known = {use: _options(part, marks["parameters"]) for use, part in own.items() if part}
    for option in options or {}:
        if not any(option in names for names in known.values()):
            every = sorted(set().union(*known.values()))
            raise SettingsError(
                f"the criterion {name!r} has no option of this name",
                where=f"criterion_options: {name}",
                found=f"{option!r}, {nearest(option, every) if every else 'it has none'}",
                next_step="correct the name or leave it out",
            )
    bound = {}
    for use, part in own.items():
        if part:
            given = {k: v for k, v in (options or {}).items() if k in known[use]}
            given = checked_options(name, part, given, f"criterion_options: {name}")
            bound[use] = _bind(part, given)
    return Criterion(name=name.rpartition(":")[2], **marks, **bound)


def _options(function: Callable[..., Any], parameters: tuple[str, ...]) -> set[str]:
    """Arguments with a default that are no settings of their own."""
    return {
        name
        for name, argument in inspect.signature(function).parameters.items()
        if argument.default is not inspect.Parameter.empty and name not in parameters
    }


def _bind(function: Callable[..., Any], options: Mapping[str, Any]) -> Callable[..., Any]:
    return update_wrapper(partial(function, **options), function) if options else function
