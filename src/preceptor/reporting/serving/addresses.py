"""The addresses of `preceptor serve`: few, read only, and for who calls the server by its name.

A request names a run by the hash of its place, and a file by a name on a closed list; neither is
made into a path. A page that a run left may have been written by strangers: the browser is told to
treat it as of no origin, so that its scripts reach nothing but itself.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from preceptor.reporting.serving import gallery_page
from preceptor.reporting.serving.gallery import FILES, Card, Gallery
from preceptor.reporting.serving.progress_of import Watch

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
METHODS = ("GET", "HEAD")
OF_REPORTS = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "sandbox allow-scripts allow-downloads"
)
OF_DATA = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; sandbox"
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": OF_DATA,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def make_app(gallery: Gallery, is_our_name: Callable[[str], bool]) -> ASGIApp:
    """The application over the runs of a gallery.

    Args:
        is_our_name: whether a host, without its port, is a name of this server. A page of another
            site whose name was made to lead here (DNS rebinding) calls it by that name.
    """
    site = _Site(gallery, Watch(gallery))
    routes = [
        Route("/", site.list),
        Route("/runs/{run}", site.to_run),
        Route("/runs/{run}/", site.run),
        Route("/runs/{run}/files/{name}", site.file),
        Route("/api/runs", site.list_json),
        Route("/api/runs/{run}", site.run_json),
    ]
    app = Starlette(routes=routes)
    app.router.redirect_slashes = False
    return _Guard(app, is_our_name)


class _Site:
    """What stands behind the addresses. Each function may run in a thread of its own."""

    def __init__(self, gallery: Gallery, watch: Watch) -> None:
        self.gallery, self.watch = gallery, watch

    def list(self, request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        return _page(gallery_page.render_list(self.gallery, self.watch, nonce), nonce)

    def to_run(self, request: Request) -> Response:
        """An address without its last stroke; the way on is told relative to it."""
        card = self._card(request)
        return Response(status_code=307, headers={"location": f"{card.key}/"})

    def run(self, request: Request) -> Response:
        card = self._card(request)
        if card.state == "finished" and card.report:
            return self._file(card, card.report)
        nonce = secrets.token_urlsafe(16)
        return _page(gallery_page.render_run(self.gallery, self.watch, card, nonce), nonce)

    def file(self, request: Request) -> Response:
        card, name = self._card(request), request.path_params["name"]
        if name not in FILES or name not in card.names:
            raise HTTPException(404)
        return self._file(card, name)

    def list_json(self, request: Request) -> Response:
        runs = gallery_page.listed(self.gallery, self.watch)
        return _json({"stamp": gallery_page.stamp(runs), "runs": runs})

    def run_json(self, request: Request) -> Response:
        return _json(gallery_page.live(self.gallery, self.watch, self._card(request)))

    def _card(self, request: Request) -> Card:
        card = self.gallery.cards().get(request.path_params["run"])
        if card is None:
            raise HTTPException(404)
        return card

    def _file(self, card: Card, name: str) -> Response:
        content = self.gallery.read(card, name)
        if content is None:
            raise HTTPException(404)
        page = FILES[name].startswith("text/html")
        headers = {"content-security-policy": OF_REPORTS} if page else None
        return Response(content, media_type=FILES[name], headers=headers)


def _page(text: str, nonce: str) -> Response:
    headers = {"content-security-policy": gallery_page.policy(nonce)}
    return Response(text, media_type="text/html; charset=utf-8", headers=headers)


def _json(value: Any) -> Response:
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Response(text, media_type="application/json")


class _Guard:
    """Refuses other methods and foreign names, and puts the same headers on every answer."""

    def __init__(self, app: ASGIApp, is_our_name: Callable[[str], bool]) -> None:
        self.app, self.is_our_name = app, is_our_name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"no {scope['type']} is served")

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                own = [(k.encode(), v.encode()) for k, v in HEADERS.items()]
                more = [(name, value) for name, value in own if name not in given]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        await self._chosen(scope)(scope, receive, send_guarded)

    def _chosen(self, scope: Scope) -> ASGIApp:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or not self.is_our_name(host_name(hosts[0].decode("latin-1"))):
            return PlainTextResponse("This server is not called by that name.\n", 421)
        if scope["method"] not in METHODS:
            allow = {"allow": ", ".join(METHODS)}
            return PlainTextResponse("This server is only read.\n", 405, allow)
        return self.app


def host_name(header: str) -> str:
    """The host of a `Host` header, in small letters, without port, brackets and last full stop."""
    if header.startswith("["):
        inner, closed, _ = header[1:].partition("]")
        return inner.lower() if closed else ""
    return header.partition(":")[0].lower().removesuffix(".")


def is_address(name: str) -> bool:
    """Whether a host is a bare IP address, which no other site can make to lead elsewhere."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
