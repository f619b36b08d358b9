"""`study.html`: which teacher for which base, and which criterion would have said so.

Reads `study.json` and the provenance of a folder only. Words, tables, heat maps and intervals are
rendered here and need no script; lines over size and scatter plots are drawn from embedded JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from preceptor.core.study import STUDY, STUDY_PAGE, STUDY_VERSION
from preceptor.reporting.exporting import exports
from preceptor.reporting.findings import run_verdicts, study_words
from preceptor.reporting.pages.study import boards
from preceptor.reporting.pages.trials import boards_of, panels_of
from preceptor.reporting.parts import origins, page, wording
from preceptor.reporting.parts.wording import interval_words, short

STYLES = ("pages/boards.css", "pages/study/report.css")
SCRIPTS = (
    *page.CHARTS,
    "pages/panels.js",
    "pages/study/report.js",
)


def write(folder: Path) -> Path:
    """Write `study.html` and `study.md` beside `study.json` and return the path of the first."""
    return exports.write_page(folder / STUDY_PAGE, render(folder))


def render(folder: Path) -> str:
    """The page of the study in `folder` as HTML; the same files give the same text.

    Raises:
        RunFolderError: no study, or one of another version.
    """
    study = origins.read_result(folder / STUDY, STUDY_VERSION, "study", "study")
    origin = origins.origin_of(folder)
    criteria = study["criteria"]
    tried = [own for own in criteria["bases"] if own["outcomes"]] if criteria else []
    panels = [panels_of(base) for base in tried]
    scatter = _scatter(panels)
    families = boards.families_drawn(study)
    verdict = origins.with_cost(
        run_verdicts.of("study", folder, origin["raw"]), _spent(study, origin["raw"])
    )
    names = _names(study)
    context = {
        "study": study,
        "title": _title(study["bases"]),
        "verdict": page.marked(verdict, names),
        "further": [page.marked(text, names) for text in _further(study, verdict)],
        "tried_panels": panels,
        "counts": boards.counts(study["cells"]),
        "heats": [boards.heat_of_arm(study, arm) for arm in study["arms"]],
        "boards": boards_of(criteria, tried) if criteria and tried else [],
        "families": families,
        "family_rows": boards.family_rows(study),
        "scatter": scatter,
        "grids": boards.grids(study),
        "arms": boards.arms_of(study),
        "seeds": boards.seeds_of(study),
        "failures": boards.failures(study["cells"]),
        "left": [cell["folder"] for cell in study["cells"] if cell["status"] == "left"],
        "sources": boards.source_rows(study),
        "origin": origin,
        "take": exports.take_along(folder),
        "data": page.embed_json({"families": families, "scatter": scatter}),
        "number": wording.number,
        "percent": wording.percent,
        "interval_words": interval_words,
        "short": short,
        "hours_words": wording.hours_words,
        "size_words": study_words.size_words,
    }
    return page.render_page("pages/study/report.html.j2", context, styles=STYLES, scripts=SCRIPTS)


def _title(bases: list[str]) -> str:
    return bases[0] if len(bases) == 1 else f"{len(bases)} bases"


def _names(study: Mapping[str, Any]) -> list[str]:
    """The names of strangers that a sentence of the verdict may hold."""
    sources = [own[key] for own in study["sources"] for key in ("name", "teacher")]
    families = [own["family"] for own in study["sources"] if own["family"]]
    return [*study["bases"], *sources, *families, *study["arms"]]


def _further(study: Mapping[str, Any], verdict: str) -> list[str]:
    """The sentences that are not in `verdict` yet; of those about size the first one alone, the
    others stand in their section."""
    later = study["paradox_words"][1:]
    return [
        own["text"]
        for own in study["verdict"]
        if own["text"] not in later and not origins.said_in(own["text"], verdict)
    ]


def _spent(study: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    """What the trainings took over all invocations, else what the last one did."""
    hours = study["facts"].get("cell_hours")
    if not hours:
        return origins.spent(provenance)
    return f"its trainings and exams took {origins.time_words(3600 * hours)}"


def _scatter(bases: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Panels by criterion: for each, what every base has of it."""
    labels = list(dict.fromkeys(panel["label"] for base in bases for panel in base["panels"]))
    return [
        {
            "label": label,
            "bases": [
                {**{name: base[name] for name in ("name", "teachers", "outcome")}, "panel": panel}
                for base in bases
                for panel in base["panels"]
                if panel["label"] == label
            ],
        }
        for label in labels
    ]
