"""The sentences, numbers and readings of an evaluation.

A difference is said to be one only where its interval excludes 0; a positive amount in a sentence
is always towards the better end of the scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from preceptor.core.evaluation import Benchmarked, Difference, Evaluation
from preceptor.reporting.findings.quality import Interval, decimals_of
from preceptor.reporting.parts import wording
from preceptor.reporting.parts.wording import interval_words

Words = list[tuple[str, str]]
"""Parts of a sentence: text and what it is: "" for ours, "name" or "title" for the data's."""

TESTS = {"bootstrap": "paired bootstrap", "mcnemar": "McNemar, exact"}
READINGS = {1: "better", -1: "worse", 0: "not separable"}
SHARES = ("refused", "cut_off", "empty", "repeated")


def known(cell: Mapping[str, Any] | None) -> bool:
    """Whether there is a value."""
    return cell is not None and cell["value"] is not None


def decimals(cells: Iterable[Mapping[str, Any] | None]) -> int:
    """Decimals (0..4) at which a typical interval of the cells shows two digits."""
    rows = [
        {"low": cell["low"], "high": cell["high"]}
        for cell in cells
        if cell is not None and cell["low"] is not None and cell["high"] is not None
    ]
    return wording.decimals_for(rows)


def gap_decimals(cell: Mapping[str, Any], decimals: int) -> int:
    """`decimals`, or more until no end of a difference looks like 0 that is not 0."""
    if cell["low"] is None or cell["high"] is None:
        return decimals
    return decimals_of(Interval(cell["value"], cell["low"], cell["high"]), decimals)


def p_words(p_value: float | None) -> str:
    """ "0.034", "< 0.001", or a dash."""
    if p_value is None:
        return "–"
    return "< 0.001" if p_value < 0.001 else wording.number(p_value, 3)


def name_of_test(test: str) -> str:
    """What a test is called in plain words."""
    return TESTS.get(test, test)


def ratio_words(cell: Mapping[str, Any] | None) -> str:
    """A mean difference of logarithms as the ratio that it is: "×1.25 [×1.20, ×1.31]"."""
    if cell is None or cell["value"] is None:
        return "–"
    ends = [cell[key] for key in ("value", "low", "high") if cell[key] is not None]
    shown = [f"×{wording.number(math.exp(min(end, 700.0)), 2)}" for end in ends]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]" if len(shown) == 3 else shown[0]


def caption(measure: Mapping[str, Any]) -> str:
    """The title of a measure, with its better end where that is the lower one."""
    suffix = "" if measure["direction"] == "higher" else "; lower is better"
    return f"{measure['title']}{suffix}"


