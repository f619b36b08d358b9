"""Groups of instructions by a column: which belong together, and who is first in each.

Shapes: M teachers, N instructions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, NoReturn

import numpy as np

from preceptor.core.criterion import Criterion, Signals
from preceptor.core.errors import DataError
from preceptor.data.answer_table import Answers
from preceptor.selection.ranking import Scored, paired_difference, rank_all, score, views

LEAST = 10  # instructions of a group that is ranked; resamples of fewer are too coarse
MOST = 200  # values of the column


def read_groups(
    column: str,
    recorded: Answers,
    questions: Sequence[tuple[str, str, Mapping[str, Any]]],
) -> dict[str, str]:
    """Instruction id -> its value of a column that came with the instructions, as text.

    Instructions without a value are left out.

    Args:
        recorded: answers with the columns they came with.
        questions: (id, text, whole row) of what live teachers are asked.

    Raises:
        DataError: no such column, two values for one instruction, too many values, or none with
            enough instructions.
    """
    found = _of_answers(column, recorded)
    for key, _, row in questions:
        value = row.get(column)
        if value is None:
            continue
        if found.setdefault(key, str(value)) != str(value):
            _refuse_two(column, key, found[key], str(value))
    if not found:
        there = dict.fromkeys([*recorded.others(), *(n for _, _, row in questions for n in row)])
        raise DataError(
            f"no instruction has a value in {column!r}"
            if column in there
            else f"there is no column {column!r}",
            where="by",
            found=f"columns {', '.join(map(str, there))}" if there else "no further columns",
            next_step="name a column that came with the instructions or the recorded answers",
        )
    counts = Counter(found.values())
    (largest, n), *_ = counts.most_common(1)
    if len(counts) > MOST or n < LEAST:
        raise DataError(
            f"{column!r} does not sort the instructions into groups",
            where="by",
            found=f"{len(counts):,} values; the most frequent, {largest[:60]!r}, has {n:,} "
            "instructions",
            next_step=f"name a column of at most {MOST} values, some with {LEAST} or more "
            "instructions",
        )
    return found


def _of_answers(column: str, recorded: Answers) -> dict[str, str]:
    if column not in recorded.others():
        return {}
    keys, values = recorded.coded("instruction_id"), recorded.other(column)
    there = values.codes >= 0
    pairs = np.unique(np.stack([keys.codes[there], values.codes[there]], axis=1), axis=0)
    names, texts = keys.values.take(pairs[:, 0]).to_pylist(), values.values.take(pairs[:, 1])
    texts = texts.to_pylist()
    again = np.flatnonzero(np.diff(pairs[:, 0]) == 0)
    if again.size:
        place = int(again[0])
        _refuse_two(column, names[place], texts[place], texts[place + 1])
    return dict(zip(names, texts, strict=True))


def _refuse_two(column: str, key: str, one: str, other: str) -> NoReturn:
    raise DataError(
        f"an instruction has two values in {column!r}",
        where=f"by, instruction {key}",
        found=f"{one[:60]!r} and {other[:60]!r}",
        next_step="name a column that says something of the instruction, whoever answers it",
    )


def of_instructions(signals: Signals, kept_N: np.ndarray) -> Signals:
    """The same table with some of its instructions only.

    Every array of shape (M, N, ...) is cut; what belongs to a teacher as a whole, (M,), stays.
    """
    shape = signals.n_tokens_MN.shape

    def cut(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: cut(inner) for name, inner in value.items()}
        if isinstance(value, np.ndarray) and value.shape[:2] == shape:
            return value[:, kept_N]
        return value

    own = {field.name: getattr(signals, field.name) for field in fields(signals)}
    return replace(signals, **{name: cut(value) for name, value in own.items()})


def rank_groups(
    signals: Signals,
    value_N: Sequence[str | None],
    criteria: Sequence[Criterion],
    parameters: dict[str, Any],
    overall: str,
    *,
    with_reference: bool,
    confidence: float,
    resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """The ranking on each value's instructions, the largest group first.

    A group of fewer than `LEAST` instructions, or one on which a score is not finite, is listed
    and not ranked; `why` says it. Of teachers that share the first place, `overall` is taken.

    Args:
        value_N: value of each instruction; None belongs to no group.
        criteria: the first one decides.
        overall: the teacher that is first on all instructions.
    """
    how = {"confidence": confidence, "resamples": resamples, "seed": seed}
    groups = []
    counts = Counter(value for value in value_N if value is not None)
    order = sorted(counts, key=lambda value: (-counts[value], value))
    place = {value: number for number, value in enumerate(order)}
    place_N = np.array([-1 if value is None else place[value] for value in value_N])
    for value in order:
        n = counts[value]
        group: dict[str, Any] = {"value": value, "n_instructions": n, "recommended": None}
        if n < LEAST:
            groups.append(group | {"why": f"fewer than {LEAST} instructions"})
            continue
        own = of_instructions(signals, place_N == place[value])
        try:
            ranked = rank_all(own, criteria, parameters, with_reference=with_reference, **how)
        except DataError as error:  # on all instructions it was finite
            groups.append(group | {"why": f"{error.what} ({error.where})"})
            continue
        deciding = next(iter(ranked.values()))
        firsts = [row["teacher"] for row in deciding["teachers"] if row["rank"] == 1]
        winner = overall if overall in firsts else firsts[0]
        tied = [name for name in (*firsts, *deciding["tied_with_first"]) if name != winner]
        group["recommended"] = winner
        group["tied_with_first"] = list(dict.fromkeys(tied))
        group["against_overall"] = None
        if winner != overall:
            _, _, table = views(criteria[0], own, with_reference)[0]
            formula = criteria[0].formula(parameters)
            scored = score(table, formula, resamples, seed)
            first, second = map(signals.teachers.index, (winner, overall))
            group["against_overall"] = _difference(scored, first, second, confidence)
        group["teachers"] = deciding["teachers"]
        group["criteria"] = {
            name: {"tied_with_first": one["tied_with_first"], "teachers": one["teachers"]}
            for name, one in ranked.items()
        }
        groups.append(group)
    return groups


def _difference(scored: Scored, first: int, second: int, confidence: float) -> dict[str, Any]:
    difference, low, high = paired_difference(scored, first, second, confidence)
    return {
        "difference": difference,
        "low": low,
        "high": high,
        "separable": not low <= 0.0 <= high,
    }
