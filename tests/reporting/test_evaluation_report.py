"""The page of an evaluation: what it claims, what it holds, and that nothing in it is live."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluations import HOSTILE, MODELS, build_evaluation_folder, evaluation
from outline import Outline

from preceptor.core import artifacts
from preceptor.core.errors import RunFolderError
from preceptor.reporting.findings import evaluation_words as words
from preceptor.reporting.pages.evaluate import boards as evaluation_boards
from preceptor.reporting.pages.evaluate import report as evaluation_report
from preceptor.reporting.pages.evaluate import samples as evaluation_samples
from preceptor.reporting.parts import page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_evaluation_folder(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def outline(folder: Path) -> Outline:
    return Outline(evaluation_report.render(folder))


def _outline(folder: Path, made: Any) -> Outline:
    """The page of a folder that holds nothing but `made`."""
    artifacts.write_json(folder / artifacts.EVALUATION, made)
    return Outline(evaluation_report.render(folder))


def _text(sentence: words.Words) -> str:
    return "".join(text for text, _ in sentence)


# words


def measure(direction: str = "higher") -> dict[str, Any]:
    return {
        "name": "score",
        "title": "mean score",
        "low": 0.0,
        "high": 100.0,
        "direction": direction,
        "source": "",
    }


def cell(value: float, half: float) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half}


def small(
    scores: dict[str, float], gaps: dict[tuple[str, str], tuple[float, float]], **own: Any
) -> Any:
    """An evaluation of one benchmark from scores and (difference, half its interval)."""
    return {
        "name": "exam",
        "kind": "own",
        "n": 90,
        "measures": [measure()],
        "categories": [],
        "scores": [
            {"model": m, "n_marked": 90, "measures": {"score": cell(v, 4.0)}, "categories": {}}
            | {"facts": {}}
            for m, v in scores.items()
        ],
        "differences": [
            {"model": a, "against": b, "measure": "score", **cell(*gap)}
            | {"p_value": 0.02, "test": "bootstrap", "better": 5, "worse": 3}
            for (a, b), gap in gaps.items()
        ],
        "retention": [],
        "judge": None,
    } | own


def whole(*benchmarks: Any, models: tuple[str, ...] = ("ref", "x", "y")) -> Any:
    return {
        "version": 1,
        "confidence": 0.95,
        "n_resamples": 1000,
        "seed": 0,
        "reference": models[0],
        "models": list(models),
        "benchmarks": list(benchmarks),
        "quality": [],
        "gate": [],
        "warnings": [],
    }


APART = {("x", "ref"): (20.0, 3.0), ("y", "ref"): (12.0, 3.0), ("y", "x"): (-8.0, 3.0)}
CLOSE = APART | {("y", "x"): (-8.0, 9.0)}
SCORES = {"ref": 40.0, "x": 60.0, "y": 52.0}


def test_verdict_of_a_clear_winner() -> None:
    (sentence,) = words.verdict(whole(small(SCORES, APART)))
    assert _text(sentence) == (
        "On exam, x is best with 60.0 [56.0, 64.0] (mean score), 8.0 [5.0, 11.0] ahead of the "
        "next, y, and 20.0 [17.0, 23.0] ahead of the reference, ref."
    )
    assert {text for text, kind in sentence if kind == "name"} == {"exam", "x", "y", "ref"}
    assert ("mean score", "title") in sentence


def test_verdict_never_claims_what_the_interval_does_not() -> None:
    (sentence,) = words.verdict(whole(small(SCORES, CLOSE)))
    assert _text(sentence) == (
        "On exam, x comes first with 60.0 [56.0, 64.0] (mean score), but cannot be told apart from "
        "y (difference 8.0 [−1.0, 17.0]); it is 20.0 [17.0, 23.0] ahead of the reference, ref."
    )
    unknown = {pair: gap for pair, gap in APART.items() if pair != ("y", "x")}
    (sentence,) = words.verdict(whole(small(SCORES, unknown)))
    assert "but cannot be told apart from y; it is" in _text(sentence)


def test_verdict_where_the_reference_is_next_or_first() -> None:
    two = whole(small({"ref": 40.0, "x": 60.0}, {("x", "ref"): (20.0, 3.0)}), models=("ref", "x"))
    assert "20.0 [17.0, 23.0] ahead of the next, which is the reference, ref." in _text(
        words.verdict(two)[0]
    )
    first = small({"ref": 60.0, "x": 40.0}, {("x", "ref"): (-20.0, 3.0)})
    assert _text(words.verdict(whole(first, models=("ref", "x")))[0]).endswith(
        "20.0 [17.0, 23.0] ahead of the next, x; it is the reference."
    )


def test_lower_is_better_turns_the_order_and_not_the_words() -> None:
    own = small(SCORES, APART, measures=[measure("lower")])
    (sentence,) = words.verdict(whole(own))
    assert _text(sentence) == (
        "On exam, ref is best with 40.0 [36.0, 44.0] (mean score), 12.0 [9.0, 15.0] ahead of the "
        "next, y; it is the reference."
    )


def test_verdict_over_several_benchmarks() -> None:
    alike = whole(small(SCORES, APART), small(SCORES, CLOSE, name="other"))
    first, *each = words.verdict(alike)
    assert _text(first) == "x comes first on both benchmarks, apart from all others on 1."
    assert len(each) == 2
    assert words.title(alike) == ("x", "first of 3 models on", [("", "exam"), (" and ", "other")])
    flipped = small({"ref": 40.0, "x": 50.0, "y": 70.0}, {}, name="other")
    split = whole(small(SCORES, APART), flipped)
    assert _text(words.verdict(split)[0]) == (
        "No model comes first everywhere: x on exam; y on other."
    )
    assert words.title(split)[:2] == ("3 models", "on")


def test_one_model_and_no_scores() -> None:
    alone = whole(small({"x": 60.0}, {}), models=("x",))
    assert _text(words.verdict(alone)[0]) == "On exam, x scores 60.0 [56.0, 64.0] (mean score)."
    assert words.title(alone)[:2] == ("x", "on")
    empty = small({"x": 1.0}, {})
    empty["scores"][0]["measures"]["score"] = {"value": None, "low": None, "high": None}
    assert _text(words.verdict(whole(empty, models=("x",)))[0]) == "No model has a score on exam."


def test_side_is_said_only_where_the_interval_excludes_zero() -> None:
    ends = [(1.0, 2.0), (-2.0, -1.0), (0.0, 1.0), (-1.0, 1.0), (None, None)]
    rows = [{"low": low, "high": high} for low, high in ends]
    assert [words.side(row, "higher") for row in rows] == [1, -1, 0, 0, 0]
    assert [words.side(row, "lower") for row in rows] == [-1, 1, 0, 0, 0]


def test_holm() -> None:
    assert words.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert words.holm([0.6, None, 0.5]) == [1.0, None, 1.0]
    assert words.holm([]) == []


def test_small_words() -> None:
    assert [words.p_words(p) for p in (None, 0.0, 0.0009, 0.0344, 1.0)] == [
        *("–", "< 0.001", "< 0.001", "0.034", "1.000"),
    ]
    ratio = {"value": math.log(2), "low": math.log(1.5), "high": math.log(2.5)}
    assert words.ratio_words(ratio) == "×2.00 [×1.50, ×2.50]"
    assert words.ratio_words({"value": None, "low": None, "high": None}) == "–"
    assert words.caption(measure()) == "mean score"
    assert words.caption(measure("lower")) == "mean score; lower is better"
    assert words.name_of_test("mcnemar") == "McNemar, exact"


# boards


def test_pairs_stand_once_and_the_reference_is_taken_away() -> None:
    gaps = {("ref", "x"): (-20.0, 3.0), ("y", "ref"): (12.0, 3.0), ("y", "x"): (-8.0, 9.0)}
    gaps |= {("x", "ref"): (20.0, 3.0)}
    made = whole(small(SCORES, gaps))
    own = evaluation_boards.boards(made)[0]["measures"][0]
    pairs = [(row["model"], row["against"], row["value"]) for row in own["pairs"]]
    assert pairs == [(0, 1, -20.0), (0, 2, -12.0), (1, 2, 8.0)]
    assert [(row["model"], row["against"]) for row in own["gaps"]] == [(1, 0), (2, 0)]
    assert [row["side"] for row in own["pairs"]] == [-1, -1, 0]
    assert own["pairs"][1]["better"] == 3  # turned with the rest


def test_shades_run_to_the_better_end() -> None:
    rows = [[{"value": 1.0}, {"value": 2.0}], [None, {"value": 3.0}]]
    assert evaluation_boards.shades(rows, "higher") == [[6, 4], [None, 2]]
    assert evaluation_boards.shades(rows, "lower") == [[2, 4], [None, 6]]


def test_many_categories_go_down_the_page(outline: Outline) -> None:
    boards = evaluation_boards.boards(evaluation())
    grids = [evaluation_boards.grid(board, MODELS) for board in boards]
    assert [grid["corner"] for grid in grids] == ["Model", "Model", "Category", "Model"]
    assert [board["radar"] for board in boards] == [False, True, False, False]
    radars = [a["data-radar"] for _, a in outline.tags if "data-radar" in a]
    assert radars == ["1"]


# samples


def test_samples_are_half_by_difference_and_half_at_random() -> None:
    categories = {f"q{i}": "ab"[i % 2] for i in range(40)}
    spread = {f"q{i}": i / 40 for i in range(40)}
    picked = evaluation_samples.pick(categories, spread, 12)
    assert list(picked)[:6] == ["q39", "q38", "q37", "q36", "q35", "q34"]
    assert Counter(why for why, _ in picked.values()) == {"gap": 6, "random": 6}
    assert Counter(categories[item] for item in picked) == {"a": 6, "b": 6}
    assert evaluation_samples.pick(categories, spread, 12) == picked
    rare = {item: "rare" if item == "q3" else "common" for item in categories}
    assert list(evaluation_samples.pick(rare, spread, 4))[:2] == ["q39", "q3"]


def test_samples_without_marks_are_drawn() -> None:
    picked = evaluation_samples.pick(dict.fromkeys("abc", ""), {}, 2)
    assert set(picked.values()) == {("random", None)} and len(picked) == 2


def test_spread_is_of_the_measure_and_needs_two_marks() -> None:
    rows = [("a", "length", 9.0), ("a", "length", 1.0), ("a", "win", 0.9), ("a", "win", 0.2)]
    rows += [("b", "win", 0.5), ("b", "win", None)]
    table = pa.table(dict(zip(("item", "name", "value"), zip(*rows, strict=True), strict=True)))
    assert evaluation_samples.spreads(table, "win") == pytest.approx({"a": 0.7})
    assert evaluation_samples.spreads(table, "other") == {"a": 8.0}
    assert evaluation_samples.spreads(None, "win") == {}


def test_samples_hold_every_model_with_marks_and_verdicts(folder: Path, outline: Outline) -> None:
    samples = json.loads(outline.data)["samples"]
    assert Counter(own["benchmark"] for own in samples) == {0: 20, 1: 20, 2: 20}
    table = pq.read_table(folder / artifacts.EXCHANGES).to_pylist()
    known = {(row["benchmark"], row["model"], row["item"], row["turn"]): row for row in table}
    names = [own["name"] for own in evaluation()["benchmarks"]]
    for own in samples:
        assert [answer["model"] for answer in own["answers"]] == list(range(len(MODELS)))
        for answer in own["answers"]:
            place = names[own["benchmark"]], MODELS[answer["model"]], own["item"]
            for turn, said in enumerate(answer["turns"]):
                assert said["text"] == known[(*place, turn)]["response"][:4000]
            assert answer["marks"][1] == ["length", 100.0 * (1 + answer["model"])]
            assert len(answer["games"]) == (own["benchmark"] == 0)
    assert {len(own["prompts"]) for own in samples if own["benchmark"] == 1} == {2}


def test_samples_are_cut_to_fit(tmp_path: Path) -> None:
    long = ["<b>" * 2000, "é" * 5000]
    build_evaluation_folder(tmp_path, [f"m{i}" for i in range(9)], long)
    html = evaluation_report.render(tmp_path)
    data = json.loads(Outline(html).data)
    assert len(html.encode()) < 3_000_000
    shown = data["samples"][0]["answers"][1]["turns"][0]
    assert shown["of"] > 4000 and len(shown["text"]) >= 250


def test_samples_that_are_too_many_even_when_cut_lose_items() -> None:
    answer = {"model": 0, "turns": [{"text": "<" * 5000, "finish": "stop"}], "marks": []}
    sample = {"benchmark": 0, "prompts": ["why?"], "answers": [answer | {"games": []}]}
    raw = [sample | {"item": f"q{i}"} for i in range(30)]
    few = evaluation_samples.fit(raw, 30_000)
    assert 10 <= len(few) < 30 and few[0]["item"] == "q0"
    assert len(page.embed_json(few).encode()) <= 30_000
    assert few[0]["answers"][0]["turns"][0] == {"text": "<" * 250, "finish": "stop", "of": 5000}
    assert evaluation_samples.fit(raw[:1], 10) == []


def test_a_folder_without_tables_has_no_samples(tmp_path: Path) -> None:
    outline = _outline(tmp_path, evaluation())
    assert json.loads(outline.data)["samples"] == []
    assert "The run folder holds no exchanges to quote." in outline.words
    assert "The folder holds no provenance." in outline.words


# the page


def test_page_is_self_contained(outline: Outline) -> None:
    policies = [a["content"] for _, a in outline.tags if "http-equiv" in a]
    assert len(policies) == 1 and (policies[0] or "").startswith("default-src 'none';")
    for tag, attributes in outline.tags:
        for key in ("src", "href", "action", "srcset", "poster"):
            value = attributes.get(key)
            assert value is None or value == "data:," or value.startswith("#"), (tag, attributes)
        assert not [key for key in attributes if key.startswith("on")], (tag, attributes)
    assert "@import" not in page.asset("pages/evaluate/report.css") and "url(" not in page.asset(
        "pages/evaluate/report.css"
    )


def test_links_lead_somewhere(outline: Outline) -> None:
    ids = [a["id"] for _, a in outline.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    targets = {str(a["href"])[1:] for tag, a in outline.tags if tag == "a"}
    assert len(targets) >= 10 and targets <= set(ids)
    labels = {str(a["aria-labelledby"]) for _, a in outline.tags if "aria-labelledby" in a}
    assert labels <= set(ids)


@pytest.mark.parametrize(
    "script", ["pages/evaluate/report.js", "pages/evaluate/charts.js", "pages/evaluate/samples.js"]
)
def test_own_script_never_builds_markup_from_text(script: str) -> None:
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        ".html(",
    ):
        assert word not in page.asset(script)


def test_same_folder_gives_same_bytes(folder: Path) -> None:
    first = evaluation_report.write(folder).read_bytes()
    assert evaluation_report.write(folder).read_bytes() == first
    assert [path.name for path in folder.glob(".*")] == []


def test_tables_stand_in_the_html(outline: Outline) -> None:
    made = evaluation()
    board = evaluation_boards.boards(made)[0]
    first = board["measures"][0]
    best = first["order"][0]
    shown = words.interval_words(first["cells"][best], first["decimals"])
    assert f"{MODELS[best]} {shown}" in outline.words
    assert "5 models 4 benchmarks 470 items base-notes reference 95% intervals" in outline.words
    assert "McNemar, exact" in outline.words and "paired bootstrap" in outline.words
    assert (
        "Better / worse" in outline.words
        and "Holm p" in outline.words
        and "not separable" in outline.words
    )
    assert "×1.22 [×1.15, ×1.30]" in outline.words
    assert "56.1% [53.2, 59.0]" in outline.words and "78.0% [71.0, 84.0] n = 150" in outline.words
    assert "preceptor evaluate lab:base-notes lab:aster-m eval.yaml --out runs/ev" in outline.words
    assert "3 replies of the judge on alpaca_eval cannot be read" in outline.words


def test_tied_models_are_marked(tmp_path: Path) -> None:
    outline = _outline(tmp_path, whole(small(SCORES, CLOSE)))
    assert "y ≈ 52.0 [48.0, 56.0]" in outline.words and "x 60.0 [56.0, 64.0]" in outline.words
    assert "≈ 60.0" not in outline.words and "≈ 40.0" not in outline.words


def test_gate(outline: Outline, tmp_path: Path) -> None:
    assert "1 of 3 gate conditions passed" in outline.words
    assert "The gate is not passed mt_bench.grade < 6 (base-notes): it is 2.46" in outline.words
    assert "wiki.loss/rare > 5: it has no value" in outline.words
    assert "alpaca_eval.win_rate < 20 (aster-m) 51.2 passed" in outline.words
    assert "wiki.loss/rare > 5 – failed" in outline.words
    quiet = _outline(tmp_path, whole(small(SCORES, APART)))
    assert "gate" not in quiet.words.lower()


def test_retention(outline: Outline) -> None:
    row = evaluation()["benchmarks"][0]["retention"][0]
    kept = 100 * row["kept"]["value"]
    assert f"aster-m {kept:.1f} [" in outline.words
    assert f"{row['n_could']} {row['n_lost']} {row['n_won']}" in outline.words
    bars = [a for tag, a in outline.tags if tag == "svg" and "lost" in str(a.get("aria-label"))]
    assert len(bars) == 3 * 4


def test_a_small_evaluation_has_no_empty_sections(tmp_path: Path) -> None:
    alone = whole(small({"x": 60.0}, {}), models=("x",))
    outline = _outline(tmp_path, alone)
    ids = {a.get("id") for _, a in outline.tags}
    assert not ids & {"categories", "differences", "retention", "answering", "judges", "gate"}
    assert {"scores-section", "samples", "reading", "provenance"} <= ids


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_text(tmp_path: Path, text: str) -> None:
    made = evaluation([text, "b"])
    made["benchmarks"][1]["categories"][0] = text
    for score in made["benchmarks"][1]["scores"]:
        score["categories"][text] = score["categories"].pop("writing")
    made["benchmarks"][0]["measures"][0]["title"] = text
    made["benchmarks"][0]["judge"]["words"] = [text]
    made["gate"][1]["condition"] = text
    made["warnings"] = [text]
    artifacts.write_bytes(tmp_path / artifacts.SETTINGS, text.encode())
    artifacts.write_json(tmp_path / artifacts.PROVENANCE, {"command": text, text: {text: [text]}})
    outline = _outline(tmp_path, made)
    scripts = [a for tag, a in outline.tags if tag == "script" and "type" not in a]
    assert len(scripts) == len(evaluation_report.SCRIPTS)
    assert not [tag for tag, _ in outline.tags if tag in ("img", "iframe")]
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", outline.text)
    assert json.loads(outline.data)["models"][0] == text


def test_hostile_answers_are_inert(outline: Outline, folder: Path) -> None:
    html = evaluation_report.render(folder)
    inside = html.partition('id="data">')[2].partition("</script>")[0]
    assert not re.search("[<>&\u2028\u2029\u202e\x7f]", inside)
    texts = [
        turn["text"]
        for own in json.loads(outline.data)["samples"]
        for answer in own["answers"]
        for turn in answer["turns"]
    ]
    for hostile in HOSTILE:
        assert any(hostile in text for text in texts)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "holds no evaluation"),
        ("{", "not JSON"),
        ("[]", "holds no evaluation"),
        ('{"version": 7}', "version"),
        ('{"version": 1}', "incomplete"),
    ],
)
def test_a_folder_without_an_evaluation(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / artifacts.EVALUATION).write_text(text)
    with pytest.raises(RunFolderError, match=words):
        evaluation_report.render(tmp_path)
