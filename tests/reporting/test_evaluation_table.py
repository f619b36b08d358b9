"""An evaluation on the terminal."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from preceptor.reporting.terminal.evaluation import print_evaluation

NOTHING = {"value": None, "low": None, "high": None}


def interval(value: float, half: float = 0.05) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def benchmark(
    name: str, direction: str = "higher", of: dict[str, float] | None = None, **scores: float
) -> dict[str, Any]:
    """Of one measure; every model is compared with the first."""
    scores = of or scores
    first, *others = scores
    return {
        "name": name,
        "kind": "own",
        "n": 1200,
        "measures": [
            {"name": "right", "title": "right answers", "low": 0, "high": 1,
             "direction": direction, "source": ""}
        ],
        "categories": [],
        "scores": [
            {"model": model, "n_marked": 1200, "measures": {"right": interval(value)},
             "categories": {}, "facts": {}}
            for model, value in scores.items()
        ],
        "differences": [
            {"model": model, "against": first, "measure": "right", "p_value": 0.0004,
             "test": "mcnemar", "better": 9, "worse": 1, **interval(scores[model] - scores[first])}
            for model in others
        ],
        "retention": [],
        "judge": None,
    }  # fmt: skip


def evaluation(*benchmarks: dict[str, Any], **more: Any) -> dict[str, Any]:
    models = [own["model"] for own in benchmarks[0]["scores"]]
    return {
        "version": 1,
        "confidence": 0.95,
        "n_resamples": 1000,
        "seed": 0,
        "reference": models[0],
        "models": models,
        "benchmarks": list(benchmarks),
        "quality": [],
        "gate": [],
        "warnings": [],
        **more,
    }


def printed(content: dict[str, Any], width: int = 118) -> str:
    out = StringIO()
    print_evaluation(content, Path("runs/x"), Console(file=out, width=width))
    return out.getvalue()


def test_scores_differences_and_path() -> None:
    text = printed(evaluation(benchmark("exam", base=0.4, good=0.7, same=0.42, bad=0.2)))
    assert "95% intervals" in text and "base (reference)" in text
    assert "0.70 [0.65, 0.75]" in text and "n = 1,200" in text
    lines = text.splitlines()
    assert "exam: good is better than base: 0.30 [0.25, 0.35], p < 0.001 (McNemar, exact)" in lines
    assert any(line.startswith("exam: same is not separable from base: ") for line in lines)
    assert any(line.startswith("exam: bad is worse than base: -0.20 ") for line in lines)
    assert lines[-1] == "report: runs/x/report.html"
    assert "−" not in text and "–" not in text, "a terminal may have no such signs"


def test_where_lower_is_better() -> None:
    text = printed(evaluation(benchmark("errors", "lower", base=0.4, few=0.2)))
    assert "lower is better" in text
    assert "errors: few is better than base: -0.20" in text


def test_judges_gate_and_warnings() -> None:
    judged = benchmark("duel", base=0.4, own=0.5) | {
        "judge": {"games": 10, "words": ["prefers the first answer: 61 % [55, 67]"]}
    }
    gate = [
        {"condition": "own:duel.right < 0.6", "value": 0.5, "holds": True},
        {"condition": "own:duel.wrong < 1", "value": None, "holds": True},
        {"condition": "own:duel.right < 0.1", "value": 0.5, "holds": False},
    ]
    lines = printed(evaluation(judged, gate=gate, warnings=["5 marks are missing"])).splitlines()
    assert lines[-6:] == [
        "judge of duel: prefers the first answer: 61 % [55, 67]",
        "warning: 5 marks are missing",
        "FAILED: own:duel.right < 0.6 (0.5)",
        "FAILED: own:duel.wrong < 1 (no value)",
        "gate: 1 of 3 passed",
        "report: runs/x/report.html",
    ]


def test_one_model_is_compared_with_nobody() -> None:
    text = printed(evaluation(benchmark("exam", alone=0.4)))
    assert "reference" not in text and "0.40 [0.35, 0.45]" in text
    assert "alone is" not in text and "better" not in text


def test_what_was_not_measured_is_a_dash() -> None:
    own = benchmark("exam", base=0.4, gone=0.2)
    own["scores"][1]["measures"]["right"] = NOTHING
    own["differences"][0] |= NOTHING
    text = printed(evaluation(own))
    (row,) = [line for line in text.splitlines() if line.strip().startswith("gone")]
    assert row.split() == ["gone", "-"]
    assert "gone is" not in text


def test_many_benchmarks_are_several_tables() -> None:
    text = printed(evaluation(*(benchmark(f"b{n}", base=0.4, own=0.5) for n in range(6))))
    assert text.count("95% intervals") == 2
    assert all(f"b{n}: right" in text for n in range(6))


def test_names_are_data_not_markup() -> None:
    names = {"[red]base[/red]": 0.4, "[bold]own": 0.7}
    text = printed(evaluation(benchmark("[b]exam", of=names), warnings=["[i]odd"]))
    assert "[red]base[/red]" in text and "[bold]own is better than [red]base[/red]" in text
    assert "[b]exam" in text and "warning: [i]odd" in text
