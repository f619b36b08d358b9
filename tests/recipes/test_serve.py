"""`preceptor serve`: real servers on this machine, real requests, real runs that are killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import yaml

from forked import start
from preceptor.core import artifacts
from preceptor.core.errors import PreceptorError
from preceptor.core.types import Answer, RewardSource, even_batches
from preceptor.recipes import serve
from preceptor.reporting.parts.folders import key_of
from preceptor.reporting.serving.addresses import host_name
from preceptor.reporting.serving.progress_of import announced
from served import Served, serving, training

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "serve.md"
SECRET = "what-nobody-may-read"
ALWAYS = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
HOSTILE = "<img src=x onerror=alert(1)> & \"q\" 'p' {{ 7771 * 1313 }} \u202egnp"


def kind_of_run(folder: Path, command: str = "preceptor sft s.yaml", **changes: Any) -> Path:
    """A finished training on answers, by its files."""
    folder.mkdir(parents=True)
    settings = {"base": "lab:base-terse", "data": {"answers": "a.parquet"}, "training": {}}
    facts = {"preceptor": "0.1.0", "status": "finished", "command": command, "settings": settings}
    artifacts.write_json(
        folder / artifacts.PROVENANCE, {**facts, "inputs": {}, "models": {}} | changes
    )
    (folder / artifacts.METRICS).write_text('{"step": 1, "epoch": 1.0, "loss": 0.5}\n')
    (folder / artifacts.REPORT).write_text("<!doctype html><title>the report</title>")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs as they may lie about: inside others, with links, with hostile names."""
    place = tmp_path_factory.mktemp("place")
    runs = place / "runs"
    outside = kind_of_run(place / "outside", verdict=SECRET)
    for path in (place / "secret.json", outside / artifacts.REPORT):
        path.write_text(json.dumps({"secret": SECRET}))
    kind_of_run(runs / "plain", "preceptor sft 'my settings.yaml' --out runs/plain")
    kind_of_run(runs / "team" / "deep" / "er" / "one")
    kind_of_run(runs / "plain" / "pilot" / "1-ash", "preceptor sft s.yaml --out runs/plain (pilot)")
    kind_of_run(runs / HOSTILE, f"preceptor sft {HOSTILE}; rm -rf ~")
    kind_of_run(runs / os.fsdecode(b"not-utf-8-\xff"))
    kind_of_run(runs / "bent", settings={"base": [[HOSTILE]], "data": 1, "training": None})
    (runs / "to-outside").symlink_to(outside, target_is_directory=True)
    (runs / "to-plain").symlink_to(runs / "plain", target_is_directory=True)
    for number, name in enumerate((artifacts.PROVENANCE, artifacts.REPORT, artifacts.METRICS)):
        linked = kind_of_run(runs / f"linked-{number}")
        (linked / name).unlink()
        (linked / name).symlink_to(outside / name)
    os.mkfifo(kind_of_run(runs / "piped") / "ask.json")
    deep = runs / "deep-json"
    deep.mkdir()
    (deep / artifacts.PROVENANCE).write_text("[" * 100_000)
    for name, content in (("half", '{"status": "fini'), ("empty", ""), ("list", "[1]")):
        (runs / name).mkdir()
        (runs / name / artifacts.PROVENANCE).write_text(content)
    (runs / "notes.txt").write_text(SECRET)
    return runs


@pytest.fixture(scope="module")
def server(runs: Path) -> Iterator[Served]:
    with serving(runs) as server:
        yield server


def test_every_run_is_listed_once_and_inside_the_run_it_belongs_to(server: Served) -> None:
    found = server.runs()
    assert set(found) == {
        "plain",
        "plain/pilot/1-ash",
        "team/deep/er/one",
        "bent",
        HOSTILE,
        os.fsdecode(b"not-utf-8-\xff"),
    }
    inner = found["plain/pilot/1-ash"]
    assert inner["parent"] == found["plain"]["id"] and not found["team/deep/er/one"]["parent"]
    assert inner["command"] == "preceptor sft s.yaml --out runs/plain"
    plain = found["plain"]
    assert set(plain["files"]) == {"report.html", "metrics.jsonl", "provenance.json"}
    told = {
        name: plain[name] for name in plain if name not in ("verdict", "files", "changed", "typed")
    }
    assert plain["verdict"] and told == {
        "id": key_of(["plain"]),
        "parent": "",
        "name": "plain",
        "last": "plain",
        "kind": "sft",
        "title": "Training on answers",
        "about": "base-terse",
        "fault": "",
        "state": "finished",
        "command": "preceptor sft 'my settings.yaml' --out runs/plain",
        "report": "report.html",
        "family": "training",
        "now": None,
    }
    assert abs(found["plain"]["changed"] - time.time()) < 600
    assert found["plain"]["typed"].endswith("/runs/plain")


