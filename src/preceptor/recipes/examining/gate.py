"""Conditions that end `preceptor evaluate` with status 1.

    [surely] [MODEL:]BENCHMARK.MEASURE[/CATEGORY] (< | <= | > | >=) NUMBER [against MODEL]

`against` takes the model's difference to another one instead of its score. Without a model, the
condition is of every model except the reference (and the one it is `against`), or of the only one
that there is. `surely` asks that the whole interval lies on that side of the number. A value that
does not exist fails: nothing is let through because it was not measured.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from preceptor.core.benchmark import Benchmark
from preceptor.core.comparison import Measured
from preceptor.core.errors import SettingsError, nearest
from preceptor.core.evaluation import Condition

_FORM = re.compile(
    r"(?P<surely>surely\s+)?(?P<target>\S.*?)\s*(?P<sign><=|>=|<|>)\s*(?P<number>\S+)"
    r"(?:\s+against\s+(?P<against>\S.*))?"
)
_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
Value = Callable[["Gate", str], Measured]
"""(condition, model) -> the number it is about, with its interval."""


@dataclass(frozen=True)
class Gate:
    """One condition, understood.

    Attributes:
        models: whose scores it is about.
        target: benchmark, measure and category as they were written, without the model.
        category: "" for all items.
        against: "" where it is about scores, else who they are compared with.
        number: the limit as it was written.
    """

    models: tuple[str, ...]
    target: str
    benchmark: str
    measure: str
    category: str
    sign: str
    limit: float
    number: str
    surely: bool
    against: str

    def of(self, model: str) -> str:
        """The condition for one model."""
        against = f" against {self.against}" if self.against else ""
        surely = "surely " if self.surely else ""
        return f"{surely}{model}:{self.target} {self.sign} {self.number}{against}"

    def number_of(self, measured: Measured) -> float | None:
        """What the limit is compared with: the score, or the end of its interval."""
        if not self.surely:
            return measured["value"]
        return measured["high" if self.sign[0] == "<" else "low"]

    def holds(self, value: float | None) -> bool:
        """Whether the condition holds; of a value that does not exist, it does."""
        return value is None or _SIGNS[self.sign](value, self.limit)


def read_gates(
    conditions: Sequence[str],
    benchmarks: Mapping[str, Benchmark],
    models: Sequence[str],
    reference: str,
) -> list[Gate]:
    """The conditions, each checked against what will be measured (raises SettingsError)."""
    return [_read(text, benchmarks, models, reference) for text in conditions]


def judge(gates: Sequence[Gate], value: Value) -> list[Condition]:
    """Every condition for every model that it is about."""
    found: list[Condition] = []
    for gate in gates:
        for model in gate.models:
            number = gate.number_of(value(gate, model))
            found.append(
                {"condition": gate.of(model), "value": number, "holds": gate.holds(number)}
            )
    return found


def _read(
    text: str, benchmarks: Mapping[str, Benchmark], models: Sequence[str], reference: str
) -> Gate:
    form = _FORM.fullmatch(text.strip())
    if form is None:
        _refuse(text, "no condition", "write `BENCHMARK.MEASURE < NUMBER`, say `lab.reward < 0.5`")
    try:
        limit = float(form["number"])
    except ValueError:
        _refuse(text, f"{form['number']!r} is no number", "write a number after the sign")
    if not math.isfinite(limit):
        _refuse(text, f"{form['number']!r} is no number", "write a number after the sign")
    against = (form["against"] or "").strip()
    if against and against not in models:
        _refuse(text, f"no model {against!r}; {nearest(against, models)}", "correct the name")
    model, benchmark, measure, category = _target(text, form["target"], benchmarks, models)
    own = (model,) if model else _models(models, {reference, against}, {against})
    if not own or against in own:
        _refuse(text, "nobody that it could be about", "name another model than the compared one")
    target = f"{benchmark}.{measure}" + (f"/{category}" if category else "")
    return Gate(
        own,
        target,
        benchmark,
        measure,
        category,
        form["sign"],
        limit,
        form["number"],
        form["surely"] is not None,
        against,
    )


def _models(models: Sequence[str], *less: set[str]) -> tuple[str, ...]:
    """All models without the first of `less`; if nobody is left, without the second ..."""
    left = (tuple(name for name in models if name not in names) for names in less)
    return next((names for names in left if names), ())


def _target(
    text: str, target: str, benchmarks: Mapping[str, Benchmark], models: Sequence[str]
) -> tuple[str, str, str, str]:
    """(model or "", benchmark, measure, category or ""): names may hold `:`, `.` and `/`."""
    known, found = [], []
    for model in ("", *models):
        for benchmark in benchmarks.values():
            for measure in benchmark.measures:
                whole = f"{model}:" * bool(model) + f"{benchmark.name}.{measure.name}"
                known.append(whole)
                if target == whole or target.startswith(f"{whole}/"):
                    category = target[len(whole) + 1 :]
                    found.append((model, benchmark.name, measure.name, category))
    if not found:
        _refuse(text, f"{target!r}; {nearest(target, known)}", "name a model, benchmark, measure")
    if len(found) > 1:
        told = " or ".join(f"{m or 'any model'}, {b}, {name}, {c}" for m, b, name, c in found)
        _refuse(text, f"two ways to read it: {told}", "rename a model or a benchmark")
    model, benchmark, measure, category = found[0]
    there = {question.category for question in benchmarks[benchmark].questions} - {""}
    if category and benchmarks[benchmark].questions and category not in there:
        hint = nearest(category, there) if there else "the benchmark has none"
        _refuse(text, f"no category {category!r}; {hint}", "correct the category")
    return model, benchmark, measure, category


def _refuse(text: str, found: str, next_step: str) -> NoReturn:
    raise SettingsError(
        "a condition of the gate cannot be used",
        where=f"fail_if: {text!r}",
        found=found,
        next_step=next_step,
    )
