"""`report.html` of a training run: what was trained from what, what it brought, how it went.

Reads the run folder only. Sentences, tables and provenance are rendered here and need no script;
the charts are drawn from the embedded JSON, and each has its values in a table as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from statistics import median
from typing import Any

import yaml

from preceptor.core import artifacts
from preceptor.core.errors import RunFolderError
from preceptor.reporting.exporting import exports
from preceptor.reporting.findings import run_verdicts
from preceptor.reporting.findings.quality import (
    Interval,
    Quality,
    decimals_of,
    read_quality,
    words_of,
)
from preceptor.reporting.findings.training_log import Log, read_log
from preceptor.reporting.pages.training.figures import ABLATIONS, figures, shown, table
from preceptor.reporting.parts import origins, page, wording

METRICS, ABLATION = artifacts.METRICS, "ablation"
STYLES = ("pages/training/report.css",)
SCRIPTS = (
    *page.CHARTS,
    "pages/training/report.js",
)


def write(folder: Path) -> Path:
    """Write `report.html` and the summary `report.md` into the run folder; returns the first.

    Raises:
        RunFolderError: the folder holds no training, or one of its files cannot be read.
    """
    return exports.write_page(folder / artifacts.REPORT, render(folder))


def render(folder: Path) -> str:
    """The report of the run in `folder` as HTML; the same folder gives the same text."""
    logs = _logs(folder)
    quality = _quality(folder)
    if not logs and quality is None:
        raise RunFolderError(
            "the run folder holds no training",
            where=str(folder),
            found=f"no {METRICS}, {ABLATION}/ or {artifacts.QUALITY}",
            next_step="give the folder of a training run",
        )
    origin = origins.origin_of(folder)
    settings = _settings(folder, origin)
    charts = figures(logs)
    data = {
        "runs": {key: log.drawn() for key, log in logs.items()},
        "figures": charts,
        "quality": _quality_data(quality) if quality else None,
    }
    context = {
        **_who(settings),
        "verdict": _verdict(folder, quality, origin["raw"]),
        "tiles": _tiles(logs),
        "warnings": _warnings(logs, origin["raw"]),
        "every": max((log.every for log in logs.values()), default=1),
        "quality": quality,
        "has_seeds": quality is not None and any(row.by_seed for row in quality.rows),
        "figures": charts,
        "tables": {key: table(figure, logs) for key, figure in charts.items()},
        "origin": origin,
        "take": exports.take_along(folder),
        "data": page.embed_json(data),
        "number": wording.number,
        "percent": wording.percent,
        "words_of": words_of,
        "decimals_of": decimals_of,
        "shown": shown,
    }
    return page.render_page(
        "pages/training/report.html.j2", context, styles=STYLES, scripts=SCRIPTS
    )


def _logs(folder: Path) -> dict[str, Log]:
    """The log of the run ("run") and of each ablation, where they are."""
    paths = {"run": folder / METRICS}
    paths |= {name: folder / ABLATION / name / METRICS for name in ABLATIONS}
    read = {key: read_log(path) for key, path in paths.items()}
    return {key: log for key, log in read.items() if log is not None}


def _quality(folder: Path) -> Quality | None:
    path = folder / artifacts.QUALITY
    found = origins.read_json(path)
    return None if found is None else read_quality(found, str(path))


def _settings(folder: Path, origin: Mapping[str, Any]) -> Mapping[str, Any]:
    """The run's settings, from the provenance or else from the settings file."""
    found = origin["raw"].get("settings")
    if found is None and origin["settings"] is not None:
        try:
            found = yaml.safe_load(origin["settings"])
        except yaml.YAMLError as error:
            raise origins.unreadable(folder / artifacts.SETTINGS, "YAML", error) from error
    return found if isinstance(found, Mapping) else {}


