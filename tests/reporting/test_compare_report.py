"""The page and the table of a comparison, from made-up comparisons with hostile names."""

from __future__ import annotations

import json
import re
from io import StringIO
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hostile import ONE as HOSTILE
from outline import Outline
from rich.console import Console

from preceptor.core.comparison import COMPARE, COMPARE_VERSION
from preceptor.core.errors import RunFolderError
from preceptor.reporting.findings.comparison_words import (
    label,
    shade,
    sorted_trials,
)
from preceptor.reporting.pages.compare import report as compare_report
from preceptor.reporting.parts import page
from preceptor.reporting.parts.wording import interval_words
from preceptor.reporting.terminal.comparison import print_comparison

TEACHERS = ["gemma-9b", "qwen-7b [red]x[/red]", "llama \u202e70b", "phi & <b>mini</b>", HOSTILE]
CRITERIA = {"car": "reward", "perplexity": "likelihood", "length": "other"}


def tried(value: float | None, wide: float = 0.2) -> dict[str, Any]:
    low, high = (None, None) if value is None else (value - wide, min(1.0, value + wide))
    alone = None if value is None else [value - wide / 4, min(1.0, value + wide / 4)]
    return {
        "value": value,
        "low": low,
        "high": high,
        "teachers": [low, high],
        "instructions": alone,
    }


def trial(rho: float | None, kind: str, first: list[str]) -> dict[str, Any]:
    return {
        "kind": kind, "first": first, "spearman": tried(rho), "kendall": tried(rho),
        "regret": tried(0.5), "p_value": None if rho is None else 0.0004 if rho > 0.7 else 0.02,
    }  # fmt: skip


def judged(**more: Any) -> dict[str, Any]:
    """Trials of three criteria and two controls, their differences, and a fitted beta."""
    rhos = {"length": -0.4, "car": 0.8, "perplexity": 0.3}
    trials = {name: trial(rho, CRITERIA[name], TEACHERS[:1]) for name, rho in rhos.items()}
    trials["control.other_bases"] = trial(0.9, "control", [HOSTILE])
    trials["control.chance"] = trial(None, "control", TEACHERS)
    known = [name for name, own in trials.items() if own["spearman"]["value"] is not None]
    gaps = [
        (a, b, trials[a]["spearman"]["value"] - trials[b]["spearman"]["value"])
        for a, b in combinations(known, 2)
    ]
    differences = [
        {"first": a, "second": b, "value": gap, "low": gap - 0.6, "high": gap + 0.6}
        for a, b, gap in gaps
    ]
    fit = {
        "beta": 0.5, "plateau": [0.25, 1.0], "rho": 0.85, "rho_left_out": 0.6,
        "left_out": {name: 0.4 + 0.1 * n for n, name in enumerate(TEACHERS)},
        "rho_at_zero": 0.7, "run_beta": 3.0, "rho_at_run_beta": 0.8, "suggested": 0.5,
        "same_everywhere": False,
        "curve": [[0.0, 0.7], [0.001, 0.7], [0.25, 0.85], [1.0, 0.8], [1000.0, None]],
    }  # fmt: skip
    return {"criteria": trials, "differences": differences, "beta": {"armo": fit}} | more


def base(name: str, known: bool) -> dict[str, Any]:
    scores = {"car": [5, 4, 3, 2, 1], "perplexity": [2.0, 3, 4, 5, 6], "length": [9, 80, 7, 6, 5]}
    return {
        "name": name, "base": name, "run": f"runs/{name}", "family": None, "deciding": "car",
        "n_instructions": 1234, "teachers": TEACHERS,
        "criteria": {
            key: {
                "kind": kind, "direction": "lower" if key == "perplexity" else "higher",
                "unit": "u", "description": "d", "first": TEACHERS[:1],
                "tied_with_first": TEACHERS[1:3] if key == "car" else [],
                "scores": scores[key], "recomputed": True,
            }
            for key, kind in CRITERIA.items()
        },
        "agreement": [
            {
                "first": a, "second": b, "spearman": {"value": rho, "low": -1.0, "high": 0.5},
                "kendall": {"value": rho / 2, "low": None, "high": None},
            }
            for (a, b), rho in zip(combinations(CRITERIA, 2), (0.91, -0.62, 0.05), strict=True)
        ],
        "outcomes": judged(teachers=TEACHERS, outcome=[5, 4, 3.5, 2, 1], n_rows=[1] * 5)
        if known
        else None,
    }  # fmt: skip


