"""The quoted answers token by token: what the base says of them, whole and the same each time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from preceptor.core import artifacts
from preceptor.recipes.select import select
from preceptor.recipes.selecting import sample_tokens
from preceptor.recipes.settings.loading import load_settings
from preceptor.recipes.settings.select import Select

Start = Callable[..., Path]


@pytest.fixture
def start(tmp_path: Path, base: Path, tall: list[dict[str, Any]]) -> Start:
    """Runs a selection of recorded answers, one of them with emoji and control characters."""
    tall[4]["response"] = "emoji 👩\u200d👧 é \x00 </script> \u202eabc\u202c\n\nend"
    text = "".join(json.dumps(row) + "\n" for row in tall)
    (tmp_path / "answers.jsonl").write_text(text, encoding="utf-8")

    def run(out: str = "run", **settings: Any) -> Path:
        tree = {"base": str(base), "answers": "answers.jsonl", "rewards": ["reward"]}
        tree |= {"device": "cpu", "resamples": 100, "criteria": ["car"], **settings}
        (tmp_path / "select.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
        select(load_settings(Select, tmp_path / "select.yaml"), tmp_path / out)
        return tmp_path / out

    return run


def tokens_of(folder: Path) -> dict[tuple[str, str], list[dict[str, Any]]]:
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in pq.read_table(folder / artifacts.SAMPLE_TOKENS).to_pylist():
        found.setdefault((row["instruction_id"], row["teacher"]), []).append(row)
    return found


def rows_of(folder: Path, name: str) -> dict[tuple[str, str], dict[str, Any]]:
    rows = pq.read_table(folder / name).to_pylist()
    return {(row["instruction_id"], row["teacher"]): row for row in rows}


def test_tokens_are_the_responses_and_the_base_s_own(start: Start) -> None:
    folder = start()
    assert pq.read_schema(folder / artifacts.SAMPLE_TOKENS).equals(artifacts.SAMPLE_TOKENS_SCHEMA)
    answers, signals = rows_of(folder, artifacts.ANSWERS), rows_of(folder, artifacts.SIGNALS)
    found = tokens_of(folder)
    assert found.keys() == answers.keys()  # six instructions: all of them are quoted
    for key, own in found.items():
        assert "".join(row["text"] for row in own) == answers[key]["response"]
        assert [row["piece"] for row in own] == list(range(len(own)))
        assert sum(row["n_tokens"] for row in own) == signals[key]["n_tokens"]
        assert sum(row["nll"] for row in own) == pytest.approx(signals[key]["nll"], rel=1e-4)
        assert own[-1]["text"] == "" and all(row["text"] for row in own[:-1])
        assert all(row["rank"] >= 1 and row["nll"] > 0 for row in own)
    seconds = json.loads((folder / artifacts.PROVENANCE).read_text())["stage_seconds"]
    assert "measuring quoted answers" in seconds


def test_what_the_run_has_kept_is_not_measured_again(start: Start) -> None:
    folder = start(criteria=["car", "aslec_drop", "rank_surprisal"])
    seconds = json.loads((folder / artifacts.PROVENANCE).read_text())["stage_seconds"]
    assert "measuring quoted answers" not in seconds
    signals, found = rows_of(folder, artifacts.SIGNALS), tokens_of(folder)
    for name in ("nll", "rank"):
        kept = np.load(folder / artifacts.TOKENS / f"{name}.npy")
        for key, own in found.items():
            place = signals[key]["token_start"]
            for row in own:
                part = kept[place : place + row["n_tokens"]]
                wanted = part.sum() if name == "nll" else part.max()
                assert row[name] == pytest.approx(float(wanted), rel=1e-6)
                place += row["n_tokens"]
            assert place == signals[key]["token_start"] + signals[key]["n_tokens"]
    again = start("measured")
    for key, own in tokens_of(again).items():
        for one, other in zip(own, found[key], strict=True):
            assert (one["text"], one["n_tokens"]) == (other["text"], other["n_tokens"])
            assert one["nll"] == pytest.approx(other["nll"], rel=1e-3, abs=1e-4)


def test_a_run_killed_before_its_tokens_writes_the_same(start: Start) -> None:
    folder = start()
    before = {
        name: (folder / name).read_bytes()
        for name in (artifacts.SAMPLE_TOKENS, artifacts.RANKING, artifacts.REPORT)
    }
    (folder / artifacts.SAMPLE_TOKENS).unlink()
    facts = json.loads((folder / artifacts.PROVENANCE).read_text())
    (folder / artifacts.PROVENANCE).write_text(json.dumps(facts | {"status": "running"}))
    start()
    for name in (artifacts.SAMPLE_TOKENS, artifacts.RANKING):
        assert (folder / name).read_bytes() == before[name]
    assert not (folder / artifacts.WORK).exists()


def test_a_base_that_no_criterion_reads_is_not_loaded(start: Start) -> None:
    folder = start(criteria=["mean_reward", "length"])
    assert not (folder / artifacts.SAMPLE_TOKENS).exists()
    page = (folder / artifacts.REPORT).read_text(encoding="utf-8")
    assert 'id="sample-list"' in page and 'id="heat-legend"' not in page


def test_of_many_teachers_the_first_ones_are_measured(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_tokens, "MOST", 12)
    folder = start()
    ranking = json.loads((folder / artifacts.RANKING).read_text())
    order = [row["teacher"] for row in ranking["criteria"]["car"]["teachers"]]
    assert {teacher for _, teacher in tokens_of(folder)} == set(order[:2])
    assert len(tokens_of(folder)) == 12


def test_a_race_has_tokens_and_controls(start: Start) -> None:
    folder = start(race={})
    ranking = json.loads((folder / artifacts.RANKING).read_text())
    assert set(ranking["controls"]["teachers"]) == set(ranking["teachers"])
    asked = rows_of(folder, artifacts.SIGNALS)
    found = tokens_of(folder)
    assert found and found.keys() <= asked.keys()
    for key, own in found.items():
        assert sum(row["nll"] for row in own) == pytest.approx(asked[key]["nll"], rel=1e-4)