def _who(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The student, and the words between it and what it learned from."""
    students = _model_names(settings.get("base"))
    teachers = _model_names([settings.get(key) for key in ("teacher", "reference", "experts")])
    link = "trained from"
    if not teachers:
        data = settings.get("data")
        data = data if isinstance(data, Mapping) else {}
        teachers = _model_names(data.get("teacher") or data.get("ask"))
        link = "trained on the answers of" if teachers else "trained on answers" if data else ""
    return {
        "student": students[0] if students else "",
        "link": link,
        "teachers": wording.listing(teachers),
    }


def _model_names(setting: Any) -> list[str]:
    """The models that a setting names, each once: a path's last part, other names whole.

    A model is a string, or a mapping with `name`, `model` or `path`; lists and other mappings
    hold models as their values.
    """
    if isinstance(setting, str):
        is_path = setting.startswith((".", "/", "~")) or setting.count("/") > 1
        return [(PurePosixPath(setting).name if is_path else "") or setting.removeprefix("lab:")]
    inner: Iterable[Any] = setting if isinstance(setting, list) else ()
    if isinstance(setting, Mapping):
        own = [setting[key] for key in ("name", "model", "path") if setting.get(key)]
        held = [value for value in setting.values() if not isinstance(value, str)]
        inner = own[:1] or (held if "kind" in setting else setting.values())
    return list(dict.fromkeys(name for value in inner for name in _model_names(value)))


def _verdict(folder: Path, quality: Quality | None, provenance: Mapping[str, Any]) -> page.Words:
    """What the run brought, how sure that is and what it took, in one sentence.

    Above and below are said only of a difference whose interval excludes 0.
    """
    said = run_verdicts.of("sft", folder, provenance)  # of every training, whatever its verb
    models = [row.model for row in quality.rows] if quality else []
    groups = quality.groups if quality and quality.groups != ["all"] else []
    return page.marked(origins.with_cost(said, origins.spent(provenance)), [*models, *groups])


def _quality_data(quality: Quality) -> dict[str, Any]:
    """What the dot plots need, by group: scores and differences, the main model marked."""
    scores, differences = [], []
    for group in quality.groups:
        rows = [(row, row.scores[group]) for row in quality.rows]
        scores.append(
            [
                {"label": row.model, "main": row.model == quality.main, **_ends(cell)}
                | {"seeds": row.by_seed.get(group, [])}
                for row, cell in rows
                if cell
            ]
        )
        differences.append(
            [
                {"label": f"{d.model} − {d.against}", "main": d.model == quality.main}
                | _ends(d.interval)
                for d in quality.differences
                if d.group == group
            ]
        )
    return {"decimals": quality.decimals, "scores": scores, "differences": differences}


def _ends(cell: Interval) -> dict[str, float]:
    return {"value": cell.value, "low": cell.low, "high": cell.high}


def _tiles(logs: dict[str, Log]) -> list[tuple[str, str]]:
    """(figure, what it is) of the run, or of the ablation "both" where there is no other."""
    log = logs.get("run") or logs.get("both")
    if log is None or not log.steps:
        return []
    tiles = [(wording.number(log.steps[-1], 0), "steps")]
    epochs = [epoch for epoch in log.epochs if epoch is not None]
    if epochs:
        tiles.append((f"{max(epochs):.3g}", "passes over the data"))
    speeds = [value for _, value in log.known("tokens_per_second")]
    if speeds:
        tiles.append((shown(median(speeds)), "tokens/s (median)"))
    memory = [value for _, value in log.known("peak_memory_mb")]
    if memory:
        tiles.append((f"{shown(max(memory))} MB", "peak memory"))
    return tiles


def _warnings(logs: dict[str, Log], provenance: Mapping[str, Any]) -> list[str]:
    found = []
    status = provenance.get("status")
    if status not in (None, "finished"):
        found.append(f"The run is not finished (status: {status}); this page shows it so far.")
    for key, log in logs.items():
        where = "" if key == "run" else f" ({ABLATIONS[key][0]})"
        if not log.steps:
            found.append(f"No step was logged{where}.")
        for name, steps in log.not_finite.items():
            found.append(
                f"{name} was no finite number at {len(steps)} of {len(log.steps)} logged "
                f"steps{where}, first at step {steps[0]}."
            )
    return found
