"""The page on run folders names every key of the results that it describes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from preceptor.core import study

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "run-folder.md"


def told(title: str) -> dict[str, str]:
    """Key -> its row, of the first table below a heading; keys of one row share it."""
    text = PAGE.read_text("utf-8").split(f"### {title}\n", 1)[1].split("\n## ", 1)[0]
    found: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            found |= dict.fromkeys(re.findall(r"`(\w+)`", line.split("|")[1]), line)
    return found


def test_every_key_of_a_study_is_told() -> None:
    assert set(told("`study.json`")) == set(study.Study.__annotations__)


@pytest.mark.parametrize(
    ("key", "entry"),
    [
        ("sources", study.StudySource),
        ("outcome", study.StudyOutcome),
        ("cells", study.StudyCell),
        ("matrix", study.StudyRow),
        ("base_scores", study.StudyBase),
        ("largest", study.Largest),
        ("paradox", study.Family),
        ("budget", study.StudyBudget),
        ("verdict", study.StudySentence),
    ],
)
def test_every_key_of_its_entries_is_told(key: str, entry: Any) -> None:
    row = told("`study.json`")[key]
    assert [name for name in entry.__annotations__ if f"`{name}`" not in row] == []
