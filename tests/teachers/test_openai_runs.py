"""Whole runs with API teachers: no key in any file, nothing asked twice, a real model served."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from multiprocessing.process import BaseProcess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from api_server import Api, serving

from forked import Done, preceptor, start
from preceptor.core.errors import ModelError
from preceptor.core.types import Decoding, Reply, Request, Runtime, TeacherSource, user_turn
from preceptor.data.sources import read_source
from preceptor.lab.place import model_folder
from preceptor.recipes.select import select
from preceptor.recipes.settings.loading import load_settings
from preceptor.recipes.settings.select import Select
from preceptor.recipes.settings.shared import OpenAITeacher, TransformersTeacher
from preceptor.teachers import openai, transformers

KEY = "sk-lab-4f1c0de5ecre7"
N = 10  # instructions
ROWS = read_source("lab:selection", "train", 20).to_pylist()
TEXTS = [row["instruction"] for row in ROWS]


def write_settings(folder: Path, url: str, **teacher: object) -> None:
    """Settings of `select` with two teachers behind one server."""
    common = {"kind": "openai", "url": url, "key_env": "LAB_KEY", "max_new_tokens": 16, **teacher}
    settings = {
        "base": "lab:base-notes",
        "instructions": "lab:selection",
        "max_instructions": N,
        "teachers": [
            {"model": "kea", "price": {"input": 2.0, "output": 10.0}, **common},
            {"model": "macaw", "temperature": 0.7, **common},
        ],
        "rewards": [{"kind": "verifier", "name": "right", "function": "lab"}],
        "resamples": 100,
        "device": "cpu",
    }
    (folder / "select.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def run(folder: Path) -> Done:
    """`preceptor select`, as a user types it."""
    words = ["select", "select.yaml", "--out", "run"]
    return preceptor(*words, cwd=folder, variables={"LAB_KEY": KEY})


def said(text: str, model: str) -> str:
    """The right answer from kea, another one from macaw."""
    row = ROWS[TEXTS.index(text)]
    return row["answer"] if model == "kea" else f"{row['answer']} or so"


def files_with(key: str, folder: Path) -> list[str]:
    """Files that hold the key, Parquet read as a table too (its pages are compressed)."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".parquet":
                content += json.dumps(pq.read_table(path).to_pylist(), default=str).encode()
            if key.encode() in content:
                found.append(path.name)
    return found


def test_a_run_through_faults_has_every_answer_and_no_key_anywhere(tmp_path: Path) -> None:
    told = {"error": {"message": "not now, HEADER"}}
    faults = {
        TEXTS[0]: [(429, {"Retry-After": "0.1"}, told), "malformed"],
        TEXTS[1]: [(500, {}, told)],
        TEXTS[2]: ["hang"],
        TEXTS[3]: ["truncated"],
        TEXTS[4]: ["reset"],
    }
    with serving(Api(faults, answer=said)) as api:
        write_settings(tmp_path, api.url, timeout=5.0, concurrency=3)
        done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert api.most_at_once <= 3
    assert {seen.headers["authorization"] for seen in api.seen} == {f"Bearer {KEY}"}

    table = pq.read_table(tmp_path / "run" / "answers.parquet").to_pylist()
    given = {(row["instruction"], row["teacher"]): row["response"] for row in table}
    assert given == {(t, m): said(t, m) for t in TEXTS[:N] for m in ("kea", "macaw")}

    asked = json.loads((tmp_path / "run" / "provenance.json").read_text())["asked"]
    retries = {
        name.removeprefix("retries_"): asked["kea"][name] + asked["macaw"][name]
        for name in asked["kea"]
        if name.startswith("retries")
    }
    assert retries == {
        "retries": 6,
        "409": 0,
        "429": 1,
        "5xx": 1,
        "timeout": 1,
        "connection": 1,
        "unreadable": 2,
    }
    n_prompt = sum(len(text) for text in TEXTS[:N])
    n_generated = sum(len(said(text, "kea").split()) for text in TEXTS[:N])
    assert asked["kea"]["cost"] == pytest.approx((2 * n_prompt + 10 * n_generated) / 1e6)
    assert asked["macaw"]["cost"] == 0

    assert "not now, Bearer [key]" in done.stderr
    assert KEY not in done.stdout + done.stderr
    assert files_with(KEY, tmp_path) == []
    assert files_with("LAB_KEY", tmp_path)  # the search does find what is there


