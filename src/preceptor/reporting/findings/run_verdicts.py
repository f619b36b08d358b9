"""What each kind of run found, as one plain sentence with its confidence.

The pages say more; these are the sentences for an index, a pull request or a shell.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from preceptor.core import artifacts
from preceptor.core.comparison import COMPARE
from preceptor.core.study import STUDY
from preceptor.reporting.findings import evaluation_words, race_words, selection_words
from preceptor.reporting.findings.quality import Quality, decimals_of, read_quality, words_of
from preceptor.reporting.findings.training_log import read_log
from preceptor.reporting.parts import wording

_PILOT = {
    "confirmed": "a pilot training agrees",
    "overturned": "a pilot training puts {} first instead",
    "open": "a pilot training does not decide",
}
_ROUTE = {
    "gain": "Routing each prompt to its own teacher is better than {single} for all",
    "loss": "Routing each prompt to its own teacher is worse than {single} for all",
    "open": "Routing each prompt to its own teacher cannot be told from {single} for all",
}


def of(kind: str, folder: Path, provenance: Mapping[str, Any]) -> str:
    """The sentence of a finished run of `kind` (a name in `run_kinds.KINDS`).

    Raises:
        RunFolderError, OSError, KeyError, TypeError, ValueError: a result that cannot be read.
    """
    if kind == "cache":
        return _store(_json(folder / "signals" / "store.json"))
    if kind == "export":
        return _sets(provenance)
    if kind in ("distill", "align", "sft", "tour"):
        return _training(folder)
    file, words = {
        "select": (artifacts.RANKING, selection),
        "evaluate": (artifacts.EVALUATION, _evaluation),
        "study": (STUDY, _study),
        "compare": (COMPARE, _comparison),
        "ask": (artifacts.ASK, _asking),
        "route": ("route.json", _routing),
    }[kind]
    return words(_json(folder / file))


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _level(found: Mapping[str, Any]) -> str:
    return wording.percent(found["confidence"])


def listing(names: Sequence[str]) -> str:
    """Names in prose: "a, b and c"; past three the rest is a number."""
    return "".join(joint + name for joint, name in wording.listing(names))


def selection(ranking: Mapping[str, Any]) -> str:
    """Who is first for which base, how often it was, and who cannot be told from it."""
    said = selection_words.verdict(dict(ranking))
    chosen = ranking["criteria"][ranking["recommended_by"]]
    tied = chosen.get("tied_with_first") or []
    words = f"{said['teacher']} is the recommended teacher for {said['base']} by "
    words += said["criterion"]
    if said["resamples"]:
        words += f" ({said['resamples']})"
    others = len(chosen["teachers"]) - 1
    level = f"at {_level(ranking)} confidence"
    if tied:
        words += f", but {level} it cannot be separated from {listing(tied)}"
    elif others:
        words += f", {level} separable from all {others} others"
    race, pilot = ranking.get("race"), ranking.get("pilot")
    if race and (clause := race_words.surely(race)):
        words += f"; {clause}"
    if pilot:
        words += "; " + _PILOT[pilot["verdict"]].format(ranking["pilot_recommended"])
    return words + "."


def _evaluation(found: Any) -> str:
    """The first sentence of the page, and what the gate says."""
    first = "".join(text for text, _ in evaluation_words.verdict(found)[0]).removesuffix(".")
    words = f"{first} ({_level(found)} intervals)"
    failed = sum(bool(row["holds"]) for row in found["gate"])
    if found["gate"]:
        conditions = f"{len(found['gate'])} condition{'s' * (len(found['gate']) > 1)}"
        words += f"; the gate {f'fails on {failed} of' if failed else 'passes'} {conditions}"
    return words + "."


def _study(found: Mapping[str, Any]) -> str:
    """Who teaches best: of several bases the first one, and how many others there are."""
    best = [own["text"] for own in found["verdict"] if own["kind"] == "best"]
    done = sum(cell["status"] == "done" for cell in found["cells"])
    share = f"{done:,} of {len(found['cells']):,} trainings are done"
    if not best:
        return f"No teacher can be named yet: {share}."
    sentence = best[0].removesuffix(".")
    others = len(found["bases"]) - 1
    more = f"; {others} more base{'s' * (others > 1)} in the report" if others else ""
    return f"{sentence} ({_level(found)} intervals; {share}{more})."


def _comparison(found: Mapping[str, Any]) -> str:
    """The first sentence of the verdict, and whose it is."""
    sentences = [own for own in found["verdict"] if own["kind"] != "advice"] or found["verdict"]
    if not sentences:
        return f"{len(found['bases'])} selections are compared; nothing is said of them."
    first = sentences[0]
    several = len(found["bases"]) > 1 and first["base"]
    text = (f"{first['base']}: {first['text']}" if several else first["text"]).removesuffix(".")
    level = f"{_level(found)} intervals)."
    return f"{text[:-1]}; {level}" if text.endswith(")") else f"{text} ({level}"


def _training(folder: Path) -> str:
    """The score of the main model in each group, and how far it is from its rival; else losses."""
    raw = artifacts.read_json(folder / artifacts.QUALITY)
    if raw is not None:
        return quality(read_quality(raw, str(folder / artifacts.QUALITY)))
    log = read_log(folder / artifacts.METRICS)
    losses = log.known("loss") if log is not None else []
    if log is None or not losses:
        return "A student was trained; neither its loss nor its quality was recorded."
    step, value = losses[-1]
    return (
        f"A student was trained for {log.steps[-1]:,} steps, with a loss of {value:.3g} at step "
        f"{step:,}; its quality was not measured, so nothing is said of what it can do."
    )


def quality(found: Quality) -> str:
    """The main model in every group, and whether it can be told from its rival there."""
    row = next(row for row in found.rows if row.model == found.main)
    parts = []
    for group, score in row.scores.items():
        if score is None:
            continue
        where = f"the {found.n[group]:,} " if group in found.n else "the "
        where += "instructions" if found.groups == ["all"] else f"{group} instructions"
        part = f"{words_of(score, found.decimals)} on {where}"
        gap = found.main_difference(group)
        if gap is not None:
            side = gap.interval.side
            ends = gap.interval.mirrored if side < 0 else gap.interval
            amount = words_of(ends, decimals_of(ends, found.decimals))
            told = {1: f"{amount} above", -1: f"{amount} below", 0: "not separable from"}[side]
            part += f" ({told} {gap.against})"
        parts.append(part)
    if not parts:
        return f"{row.model} has no score."
    level = wording.percent(found.confidence)
    return f"{row.model} scores {', '.join(parts)}, with {level} intervals."


def _asking(found: Mapping[str, Any]) -> str:
    """How many answers, and the point with the highest mean of the first reward."""
    points, rewards = found["points"], list(found["rewards"])
    teachers = len({point["teacher"] for point in points})
    words = (
        f"{found['n_answers']:,} answers of {teachers:,} teacher{'s' * (teachers != 1)} to "
        f"{found['n_instructions']:,} instructions"
    )
    scored = [p for p in points if rewards and p["rewards"][rewards[0]]["mean"] is not None]
    if not scored:
        return f"{words}, without a score."
    best = max(scored, key=lambda point: point["rewards"][rewards[0]]["mean"])
    cell = best["rewards"][rewards[0]]
    mean = "{mean:.3f} [{low:.3f}, {high:.3f}]".format(**cell)
    return (
        f"{words}; {best['teacher']}{decoding_words(best)} has the highest mean {rewards[0]}, "
        f"{mean} ({_level(found)} interval; samples of others may overlap it)."
    )


def decoding_words(point: Mapping[str, Any]) -> str:
    """How a point was decoded: " (greedy)", " (temperature 0.7, top-p 0.9)"; "" if unknown."""
    if point["temperature"] is None:
        return ""
    if point["temperature"] == 0:
        return " (greedy)"
    words = f"temperature {point['temperature']:g}"
    top_p = point["top_p"]
    return f" ({words}, top-p {top_p:g})" if top_p is not None and top_p < 1 else f" ({words})"


def _routing(found: Mapping[str, Any]) -> str:
    held_out = found["held_out"]
    gap = held_out["means"]["score"]["routed_minus"]["single"]
    words = _ROUTE[found["verdict"]].format(single=held_out["single"])
    ends = "{mean:+.4f} [{low:+.4f}, {high:+.4f}]".format(**gap)
    return (
        f"{words} on {held_out['n_prompts']:,} prompts held out (score {ends}, {_level(found)} "
        "interval)."
    )


def _store(found: Mapping[str, Any]) -> str:
    teacher = found["teacher"]
    name = teacher if isinstance(teacher, str) else json.dumps(teacher, ensure_ascii=False)
    return (
        f"The next-token distributions of {name} at {found['positions']:,} tokens of "
        f"{found['samples']:,} samples are stored, with {found['bytes_per_token']:,.1f} bytes a "
        "token."
    )


def _sets(provenance: Mapping[str, Any]) -> str:
    sets = provenance.get("sets") or {}
    shown = listing([f"{name} ({rows:,} rows)" for name, rows in sets.items()])
    plural = "set was" if len(sets) == 1 else "sets were"
    return f"{len(sets)} training {plural} written: {shown}."