def side(cell: Mapping[str, Any], direction: str) -> int:
    """1 or -1 where the whole interval of a difference is on the better or worse side, else 0."""
    if cell["low"] is None or cell["high"] is None:
        return 0
    towards = (cell["low"] > 0) - (cell["high"] < 0)
    return towards if direction == "higher" else -towards


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values for several tests at once, by Holm's step-down procedure; None stays None.

    Source: S. Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
    """
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for done, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - done) * p))
        adjusted[place] = largest
    return adjusted


def turned(row: Mapping[str, Any]) -> dict[str, Any]:
    """The same difference the other way round."""

    def minus(value: float | None) -> float | None:
        return None if value is None else -value

    return {
        **row,
        "model": row["against"],
        "against": row["model"],
        "value": minus(row["value"]),
        "low": minus(row["high"]),
        "high": minus(row["low"]),
        "better": row["worse"],
        "worse": row["better"],
    }


def difference(
    rows: Iterable[Difference], measure: str, model: str, against: str
) -> dict[str, Any] | None:
    """`model` less `against` by a measure; None where it was not computed."""
    for row in rows:
        if row["measure"] != measure or row["value"] is None:
            continue
        if (row["model"], row["against"]) == (model, against):
            return dict(row)
        if (row["against"], row["model"]) == (model, against):
            return turned(row)
    return None


def ranked(benchmark: Benchmarked, measure: Mapping[str, Any]) -> list[str]:
    """The models that have a value of a measure, best first; ties keep their order."""
    sign = -1.0 if measure["direction"] == "higher" else 1.0
    values = [
        (sign * (cell["value"] or 0.0), place, score["model"])
        for place, score in enumerate(benchmark["scores"])
        if known(cell := score["measures"].get(measure["name"])) and cell is not None
    ]
    return [model for _, _, model in sorted(values)]


def tied_with_first(benchmark: Benchmarked, measure: Mapping[str, Any]) -> list[str]:
    """The models that the items cannot separate from the first; best first."""
    order = ranked(benchmark, measure)
    return [
        model
        for model in order[1:]
        if (gap := difference(benchmark["differences"], measure["name"], order[0], model)) is None
        or side(gap, measure["direction"]) != 1
    ]


def verdict(evaluation: Evaluation) -> list[Words]:
    """Who is best: a sentence about all benchmarks where there are several, then one for each."""
    sentences = [_sentence(own, evaluation) for own in evaluation["benchmarks"]]
    if len(sentences) > 1 and len(evaluation["models"]) > 1:
        sentences.insert(0, _overall(evaluation["benchmarks"]))
    return sentences


def winners(benchmarks: Sequence[Benchmarked]) -> dict[str, list[Benchmarked]]:
    """First model -> the benchmarks on which it comes first, by their own measure."""
    found: dict[str, list[Benchmarked]] = {}
    for own in benchmarks:
        order = ranked(own, own["measures"][0])
        if order:
            found.setdefault(order[0], []).append(own)
    return found


def title(evaluation: Evaluation) -> tuple[str, str, list[tuple[str, str]]]:
    """The heading: who, the words that join it to the benchmarks, and these as a listing."""
    models, benchmarks = evaluation["models"], evaluation["benchmarks"]
    names = wording.listing([own["name"] for own in benchmarks])
    if len(models) == 1:
        return models[0], "on", names
    first = winners(benchmarks)
    alone = next(iter(first)) if len(first) == 1 else ""
    if alone and len(first[alone]) == len(benchmarks):
        return alone, f"first of {len(models)} models on", names
    return f"{len(models)} models", "on", names


def _overall(benchmarks: Sequence[Benchmarked]) -> Words:
    first = winners(benchmarks)
    if not first:
        return [("No benchmark has a score.", "")]
    if len(first) == 1:
        ((model, held),) = first.items()
        n_sure = sum(not tied_with_first(own, own["measures"][0]) for own in held)
        where = "both" if len(held) == 2 else f"all {len(held)}"
        if len(held) < len(benchmarks):
            where = f"{len(held)} of {len(benchmarks)}"
        return [
            (model, "name"),
            (f" comes first on {where} benchmarks, {_sure_words(n_sure, len(held))}.", ""),
        ]
    words: Words = [("No model comes first everywhere: ", "")]
    for place, (model, held) in enumerate(first.items()):
        words += [("; " if place else "", ""), (model, "name"), (" on ", "")]
        names = wording.listing([own["name"] for own in held])
        words += [part for pair in names for part in _joined(pair)]
    return [*words, (".", "")]


def _sure_words(n_sure: int, n: int) -> str:
    if n_sure == n:
        return "ahead of every other beyond chance"
    if n_sure == 0:
        return "but nowhere apart from all others"
    return f"apart from all others on {n_sure}"


def _sentence(benchmark: Benchmarked, evaluation: Evaluation) -> Words:
    """One sentence on one benchmark, by the measure that it is known by."""
    measure = benchmark["measures"][0]
    order = ranked(benchmark, measure)
    if not order:
        return [("No model has a score on ", ""), (benchmark["name"], "name"), (".", "")]
    cells = {own["model"]: own["measures"].get(measure["name"]) for own in benchmark["scores"]}
    digits = decimals(cells.values())
    tied = tied_with_first(benchmark, measure)
    verb = "scores" if len(order) == 1 else "comes first with" if tied else "is best with"
    score = interval_words(cells[order[0]] or {}, digits)
    return [
        ("On ", ""),
        (benchmark["name"], "name"),
        (", ", ""),
        (order[0], "name"),
        (f" {verb} {score} (", ""),
        (measure["title"], "title"),
        (")", ""),
        *_rivals(benchmark, order, tied, evaluation["reference"], digits),
        (".", ""),
    ]


def _rivals(
    benchmark: Benchmarked, order: list[str], tied: list[str], reference: str, digits: int
) -> Words:
    """How far the first is ahead of the next and of the reference, or whom it is not apart from."""
    best, rest = order[0], order[1:]
    words: Words = []
    if tied:
        words += [(", but cannot be told apart from ", "")]
        words += [part for pair in wording.listing(tied) for part in _joined(pair)]
        amount = _ahead(benchmark, best, tied[0], digits)
        words += [(f" (difference {amount})", "")] if amount and len(tied) == 1 else []
    elif rest:
        role = "next, which is the reference," if rest[0] == reference else "next,"
        amount = _ahead(benchmark, best, rest[0], digits)
        words += [(f", {amount} ahead of the {role} ", ""), (rest[0], "name")]
    if best == reference and rest:
        words += [("; it is the reference", "")]
    elif reference in rest and reference not in (*tied, rest[0]):
        amount = _ahead(benchmark, best, reference, digits)
        link = "; it is" if tied else ", and"
        words += [(f"{link} {amount} ahead of the reference, ", ""), (reference, "name")]
    return words


def _joined(pair: tuple[str, str]) -> Words:
    joint, name = pair
    return [(joint, ""), *([(name, "name")] if name else [])]


def _ahead(benchmark: Benchmarked, best: str, other: str, digits: int) -> str | None:
    """How far `best` is ahead, positive towards the better end; None where nobody knows."""
    measure = benchmark["measures"][0]
    gap = difference(benchmark["differences"], measure["name"], best, other)
    if gap is None:
        return None
    gap = turned(gap) if measure["direction"] == "lower" else gap
    return interval_words(gap, gap_decimals(gap, digits))
