"""Teachers behind OpenAI-compatible servers and hosted APIs, asked over HTTP.

The key is read from the environment when the teacher is opened, and is written nowhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from preceptor.core.background import in_background
from preceptor.core.errors import SettingsError
from preceptor.core.types import Reply, Request, Runtime, TeacherSource
from preceptor.data.chat import OURS
from preceptor.data.chat_batches import ask_by_batches
from preceptor.data.chat_server import HOSTED, KINDS, SECRET, ChatServer, library, share

HOSTED_KEY = "OPENAI_API_KEY"  # where the hosted API's key stands, unless a setting says otherwise

Emit = Callable[[tuple[int, list[Reply]]], None]


def open_teacher(setting: Any, runtime: Runtime) -> TeacherSource:
    """A model behind an OpenAI-compatible server; no connection is made before it is asked.

    Reads the fields of `OpenAITeacher`. Every request is a group of its own, answered as soon as
    the server does. `facts` counts `requests` (tries), `retries` and `retries_<kind>`,
    `seconds_rate_limited` (summed over requests), `without_usage` (replies whose tokens had to be
    estimated), `filtered`, and in batch mode `batches`, `batches_found_again` and
    `batch_lines_failed`.

    Raises:
        SettingsError: the library is not installed, the key is missing or stands in the settings,
            a URL or option that cannot be used.
    """
    del runtime  # the model runs elsewhere
    library()
    endpoint = _endpoint(setting)
    key = _key(setting)
    clash = sorted(OURS & set(setting.options))
    if clash:
        raise SettingsError(
            "an option is not for the user to set",
            where=f"teacher {setting.model}: options",
            found=", ".join(clash),
            next_step="remove it; `model` and `system` are settings of the teacher",
        )
    identity = {"model": setting.model, "endpoint": endpoint, "revision": setting.revision}
    if setting.system:
        identity["system"] = _hash(setting.system)
    if setting.options:
        identity["options"] = _hash(json.dumps(setting.options, sort_keys=True))
    facts: dict[str, float] = {"requests": 0, "retries": 0}
    facts |= {f"retries_{kind}": 0 for kind in KINDS}
    facts |= {"seconds_rate_limited": 0.0, "without_usage": 0, "filtered": 0}

    def ask(groups: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Reply]]]:
        server = ChatServer(setting, identity, key, facts)
        work = ask_by_batches if setting.batch_api else _ask_one_by_one
        return in_background(partial(work, server, groups))

    def price(n_prompt: int, n_generated: int) -> float:
        return (n_prompt * setting.price.input + n_generated * setting.price.output) / 1e6

    return TeacherSource(
        identity, lambda requests: [[place] for place in range(len(requests))], ask, price, facts
    )


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _endpoint(setting: Any) -> str:
    """Host (and port) of the server; refuses addresses that are none, or that hold secrets."""
    try:
        parts = urlsplit(setting.url or HOSTED)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, good = urlsplit(""), False
    if parts.username or parts.password or parts.query:
        raise SettingsError(
            "the url may hold a secret",
            where=f"teacher {setting.model}: url",
            found="a user, a password or a query in it",
            next_step="give the key by an environment variable, named in `key_env`",
        )
    if not good:
        raise SettingsError(
            "the url is no address of a server",
            where=f"teacher {setting.model}: url",
            found=setting.url,
            next_step="give a base URL, such as http://127.0.0.1:8000/v1",
        )
    return parts.netloc


def _key(setting: Any) -> str:
    """The key; empty where a server of one's own wants none. No error text shows it."""
    variable = setting.key_env or ("" if setting.url else HOSTED_KEY)
    if not variable:
        return ""
    where = f"teacher {setting.model}: key_env"
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        raise SettingsError(
            "key_env is no name of an environment variable",
            where=where,
            next_step="set the variable to the key, and key_env to the variable's name",
        )
    key = os.environ.get(variable, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise SettingsError(
            "the server's key is missing" if not key else "the server's key is no line of ASCII",
            where=where,
            found=f"environment variable {variable}" + (" not set, or empty" if not key else ""),
            next_step=f"export {variable}=...",
        )
    if len(key) >= SECRET and key in setting.model_dump_json():
        raise SettingsError(
            "the key stands in the settings, which are written to the run folder",
            where=f"teacher {setting.model}",
            next_step=f"remove it there; the environment variable {variable} is enough",
        )
    return key


async def _ask_one_by_one(
    server: ChatServer, groups: Sequence[Sequence[Request]], emit: Emit
) -> None:
    async def work(number: int) -> None:
        emit((number, [await server.answer(request) for request in groups[number]]))

    await share(server, server.setting.concurrency, range(len(groups)), work)
