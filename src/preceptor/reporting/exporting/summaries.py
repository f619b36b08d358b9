"""A run as a few paragraphs of Markdown: verdict, tables, settings, command, versions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from preceptor.reporting.findings.run_kinds import Kind
from preceptor.reporting.parts.markdown_text import block, code, grid, prose, sentence
from preceptor.reporting.parts.tables import Table, presented
from preceptor.reporting.parts.wording import label

ROWS = 12  # of a table; the CSV has them all
_LONGEST = 160  # characters of a setting
# columns whose cells are names of the data
_NAMES = frozenset(
    "teacher model against base source arm benchmark group category criterion reward first second "
    "student_of set family smaller larger".split()
)
_TRAINED = (
    *("training.learning_rate", "training.epochs", "training.max_steps", "training.batch_size"),
    *("training.accumulation", "training.max_length", "training.lora", "seed"),
)
_SETTINGS = {
    "select": (
        *("base", "reference", "criteria", "rewards", "beta", "loss_reduction", "race", "by"),
        *("max_instructions", "min_paired_share", "confidence", "resamples", "seed"),
    ),
    "evaluate": ("reference", "benchmarks", "confidence", "resamples", "seed"),
    "study": (
        *("bases", "arms", "picks", "seeds", "outcome", "benchmarks", "max_instructions"),
        *("criteria_on", "budget", "confidence", "resamples", *_TRAINED),
    ),
    "distill": ("base", "teacher", "mix", "losses", "mean", *_TRAINED),
    "align": ("base", "reference", "experts", "route_by", "mix", "divergence", "mean", *_TRAINED),
    "sft": ("base", "data.teacher", *_TRAINED),
    "ask": ("teachers", "decodings", "rewards", "max_instructions", "seed"),
    "route": ("instructions", "alpha", "normalise", "prompts", "seed"),
    "cache": ("base", "teacher", "form", "k", "temperature", "max_length", "seed"),
    "export": ("run", "sets", "form", "seed"),
}
_VERSIONS = ("python", "torch", "transformers", "datasets", "trl", "peft", "vllm", "openai")


GROUPS = 6  # of a table that is shown group by group


@dataclass(frozen=True)
class Part:
    """A table as the summary shows it.

    Attributes:
        columns: which ones; all where it is empty.
        per: column whose values have a table each, the first `GROUPS` of them.
        first: column of which a table shows the first value alone (a criterion, a measure).
    """

    name: str
    columns: tuple[str, ...] = ()
    per: str = ""
    first: str = ""


_BOARD = ("rank", "rank_low", "rank_high", "teacher", "score", "score_low", "score_high")
_PARTS = {
    "select": (
        Part("leaderboard", (*_BOARD, "first_in", "tied_with_first"), first="criterion"),
        Part("winners"),
        Part("pilot"),
    ),
    "evaluate": (
        Part("scores", ("model", "score", "score_low", "score_high"), "benchmark", "measure"),
        Part("gate"),
    ),
    "study": (Part("outcomes"), Part("criteria", first="base"), Part("largest")),
    "compare": (Part("criteria", first="base"), Part("agreement")),
    "ask": (Part("rewards"),),
    "route": (Part("held_out"),),
    "cache": (Part("store"),),
    "export": (Part("sets"),),
}
_TRAINING = (Part("quality"), Part("differences"), Part("losses"))


def summary(
    kind: Kind,
    verdict: str,
    tables: Mapping[str, Table],
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
    warnings: Sequence[str],
) -> str:
    """The whole text, ending in a newline; text of the data is escaped throughout."""
    names = {
        cell
        for own in tables.values()
        for i, column in enumerate(own.columns)
        if column in _NAMES
        for row in own.rows
        if isinstance(cell := row[i], str)
    }
    for key in ("base", "reference"):
        name = told(settings.get(key)).removeprefix("lab:")
        names |= {name, name.rpartition("/")[2]}
    parts = [f"## {kind.title}", f"**{sentence(verdict, names)}**"]
    for part in _PARTS.get(kind.name, _TRAINING):
        if part.name in tables:
            parts += _table(tables[part.name], part)
    if warnings:
        parts.append("\n".join(["Warnings:", "", *(f"- {prose(w)}" for w in warnings[:ROWS])]))
    parts += settings_table(kind.name, settings)
    command = provenance.get("command")
    if command:
        parts += ["Made by:", block(str(command), "sh")]
    parts += versions(provenance)
    return "\n\n".join(parts) + "\n"


def _table(own: Table, part: Part) -> list[str]:
    """A heading, the rows, and how many are left out; of each group, where there are groups."""
    groups: list[dict[str, Any]] = [{}]
    if part.per:
        i = own.columns.index(part.per)
        groups = [{part.per: value} for value in dict.fromkeys(row[i] for row in own.rows)]
    parts = []
    for group in groups[:GROUPS]:
        equal, rows = dict(group), own.only(own.columns, **group)
        if part.first:
            equal[part.first] = rows.rows[0][own.columns.index(part.first)]
        shown = presented(own.only(part.columns or own.columns, **equal), ROWS)
        named = [label(str(v)) if k == "criterion" else str(v) for k, v in equal.items()]
        title = f"{own.title}: {', '.join(named)}" if named else own.title
        parts += [f"**{prose(title)}**", grid(shown)]
        if shown.left:
            parts.append(f"{shown.left:,} more rows are in the run's report and its CSV.")
    return parts


def settings_table(kind: str, settings: Mapping[str, Any]) -> list[str]:
    """The settings that matter for a kind, as a table; nothing where none is known."""
    known = [(name, told(_at(settings, name))) for name in _SETTINGS.get(kind, ())]
    rows = [f"| {code(name)} | {code(text, in_table=True)} |" for name, text in known if text]
    return ["\n".join(["| setting | value |", "| :-- | :-- |", *rows])] if rows else []


def versions(provenance: Mapping[str, Any]) -> list[str]:
    """preceptor and what it ran on, in a line; nothing where none is known."""
    held = provenance.get("versions")
    held = held if isinstance(held, Mapping) else {}
    known: Iterable[tuple[str, Any]] = (
        ("preceptor", provenance.get("preceptor")),
        *((name, held.get(name)) for name in _VERSIONS),
    )
    shown = [f"{name} {prose(version)}" for name, version in known if version]
    return [", ".join(shown) + "."] if shown else []


def _at(settings: Mapping[str, Any], name: str) -> Any:
    """A setting by its dotted name; None where it is not there."""
    value: Any = settings
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def told(value: Any) -> str:
    """A setting in few words: of a path its last part, of a model its name; "" if not set."""
    if value is None or value == "" or value in ({}, [], ()):
        return ""
    text = _told(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _told(value: Any) -> str:
    if isinstance(value, str):
        rooted = value.startswith(("/", "~", "\\")) or value[1:3] == ":\\"
        return PurePosixPath(value.replace("\\", "/")).name if rooted else value
    if isinstance(value, Mapping):
        return _of_mapping(value)
    if isinstance(value, list | tuple):
        return ", ".join(_told(inner) for inner in value)
    return json.dumps(value)


def _of_mapping(value: Mapping[str, Any]) -> str:
    """What it is called, where that says enough; else its entries that are set."""
    for key in ("name", "model", "path", "kind"):
        if isinstance(value.get(key), str) and value[key]:
            return _told(value[key]) + _more(value, key)
    held = {k: v for k, v in value.items() if v not in (None, "", {}, [], ())}
    return "; ".join(f"{key}: {_told(inner)}" for key, inner in held.items())


def _more(value: Mapping[str, Any], key: str) -> str:
    """What a name alone does not say: of what kind it is, and its weight."""
    weight, kind = value.get("weight"), value.get("kind")
    said = [kind] if key == "name" and isinstance(kind, str) and kind != value["name"] else []
    said += [f"weight {weight:g}"] if isinstance(weight, int | float) else []
    return f" ({', '.join(said)})" if said else ""
