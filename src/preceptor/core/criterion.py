"""What a criterion is: a plain function of the per-answer table, with direction and unit.

Shapes: M teachers, N instructions (the same for all teachers: paired).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

from preceptor.core.errors import SettingsError, nearest

SIGNALS = ("reward", "nll", "nll_unconditional")  # what a criterion may need
PARAMETERS = ("beta", "loss_reduction")  # settings that a criterion may take
Direction = Literal["higher", "lower"]


@dataclass(frozen=True)
class Signals:
    """The per-answer table as arrays of shape (M, N); nll in nats, summed over response tokens.

    `reward_MN` is one chosen reward; `rewards` holds them all by name. Signals that were not
    measured are None; `nll_MN` is NaN throughout where no criterion needs it.
    """

    teachers: tuple[str, ...]
    n_tokens_MN: np.ndarray
    nll_MN: np.ndarray
    nll_unconditional_MN: np.ndarray | None = None
    n_tokens_reference_MN: np.ndarray | None = None
    nll_reference_MN: np.ndarray | None = None
    nll_reference_unconditional_MN: np.ndarray | None = None
    reward_MN: np.ndarray | None = None
    rewards: dict[str, np.ndarray] = field(default_factory=dict)

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


class Mean(Protocol):
    """Mean over instructions: (M, N) -> (M,), or (M, resamples) inside the bootstrap."""

    def __call__(self, values_MN: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Criterion:
    """A score of teachers.

    Attributes:
        score: `score(signals, mean, **parameters) -> scores`; it must reduce over instructions
            through `mean` alone, which makes the bootstrap one matrix product.
        direction: whether a higher or a lower score is better.
        unit: unit of the score.
        needs: signals it reads: `reward`, `nll`, `nll_unconditional`.
        parameters: names of the settings it takes (`beta`, `loss_reduction`).
        needs_positive_reward: CAR's sign guard.
    """

    name: str
    score: Callable[..., np.ndarray]
    direction: Direction
    unit: str
    needs: frozenset[str]
    parameters: tuple[str, ...] = ()
    needs_positive_reward: bool = False

    @property
    def description(self) -> str:
        lines = (self.score.__doc__ or "").strip().splitlines()
        return lines[0] if lines else self.name


def criterion(
    *,
    direction: Direction,
    unit: str,
    needs: tuple[str, ...] = (),
    parameters: tuple[str, ...] = (),
    needs_positive_reward: bool = False,
) -> Callable[[Callable[..., np.ndarray]], Callable[..., np.ndarray]]:
    """Mark a plain function as a criterion; the function itself stays as it is."""

    def mark(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        function.__dict__["criterion"] = {
            "direction": direction,
            "unit": unit,
            "needs": frozenset(needs),
            "parameters": parameters,
            "needs_positive_reward": needs_positive_reward,
        }
        return function

    return mark


def as_criterion(name: str, function: Callable[..., Any]) -> Criterion:
    """The criterion behind a marked function (raises SettingsError for an unmarked one)."""
    marks = getattr(function, "criterion", None)
    if marks is None:
        raise SettingsError(
            f"{name!r} is not marked as a criterion",
            where=f"{function.__module__}:{function.__qualname__}",
            next_step="decorate it with preceptor.core.criterion.criterion(...)",
        )
    for kind, given, known in (
        ("signal", marks["needs"], SIGNALS),
        ("parameter", marks["parameters"], PARAMETERS),
    ):
        for unknown in sorted(set(given) - set(known)):
            raise SettingsError(
                f"the criterion {name!r} asks for a {kind} that does not exist",
                where=f"{function.__module__}:{function.__qualname__}",
                found=f"{unknown!r}, {nearest(unknown, known)}",
                next_step="correct the decorator",
            )
    return Criterion(name=name.rpartition(":")[2], score=function, **marks)
