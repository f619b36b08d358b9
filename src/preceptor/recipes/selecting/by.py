"""`select --by COLUMN`: who is first for each value of a column, and a fragment that routes by it.

`routing.yaml` holds the settings `route_by`, `experts` and `reference` of `preceptor align`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from preceptor.core import artifacts
from preceptor.core.errors import ModelError, PreceptorError
from preceptor.core.progress import say
from preceptor.data.paired import Paired
from preceptor.models.load import Card, open_card
from preceptor.models.pairing import compare_tokenizers
from preceptor.recipes.selecting.measuring import read_signals
from preceptor.recipes.selecting.preparing import Prepared
from preceptor.recipes.settings.shared import Teacher, model_location
from preceptor.selection.groups import LEAST, rank_groups, read_groups

ROUTING = "routing.yaml"
Ranking = Mapping[str, Any]


def rank_by(
    prepared: Prepared,
    answers: Paired,
    table: pa.Table,
    ranking: Ranking,
    out: Path,
) -> dict[str, Any]:
    """The part `by` of `ranking.json`; also writes `routing.yaml`, where there is what to route.

    Args:
        table: `signals.parquet`.
        ranking: the rest of `ranking.json`.
        out: the run folder.
    """
    settings = prepared.settings
    assert settings.by is not None
    values = read_groups(settings.by, prepared.recorded, prepared.questions)
    value_N = [values.get(key) for key in answers.instruction_ids]
    groups = rank_groups(
        read_signals(prepared.settings, prepared.facts, answers, table),
        value_N,
        prepared.criteria,
        settings.parameters,
        ranking["recommended"],
        with_reference=prepared.reference is not None,
        confidence=settings.confidence,
        resamples=settings.resamples,
        seed=settings.seed,
    )
    n_without = value_N.count(None)
    warnings = _warnings(settings.by, groups, n_without)
    for warning in warnings:
        say(f"warning: {warning}")
    own = {live: teacher for live, (teacher, _) in prepared.teachers.items()}
    remote = settings.trust_remote_code
    text, told = routing(settings.by, groups, ranking, own, prepared.base, remote)
    if text:
        artifacts.write_bytes(out / ROUTING, text.encode())
    for line in told:
        say(line)
    return {
        "column": settings.by,
        "least": LEAST,
        "n_without": n_without,
        "groups": groups,
        "routing": {g["value"]: g["recommended"] for g in groups if g["recommended"]},
        "fragment": ROUTING if text else None,
        "warnings": warnings,
    }


def _warnings(column: str, groups: Sequence[Ranking], n_without: int) -> list[str]:
    found = []
    by_why: dict[str, list[str]] = {}
    for group in groups:
        if group["recommended"] is None:
            by_why.setdefault(group["why"], []).append(group["value"])
    for why, values in by_why.items():
        shown = ", ".join(map(_shown, values[:5])) + (" ..." if len(values) > 5 else "")
        found.append(f"{column}: not ranked on {shown} ({why})")
    if n_without:
        found.append(f"{column}: {n_without:,} instructions have no value, and are in no group")
    return found


@dataclass(frozen=True)
class _Choice:
    """Who can teach, of a group's teachers: the first that fits, and who was passed over."""

    teacher: str
    model: str | None  # None: where its weights are is not known
    skipped: tuple[str, ...]


