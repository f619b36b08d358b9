"""What a loss is: a pure function of tensors, with the signals and the parameters it needs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from preceptor.core.errors import SettingsError, nearest

SIGNALS = ("logits", "attention", "hidden")  # what a loss may ask of a teacher


@dataclass(frozen=True)
class Loss:
    """A loss between teacher and student.

    Attributes:
        function: the marked function; what it takes and gives depends on the signal. Of logits:
            `function(log_p_NV, log_q_NV, **parameters) -> (value_N, slope_NV)`, p the teacher, q
            the student, both fp32 log-probabilities in nats, slope = d value / d student logits.
        needs: signals it reads: `logits`, `attention`, `hidden`.
        parameters: names of the settings it takes; none has a silent default.
        from_samples: the estimate from sampled tokens of the teacher, for losses of logits that
            have an unbiased one: `from_samples(ids_NJ, weights_NJ, entropy_N, log_q_NV,
            **parameters) -> (value_N, slope_NV)`.
    """

    name: str
    function: Callable[..., Any]
    needs: frozenset[str]
    parameters: tuple[str, ...] = ()
    from_samples: Callable[..., Any] | None = None

    @property
    def description(self) -> str:
        lines = (self.function.__doc__ or "").strip().splitlines()
        return lines[0] if lines else self.name


def loss(
    *,
    needs: tuple[str, ...],
    parameters: tuple[str, ...] = (),
    from_samples: Callable[..., Any] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Mark a plain function as a loss; the function itself stays as it is."""

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__dict__["loss"] = {
            "needs": frozenset(needs),
            "parameters": parameters,
            "from_samples": from_samples,
        }
        return function

    return mark


def as_loss(name: str, function: Callable[..., Any]) -> Loss:
    """The loss behind a marked function.

    Raises:
        SettingsError: an unmarked function, a signal that does not exist, or a parameter that the
            function does not take.
    """
    marks = getattr(function, "loss", None)
    where = f"{function.__module__}:{function.__qualname__}"
    if marks is None:
        raise SettingsError(
            f"{name!r} is not marked as a loss",
            where=where,
            next_step="decorate it with preceptor.core.loss.loss(...)",
        )
    taken = tuple(inspect.signature(function).parameters)
    for kind, given, known in (
        ("a signal that does not exist", marks["needs"], SIGNALS),
        ("a parameter that its function does not take", marks["parameters"], taken),
    ):
        for unknown in sorted(set(given) - set(known)):
            raise SettingsError(
                f"the loss {name!r} asks for {kind}",
                where=where,
                found=f"{unknown!r}, {nearest(unknown, known)}",
                next_step="correct the decorator",
            )
    return Loss(name=name.rpartition(":")[2], function=function, **marks)


def check_share(loss_name: str, parameter: str, value: float, at_zero: str, at_one: str) -> None:
    """Refuse a share of a mixture that is not strictly between 0 and 1 (raises SettingsError).

    Args:
        at_zero: what to use instead of the limit at 0.
        at_one: the same at 1.
    """
    if not 0.0 < value < 1.0:
        raise SettingsError(
            f"{parameter} of {loss_name} must lie strictly between 0 and 1",
            where=f"the loss {loss_name}",
            found=f"{parameter} = {value}",
            next_step=f"choose a value inside; at 0 it is {at_zero}, at 1 {at_one}",
        )
