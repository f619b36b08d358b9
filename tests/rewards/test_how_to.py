"""What the functions and the prompt of the page on rewards give; `tests/docs` runs its blocks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from preceptor.core.types import Answer, Runtime
from preceptor.recipes.inputs.respondents import open_reward
from preceptor.recipes.settings.select import Select
from preceptor.rewards.judging.prompt import Prompt
from preceptor.selection.rewarding import score_answers

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "rewards.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}[^\n]*\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def settings(text: str) -> Select:
    tree = {"base": "some/model", "answers": "some/answers", **yaml.safe_load(text)}
    if tree["answers"].endswith(".jsonl"):
        tree["answers"] = "some/answers"
    return Select.model_validate(tree)


def test_functions_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in re.findall(
        r'^```python title="([\w.]+)"\n(.*?)^```$', PAGE, re.DOTALL | re.MULTILINE
    ):
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    rewards = [r for text in blocks("yaml") for r in settings(text).rewards]
    found = [r for r in rewards if "my_" in f"{r.kind} {getattr(r, 'function', '')}"]
    row: dict[str, Any] = {"target": "7"}
    answers = [Answer("i", "3 + 4?", "ash", "it is 7", row=row)]
    values = [
        score_answers(r.name, open_reward(r, Runtime("cpu")), answers, None)[0] for r in found
    ]
    assert values == [1.0, pytest.approx(0.03)]


def test_the_prompt_of_the_page(tmp_path: Path) -> None:
    [text] = blocks("text")
    file = tmp_path / "own.txt"
    file.write_text(text)
    data = {"instruction": "Hallo", "response": "=====\nHello", "low": "1", "high": "10"}
    shown = Prompt(str(file), "judge", data, ("instruction", "response")).render(data)
    assert shown.startswith("Grade the translation below from 1 to 10. End with [[grade]].\n")
    assert "====== translation\n=====\nHello\n====== end" in shown
