"""A chat server on 127.0.0.1 that answers, or fails as a script says; it notes what it sees."""

from __future__ import annotations

import email
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = str | tuple[int, dict[str, str], Any]  # a name below, or (status, headers, JSON body)


@dataclass(frozen=True)
class Seen:
    """One request for a chat completion."""

    at: float
    text: str
    body: dict[str, Any]
    headers: dict[str, str]


@dataclass
class Api:
    """What the server does and saw.

    Attributes:
        faults: per text of the user's last message, what happens to its first tries.
        answer: from that text and the model's name to the reply.
        seconds: what an answer takes.
        choice: further fields of a choice; `usage` off: the server counts no tokens.
        polls: how often a batch is looked at before it is complete.
        batch_status: how a batch ends.
        lost_batches: so many are made, but the client is told of a failure.
        bad_lines: per text, the statuses of its first lines in batches; 0 is an expired line.
    """

    faults: Mapping[str, Sequence[Fault]] = field(default_factory=dict)
    answer: Callable[[str, str], str] = lambda text, model: f"You said {text}."
    seconds: float = 0.0
    choice: dict[str, Any] = field(default_factory=dict)
    usage: bool = True
    polls: int = 1
    bad_lines: Mapping[str, Sequence[int]] = field(default_factory=dict)
    batch_status: str = "completed"
    lost_batches: int = 0
    seen: list[Seen] = field(default_factory=list)
    most_at_once: int = 0
    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    released: threading.Event = field(default_factory=threading.Event)
    _now: int = 0
    _tries: Counter[str] = field(default_factory=Counter)
    _lines: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def texts(self) -> list[str]:
        return [seen.text for seen in self.seen]

    def completion(self, body: Mapping[str, Any]) -> dict[str, Any]:
        text = body["messages"][-1]["content"]
        said = self.answer(text, body["model"])
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": said},
            "finish_reason": "stop",
            **self.choice,
        }
        counts = {"prompt_tokens": len(text), "completion_tokens": len(said.split())}
        usage = {"usage": counts} if self.usage else {}
        return {"object": "chat.completion", "model": "m", "choices": [choice], **usage}

    def begin(self, body: dict[str, Any], headers: dict[str, str]) -> Fault | None:
        text = body["messages"][-1]["content"]
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            self.seen.append(Seen(time.monotonic(), text, body, headers))
            tries, self._tries[text] = self._tries[text], self._tries[text] + 1
        planned = self.faults.get(text, ())
        return planned[tries] if tries < len(planned) else None

    def end(self) -> None:
        with self._lock:
            self._now -= 1

    def make_batch(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        number = f"batch_{len(self.batches)}"
        kept = {name: asked[name] for name in ("input_file_id", "endpoint", "completion_window")}
        self.batches[number] = {
            "id": number,
            "object": "batch",
            "created_at": 1,
            "status": "in_progress",
            "metadata": asked["metadata"],
            "polls": 0,
            **kept,
        }
        return self.batches[number]

    def look_at(self, number: str) -> dict[str, Any]:
        batch = self.batches[number]
        batch["polls"] += 1
        if batch["status"] == "in_progress" and batch["polls"] >= self.polls:
            self._finish(number, batch)
        return batch

    def _finish(self, number: str, batch: dict[str, Any]) -> None:
        batch["status"] = self.batch_status
        if self.batch_status == "failed":
            batch["errors"] = {"data": [{"code": "x", "message": "line 1 is not to our taste"}]}
            return
        out: list[bytes] = []
        bad: list[bytes] = []
        for line in self.files[batch["input_file_id"]].decode().strip().split("\n"):
            row = json.loads(line)
            text = row["body"]["messages"][-1]["content"]
            planned, tries = self.bad_lines.get(text, ()), self._lines[text]
            self._lines[text] += 1
            result: dict[str, Any] = {"custom_id": row["custom_id"], "error": None}
            status = planned[tries] if tries < len(planned) else 200
            if status == 0:
                result["error"] = {"code": "batch_expired", "message": "too late"}
            else:
                refusal = {"error": {"message": f"no {text}"}}
                content = self.completion(row["body"]) if status == 200 else refusal
                result["response"] = {"status_code": status, "body": content}
            (out if status == 200 else bad).append(json.dumps(result).encode() + b"\n")
        for name, lines in (("output", out), ("error", bad)):
            if lines:
                batch[f"{name}_file_id"] = f"{number}-{name}"
                self.files[f"{number}-{name}"] = b"".join(reversed(lines))


class Handler(BaseHTTPRequestHandler):
    """Chat completions, files and batches."""

    protocol_version = "HTTP/1.1"
    api: Api

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: tests read standard error."""

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].removeprefix("/v1/").split("/")
        self.api.calls[f"GET {parts[0]}"] += 1
        if parts == ["batches"]:
            newest = list(reversed(self.api.batches.values()))
            self.send(200, {"object": "list", "data": newest, "has_more": False})
        elif parts[0] == "batches":
            self.send(200, self.api.look_at(parts[1]))
        elif parts[1] in self.api.files:
            self.send(200, self.api.files[parts[1]])
        else:
            self.send(404, {"error": {"message": "no such file"}})

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.api.calls[f"POST {self.path}"] += 1
        if self.path == "/v1/files":
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            parts: Any = email.message_from_bytes(head + content).get_payload()
            given = {p.get_param("name", header="content-disposition"): p for p in parts}
            assert given["purpose"].get_payload() == "batch"
            number = f"file-{len(self.api.files)}"
            self.api.files[number] = given["file"].get_payload(decode=True)
            self.send(200, {"id": number, "object": "file", "purpose": "batch"})
        elif self.path == "/v1/batches":
            batch = self.api.make_batch(json.loads(content))
            lost = len(self.api.batches) <= self.api.lost_batches
            self.send(502, {}) if lost else self.send(200, batch)
        elif self.path == "/v1/chat/completions":
            body = json.loads(content)
            fault = self.api.begin(
                body, {name.lower(): value for name, value in self.headers.items()}
            )
            time.sleep(self.api.seconds)
            self.api.end()  # before the client can know, and begin another
            self.chat(body, fault)
        else:
            self.send(404, {"error": {"message": "no such address"}})

    def chat(self, body: dict[str, Any], fault: Fault | None) -> None:
        whole = json.dumps(self.api.completion(body)).encode()
        if isinstance(fault, tuple):
            status, headers, content = fault
            told = json.dumps(content).replace("HEADER", self.headers.get("Authorization", ""))
            self.send(status, told.encode(), headers)
        elif fault == "hang":
            self.api.released.wait(20)
            self.close_connection = True
        elif fault == "reset":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
        elif fault == "cut":  # the line breaks in the middle of the body
            self.send(200, whole, length=len(whole) + 100)
            self.close_connection = True
        elif fault == "truncated":
            self.send(200, whole[: len(whole) // 2])
        elif fault == "malformed":
            self.send(200, b"<html>gateway</html>")
        elif fault == "empty":
            self.send(200, {"choices": [], "usage": None})
        elif fault == "silent":
            message = {"role": "assistant", "content": None}
            self.send(200, {"choices": [{"message": message, "finish_reason": "stop"}]})
        else:
            assert fault is None, fault
            self.send(200, whole)

    def send(
        self,
        status: int,
        content: Any,
        headers: Mapping[str, str] | None = None,
        length: int | None = None,
    ) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data) if length is None else length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are part of the tests."""


@contextmanager
def serving(api: Api) -> Iterator[Api]:
    """Serve `api` on its port (a free one when 0) until the block is left."""
    handler = type("Bound", (Handler,), {"api": api})
    server = _Quiet(("127.0.0.1", api.port), handler)
    api.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield api
    finally:
        api.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
