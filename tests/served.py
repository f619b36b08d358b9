"""`preceptor serve` as a process of its own, requests to it as they stand, and runs at work."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

Found = TypeVar("Found")
PATIENCE = 60.0


@dataclass(frozen=True)
class Answer:
    """What a server said to one request."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Served:
    """A server that runs.

    Attributes:
        said: on standard error, once it has ended.
    """

    url: str
    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(urlsplit(self.url).port or 0)

    def raw(
        self, target: bytes, method: str = "GET", hosts: tuple[str, ...] | None = None
    ) -> Answer:
        """One request whose address and `Host` headers stand as they are given."""
        names = (f"127.0.0.1:{self.port}",) if hosts is None else hosts
        lines = [method.encode() + b" " + target + b" HTTP/1.1"]
        lines += [f"Host: {name}".encode("latin-1") for name in names]
        lines += [b"Connection: close", b"Content-Length: 0", b"", b""]
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as line:
            line.sendall(b"\r\n".join(lines))
            answer = http.client.HTTPResponse(line, method=method)
            answer.begin()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, headers, answer.read())

    def get(self, path: str) -> Answer:
        return self.raw(path.encode())

    def runs(self) -> dict[str, dict[str, Any]]:
        """Every run by its name below the folder."""
        return {run["name"]: run for run in self.get("/api/runs").json()["runs"]}

    def run(self, name: str) -> dict[str, Any]:
        return self.get(f"/api/runs/{self.runs()[name]['id']}").json()

    def wait_for(self, look: Callable[[], Found | None]) -> Found:
        """What `look` gives once it gives something true."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            found = look()
            if found:
                return found
            time.sleep(0.1)
        raise AssertionError("waited in vain")


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Served]:
    """Serve a folder on a free port of this machine; in the end the server is interrupted."""
    command = [sys.executable, "-m", "preceptor.cli", "serve", str(folder), "--port", "0", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            told = process.stdout.readline()
            found = re.search(r"http://\S+/", told)
            assert found, told + process.communicate(timeout=20)[1]
            served = Served(found[0], process)
            yield served
            process.send_signal(signal.SIGINT)
            served.said.append(process.communicate(timeout=20)[1])
        finally:
            if process.poll() is None:
                process.kill()


# A run of `sft` as far as its folder tells: the real lock, stages and words, and a log that grows.
# Every step waits for a line on standard input.
TRAINING = """
import json, sys
from pathlib import Path
from preceptor.core import artifacts
from preceptor.core.progress import progress, say
from preceptor.core.run import open_run
from preceptor.reporting.pages.training import report as training_report

folder, steps, name = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
settings = {"base": name, "data": {"answers": "a.parquet"}, "training": {"epochs": 1}}
with open_run(folder, {"settings": settings, "inputs": {}, "models": {}}, sys.argv[4]) as run:
    log = run.path(artifacts.METRICS)
    done = len(log.read_text().splitlines()) if log.exists() else 0
    if not done:
        say("warning: 3 answers of " + name + " were cut")
    with progress("training", steps, "steps", done) as advance:
        print("begun", flush=True)
        for step in range(done + 1, steps + 1):
            if not sys.stdin.readline():
                break
            row = {"step": step, "epoch": step / steps, "loss": 3 / step, "next_token": 2 / step}
            with open(log, "a") as file:
                file.write(json.dumps(row | {"tokens_per_second": 800.0 + step}) + "\\n")
            advance(1, 100)
            print(step, flush=True)
    run.finish()
training_report.write(folder)
"""


@contextmanager
def training(
    folder: Path, steps: int, name: str = "lab:base-terse", command: str = "preceptor sft s.yaml"
) -> Iterator[Callable[[int], None]]:
    """A training at work; what comes back lets it do so many steps. It is killed in the end."""
    with subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(folder), str(steps), name, command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        into, out = process.stdin, process.stdout
        assert out.readline() == "begun\n"

        def go(n: int) -> None:
            for _ in range(n):
                into.write("\n")
                into.flush()
                assert out.readline().strip().isdigit()

        try:
            yield go
            if process.poll() is None:
                process.kill()
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(20)
