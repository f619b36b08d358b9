"""`report.html` of a selection: which teacher, how sure, and what its answers look like.

Reads the run folder only. Everything that needs no script (verdict, leaderboard, ranks, agreement,
terms, provenance) is rendered here; charts, sorting and samples are drawn from the embedded JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preceptor.core import artifacts
from preceptor.core.errors import RunFolderError
from preceptor.reporting.exporting import exports
from preceptor.reporting.findings import agreement, groups, pilot, race_words, selection_words
from preceptor.reporting.pages.select import controls as select_controls
from preceptor.reporting.pages.select import cost
from preceptor.reporting.pages.select.samples import primary_reward, sample_answers
from preceptor.reporting.parts import origins, page, wording

STYLES = ("pages/select/report.css", "pages/select/more.css")
SCRIPTS = (
    *page.CHARTS,
    "pages/select/report.js",
    "pages/select/table.js",
    "pages/select/charts.js",
    "pages/select/race.js",
    "pages/select/controls.js",
    "pages/select/tokens.js",
    "pages/select/samples.js",
)


def write(folder: Path) -> Path:
    """Write `report.html` and the summary `report.md` into the run folder; returns the first."""
    return exports.write_page(folder / artifacts.REPORT, render(folder))


def render(folder: Path) -> str:
    """The report of the run in `folder` as HTML; the same folder gives the same text."""
    ranking = _read_ranking(folder)
    origin = origins.origin_of(folder)
    teachers = _teacher_order(ranking)
    boards = {
        key: _board(ranking, key, criterion, teachers)
        for key, criterion in ranking["criteria"].items()
    }
    main = ranking["recommended_by"]
    samples = sample_answers(folder, teachers, ranking)
    controls = select_controls.section(ranking, teachers)
    data = {
        "teachers": teachers,
        "base": ranking["base"],
        "recommended": teachers.index(ranking["recommended"]),
        "main": main,
        "criteria": boards,
        "facts": [_facts(ranking, teacher) for teacher in teachers],
        "fields": _fields(ranking, teachers),
        "beta": ranking.get("beta"),
        "sensitivity": _sensitivity(ranking, teachers),
        "race": _race(ranking, teachers),
        "controls": controls and {key: controls[key] for key in ("families", "of")},
        "samples": samples,
    }
    context = {
        "ranking": ranking,
        "teachers": teachers,
        "verdict": selection_words.verdict(ranking),
        "clauses": _clauses(ranking, origin["raw"]),
        "boards": boards,
        "main": main,
        "facts": data["facts"],
        "reward": primary_reward(ranking),
        "cells": _rank_cells(boards, teachers),
        "agreement": agreement.matrix(ranking),
        "controls": controls,
        "cost": cost.table(origin["raw"]),
        "has_samples": bool(samples),
        "has_tokens": any("pieces" in own for each in samples for own in each["answers"]),
        "has_fields": bool(data["fields"]),
        "has_sensitivity": bool(data["sensitivity"]),
        "race": ranking.get("race"),
        "race_words": race_words,
        "by": groups.section(ranking),
        "pilot": pilot.section(ranking),
        "origin": origin,
        "take": exports.take_along(folder),
        "data": page.embed_json(data),
        "number": wording.number,
        "percent": wording.percent,
        "rank_range": selection_words.rank_range,
    }
    return page.render_page("pages/select/report.html.j2", context, styles=STYLES, scripts=SCRIPTS)


def _clauses(ranking: dict[str, Any], provenance: Mapping[str, Any]) -> list[str]:
    """What the verdict says of its confidence and its cost."""
    race = ranking.get("race")
    said = (
        selection_words.verdict(ranking)["resamples"],
        race_words.surely(race) if race else "",
        cost.clause(ranking, provenance),
    )
    return [text for text in said if text]


def _read_ranking(folder: Path) -> dict[str, Any]:
    """`ranking.json`, refused where it is missing, of another version or names no known teacher."""
    path = folder / artifacts.RANKING
    ranking = origins.read_json(path)

    def refuse(what: str, found: str, next_step: str) -> RunFolderError:
        return RunFolderError(what, where=str(path), found=found, next_step=next_step)

    if ranking is None:
        raise refuse(
            "the run folder holds no ranking",
            "no such file",
            "give the folder of a finished `preceptor select` run",
        )
    version = ranking.get("version") if isinstance(ranking, dict) else None
    if version != artifacts.RANKING_VERSION:
        raise refuse(
            "the ranking has a version this release cannot read",
            repr(version),
            f"rank again with this release (version {artifacts.RANKING_VERSION})",
        )
    criterion = (ranking.get("criteria") or {}).get(ranking.get("recommended_by"))
    ranked = [row["teacher"] for row in criterion["teachers"]] if criterion else []
    if ranking.get("recommended") not in ranked:
        raise refuse(
            "the recommended teacher is not ranked by the recommending criterion",
            f"{ranking.get('recommended')!r} by {ranking.get('recommended_by')!r}",
            "rank again; the file was changed by hand or is incomplete",
        )
    return ranking


def _teacher_order(ranking: dict[str, Any]) -> list[str]:
    """All teachers: those of the recommending criterion by rank, then the rest by name."""
    main = ranking["criteria"][ranking["recommended_by"]]
    first = [row["teacher"] for row in main["teachers"]]
    named = set(ranking.get("teachers") or {})
    for criterion in ranking["criteria"].values():
        named |= {row["teacher"] for row in criterion["teachers"]}
    return first + sorted(named - set(first))


def _facts(ranking: dict[str, Any], teacher: str) -> dict[str, Any]:
    """What was measured for one teacher: loss (nats per token), tokens per answer, rewards."""
    info = (ranking.get("teachers") or {}).get(teacher) or {}
    return {
        "loss": info.get("loss"),
        "tokens": info.get("n_tokens_mean"),
        "truncated": info.get("truncated"),
        "rewards": info.get("rewards") or {},
    }


def _board(
    ranking: dict[str, Any], key: str, criterion: dict[str, Any], teachers: list[str]
) -> dict[str, Any]:
    """One criterion as the leaderboard shows it; `rows` are parallel to `teachers` (or None)."""
    rows = criterion["teachers"]
    low, high = min(row["low"] for row in rows), max(row["high"] for row in rows)
    margin = (high - low or abs(high) or 1.0) * 0.05
    by_teacher = {row["teacher"]: row for row in rows}
    fields = ("score", "low", "high", "rank", "rank_low", "rank_high", "p_best")
    tied = set(criterion.get("tied_with_first") or [])
    return {
        "label": wording.label(key),
        "direction": criterion.get("direction", "higher"),
        "unit": criterion.get("unit", ""),
        "description": criterion.get("description", ""),
        "reward": criterion.get("reward") or primary_reward(ranking),
        "decimals": wording.decimals_for(rows),
        "domain": [low - margin, high + margin],
        "tied": [index for index, teacher in enumerate(teachers) if teacher in tied],
        "rows": [
            {field: by_teacher[teacher].get(field) for field in fields}
            if teacher in by_teacher
            else None
            for teacher in teachers
        ],
    }


def _car_key(ranking: dict[str, Any], reward: str) -> str | None:
    """The criterion that is CAR with `reward`, if it was computed."""
    for key, criterion in ranking["criteria"].items():
        if key.partition(".")[0] == "car" and criterion.get("reward") == reward:
            return key
    return None


def _solved_means(
    ranking: dict[str, Any], key: str, beta: float, teachers: list[str], losses: list[float | None]
) -> list[float | None]:
    """The mean reward r each teacher's recorded CAR implies: r = CAR · (1 + βL)."""
    scores = {row["teacher"]: row["score"] for row in ranking["criteria"][key]["teachers"]}
    return [
        scores[teacher] * (1 + beta * loss) if teacher in scores and loss is not None else None
        for teacher, loss in zip(teachers, losses, strict=True)
    ]


