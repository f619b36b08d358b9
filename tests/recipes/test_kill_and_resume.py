"""A run killed at random moments, and finished by the same command, gives the same bytes.

Runs are forked from a server that has the libraries imported, so that a restart costs little.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from forked import KILLS, start
from preceptor.core.types import Answer, RewardSource, even_batches

EACH = 6  # instructions of each text
IN_EACH = max(2, KILLS // 10)  # kills in each part of the work


def _run(config: str, out: str) -> None:
    from preceptor.core import stage
    from preceptor.data import answer_store
    from preceptor.recipes.select import select
    from preceptor.recipes.settings.loading import load_settings
    from preceptor.recipes.settings.select import Select

    stage.COMMIT_SECONDS = answer_store.COMMIT_SECONDS = 0.02
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    import torch

    torch.set_num_threads(1)
    select(load_settings(Select, Path(config)), Path(out))


def _start(config: Path, out: Path) -> BaseProcess:
    return start(_run, str(config), str(out))


def _finish(config: Path, out: Path) -> float:
    started = time.monotonic()
    process = _start(config, out)
    process.join(120)
    assert process.exitcode == 0
    return time.monotonic() - started


@pytest.fixture
def config(tmp_path, tiny_model, base, chat_template, instruction_texts):
    """Two live teachers, one of them sampling; a base and a reference; six passes.

    Answers with their tokens, answers alone and questions; the reference's two.
    """
    questions = tmp_path / "questions.jsonl"
    rows = [
        {"instruction": f"{text} Number {n}."} for text in instruction_texts for n in range(EACH)
    ]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "base": str(base),
        "reference": str(tiny_model("reference", seed=5)),
        "instructions": str(questions),
        "teachers": [
            {"model": str(tiny_model(f"live{n}", chat_template=chat_template, seed=n)), **decoding}
            for n, decoding in enumerate(
                [
                    {"max_new_tokens": 24, "batch_size": 8},
                    {"max_new_tokens": 24, "batch_size": 8, "temperature": 0.9, "top_p": 0.9},
                ]
            )
        ],
        "rewards": [
            {"kind": "verifier", "name": "length", "function": f"{__name__}:distinct_letters"},
            {"kind": f"{__name__}:open_slow", "name": "slow"},
        ],
        "criteria": ["car", "mean_reward", "perplexity", "ifd", "rank_surprisal", "scas"],
        "batch_tokens": 256,
        "resamples": 100,
    }
    path = tmp_path / "select.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def distinct_letters(instruction: str, response: str, row: object) -> float:
    """A verifier for this test: share of the alphabet that a reply uses."""
    return len(set(response.lower()) & set("abcdefghijklmnopqrstuvwxyz")) / 26


def open_slow(setting: Any, runtime: Any) -> RewardSource:
    """A reward in batches of eight, slow enough to be killed in."""

    def score(answers: Sequence[Answer]) -> list[float]:
        time.sleep(0.02)
        return [distinct_letters(a.instruction, a.response, a.row) for a in answers]

    return RewardSource(lambda answers: even_batches(len(answers), 8), lambda: score)


def assert_store_is_whole(out: Path, n_teachers: int, n_instructions: int) -> None:
    """Every shard reads, every answer is there, none stands twice."""
    keys = []
    for shard in out.glob("store/*/*.parquet"):
        table = pq.read_table(shard)
        table.validate(full=True)
        keys += table["key"].to_pylist()
    assert len(keys) == len(set(keys)) == n_teachers * n_instructions


def test_random_kills_change_nothing(config, tmp_path, instruction_texts):
    start(time.time).join()  # the server has imported all
    seconds = _finish(config, tmp_path / "whole")
    wanted = (tmp_path / "whole" / "ranking.json").read_bytes()
    kept = ["signals.parquet", "tokens/rank.npy", "sample_tokens.parquet"]
    whole = {name: (tmp_path / "whole" / name).read_bytes() for name in kept}
    rng, kills, attempt = random.Random(7), 0, 0
    partial = dict.fromkeys(("store/*/*.parquet", "work/reward-*/*.parquet", "work/measure-*"), 0)
    while kills < KILLS or min(partial.values()) < IN_EACH:
        attempt += 1
        assert attempt < 10 * KILLS, f"runs finish before they can be killed: {partial}"
        out = tmp_path / f"killed-{attempt}"
        finished = False
        while not finished and (kills < KILLS or min(partial.values()) < IN_EACH):
            process = _start(config, out)
            process.join(rng.uniform(0.1, seconds))
            if process.exitcode is not None:
                finished = process.exitcode == 0
                assert finished
                continue
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            if process.exitcode == 0:  # it finished just before
                finished = True
                continue
            assert process.exitcode == -signal.SIGKILL
            kills += 1
            for part in partial:
                partial[part] += any(out.glob(part))
        if not finished:
            _finish(config, out)
        assert (out / "ranking.json").read_bytes() == wanted
        assert {name: (out / name).read_bytes() for name in kept} == whole
        assert not (out / "work").exists()
        assert_store_is_whole(out, 2, len(instruction_texts) * EACH)
        assert json.loads((out / "provenance.json").read_text())["status"] == "finished"
