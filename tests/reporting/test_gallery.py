"""The runs below a folder: found, told apart, read again when they change; and how one goes on."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from preceptor.core import artifacts
from preceptor.reporting.parts.folders import DEPTH, key_of, open_below, walk
from preceptor.reporting.serving import gallery, gallery_page
from preceptor.reporting.serving.gallery import about, model_words, typed_command
from preceptor.reporting.serving.progress_of import Tail, Watch, announced

SFT = {"base": "lab:base-terse", "data": {"answers": "a.parquet"}, "training": {}}
STUDY = {"bases": ["lab:b", "x/y"], "arms": {"sft": {}, "kd": {}}, "seeds": 3}


def a_run(folder: Path, status: str = "finished", settings: Any = None, **more: Any) -> Path:
    folder.mkdir(parents=True)
    facts = {"status": status, "settings": SFT if settings is None else settings, **more}
    artifacts.write_json(folder / artifacts.PROVENANCE, facts)
    return folder


def a_log(folder: Path, *rows: dict[str, Any]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / artifacts.METRICS).write_text(text)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> gallery.Gallery:
    monkeypatch.setattr(gallery, "AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(gallery, "RESTS", 0)
    return gallery.opened(tmp_path)


def states(runs: gallery.Gallery) -> dict[str, str]:
    return {card.name: card.state for card in runs.cards().values()}


def test_folders_are_walked_outer_ones_first(tmp_path: Path) -> None:
    a_run(tmp_path / "b")
    for name in ("work", "store", "inner/deep"):
        (tmp_path / "b" / name).mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "a" / "store").mkdir(parents=True)  # a plain folder that happens to be called so
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    found = list(walk(tmp_path))
    assert ["/".join(parts) for parts, _, _ in found] == [
        *("", "a", "a/store", "b", "b/inner", "b/inner/deep"),
    ]
    assert found[0][2] == {"loop", "pipe"} and found[3][1] == {"provenance.json"}


def test_the_walk_ends(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*"x" * (DEPTH + 3))
    deep.mkdir(parents=True)
    assert max(len(parts) for parts, _, _ in walk(tmp_path)) == DEPTH


def test_files_are_opened_without_following_a_link(tmp_path: Path) -> None:
    (tmp_path / "in" / "er").mkdir(parents=True)
    (tmp_path / "in" / "er" / "file").write_text("inside")
    (tmp_path / "link").symlink_to(tmp_path / "in", target_is_directory=True)
    (tmp_path / "in" / "to-file").symlink_to(tmp_path / "in" / "er" / "file")
    os.mkfifo(tmp_path / "in" / "pipe")
    with open_below(tmp_path, ("in", "er", "file")) as file:
        assert file.read() == b"inside"
    for parts, why in (
        (("link", "er", "file"), "Not a directory|Too many levels"),
        (("in", "to-file"), "Too many levels"),
        (("in", "pipe"), "no plain file"),
        (("in", "er"), "no plain file"),
        (("no",), "No such file"),
    ):
        with pytest.raises(OSError, match=why):
            open_below(tmp_path, parts)


def test_keys_are_of_the_place_alone() -> None:
    places = [(), ("a",), ("b",), ("a", "b"), ("a-b",), ("ab",)]
    keys = [key_of(parts) for parts in places]
    assert keys == [key_of(list(parts)) for parts in places] and len(set(keys)) == len(keys)
    assert all(len(key) == 16 and int(key, 16) >= 0 for key in keys)


def test_a_run_is_read_again_when_it_changes(runs: gallery.Gallery, tmp_path: Path) -> None:
    folder = a_run(tmp_path / "one", "running")
    assert states(runs) == {"one": "stopped"}
    (card,) = runs.cards().values()
    assert (card.verdict, card.report, card.names) == ("", "", ("provenance.json",))
    a_log(folder, {"step": 1, "epoch": 1.0, "loss": 0.5})
    artifacts.write_json(folder / artifacts.PROVENANCE, {"status": "finished", "settings": SFT})
    assert states(runs) == {"one": "finished"}
    (card,) = runs.cards().values()
    assert card.verdict and not card.report
    (folder / artifacts.REPORT).write_text("page")
    (card,) = runs.cards().values()
    assert card.report == "report.html"
    a_run(tmp_path / "two")
    assert set(states(runs)) == {"one", "two"}
    (folder / artifacts.PROVENANCE).unlink()
    assert set(states(runs)) == {"two"}


def test_a_result_that_cannot_be_read_is_told(runs: gallery.Gallery, tmp_path: Path) -> None:
    for name, content in (("bent", '{"version": 1}'), ("deep", "[" * 100_000)):
        folder = a_run(tmp_path / name, settings={"base": "b", "criteria": ["car"]})
        (folder / artifacts.RANKING).write_text(content)
    found = {card.name: card for card in runs.cards().values()}
    assert set(found) == {"bent", "deep"}
    assert all(card.fault.startswith("ranking.json") for card in found.values())
    page = gallery_page.render_list(runs, Watch(runs), "nonce")
    assert found["bent"].fault in page


def test_a_result_that_is_a_link_is_not_read(runs: gallery.Gallery, tmp_path: Path) -> None:
    """Of a store of signals it lies a folder deeper than what is looked at."""
    store = {"kind": "top_k", "positions": 7, "samples": 3, "bytes_per_token": 8.0, "k": 5}
    for name in ("plain", "linked"):
        folder = a_run(tmp_path / name, settings={"teacher": {}, "form": "top_k"})
        (folder / "signals").mkdir()
        (folder / "signals" / "store.json").write_text(json.dumps(store))
    outside = (tmp_path / "linked" / "signals" / "store.json").rename(tmp_path / "outside.json")
    (tmp_path / "linked" / "signals" / "store.json").symlink_to(outside)
    found = {card.name: card.verdict or card.fault for card in runs.cards().values()}
    assert found["plain"] and found["linked"] == ""


def test_many_runs(runs: gallery.Gallery, tmp_path: Path) -> None:
    """Of some hundred runs, those that have not changed are not read again."""
    for number in range(300):
        a_log(a_run(tmp_path / f"run-{number}"), {"step": 1, "epoch": 1.0, "loss": 0.5})
    started = time.perf_counter()
    assert len(runs.cards()) == 300
    first = time.perf_counter() - started
    started = time.perf_counter()
    before = {key: card.verdict for key, card in runs.cards().items()}
    again = time.perf_counter() - started
    assert again < first
    for folder in tmp_path.iterdir():  # in place, which no run does: so nobody looks again
        a_log(folder, {"step": 1, "epoch": 1.0, "loss": 0.25})
    assert {key: card.verdict for key, card in runs.cards().items()} == before
    assert any("0.5" in verdict for verdict in before.values())


def test_commands_are_fit_for_a_shell() -> None:
    told = {
        "preceptor select 'my s.yaml' --out runs/a": "preceptor select 'my s.yaml' --out runs/a",
        "preceptor study s.yaml --out a (cell)": "preceptor study s.yaml --out a",
        "preceptor study s.yaml --out 'a (b)'": "preceptor study s.yaml --out 'a (b)'",
        "preceptor sft s.yaml\nrm -rf ~": "preceptor sft s.yaml rm -rf '~'",
        "preceptor sft $(rm x); `y` & z": "preceptor sft '$(rm' 'x);' '`y`' '&' z",
        "rm -rf ~": "",
        "preceptor 'half": "",
        "": "",
    }
    assert {command: typed_command(command) for command in told} == told
    assert typed_command(None) == typed_command({"a": 1}) == ""


def test_models_in_short() -> None:
    assert model_words("lab:aster-s") == "aster-s"
    assert model_words("Qwen/Qwen2.5-3B") == "Qwen/Qwen2.5-3B"
    assert model_words("/scratch/models/mine") == "mine"
    assert model_words({"name": "", "model": "lab:x"}) == "x"
    assert model_words(3) == model_words([]) == model_words({"a": 1}) == ""
    assert about("study", STUDY) == "b and 1 more"
    assert about("evaluate", {"models": [{"model": "m"}]}) == "m"
    assert about("select", {"base": None}) == ""


def test_a_log_is_read_on_where_it_was_left(tmp_path: Path) -> None:
    log, tail = tmp_path / "metrics.jsonl", Tail()
    assert not tail.read(tmp_path, ("metrics.jsonl",))
    log.write_text('{"step": 1, "loss": 2.0, "grad_norm": 5}\n{"step": 2, "lo')
    assert tail.read(tmp_path, ("metrics.jsonl",))
    assert tail.drawn() == {"step": [1], "columns": {"loss": [2.0]}, "latest": {"grad_norm": 5.0}}
    with open(log, "a") as file:
        file.write(
            'ss": null}\n[1]\n{"step": "x"}\nnot json\n{"step": 3, "loss": 1.0, "hidden": 7}\n'
        )
    tail.read(tmp_path, ("metrics.jsonl",))
    found = tail.drawn()
    assert found["step"] == [1, 2, 3]
    assert found["columns"] == {"loss": [2.0, None, 1.0], "hidden": [None, None, 7.0]}
    artifacts.write_bytes(log, b'{"step": 1, "loss": 9.0}\n')  # as a run that goes on cuts it
    tail.read(tmp_path, ("metrics.jsonl",))
    assert tail.drawn()["columns"] == {"loss": [9.0]}


def test_a_long_log_is_thinned(tmp_path: Path) -> None:
    a_log(tmp_path, *({"step": step, "loss": 1 / step} for step in range(1, 20_001)))
    tail = Tail()
    tail.read(tmp_path, (artifacts.METRICS,))
    steps = tail.drawn()["step"]
    assert 400 <= len(steps) <= 600 and (steps[0], steps[-1]) == (1, 20_000)


def test_cells_of_a_study(runs: gallery.Gallery, tmp_path: Path) -> None:
    folder = a_run(tmp_path / "study", "running", STUDY)
    watch = Watch(runs)
    (card,) = runs.cards().values()
    assert watch.look(card, runs.cards())["cells"] == {
        "done": 0,
        "total": None,
        "mean_seconds": None,
    }
    (folder / "sources").mkdir()
    for name in ("ash", "beech", "cherry"):
        (folder / "sources" / f"{name}.parquet").touch()
    for number, place in enumerate(("cells/b/ash/sft/seed-0", "cells/b/ash/kd/seed-0", "bases/b")):
        (folder / place).mkdir(parents=True)
        took = {"training": 10.0 * number, "exam": 2.0}
        (folder / place / "cell.json").write_text(json.dumps({"seconds": took}))
    (folder / "cells/b/ash/kd/seed-1").mkdir()
    (folder / "cells/b/ash/kd/seed-1/cell.json").write_text('{"seconds": {"tr')
    a_run(folder / "cells/b/ash/kd/seed-1/run")
    found = watch.look(runs.cards()[card.key], runs.cards())
    assert found["cells"] == {"done": 3, "total": 2 * (3 * 2 * 3 + 1), "mean_seconds": 7.0}
    assert [own["name"] for own in found["inner"]] == ["study/cells/b/ash/kd/seed-1/run"]


def test_a_run_that_tells_nothing_shows_its_shards(runs: gallery.Gallery, tmp_path: Path) -> None:
    folder = a_run(tmp_path / "old", "running", {"base": "lab:b", "criteria": ["car"]})
    for name in ("reward-000", "measure-base-nll", "other"):
        (folder / artifacts.WORK / name).mkdir(parents=True)
        (folder / artifacts.WORK / name / "000000.parquet").touch()
    (card,) = runs.cards().values()
    found = Watch(runs).look(card, runs.cards())["stages"]
    assert [(own["title"], own.get("done")) for own in found] == [
        ("measuring base (nll)", 1),
        ("scoring, reward 000", 1),
        ("measuring under b", None),
    ]


def test_stages_to_come() -> None:
    select = {
        "base": "lab:b",
        "teachers": [{"model": "lab:ash"}, {"name": "mine", "model": "/x/y"}],
        "rewards": [{"kind": "column", "name": "r"}, {"kind": "judge", "name": "j"}],
        "criteria": ["mean_reward", "length"],
    }
    asked = ["asking ash", "asking mine", "scoring j"]
    assert announced("select", select) == asked
    assert announced("select", select | {"criteria": ["car"]}) == [*asked, "measuring under b"]
    assert announced("sft", SFT | {"quality": {}}) == ["training"]
    trained = SFT | {"data": {"ask": {"model": "lab:t"}}, "quality": {"n": 1}}
    assert announced("distill", trained) == ["asking t", "training", "asking base (exam)"]
    benchmarks = [{"kind": "lab", "name": ""}, {"kind": "lm_eval", "task": "x"}]
    exam = {"models": [{"model": "lab:m"}], "benchmarks": benchmarks}
    assert announced("evaluate", exam) == ["asking m (lab)"]
    for bent in (
        {},
        {"teachers": 3, "rewards": "x", "criteria": None},
        {"data": 1},
        {"models": {}},
    ):
        for kind in ("select", "sft", "evaluate", "study"):
            assert isinstance(announced(kind, bent), list)


def test_criteria_that_read_no_model() -> None:
    """Those for which no measuring is announced are those that need nothing of the base."""
    from preceptor.core.criterion import as_criterion
    from preceptor.core.plugs import plug
    from preceptor.criteria import CRITERIA
    from preceptor.reporting.serving import progress_of

    silent = set()
    for name in CRITERIA:
        own = as_criterion(name, plug("criterion", CRITERIA, name))
        needs = own.needs - {"n_tokens", "reward", "size", "price", "family"}
        if not (needs or own.tokens or own.gradients):
            silent.add(name)
    assert silent == progress_of._NO_MODEL