def _differ(solved: float | None, mean: float | None) -> bool:
    if solved is None:
        return False
    return mean is None or abs(mean - solved) > 1e-6 * max(1.0, abs(solved))


def _fields(ranking: dict[str, Any], teachers: list[str]) -> dict[str, Any]:
    """Per reward: the mean reward r (or None) of every teacher, and whether CAR can be redrawn.

    CAR is taken after the reward's recorded map. Where the teachers' plain means do not give the
    recorded CAR, r is solved from it, so the slider redraws the same criterion.
    """
    beta = ranking.get("beta")
    facts = [_facts(ranking, teacher) for teacher in teachers]
    losses = [fact["loss"] for fact in facts]
    fields: dict[str, Any] = {}
    for name, reward in (ranking.get("rewards") or {}).items():
        means, applied = [fact["rewards"].get(name) for fact in facts], "none"
        key = _car_key(ranking, name) if beta is not None else None
        if key and beta is not None:
            solved = _solved_means(ranking, key, beta, teachers, losses)
            if any(_differ(r, mean) for r, mean in zip(solved, means, strict=True)):
                means, applied = solved, (reward or {}).get("map", "none")
        pairs = zip(means, losses, strict=True)
        if any(r is not None and loss is not None for r, loss in pairs):
            fields[name] = {"means": means, "car": key, "map": applied}
    return fields


def _sensitivity(ranking: dict[str, Any], teachers: list[str]) -> dict[str, Any]:
    """Per reward: [{beta, ranks}] with ranks parallel to `teachers` (None where unranked)."""
    result: dict[str, Any] = {}
    for name, grid in (ranking.get("beta_sensitivity") or {}).items():
        steps = []
        for step in grid:
            ranks = {row["teacher"]: row["rank"] for row in step["teachers"]}
            steps.append({"beta": step["beta"], "ranks": [ranks.get(t) for t in teachers]})
        if len(steps) > 1:
            result[name] = steps
    return result


def _race(ranking: dict[str, Any], teachers: list[str]) -> dict[str, Any] | None:
    """What the timeline draws: where each round ends, who leads it, and the teachers' lives."""
    race = ranking.get("race")
    if race is None:
        return None
    place = {teacher: index for index, teacher in enumerate(teachers)}
    return {
        "total": race["n_total"],
        "rounds": [
            {"n": one["n_asked"], "leader": place.get(one["leader"])} for one in race["rounds"]
        ],
        "lives": [row | {"teacher": place[row["teacher"]]} for row in race_words.lives(race)],
    }


def _rank_cells(boards: dict[str, Any], teachers: list[str]) -> list[list[dict[str, Any] | None]]:
    """Ranks of teachers x criteria, each with a shade 0 (first) .. 6 (last)."""
    n = max(len(teachers), 2)
    return [
        [
            None
            if row is None
            else {"rank": row["rank"], "shade": round(6 * (row["rank"] - 1) / (n - 1))}
            for row in (board["rows"][index] for board in boards.values())
        ]
        for index in range(len(teachers))
    ]