def test_a_run_whose_server_dies_is_finished_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_KEY", KEY)
    dying = {text: [(500, {}, {"error": {"message": "dying"}})] * 9 for text in TEXTS[6:]}
    with serving(Api(dying, answer=said)) as api:
        write_settings(tmp_path, api.url, retries=0, concurrency=1)
        settings = load_settings(Select, tmp_path / "select.yaml")
        with pytest.raises(ModelError, match="the server gave no answer") as caught:
            select(settings, tmp_path / "run")
    assert caught.value.where == f"kea at 127.0.0.1:{api.port}"
    assert caught.value.found == "status 500: dying (tries: 1)"
    with serving(Api(port=api.port, answer=said)) as later:
        ranking = select(settings, tmp_path / "run")
    assert set(ranking["teachers"]) == {"kea", "macaw"}
    kea = [seen.text for seen in later.seen if seen.body["model"] == "kea"]
    assert kea == TEXTS[6:N]
    assert len(later.seen) == N - 6 + N


# a real model behind a real server

N_NEW = 32
served = pytest.mark.skipif(
    not (find_spec("fastapi") and find_spec("uvicorn")),
    reason="`transformers serve` needs transformers[serving]",
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """`transformers serve` with a lab model, on a free port; its base URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [
        *("transformers", "serve"),
        *(str(model_folder("aster-m")), "--host", "127.0.0.1", "--port", str(port)),
        *("--device", "cpu", "--dtype", "float32"),
    ]
    log = tmp_path / "server.log"
    process = start(_serve, words, str(log))
    try:
        _wait_until_healthy(process, port, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.join(20)
        if process.exitcode is None:
            process.kill()
            process.join()


def _serve(words: list[str], log: str) -> None:
    """The script of `transformers`, in a process forked from one that has it imported."""
    (script,) = entry_points(group="console_scripts", name="transformers")
    for number in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.argv = words
    script.load()()


def _wait_until_healthy(process: BaseProcess, port: int, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.exitcode is None, log.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as reply:
                assert reply.status == 200
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


def replies(source: TeacherSource) -> list[Reply]:
    asked = [Request(user_turn(text), Decoding(0.0, 1.0, N_NEW)) for text in TEXTS]
    groups = source.groups(asked)
    found: dict[int, Reply] = {}
    for number, given in source.ask([[asked[place] for place in group] for group in groups]):
        found |= dict(zip(groups[number], given, strict=True))
    return [found[place] for place in range(len(asked))]


@served
def test_a_served_lab_model_answers_as_it_does_in_process(server: str) -> None:
    """Greedy answers of `transformers serve` are those of the same weights in this process."""
    folder = str(model_folder("aster-m"))
    there = {"kind": "openai", "model": folder, "url": server, "concurrency": 4}
    remote = openai.open_teacher(OpenAITeacher.model_validate(there), Runtime())
    local = transformers.open_teacher(
        TransformersTeacher.model_validate({"model": folder}),
        Runtime(device="cpu", dtype="float32"),
    )
    over_http, here = replies(remote), replies(local)
    assert [reply.response for reply in over_http] == [reply.response for reply in here]
    assert [reply.n_generated for reply in over_http] == [reply.n_generated for reply in here]
    assert [reply.n_prompt for reply in over_http] == [reply.n_prompt for reply in here]
    assert remote.facts["retries"] == 0 and remote.facts["without_usage"] == 0
    assert len({reply.response for reply in here}) > 10
