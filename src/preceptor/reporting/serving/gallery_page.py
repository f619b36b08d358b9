"""The pages that `preceptor serve` makes: the list of runs, and a run that is not finished.

Both are made anew for each request. Their scripts ask the server that sent them, and nobody else,
how things go on, so they come with a policy of their own instead of that of the reports.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from preceptor.reporting.findings.run_kinds import KINDS
from preceptor.reporting.parts import page
from preceptor.reporting.serving.gallery import Card, Gallery
from preceptor.reporting.serving.progress_of import Watch, brief

STYLES = ("serving/gallery.css",)
LIST_SCRIPTS = ("parts/page.js", "serving/served.js", "serving/gallery.js")
LIVE_SCRIPTS = (
    *page.CHARTS,
    "serving/served.js",
    "serving/live.js",
)
# the order in which kinds are offered
_KINDS = {name: kind.title for name, kind in KINDS.items()}


def policy(nonce: str) -> str:
    """The content security policy of these pages: their own scripts, and requests to their host."""
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; "
        "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


def listed(gallery: Gallery, watch: Watch) -> list[dict[str, Any]]:
    """Every run in short, the latest first; of running ones the stage that they are at."""
    found = []
    for card in gallery.cards().values():
        found.append(brief(card) | {"now": watch.now(card), "typed": gallery.typed(card)})
    return found


def stamp(runs: Iterable[Mapping[str, Any]]) -> str:
    """Changes whenever the list would look different."""
    seen = [
        {key: value for key, value in own.items() if key != "changed" or own["state"] != "running"}
        for own in runs
    ]
    return hashlib.blake2b(json.dumps(seen).encode(), digest_size=8).hexdigest()


def render_list(gallery: Gallery, watch: Watch, nonce: str) -> str:
    """The page that lists all runs."""
    runs = listed(gallery, watch)
    known = {own["id"] for own in runs}
    inner: dict[str, list[dict[str, Any]]] = {}
    for own in sorted(runs, key=lambda own: own["name"]):
        if own["parent"] in known:
            inner.setdefault(own["parent"], []).append(own)
    outer = [own for own in runs if own["parent"] not in known]
    context = {
        "folder": gallery.shown_as,
        "outer": outer,
        "inner": inner,
        "counts": {
            state: sum(own["state"] == state for own in outer)
            for state in ("running", "stopped", "finished")
        },
        "kinds": {name: _KINDS[name] for name in _KINDS if any(o["kind"] == name for o in outer)},
        "left_aside": gallery.left_aside,
        "cut": gallery.cut,
        "first": shlex.quote(str(PurePosixPath(gallery.shown_as, "first"))),
        "stamp": stamp(runs),
        "data": page.embed_json({}),
        "nonce": nonce,
        "iso": iso,
        "plain_time": plain_time,
    }
    return page.render_page("serving/gallery.html.j2", context, styles=STYLES, scripts=LIST_SCRIPTS)


def render_run(gallery: Gallery, watch: Watch, card: Card, nonce: str) -> str:
    """The page of a run that is not finished, or of one that draws no page."""
    cards = gallery.cards()
    seen = live(gallery, watch, card)
    around, above = [], cards.get(card.parent)
    while above is not None and len(around) < 8:
        around.insert(0, brief(above))
        above = cards.get(above.parent)
    context = {
        "run": brief(card) | {"name": card.name or gallery.shown_as},
        "typed": gallery.typed(card),
        "around": around,
        "data": page.embed_json(seen),
        "nonce": nonce,
        "iso": iso,
        "plain_time": plain_time,
    }
    return page.render_page("serving/live.html.j2", context, styles=STYLES, scripts=LIVE_SCRIPTS)


def live(gallery: Gallery, watch: Watch, card: Card) -> dict[str, Any]:
    """What the page of a run asks for again and again."""
    return {"id": card.key, **watch.look(card, gallery.cards())}


def iso(at: float) -> str:
    """A moment as ISO 8601, in UTC."""
    return _moment(at).isoformat(timespec="seconds").replace("+00:00", "Z")


def plain_time(at: float) -> str:
    """A moment for readers without scripts, in UTC."""
    return _moment(at).strftime("%Y-%m-%d %H:%M UTC")


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(min(max(at, 0.0), 4e9), UTC)
