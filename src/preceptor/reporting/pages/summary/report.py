"""The page of a run whose verb draws none: a routing, a store, training sets.

Verdict and tables; everything is rendered here, and the script only copies and downloads.
"""

from __future__ import annotations

from pathlib import Path

from preceptor.reporting.exporting import exports
from preceptor.reporting.findings import run_kinds
from preceptor.reporting.parts import origins, page
from preceptor.reporting.parts.tables import presented

SCRIPTS = ("parts/page.js",)
ROWS = 200  # of a table; the CSV has them all


def render(folder: Path) -> str:
    """The page of the run in `folder` as HTML; the same folder gives the same text.

    Raises:
        RunFolderError: no run, or a result file that cannot be read.
    """
    name = run_kinds.kind_of(folder)
    if name is None:
        raise run_kinds.unknown(folder)
    context = {
        "kind": run_kinds.KINDS[name],
        "verdict": run_kinds.verdict_of(folder),
        "shown": [presented(own, ROWS) for own in exports.tables(folder).values()],
        "take": exports.take_along(folder),
        "origin": origins.origin_of(folder),
        "data": page.embed_json({}),
    }
    return page.render_page("pages/summary/report.html.j2", context, styles=(), scripts=SCRIPTS)
