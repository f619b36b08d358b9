"""A whole `select` with rewards of three kinds at once, one of them a judge that is not clear."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from preceptor.core.errors import SettingsError
from preceptor.recipes.select import select
from preceptor.recipes.settings.loading import load_settings
from preceptor.recipes.settings.select import Select

REWARDS = [
    {"kind": "verifier", "name": "right", "function": "exact_match"},
    {
        "kind": "judge",
        "name": "quality",
        "teacher": {"kind": "own_judges:open_by_length"},
        "low": 0,
        "high": 20,
    },
    {
        "kind": "pairwise",
        "name": "duel",
        "teacher": {"kind": "own_judges:open_longer"},
        "baseline": {"teacher": "beech"},
    },
]


@pytest.fixture
def folder(tmp_path: Path, base: Path, instruction_texts: tuple[str, ...]) -> Path:
    """Two teachers, six instructions; the judge cannot grade beech's last answer."""
    rows = [
        {
            "instruction": text,
            "generator": who,
            "response": "x" * (n + 1 + extra * (20 if n == 5 and who == "beech" else 1)),
            "solution": "xx",
        }
        for n, text in enumerate(instruction_texts)
        for who, extra in (("ash", 0), ("beech", 1))
    ]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tree = {
        "base": str(base),
        "answers": "answers.jsonl",
        "rewards": REWARDS,
        "device": "cpu",
        "resamples": 100,
    }
    (tmp_path / "select.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path


def run(folder: Path) -> dict[str, Any]:
    return select(load_settings(Select, folder / "select.yaml"), folder / "run")


def test_three_rewards_at_once(folder: Path, plugs: Any) -> None:
    ranking = run(folder)
    assert list(ranking["rewards"]) == ["right", "quality", "duel"]
    assert any("1 of 6 instructions were left out" in text for text in ranking["warnings"])
    signals = pq.read_table(folder / "run" / "signals.parquet").to_pylist()
    assert len(signals) == 10
    lengths = {"ash": [1, 2, 3, 4, 5], "beech": [2, 3, 4, 5, 6]}
    for who, wanted in lengths.items():
        own = [row for row in signals if row["teacher"] == who]
        assert [row["reward.quality"] for row in own] == wanted
        assert [row["reward.right"] for row in own] == [float(n == 2) for n in wanted]
        assert [row["reward.duel"] for row in own] == [0.0 if who == "ash" else 0.5] * 5
    facts = json.loads((folder / "run" / "provenance.json").read_text())
    assert facts["asked"]["judge:quality"]["answers"] == 12
    assert facts["asked"]["judge:duel"]["answers"] == 12  # ash's six answers, in two orders
    assert facts["rewards"]["quality"]["parse_failures"] == 1
    assert facts["rewards"]["duel"]["first_position_wins"] == 0.5
    assert set(facts["rewards"]) == {"quality", "duel"}
    n_asked = len(plugs.asked)
    assert n_asked == 24
    run(folder)
    assert len(plugs.asked) == n_asked


def test_a_baseline_that_is_not_in_the_pool_is_refused_at_once(folder: Path, plugs: Any) -> None:
    tree = yaml.safe_load((folder / "select.yaml").read_text())
    tree["rewards"][2]["baseline"] = {"teacher": "birch"}
    (folder / "select.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(SettingsError, match="the baseline is not one of the teachers") as caught:
        run(folder)
    assert caught.value.where == "reward 'duel': baseline"
    assert caught.value.found == "did you mean 'beech'?"
    assert plugs.asked == []
