"""`preceptor serve`: all runs below a folder in the browser, finished ones and those at work."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from preceptor.core.errors import PreceptorError
from preceptor.reporting.serving import gallery

if TYPE_CHECKING:
    from uvicorn import Server as HttpServer

NEEDED = ("starlette", "uvicorn")  # what the extra `serve` brings
GRACE_SECONDS = 2  # that open answers have at the end


@dataclass(frozen=True)
class Server:
    """A server that listens already, and answers once it runs.

    Attributes:
        url: of its first page.
        runs: how many there are.
        warning: what to know before others can reach it; "" where only this machine can.
    """

    url: str
    runs: int
    warning: str
    http: HttpServer
    listening: socket.socket

    def run(self) -> None:
        """Answer requests until the process is interrupted."""
        try:
            self.http.run(sockets=[self.listening])
        except KeyboardInterrupt:  # it has ended in good order, and says so to its caller
            pass
        finally:
            self.listening.close()


def open_server(folder: Path, host: str = "127.0.0.1", port: int = 8777) -> Server:
    """A server of the runs below a folder, which writes nothing.

    Args:
        folder: of run folders, at any depth; may itself be one.
        host: name or address to listen on.
        port: 0 takes one that is free.

    Raises:
        PreceptorError: no such folder, an address that cannot be listened on, or packages that are
            missing.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise PreceptorError(
            "serving needs packages that are not installed",
            found=f"no {', '.join(missing)}",
            next_step="pip install 'preceptor[serve]'",
        )
    from uvicorn import Config
    from uvicorn import Server as HttpServer

    from preceptor.reporting.serving.addresses import make_app

    found = gallery.opened(folder)
    listening = _listen(host, port)
    try:
        runs = len(found.cards())  # what is read now need not be read for the first page
    except BaseException:
        listening.close()
        raise
    address, bound = listening.getsockname()[:2]
    local = ipaddress.ip_address(address.partition("%")[0]).is_loopback
    warning = (
        ""
        if local
        else f"everybody who can reach {_shown(host)}:{bound} can read all runs in {folder}: there "
        "is no password, and nothing is encrypted"
    )
    config = Config(
        make_app(found, names_of(host, local)),
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    url = f"http://{_reachable(host, address)}:{bound}/"
    return Server(url, runs, warning, HttpServer(config), listening)


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens (raises PreceptorError)."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except (OSError, UnicodeError, OverflowError) as error:
        raise PreceptorError(
            "the address cannot be listened on",
            where=f"{host}:{port}",
            found=getattr(error, "strerror", None) or str(error),
            next_step="give another --port (0 takes one that is free), or another --host",
        ) from error


def names_of(host: str, local: bool) -> Callable[[str], bool]:
    """Whether a name, without its port, is one of a server that listens on `host`.

    Args:
        local: whether only this machine reaches it.
    """
    from preceptor.reporting.serving.addresses import LOOPBACK, is_address

    known = {*LOOPBACK, host.strip("[]").lower()}
    if local:
        return known.__contains__
    known |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    return lambda name: name in known or is_address(name)


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _reachable(host: str, address: str) -> str:
    """How this machine calls the server: an address that stands for all is none to go to."""
    if ipaddress.ip_address(address.partition("%")[0]).is_unspecified:
        return "[::1]" if ":" in address else "127.0.0.1"
    return _shown(host)