def test_pages_and_files(server: Served, runs: Path) -> None:
    key = server.runs()["plain"]["id"]
    report = server.get(f"/runs/{key}/")
    assert report.status == 200 and report.body == (runs / "plain/report.html").read_bytes()
    assert report.headers["content-type"] == "text/html; charset=utf-8"
    policy = report.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "connect-src" not in policy
    assert policy.endswith("sandbox allow-scripts allow-downloads")
    facts = server.get(f"/runs/{key}/files/provenance.json")
    assert facts.body == (runs / "plain/provenance.json").read_bytes()
    assert facts.headers["content-type"] == "application/json"
    assert facts.headers["content-security-policy"].endswith("sandbox")
    log = server.get(f"/runs/{key}/files/metrics.jsonl")
    assert log.status == 200 and log.headers["content-type"].startswith("text/plain")
    way = server.get(f"/runs/{key}")
    assert (way.status, way.headers["location"]) == (307, f"{key}/")
    head = server.raw(f"/runs/{key}/".encode(), "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(report.body))


def test_nothing_else_can_be_fetched(server: Served, runs: Path) -> None:
    """Whatever an address holds, it is no path."""
    key = server.runs()["plain"]["id"]
    up = ["..", "%2e%2e", "%2E%2E", "..%2f..", "%252e%252e", "..\\..", "%c0%ae%c0%ae", "....//.."]
    ends = ["secret.json", "outside/report.html", "notes.txt", "report.html", "etc/passwd"]
    targets = [f"/{'/'.join([step] * n)}/{end}" for step in up for n in (1, 2, 9) for end in ends]
    before = ["runs/", f"runs/{key}/", f"runs/{key}/files/", "api/runs/"]
    targets += [
        f"/{start}{'/'.join([step] * 2)}/{end}" for start in before for step in up for end in ends
    ]
    names = [
        "settings.yaml",
        "notes.txt",
        "a.parquet",
        "work",
        "",
        ".",
        "%00",
        "report.html%00.json",
    ]
    names += ["report.html%2f..%2fprovenance.json", "/etc/passwd", "%2fetc%2fpasswd", "REPORT.HTML"]
    names += ["x" * 4000, "report.html/", str(runs / "notes.txt"), "file:///etc/passwd"]
    targets += [f"/runs/{key}/files/{name}" for name in names]
    ids = ["plain", "..", "%00", key[:-1], key + "0", key.upper(), key + "%00", "%2e%2e%2f" + key]
    ids += ["to-outside", "linked-0", key_of(["to-outside"]), key_of(["to-plain"]), key_of([".."])]
    ids += [key_of(["linked-0"]), key_of(["linked-1"]), key_of(["linked-2"]), "/etc", "x" * 4000]
    for own in ids:
        targets += [f"/runs/{own}/", f"/runs/{own}/files/report.html", f"/api/runs/{own}"]
    targets += ["/etc/passwd", "//etc/passwd", "/files", "/runs", "/runs/", "/static/", "/docs"]
    targets += ["http://127.0.0.1/etc/passwd", "/?x=../../secret.json/..", "*"]
    for target in targets:
        answer = server.raw(target.encode())
        assert answer.status in (400, 404) or target.startswith("/?"), target
        assert SECRET not in answer.text and "root:" not in answer.text, target
    for target in (b"/runs/\x00/", b"/runs/\xff\xfe/", f"/runs/{key}/files/\x00".encode()):
        assert server.raw(target).status in (400, 404)
    assert SECRET not in server.get("/").text + server.get("/api/runs").text


def test_only_reading(server: Served) -> None:
    key = server.runs()["plain"]["id"]
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"):
        for target in ("/", f"/runs/{key}/", "/api/runs", "/nothing"):
            answer = server.raw(target.encode(), method)
            assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD"), (method, target)


@pytest.mark.parametrize(
    ("hosts", "status"),
    [
        (("localhost",), 200),
        (("LOCALHOST.:80",), 200),
        (("127.0.0.1:1",), 200),
        (("[::1]:8777",), 200),
        (("evil.example",), 421),
        (("localhost.evil.example:8777",), 421),
        (("127.0.0.1.evil.example",), 421),
        (("10.0.0.7",), 421),
        (("",), 421),
        (("[::1",), 421),
        (("user@localhost",), 421),
        ((), 400),
        (("localhost", "evil.example"), 400),
    ],
)
def test_who_calls_it_by_another_name_is_refused(
    server: Served, hosts: tuple[str, ...], status: int
) -> None:
    for target in (b"/", b"/api/runs"):
        assert server.raw(target, hosts=hosts).status == status


def test_names_of_hosts() -> None:
    told = {"LocalHost:80": "localhost", "[::1]:80": "::1", "a.b.": "a.b", ":80": "", "[::1": ""}
    assert {header: host_name(header) for header in told} == told


def test_every_answer_has_the_headers(server: Served) -> None:
    key = server.runs()["plain"]["id"]
    answers = [server.get(path) for path in ("/", f"/runs/{key}/", "/api/runs", "/nothing")]
    answers.append(server.raw(b"/", "POST"))
    answers.append(server.raw(b"/", hosts=("evil.example",)))
    for answer in answers:
        assert {name: answer.headers[name] for name in ALWAYS} == ALWAYS
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "server" not in answer.headers
    policy = answers[0].headers["content-security-policy"]
    nonce = policy.partition("'nonce-")[2].partition("'")[0]
    assert len(nonce) > 16 and "connect-src 'self'" in policy and "'unsafe-inline'; img" in policy
    assert answers[0].text.count(f'<script nonce="{nonce}">') == 3
    assert nonce not in server.get("/").text


def test_what_strangers_wrote_is_text(server: Served, runs: Path) -> None:
    found = server.runs()
    pages = [server.get("/").text]
    pages += [server.get(f"/runs/{found[name]['id']}/").text for name in (HOSTILE, "bent")]
    (runs / HOSTILE / artifacts.REPORT).rename(
        runs / HOSTILE / "gone"
    )  # then its own page is shown
    try:
        time.sleep(1.1)
        pages.append(server.get(f"/runs/{found[HOSTILE]['id']}/").text)
    finally:
        (runs / HOSTILE / "gone").rename(runs / HOSTILE / artifacts.REPORT)
    for page in (pages[0], pages[-1]):
        assert (
            "<img" not in page
            and "&lt;img" in page
            and "\u202e" not in page
            and "10203323" not in page
        )
    assert "preceptor report " in pages[-1] and "This run has no page yet" in pages[-1]
    command = found[HOSTILE]["command"]
    assert command.startswith("preceptor sft '<img' ") and "';'" not in command
    shown = subprocess.run(
        ["sh", "-c", command.replace("preceptor", "printf '%s\\n'", 1)],
        capture_output=True,
        text=True,
    )
    assert "rm" in shown.stdout.splitlines() and "-rf" in shown.stdout.splitlines()  # as words


def test_links_are_told_and_not_followed(server: Served) -> None:
    assert "4 folders are left aside" in server.get("/").text


def test_the_commands_of_the_page(tmp_path: Path) -> None:
    """docs/how-to/serve.md: its first command serves the folder `runs`, here on a free port."""
    assert PAGE.name == "serve.md"
    block = PAGE.read_text("utf-8").split("```sh\n")[1].partition("```")[0].split()
    assert block == ["preceptor", "serve", "runs"]
    kind_of_run(tmp_path / "runs" / "first")
    command = [sys.executable, "-m", "preceptor.cli", *block[1:], "--port", "0", "--no-open"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        told = process.stdout.readline()
        assert Served(told.split()[4], process).get("/").status == 200
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert told.startswith("1 run in runs: http://127.0.0.1:") and told.endswith(
        "/ (Ctrl+C ends)\n"
    )
    assert (out, err, process.returncode) == ("", "", 0)


def test_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        page = server.get("/").text
        assert "No runs here yet" in page and "preceptor init" in page
        assert f"preceptor select select.yaml --out {tmp_path}/first" in page
        kind_of_run(tmp_path / "first")
        server.wait_for(lambda: "No runs here yet" not in server.get("/").text)


def test_a_folder_that_is_a_run(tmp_path: Path) -> None:
    run = kind_of_run(tmp_path / "alone")
    with serving(run) as server:
        (own,) = server.runs().values()
        assert own["name"] == "" and own["typed"] == str(run)
        assert server.get(f"/runs/{own['id']}/").text.endswith("<title>the report</title>")


def test_other_machines_only_when_told(tmp_path: Path) -> None:
    with serving(tmp_path, "--host", "0.0.0.0") as server:
        assert server.url == f"http://127.0.0.1:{server.port}/"
        for name in ("10.0.0.7", "localhost", socket.gethostname()):
            assert server.raw(b"/", hosts=(name,)).status == 200
        assert server.raw(b"/", hosts=("evil.example",)).status == 421
    assert "".join(server.said) == (
        f"warning: everybody who can reach 0.0.0.0:{server.port} can read all runs in {tmp_path}: "
        "there is no password, and nothing is encrypted\n"
    )


def test_what_cannot_be_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PreceptorError, match="no folder of runs") as caught:
        serve.open_server(tmp_path / "nothing")
    assert caught.value.found == "No such file or directory"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PreceptorError, match="cannot be listened on") as caught:
            serve.open_server(tmp_path, port=port)
        assert caught.value.where == f"127.0.0.1:{port}" and "--port" in caught.value.next_step
    with pytest.raises(PreceptorError, match="cannot be listened on"):
        serve.open_server(tmp_path, "not a host", 0)
    monkeypatch.setattr(serve, "NEEDED", ("starlette", "no_such_package"))
    with pytest.raises(PreceptorError, match="not installed") as caught:
        serve.open_server(tmp_path)
    assert caught.value.next_step == "pip install 'preceptor[serve]'"


