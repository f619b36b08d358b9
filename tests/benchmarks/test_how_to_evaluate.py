"""What the page on evaluation shows can be used as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from preceptor.benchmarks import BENCHMARKS
from preceptor.benchmarks.conversations.turns import USUAL_COLUMNS
from preceptor.benchmarks.mt_bench import TEMPERATURES
from preceptor.core.benchmark import Benchmark, Graded, Marks, Measure, Question, mean_scorer
from preceptor.recipes.examining.gate import read_gates
from preceptor.recipes.settings.evaluation import Evaluate
from preceptor.recipes.settings.loading import load_settings

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "evaluate.md").read_text("utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def whole(text: str) -> dict[str, Any]:
    """The settings that a block of the page is, or is a part of."""
    shown = yaml.safe_load(
        text.replace("# …\n", "questions: data/q.jsonl\n  baseline: b\n  judge: models/base\n")
    )
    if isinstance(shown, list):
        return {"models": ["models/base"], "benchmarks": shown}
    return {"models": ["models/base"], "benchmarks": ["lab"], **shown}


@pytest.mark.parametrize("text", BLOCKS)
def test_settings_of_the_page(text: str, tmp_path: Path) -> None:
    for place in re.findall(r"\b(?:models|data|tasks)/[\w.\-]+|\btasks\b", text):
        file = tmp_path / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch() if file.suffix else file.mkdir(exist_ok=True)
    (tmp_path / "models" / "base").mkdir(parents=True, exist_ok=True)
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "q.jsonl").touch()
    (tmp_path / "eval.yaml").write_text(yaml.safe_dump(whole(text)))
    settings = load_settings(Evaluate, tmp_path / "eval.yaml")
    assert settings.benchmarks


def test_conditions_of_the_page() -> None:
    [text] = [block for block in BLOCKS if block.startswith("fail_if")]

    def benchmark(name: str, measure: str) -> Benchmark:
        measures = (Measure(measure, measure, item=measure),)
        graded = Graded(Marks((), (), {}))
        questions = (Question("1", ("Why?",), "math"),)
        return Benchmark(name, questions, measures, lambda *_: graded, mean_scorer(measures))

    known = {"lab": "reward", "mt_bench": "score", "verifiable": "prompt_strict"}
    benchmarks = {name: benchmark(name, measure) for name, measure in known.items()}
    models = ["base", "student", "other"]
    gates = read_gates(yaml.safe_load(text)["fail_if"], benchmarks, models, "base")
    assert [gate.models for gate in gates] == [
        ("student", "other"),
        ("student",),
        ("student", "other"),
    ]
    assert [gate.category for gate in gates] == ["", "math", ""]
    assert gates[2].surely and gates[2].against == "base"


def test_the_tables_of_the_page() -> None:
    kinds = set(re.findall(r"^\| \[?`(\w+)[`:]", PAGE, re.MULTILINE))
    assert set(BENCHMARKS) <= kinds
    [row] = re.findall(r"^\| key \|.*$", PAGE, re.MULTILINE)
    assert tuple(re.findall(r"`(\w+)`", row)) == USUAL_COLUMNS["instruction_id"]
    [row] = re.findall(r"^\| `category` \|.*$", PAGE, re.MULTILINE)
    assert set(TEMPERATURES) <= set(re.findall(r"`(\w+)`", row))
