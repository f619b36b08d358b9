"""`report.html` of a selection: which teacher, how sure, and what its answers look like.

Reads the run folder only. Everything that needs no script (verdict, leaderboard, ranks, terms,
provenance) is rendered here; charts, sorting and samples are drawn from the embedded JSON.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from preceptor.core import artifacts
from preceptor.core.errors import RunFolderError
from preceptor.reporting import page, race_words, select_groups, select_pilot, select_words
from preceptor.reporting.select_samples import sample_answers

STYLES = ("select.css",)
SCRIPTS = (
    "vendor/d3.min.js",
    "vendor/plot.umd.min.js",
    "page.js",
    "select.js",
    "select_table.js",
    "select_charts.js",
    "select_samples.js",
)


def write(folder: Path) -> Path:
    """Write `report.html` into the run folder (whole or not at all) and return its path."""
    path = folder / artifacts.REPORT
    artifacts.write_bytes(path, render(folder).encode())
    return path


def render(folder: Path) -> str:
    """The report of the run in `folder` as HTML; the same folder gives the same text."""
    ranking = _read_ranking(folder)
    teachers = _teacher_order(ranking)
    boards = {
        key: _board(ranking, key, criterion, teachers)
        for key, criterion in ranking["criteria"].items()
    }
    main = ranking["recommended_by"]
    reward = _primary_reward(ranking)
    samples = sample_answers(folder, teachers, ranking["recommended"], reward)
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
        "samples": samples,
    }
    context = {
        "ranking": ranking,
        "teachers": teachers,
        "verdict": select_words.verdict(ranking),
        "boards": boards,
        "main": main,
        "facts": data["facts"],
        "reward": reward,
        "heat": _heat(boards, teachers, main),
        "has_samples": bool(samples),
        "has_fields": bool(data["fields"]),
        "has_sensitivity": bool(data["sensitivity"]),
        "race": ranking.get("race"),
        "race_words": race_words,
        "by": select_groups.section(ranking),
        "pilot": select_pilot.section(ranking),
        **_origin(folder),
        "data": page.embed_json(data),
        "number": select_words.number,
        "percent": select_words.percent,
        "rank_range": select_words.rank_range,
    }
    return page.render_page("select.html.j2", context, styles=STYLES, scripts=SCRIPTS)


def _origin(folder: Path) -> dict[str, Any]:
    """Provenance and settings; the settings are shown once, as the file has them."""
    provenance, settings = (
        _read_json(folder / artifacts.PROVENANCE),
        _read_text(folder / artifacts.SETTINGS),
    )
    if isinstance(provenance, dict) and settings is not None:
        provenance = {key: value for key, value in provenance.items() if key != "settings"}
    return {"provenance": provenance, "settings": settings}


def _read_text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else None


def _read_json(path: Path) -> Any:
    """The JSON in `path`, or None where there is no such file."""
    text = _read_text(path)
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise RunFolderError(
            "a file of the run folder is not JSON",
            where=str(path),
            found=str(error),
            next_step="run the selection again, or restore the file",
        ) from error


def _read_ranking(folder: Path) -> dict[str, Any]:
    """`ranking.json`, refused where it is missing, of another version or names no known teacher."""
    path = folder / artifacts.RANKING
    ranking = _read_json(path)

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


def _primary_reward(ranking: dict[str, Any]) -> str | None:
    """The reward of the recommending criterion, else the first reward, else None."""
    own = ranking["criteria"][ranking["recommended_by"]].get("reward")
    return own or next(iter(ranking.get("rewards") or {}), None)


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
        "label": select_words.label(key),
        "direction": criterion.get("direction", "higher"),
        "unit": criterion.get("unit", ""),
        "description": criterion.get("description", ""),
        "reward": criterion.get("reward") or _primary_reward(ranking),
        "decimals": select_words.decimals_for(rows),
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


def _heat(boards: dict[str, Any], teachers: list[str], main: str) -> dict[str, Any]:
    """Ranks of teachers x criteria, each with a shade 0 (first) .. 6 (last), and agreement ρ."""
    n = max(len(teachers), 2)
    cells = [
        [
            None
            if row is None
            else {"rank": row["rank"], "shade": round(6 * (row["rank"] - 1) / (n - 1))}
            for row in (board["rows"][index] for board in boards.values())
        ]
        for index in range(len(teachers))
    ]
    agreement = []
    for board in boards.values():
        pairs = [
            (own["rank"], other["rank"])
            for own, other in zip(boards[main]["rows"], board["rows"], strict=True)
            if own and other
        ]
        agreement.append(select_words.spearman([a for a, _ in pairs], [b for _, b in pairs]))
    return {"cells": cells, "agreement": agreement}