def test_a_training_that_is_killed_and_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "student"
    with serving(tmp_path) as server:
        with training(folder, 8) as go:
            go(3)
            found = server.wait_for(lambda: server.runs().get("runs/student"))
            assert found["state"] == "running" and found["verdict"] == ""
            with open(folder / artifacts.METRICS, "a") as file:
                file.write('{"step": 4, "epoch": 0.5, "lo')  # as a kill leaves it
            run = server.run("runs/student")
            (log,) = run["logs"]
            assert log["step"] == [1, 2, 3] and log["columns"]["loss"] == [3.0, 1.5, 1.0]
            assert log["latest"] == {"tokens_per_second": 803.0}
            assert run["said"][0]["text"] == "warning: 3 answers of lab:base-terse were cut"
            page = server.get(f"/runs/{run['id']}/")
            assert page.status == 200 and ">running</span>" in page.text
            go(1)
        stopped = server.wait_for(
            lambda: own if (own := server.run("runs/student"))["state"] == "stopped" else None
        )
        assert stopped["command"] == "preceptor sft s.yaml" and not stopped["report"]
        (stage,) = stopped["stages"]
        assert (stage["title"], stage["status"], stage["total"]) == ("training", "begun", 8)
        assert "Go on with" in server.get("/").text
        kept = (folder / artifacts.METRICS).read_text().splitlines()[:3]
        (folder / artifacts.METRICS).write_text("".join(f"{line}\n" for line in kept))
        with training(folder, 8) as go:
            go(1)
            again = server.wait_for(
                lambda: own if (own := server.run("runs/student"))["state"] == "running" else None
            )
            assert again["logs"][0]["step"] == [1, 2, 3, 4]
            go(4)
            done = server.wait_for(
                lambda: own if (own := server.run("runs/student"))["report"] else None
            )
        assert done["state"] == "finished"
        assert not (folder / artifacts.WORK).exists()
        report = server.get(f"/runs/{done['id']}/")
        assert report.body == (folder / artifacts.REPORT).read_bytes()