def comparison(first: str, *more: str, known: bool = True) -> Any:
    names = [first, *more]
    several = known and len(names) > 1
    found: Any = {
        "version": COMPARE_VERSION,
        "confidence": 0.95,
        "n_resamples": 2000,
        "seed": 0,
        "command": "preceptor compare-criteria runs/a runs/b --out runs/compared",
        "inputs": {"outcomes.csv": "sha256:abc"} if known else {},
        "warnings": [f"no outcome is known of {HOSTILE}"],
        "verdict": [
            {"base": None, "kind": "best", "text": "car is best."},
            {"base": first, "kind": "agree", "text": f"All agree on {HOSTILE}."},
        ],
        "bases": [base(name, known) for name in names],
        "mean": judged(bases=list(names)) if several else None,
    }
    return found


def rendered(folder: Path, first: str, *more: str, **options: Any) -> tuple[str, Outline]:
    folder.mkdir(exist_ok=True)
    (folder / COMPARE).write_text(json.dumps(comparison(first, *more, **options)))
    html = compare_report.write(folder).read_text(encoding="utf-8")
    return html, Outline(html)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Outline]:
    return rendered(tmp_path_factory.mktemp("page"), "Qwen2-1.5B", "Gemma-2-2B")


def test_page_is_self_contained_and_inert(whole):
    html, outline = whole
    for tag, attributes in outline.tags:
        for key in ("src", "href", "action", "srcset"):
            value = attributes.get(key)
            assert value is None or value == "data:," or value.startswith("#"), (tag, attributes)
        assert not [key for key in attributes if key.startswith("on")], (tag, attributes)
    assert HOSTILE not in html and "<b>mini</b>" not in html
    assert HOSTILE in outline.text  # as text
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", re.sub("<bdi>.*?</bdi>", "", html))
    assert "url(" not in page.asset("pages/boards.css") and "@import" not in page.asset(
        "pages/boards.css"
    )
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert word not in page.asset("pages/compare/report.js")


def test_every_part_is_there(whole):
    _, outline = whole
    sections = [own["id"] for tag, own in outline.tags if tag == "section"]
    assert sections == [
        "outcomes", "scatter", "beta", "agreement", "reading", "take-along", "provenance"
    ]  # fmt: skip
    # trials: means and two bases; differences of each; scores, agreement, its pairs and firsts of
    # two; beta
    assert sum(tag == "table" for tag, _ in outline.tags) == 3 + 3 + 4 * 2 + 1
    assert "Which criterion to trust for 2 bases" in outline.words
    assert (
        "for 2 bases car is best (95% intervals); it was read from finished runs, and asked or "
        "trained nothing." in outline.words
    )
    assert outline.words.index("car is best") < outline.words.index("All agree on")
    assert "0.80 [0.60, 1.00]" in outline.words and "< 0.001" in outline.words
    assert "Blind choice control –" in outline.words and "5 tie" in outline.words
    assert "0.91" in outline.words and "−0.31" in outline.words  # rho above, tau below
    assert "CAR, Perplexity0.91 [−1.00, 0.50]0.46" in outline.words  # a pair with its interval
    assert "0.50 [−0.10, 1.10]" in outline.words  # rho of CAR less that of perplexity
    assert f"{page.visible(TEACHERS[2])}3.5" in outline.words  # what a dot shows


def test_without_outcomes(tmp_path):
    _, outline = rendered(tmp_path, "aster", known=False)
    sections = [own["id"] for tag, own in outline.tags if tag == "section"]
    assert sections == ["agreement", "reading", "take-along", "provenance"]
    assert "Do the criteria agree? for aster" in outline.words
    assert json.loads(outline.data) == {"bases": [], "beta": []}


