"""Every sample of an asking: how it came to be, its table, and what the rewards say of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from preceptor.core import artifacts
from preceptor.core.errors import DataError
from preceptor.core.types import Answer
from preceptor.recipes.settings.asking import Ask
from preceptor.selection.best_of import add_intervals, extremes_KN, steps_to

ASK_VERSION = 1
POINT = ("temperature", "top_p", "max_new_tokens")
NOTED = (*POINT, "n_prompt", "n_generated")
REASONS = ("stop", "length", "content_filter")


@dataclass
class Samples:
    """Every answer, in the order of `samples.parquet`, and how each came to be.

    `noted` has a list for each name of `NOTED`, None where nobody noted it; `number` is the
    sample's number within its point, `cost` is money.
    """

    answers: list[Answer] = field(default_factory=list)
    noted: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in NOTED})
    number: list[int] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)

    def add(self, answer: Answer, number: int, cost: float, **noted: Any) -> None:
        self.answers.append(answer)
        self.number.append(number)
        self.cost.append(cost)
        for name in NOTED:
            self.noted[name].append(noted.get(name))

    def add_recorded(self, recorded: Sequence[Answer]) -> None:
        """Recorded answers, with what columns of these names say of how they came to be."""
        count: Counter[tuple[Any, ...]] = Counter()
        for answer in recorded:
            noted: dict[str, Any] = {
                "temperature": _number(answer.row.get("temperature")),
                "top_p": _number(answer.row.get("top_p")),
            }
            for name in ("max_new_tokens", "n_prompt", "n_generated"):
                value = _number(answer.row.get(name))
                noted[name] = None if value is None else int(value)
            reason = answer.row.get("finish_reason")
            reason = reason if reason in REASONS else "recorded"
            point = (answer.teacher, answer.instruction_id, *(noted[name] for name in POINT))
            length = noted["n_generated"]
            answer = replace(answer, finish_reason=reason, n_generated=length)
            self.add(answer, count[point], 0.0, **noted)
            count[point] += 1


def _number(value: Any) -> float | None:
    fit = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if fit else None


def samples_table(samples: Samples, rewards: Mapping[str, np.ndarray]) -> pa.Table:
    """`samples.parquet`: the columns that its schema names, then those of the instructions."""
    schema = artifacts.samples_schema(rewards)
    answers = samples.answers
    columns: dict[str, Any] = {
        name: [getattr(answer, name) for answer in answers]
        for name in schema.names
        if name in artifacts.ANSWERS_SCHEMA.names
    }
    columns |= samples.noted | {"sample": samples.number}
    for name, value in rewards.items():
        columns[f"reward.{name}"] = pa.array(value, pa.float64(), from_pandas=True)
    table = pa.table(columns, schema=schema)
    others = dict.fromkeys(name for answer in answers for name in answer.row)
    for name in others:
        if name in schema.names:
            continue
        try:
            column = pa.array([answer.row.get(name) for answer in answers])
        except pa.ArrowException as error:
            raise DataError(
                "a column has other values in the instructions than in the recorded answers",
                where=f"column {name!r}",
                found=str(error),
                next_step="rename or drop it in one of them",
            ) from error
        if not pa.types.is_null(column.type):
            table = table.append_column(name, column)
    return table


def answers_table(table: pa.Table, rewards: Sequence[str]) -> pa.Table | None:
    """`answers.parquet` for `select`: None where a teacher has two answers to an instruction.

    Each reward is a column of its name; it takes the place of an instruction's column.
    """
    keys = zip(table["teacher"].to_pylist(), table["instruction_id"].to_pylist(), strict=True)
    if max(Counter(keys).values()) > 1:
        return None
    single = table.select(artifacts.ANSWERS_SCHEMA.names)
    for name in rewards:
        single = single.append_column(name, table[f"reward.{name}"])
    known = {*single.column_names, *artifacts.samples_schema(rewards).names}
    for name in table.column_names:
        if name not in known:
            single = single.append_column(name, table[name])
    return single


def summary(
    settings: Ask, samples: Samples, rewards: Mapping[str, np.ndarray], handed_over: bool
) -> dict[str, Any]:
    """The content of `ask.json`: rewards, lengths and cost of every teacher x point."""
    noted, answers = samples.noted, samples.answers
    by_point: dict[tuple[Any, ...], list[int]] = {}
    for place, answer in enumerate(answers):
        point = tuple(noted[name][place] for name in POINT)
        by_point.setdefault((answer.teacher, *point), []).append(place)
    cells: list[tuple[dict[str, Any], np.ndarray]] = []
    rows = []
    for (teacher, *point), places in by_point.items():
        lengths = [n for n in (noted["n_generated"][place] for place in places) if n is not None]
        cut = [answers[place].finish_reason for place in places]
        known = len(cut) - cut.count("recorded")
        _, instruction = np.unique(
            [answers[place].instruction_id for place in places], return_inverse=True
        )
        count = np.bincount(instruction)
        row: dict[str, Any] = {"teacher": teacher}
        row |= dict(zip(POINT, point, strict=True))
        row |= {
            "n_instructions": len(count),
            "n_answers": len(places),
            "samples": int(count.min()),
            "n_tokens_mean": float(np.mean(lengths)) if lengths else None,
            "cut_share": cut.count("length") / known if known else None,
            "cost": float(sum(samples.cost[place] for place in places)),
            "rewards": {
                name: _reward_cells(value[places], instruction, cells)
                for name, value in rewards.items()
            },
        }
        rows.append(row)
    add_intervals(cells, settings.confidence, settings.resamples, settings.seed)
    return {
        "version": ASK_VERSION,
        "n_instructions": len({answer.instruction_id for answer in answers}),
        "n_answers": len(answers),
        "confidence": settings.confidence,
        "n_resamples": settings.resamples,
        "seed": settings.seed,
        "rewards": {reward.name: {"kind": reward.kind} for reward in settings.rewards},
        "answers": artifacts.ANSWERS if handed_over else None,
        "points": rows,
    }


def _reward_cells(
    value: np.ndarray, instruction: np.ndarray, cells: list[tuple[dict[str, Any], np.ndarray]]
) -> dict[str, Any]:
    """One reward at one point: its mean, and the best and the worst of k samples.

    Instructions without any score are left out of all; k goes to the fewest scored samples that an
    instruction has. Means and intervals are added to `cells` for later.
    """
    scored = np.isfinite(value)
    found: dict[str, Any] = {"n_missing": int((~scored).sum())}
    if not scored.any():
        return found | {"mean": None, "low": None, "high": None, "best_of": [], "worst_of": []}
    _, own = np.unique(instruction[scored], return_inverse=True)
    value = value[scored]
    count_N = np.bincount(own)
    mean_N = np.bincount(own, weights=value) / count_N
    cells.append((found, mean_N))
    steps = steps_to(int(count_N.min()))
    for name, largest in (("best_of", True), ("worst_of", False)):
        values_KN = extremes_KN(value, own, steps, largest)
        found[name] = [{"k": k} for k in steps]
        cells += list(zip(found[name], values_KN, strict=True))
    return found