def routing(
    column: str,
    groups: Sequence[Ranking],
    ranking: Ranking,
    live: Mapping[str, Teacher],
    base: Card,
    trust_remote_code: bool,
) -> tuple[str, list[str]]:
    """The text of `routing.yaml`, and lines for the user.

    The reference is the teacher that is first on all instructions, and each value whose own first
    teacher is another one has it as its expert. `align` compares distributions, so a teacher whose
    tokenizer is not the base's is passed over for the next one. Of a teacher that is known by its
    answers alone the place of its weights is left empty. Without an expert there is no text.

    Args:
        groups: as `rank_groups` gives them.
        ranking: the rest of `ranking.json`.
        live: the run's live teachers.
        base: the student.
    """
    differs = {name: _has_other_tokenizer(t, base, trust_remote_code) for name, t in live.items()}

    def choose(rows: Sequence[Ranking], first: str) -> _Choice | None:
        order = [first, *(row["teacher"] for row in rows if row["teacher"] != first)]
        fits = [name for name in order if not differs.get(name)]
        if not fits:
            return None
        skipped = tuple(order[: order.index(fits[0])])
        return _Choice(fits[0], _model(live.get(fits[0])), skipped)

    overall = ranking["criteria"][ranking["recommended_by"]]["teachers"]
    reference = choose(overall, ranking["recommended"])
    if reference is None:
        return "", [f"no {ROUTING}: every teacher's tokenizer differs from the base's"]
    experts = [
        (group, choice)
        for group in groups
        if group["recommended"] is not None
        and (choice := choose(group["teachers"], group["recommended"])) is not None
        and choice.teacher != reference.teacher
    ]
    if not experts:
        who = _shown(reference.teacher)
        return "", [f"no {ROUTING}: {who} is to teach every value of {_shown(column)}"]
    lines = [
        f"# Who teaches which value of {_shown(column)}, as a selection by "
        f"{_shown(ranking['recommended_by'])} says.",
        "# These are settings of `preceptor align`: put them beside `base`, `data` and the rest.",
        _yaml({"route_by": column}),
        f"# first over all instructions{_past(reference)}",
        "reference:",
        *_entry(reference, 1),
        "experts:",
    ]
    for group, choice in experts:
        lines.append(f"  # {_reason(group, choice, ranking['recommended'])}")
        lines.append(f"  {_key(group['value'])}:")
        lines += _entry(choice, 2)
    named = {choice.teacher: choice for choice in (reference, *(c for _, c in experts))}
    lost = [_shown(name) for name, choice in named.items() if choice.model is None]
    told = [f"{ROUTING} routes {len(experts)} of the values of {_shown(column)} to experts"]
    if lost:
        told.append(f"fill in the models in {ROUTING}: only answers are known of {', '.join(lost)}")
    return "\n".join(lines) + "\n", told


def _has_other_tokenizer(teacher: Teacher, base: Card, trust_remote_code: bool) -> bool:
    """Whether a teacher at hand cannot be compared with the base, token by token."""
    model = _model(teacher)
    if model is None:
        return False
    try:
        card = open_card(model_location(model), trust_remote_code, fingerprinted=False)
        compare_tokenizers(base, card)
    except ModelError:
        return True
    except PreceptorError:
        return False
    return False


def _model(teacher: Teacher | None) -> str | None:
    """A checkpoint that `align` can load; None for servers, own code, adapters and recordings."""
    if teacher is None or teacher.kind not in ("transformers", "vllm"):
        return None
    return None if getattr(teacher, "adapter", None) else str(getattr(teacher, "model", ""))


def _entry(choice: _Choice, depth: int) -> list[str]:
    indent = "  " * depth
    if choice.model is not None:
        return [indent + _yaml({"model": choice.model})]
    return [f"{indent}model:  # fill in: a folder or hub id of {_shown(choice.teacher)}"]


def _reason(group: Ranking, choice: _Choice, overall: str) -> str:
    words = f"{_shown(choice.teacher)}, on {group['n_instructions']:,} instructions"
    against = group["against_overall"]
    if choice.teacher == group["recommended"] and against is not None:
        interval = f"{against['difference']:+.4g} [{against['low']:.4g}, {against['high']:.4g}]"
        verdict = "" if against["separable"] else ": not separable from it"
        return f"{words}; against {_shown(overall)} {interval}{verdict}"
    return words + _past(choice)


def _past(choice: _Choice) -> str:
    """Who was passed over."""
    if not choice.skipped:
        return ""
    return f" (before it {', '.join(map(_shown, choice.skipped))}, with another tokenizer)"


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, allow_unicode=True, width=10**6).rstrip("\n")


def _key(text: str) -> str:
    """A key in one line: YAML itself writes long ones, and those with breaks, over several."""
    if text.isprintable() and len(text) < 100:
        return _yaml({text: None})[: -len(": null")]
    plain = (c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text)
    return '"' + "".join(plain) + '"'


def _shown(text: str) -> str:
    """A name in one line, whatever it holds."""
    return text if text.isprintable() else json.dumps(text)
