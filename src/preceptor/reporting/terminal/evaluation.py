"""An evaluation on the terminal: scores, who is better than whom, judges, and the gate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from preceptor.core.artifacts import REPORT
from preceptor.reporting.findings import evaluation_words as words
from preceptor.reporting.parts.wording import interval_words, short
from preceptor.reporting.terminal.console import wide_console

COLUMNS = 4  # benchmarks beside each other in one table
READ = {"better": "better than", "worse": "worse than", "not separable": "not separable from"}


def print_evaluation(
    evaluation: Mapping[str, Any], out: Path, console: Console | None = None
) -> None:
    """Print an evaluation, the content of `evaluation.json`, and where its report is.

    A row a model, a column a benchmark by the measure that it is known by; then in words who is
    best, every model against the reference, how far judges can be trusted, and the gate.
    """
    console = console or wide_console()
    benchmarks = evaluation["benchmarks"]
    for low in range(0, len(benchmarks), COLUMNS):
        console.print(_table(evaluation, benchmarks[low : low + COLUMNS]))
    several = len(evaluation["models"]) > 1
    if several:
        for sentence in words.verdict(evaluation):  # type: ignore[arg-type]
            _line(console, "".join(text for text, _ in sentence))
    for benchmark in benchmarks:
        for line in (*_differences(benchmark, evaluation["reference"]), *_judge(benchmark)):
            _line(console, line)
    for warning in evaluation["warnings"]:
        _line(console, f"warning: {warning}")
    for line in _gate(evaluation["gate"]):
        _line(console, line)
    _line(console, f"report: {out / REPORT}")


def _line(console: Console, text: str) -> None:
    console.print(_plain(text), soft_wrap=True, highlight=False, markup=False)


def _plain(text: str) -> str:
    """With ASCII signs alone: a terminal may have no others."""
    return text.replace("−", "-").replace("–", "-")


def _table(evaluation: Mapping[str, Any], benchmarks: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=f"{evaluation['confidence']:.0%} intervals", box=box.SIMPLE_HEAD)
    table.add_column("model", overflow="fold")
    columns = []
    for benchmark in benchmarks:
        measure = benchmark["measures"][0]
        better = "" if measure["direction"] == "higher" else ", lower is better"
        head = f"{benchmark['name']}: {measure['title']}{better} (n = {benchmark['n']:,})"
        table.add_column(escape(head), justify="right", overflow="fold")
        cells = {own["model"]: own["measures"][measure["name"]] for own in benchmark["scores"]}
        digits = words.decimals(cells.values())
        columns.append(
            {model: _plain(interval_words(cell, digits)) for model, cell in cells.items()}
        )
    for model in evaluation["models"]:
        told = f"{model} (reference)" if model == evaluation["reference"] else model
        told = model if len(evaluation["models"]) == 1 else told
        table.add_row(escape(told), *(escape(column.get(model, "-")) for column in columns))
    return table


def _differences(benchmark: Mapping[str, Any], reference: str) -> Iterator[str]:
    """Every model against the reference, by the measure that the benchmark is known by."""
    measure = benchmark["measures"][0]
    cells = [own["measures"][measure["name"]] for own in benchmark["scores"]]
    digits = words.decimals(cells)
    for row in benchmark["differences"]:
        if row["against"] != reference or row["measure"] != measure["name"]:
            continue
        if row["value"] is None:
            continue
        reading = READ[words.READINGS[words.side(row, measure["direction"])]]
        gap = interval_words(row, words.gap_decimals(row, digits))
        yield (
            f"{benchmark['name']}: {row['model']} is {reading} {reference}: {gap}, "
            f"p {words.p_words(row['p_value'])} ({words.name_of_test(row['test'])})"
        )


def _judge(benchmark: Mapping[str, Any]) -> Iterator[str]:
    for sentence in (benchmark["judge"] or {"words": []})["words"]:
        yield f"judge of {benchmark['name']}: {sentence}"


def _gate(conditions: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Every condition that holds, then how many passed."""
    for own in conditions:
        if own["holds"]:
            value = "no value" if own["value"] is None else short(own["value"])
            yield f"FAILED: {own['condition']} ({value})"
    passed = sum(not own["holds"] for own in conditions)
    if conditions:
        yield f"gate: {passed} of {len(conditions)} passed"