def test_data_of_the_charts(whole):
    _, outline = whole
    data = json.loads(outline.data)
    assert [own["name"] for own in data["bases"]] == ["Qwen2-1.5B", "Gemma-2-2B"]
    panels = data["bases"][0]["panels"]
    assert [panel["label"] for panel in panels] == ["CAR", "Perplexity", "Length"]
    assert panels[1]["direction"] == "lower" and panels[1]["scores"] == [2, 3, 4, 5, 6]
    assert data["bases"][0]["outcome"] == [5, 4, 3.5, 2, 1]
    assert [(own["board"], own["reward"]) for own in data["beta"]] == [
        (0, "armo"), (1, "armo"), (2, "armo")
    ]  # fmt: skip


def test_teachers_without_an_outcome_stay_out_of_the_charts(tmp_path):
    made = comparison("a")
    own = made["bases"][0]["outcomes"]
    own["teachers"], own["outcome"] = [TEACHERS[3], TEACHERS[0]], [1, 2]
    own["n_rows"] = [1, 1]
    (tmp_path / COMPARE).write_text(json.dumps(made))
    data = json.loads(Outline(compare_report.render(tmp_path)).data)
    assert data["bases"][0]["panels"][0]["scores"] == [2, 5]


def test_the_same_file_gives_the_same_page(tmp_path):
    rendered(tmp_path, "a")
    assert compare_report.render(tmp_path) == compare_report.render(tmp_path)


@pytest.mark.parametrize("text", [None, "{", "[]", '{"version": 7}'])
def test_a_folder_without_a_comparison(tmp_path, text):
    if text is not None:
        (tmp_path / COMPARE).write_text(text)
    with pytest.raises(RunFolderError, match=r"comparison|not JSON"):
        compare_report.render(tmp_path)


def test_words():
    assert label("control.other_bases") == "Outcomes on other bases"
    assert label("car.armo") == "CAR · armo"
    shades = [shade(value) for value in (1.0, 0.5, 0.0, -0.1, -0.5, -1.0, None)]
    assert shades == ["shade-0", "shade-3", "shade-6", "shade-6", "minus-2", "minus-3", ""]
    assert interval_words({"value": -0.5, "low": -1, "high": 0}, 1) == "−0.5 [−1.0, 0.0]"
    assert interval_words({"value": 0.5, "low": None, "high": None}, 1) == "0.5"
    assert interval_words({"value": None, "low": None, "high": None}, 1) == "–"
    order = [key for key, _ in sorted_trials(judged()["criteria"])]
    assert order == ["car", "perplexity", "length", "control.other_bases", "control.chance"]


def printed(made: Any, out: Path | None = None) -> str:
    text = StringIO()
    print_comparison(made, out, Console(file=text, width=118))
    return text.getvalue()


def test_terminal(tmp_path):
    text = printed(comparison("Qwen2-1.5B", "Gemma-2-2B"), tmp_path)
    assert "Criteria against outcomes: mean over 2 bases" in text
    assert "Criteria against outcomes: Gemma-2-2B, 5 teachers" in text
    assert "0.80 [0.60, 1.00]" in text and "-0.40" in text and "<.001" in text
    assert "suggested: 0.5" in text and "without one teacher 0.4 to 0.8" in text
    assert "\ncar is best.\n" in text and f"Qwen2-1.5B: All agree on {HOSTILE}." in text
    assert text.rstrip().endswith(f"report: {tmp_path / 'compare.html'}")
    assert text.index("car is best") < text.index("report:")
    assert "−" not in text and "–" not in text


def test_terminal_without_outcomes():
    made = comparison("aster", known=False)
    made["bases"][0]["criteria"]["car"]["first"] = [TEACHERS[1]]
    text = printed(made)
    assert "Agreement of criteria (Spearman's rho): aster" in text
    assert "[red]x[/red]" in text and "0.91" in text and "-0.62" in text
    assert "report:" not in text and "aster: " not in text.partition("All agree")[2]