def open_slow(setting: Any, runtime: Any) -> RewardSource:
    """A reward in batches of four, slow enough to be seen, and to be killed in."""

    def score(answers: Sequence[Answer]) -> list[float]:
        time.sleep(0.15)
        return [len(answer.response) % 7 / 7 for answer in answers]

    return RewardSource(lambda answers: even_batches(len(answers), 4), lambda: score)


def _select(config: str, out: str) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    import torch

    from preceptor.core import live, stage
    from preceptor.recipes.select import select
    from preceptor.recipes.settings.loading import load_settings
    from preceptor.recipes.settings.select import Select

    torch.set_num_threads(1)
    stage.COMMIT_SECONDS = live.EVERY_SECONDS = 0.05
    select(load_settings(Select, Path(config)), Path(out), "preceptor select s.yaml --out runs/a")


def test_a_selection_from_its_first_answer_to_its_report(tmp_path: Path) -> None:
    """A real selection on the lab, killed while it scores; its stages are those announced."""
    settings = {
        "base": "lab:base-prose",
        "instructions": "lab:selection",
        "max_instructions": 24,
        "teachers": [{"model": f"lab:{name}"} for name in ("aster-s", "aster-m")],
        "rewards": [{"kind": f"{__name__}:open_slow", "name": "slow"}],
        "criteria": ["car", "mean_reward", "perplexity"],
        "resamples": 100,
    }
    config, folder = tmp_path / "s.yaml", tmp_path / "runs" / "a"
    config.write_text(yaml.safe_dump(settings))
    titles: dict[str, str] = {}  # as they were seen to begin

    def seen(server: Served) -> dict[str, Any] | None:
        if "a" not in server.runs():
            return None
        run = server.run("a")
        titles.update({own["title"]: own["status"] for own in run["stages"]})
        return run

    def scoring(server: Served) -> dict[str, Any] | None:
        run = seen(server)
        at_work = [own for own in run["stages"] if own["status"] == "now"] if run else []
        return run if at_work and at_work[0]["title"] == "scoring slow" else None

    folder.parent.mkdir()
    with serving(folder.parent) as server:
        process: BaseProcess = start(_select, str(config), str(folder))
        run = server.wait_for(lambda: scoring(server))
        assert run["state"] == "running" and not run["report"]
        by_title = {own["title"]: own for own in run["stages"]}
        assert by_title["asking aster-s"]["done"] == by_title["asking aster-s"]["total"] == 24
        assert by_title["scoring slow"]["total"] == 48
        assert by_title["measuring under base-prose"]["status"] == "later"
        now = server.runs()["a"]["now"]
        assert now is None or now["title"] == "scoring slow"
        process.kill()
        process.join(20)
        stopped = server.wait_for(
            lambda: own if (own := seen(server)) and own["state"] == "stopped" else None
        )
        assert stopped["error"] == ""
        assert stopped["command"] == "preceptor select s.yaml --out runs/a"
        assert {own["title"]: own["status"] for own in stopped["stages"]}["scoring slow"] == "begun"
        process = start(_select, str(config), str(folder))
        server.wait_for(lambda: own if (own := seen(server)) and own["report"] else None)
        process.join(30)
        assert process.exitcode == 0
        found = server.wait_for(
            lambda: own if (own := server.runs()["a"])["state"] == "finished" else None
        )
        assert "aster-" in found["verdict"] and found["about"] == "base-prose"
        report = server.get(f"/runs/{found['id']}/")
        assert report.body == (folder / artifacts.REPORT).read_bytes()
    resolved = yaml.safe_load((folder / artifacts.SETTINGS).read_text())
    wanted = announced("select", resolved)
    assert wanted == [
        "asking aster-s",
        "asking aster-m",
        "scoring slow",
        "measuring under base-prose",
    ]
    of_shards = ("scoring, reward", "measuring base")  # once the run has let go of its account
    told = {title for title in titles if not title.startswith(of_shards)}
    quoted = "measuring quoted answers under base-prose"
    assert told - {quoted} <= {*wanted, "measuring under base-prose (nll)"}
