"""One command asks through four sources at once; a teacher says the same through each of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from forked import Done, preceptor
from preceptor.core import artifacts

pytest.importorskip("ray")
pytest.importorskip("openai")

SHARED = "birch-m"  # is asked through all four
TEACHERS = ("aster-s", "dahlia-m", "served", "on-ray", "elm-m")  # birch-m served and on Ray
TOKENS = 32
N = 8


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """An OpenAI-compatible server on 127.0.0.1 whose answers are those of a model of the lab."""
    from preceptor.core.types import Decoding, Request
    from preceptor.lab.place import model_folder
    from preceptor.teachers.transformers import open_generator

    generate = open_generator(str(model_folder(SHARED)), "float32", "cpu", False)
    one_at_a_time = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            messages = tuple((turn["role"], turn["content"]) for turn in body["messages"])
            limit = body.get("max_completion_tokens") or body["max_tokens"]
            point = Decoding(body["temperature"], body.get("top_p", 1.0), limit)
            with one_at_a_time:
                (reply,) = generate([Request(messages, point)])
            content = {"role": "assistant", "content": reply.response}
            choice = {"index": 0, "message": content, "finish_reason": reply.finish_reason}
            usage = {"prompt_tokens": reply.n_prompt, "completion_tokens": reply.n_generated}
            answer = {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [choice],
                "usage": usage,
            }
            data = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}/v1"
        listening.shutdown()
        thread.join()


def run(*arguments: str, cwd: Path) -> Done:
    done = preceptor(*arguments, cwd=cwd, variables={"LAB_KEY": "none"})
    assert done.returncode == 0, done.stderr
    return done


def share_of_letters(instruction: str, response: str, row: object) -> float:
    """A verifier of the user's own: the share of a reply's characters that are letters."""
    return sum(map(str.isalpha, response)) / max(len(response), 1)


def of_the_lab(member: str, **more: Any) -> dict[str, Any]:
    return {"model": f"lab:{member}", "max_new_tokens": TOKENS, **more}


def rows_of(table: Path, teacher: str) -> list[dict[str, Any]]:
    return [row for row in pq.read_table(table).to_pylist() if row["teacher"] == teacher]


def test_four_sources_in_one_command(server: str, tmp_path: Path, tiny_model: Any) -> None:
    """Local, served, on Ray, recorded; three rewards; and the table goes on to `select`."""
    from preceptor.recipes.ask import ask
    from preceptor.recipes.settings.asking import Ask

    common = {"instructions": {"path": "lab:test"}, "max_instructions": N}
    recorded = tmp_path / "recorded"
    ask(Ask.model_validate({**common, "teachers": [of_the_lab("elm-m")]}), recorded)
    on_ray = {"kind": "ray", "workers": 1}
    served = {"kind": "openai", "model": SHARED, "name": "served", "url": server}
    asked = {
        **common,
        "teachers": [
            of_the_lab("aster-s"),
            of_the_lab("dahlia-m"),
            {**served, "key_env": "LAB_KEY", "max_new_tokens": TOKENS},
            of_the_lab(SHARED, name="on-ray", fleet=on_ray),
        ],
        "answers": str(recorded / artifacts.ANSWERS),
        "rewards": [
            {"kind": "verifier", "name": "correct", "function": "lab"},
            {"kind": "verifier", "name": "letters", "function": f"{__name__}:share_of_letters"},
            {
                "kind": "reward_model",
                "name": "model",
                "model": str(tiny_model("scorer-of-four", labels=1)),
            },
        ],
        "resamples": 100,
    }
    (tmp_path / "ask.yaml").write_text(yaml.safe_dump(asked, sort_keys=False))
    done = run("ask", "ask.yaml", "--out", "asked", cwd=tmp_path)
    for name in (*TEACHERS, f"{len(TEACHERS) * N} answers to {N} instructions"):
        assert name in done.stdout
    table = tmp_path / "asked" / artifacts.ANSWERS
    assert pq.read_table(table).num_rows == len(TEACHERS) * N
    for row in pq.read_table(table).to_pylist():
        assert all(isinstance(row[name], float) for name in ("correct", "letters", "model"))

    _same_through_all(table, tmp_path)

    select = {
        "base": "lab:base-notes",
        "answers": str(table),
        "rewards": ["correct", "letters", {"name": "model", "map": "sigmoid"}],
        "resamples": 100,
    }
    (tmp_path / "select.yaml").write_text(yaml.safe_dump(select, sort_keys=False))
    run("select", "select.yaml", "--out", "selected", cwd=tmp_path)
    ranking = artifacts.read_json(tmp_path / "selected" / artifacts.RANKING)
    assert set(ranking["teachers"]) == set(TEACHERS)
    for name, own in ranking["teachers"].items():
        given = [row["correct"] for row in rows_of(table, name)]
        assert own["rewards"]["correct"] == pytest.approx(sum(given) / N)


def _same_through_all(table: Path, tmp_path: Path) -> None:
    """Greedy answers of one teacher: served and on Ray (of `table`), here, and recorded."""
    from preceptor.recipes.ask import ask
    from preceptor.recipes.settings.asking import Ask

    answers = pa.Table.from_pylist(rows_of(table, "served")).drop_columns(["teacher"])
    named = answers.append_column("teacher", pa.array(["recorded"] * N))
    pq.write_table(named, tmp_path / "served.parquet")
    settings = Ask.model_validate(
        {
            "instructions": "lab:test",
            "max_instructions": N,
            "teachers": [of_the_lab(SHARED, name="here")],
            "answers": str(tmp_path / "served.parquet"),
        }
    )
    ask(settings, tmp_path / "again")
    other = tmp_path / "again" / artifacts.ANSWERS
    texts = [
        [(row["instruction"], row["response"]) for row in rows_of(path, name)]
        for path, name in (
            (table, "served"), (table, "on-ray"), (other, "here"), (other, "recorded"),
        )
    ]  # fmt: skip
    assert len(texts[0]) == N and len(set(texts[0])) == N
    assert texts[0] == texts[1] == texts[2] == texts[3]
