"""The page of a study, from made-up studies with hostile names."""

from __future__ import annotations

import json
import re

import pytest
from outline import Outline
from studies import BASES, HOSTILE, TEACHERS, build, grid, picks, source, written

from preceptor.core.errors import RunFolderError
from preceptor.core.study import STUDY
from preceptor.reporting.findings.study_words import (
    point_words,
    rank_words,
    shade,
    size_words,
)
from preceptor.reporting.pages.study import boards
from preceptor.reporting.pages.study import report as study_report
from preceptor.reporting.parts import page
from preceptor.reporting.parts.wording import hours_words


def rendered(folder, study) -> tuple[str, Outline]:
    html = study_report.write(written(folder, study)).read_text(encoding="utf-8")
    return html, Outline(html)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[str, Outline]:
    return rendered(tmp_path_factory.mktemp("page"), build())


def sections(outline: Outline) -> list[str | None]:
    return [own["id"] for tag, own in outline.tags if tag == "section"]


def test_page_is_self_contained_and_inert(whole):
    html, outline = whole
    for tag, attributes in outline.tags:
        for key in ("src", "href", "action", "srcset"):
            value = attributes.get(key)
            assert value is None or value == "data:," or value.startswith("#"), (tag, attributes)
        assert not [key for key in attributes if key.startswith("on")], (tag, attributes)
    assert HOSTILE not in html and HOSTILE in outline.text
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", re.sub("<bdi>.*?</bdi>", "", html))
    for name in ("pages/study/report.css", "pages/study/report.js", "pages/panels.js"):
        text = page.asset(name)
        assert "url(" not in text and "@import" not in text
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert word not in text


def test_every_part_is_there(whole):
    _, outline = whole
    assert sections(outline) == [
        "outcomes", "criteria", "scatter", "size", "seeds", "trainings", "reading", "take-along",
        "provenance",
    ]  # fmt: skip
    words = outline.words
    assert "Who teaches best for 3 bases" in words
    assert (
        f"gemma-2-9b-it teaches {BASES[0]} best, and surely so (95% intervals; 55 of 60 trainings "
        "are done" in words
    )
    assert "its trainings and exams took 1.8 hours." in words
    assert words.index("gemma-2-9b-it teaches") < words.index("CAR would have said so")
    assert "The largest teacher is the best on none of 3 bases." in words
    assert "7 (5–9) of 10" in words and "406 B" in words
    assert "0.80 [0.60, 1.00]" in words and "Blind choice control" in words  # criteria
    assert "55 of 60 trainings are done, 3 are left, 2 failed." in words
    assert "The budget was 2.0 hours; the last invocation took 1.9 hours of it." in words
    assert f"2 failed: killed by {HOSTILE}" in words
    assert "preceptor study s.yaml --out runs/s" in words and "bases: [lab:base-notes]" in words


def test_the_heat_map_is_a_table(whole):
    """A column header a base, a row header a source, and a cell with value, interval and rank."""
    html, outline = whole
    heat = html.partition('<table class="heat outcomes">')[2].partition("</table>")[0]
    assert heat.count("<tr>") == 1 + len(TEACHERS) and heat.count('class="untrained"') == 1
    assert heat.count('scope="col"') == 1 + len(BASES)
    assert heat.count('scope="row"') == len(TEACHERS) + 1
    assert heat.count('class="self"') == 1  # the training that failed
    assert heat.count("shade-0 best") == len(BASES) and heat.count("shade-6") >= len(BASES)
    study = build()
    row = next(row for row in study["matrix"] if row["rank"] == 1 and row["base"] == BASES[1])
    own = row["outcome"]
    assert f"{own['value']:.1f} [{own['low']:.1f}, {own['high']:.1f}]" in outline.words.replace(
        f"{own['value']:.1f}[", f"{own['value']:.1f} ["
    )


def test_data_of_the_charts(whole):
    data = json.loads(whole[1].data)
    assert [own["base"] for own in data["families"]] == BASES
    points = data["families"][0]["points"]
    assert [own["family"] for own in points] == ["gemma"] * 3 + ["qwen"] * 3 + ["llama"] * 3
    assert points[0]["low"] < points[0]["outcome"] < points[0]["high"]
    assert data["families"][0]["untrained"] == 3.1
    assert [own["label"] for own in data["scatter"]] == ["CAR", "Perplexity", "Length"]
    assert [own["name"] for own in data["scatter"][0]["bases"]] == BASES
    assert data["scatter"][1]["bases"][0]["panel"]["direction"] == "lower"


def test_a_grid_of_decodings(tmp_path):
    html, outline = rendered(tmp_path, grid())
    assert "decodings" in sections(outline) and "seeds" not in sections(outline)
    (found,) = boards.grids(grid())
    assert found["heads"] == ["top-p 0.8", "top-p 1"]
    names = [line["name"] for line in found["lines"]]
    assert names == ["temperature 0.6", "temperature 1", "temperature 1.2"]
    assert all(cell for line in found["lines"] for cell in line["cells"]) and found["greedy"]
    assert "criteria" not in sections(outline) and "size" not in sections(outline)
    assert 'id="scatter-panels"' not in html


def test_picks_as_columns(tmp_path):
    first, second = boards.grids(picks())
    assert first["heads"] == ["best of 8", "worst of 8", "one sample"]
    assert first["base"] == BASES[0] and first["corner"] == "Sampled at"
    assert second["base"] == BASES[1] and len(first["lines"]) == 1
    _, outline = rendered(tmp_path, picks())
    assert "decodings" in sections(outline)


def test_arms_side_by_side(tmp_path):
    study = build(BASES[:1], arms=("sft", "kd <b>bold</b>"))
    html, outline = rendered(tmp_path, study)
    assert "arms" in sections(outline) and "<b>bold</b>" not in html
    (group,) = boards.arms_of(study)
    better = [line for line in group["lines"] if all(line["cells"])]
    assert better and all(line["cells"][1]["best"] for line in better)  # two points higher
    assert not any(line["cells"][0]["best"] for line in better)
    assert html.count('data-choice="arm"') == 2


def test_seeds_stand_between_the_worst_and_the_best():
    groups = boards.seeds_of(build())
    assert [group["base"] for group in groups] == BASES
    dots = [dot for line in groups[0]["lines"] for dot in line["dots"]]
    assert min(dots) == 0.0 and max(dots) == 100.0
    means = [line["mean"] for line in groups[0]["lines"]]
    assert means == sorted(means, reverse=True)
    single = [line for line in groups[1]["lines"] if len(line["dots"]) == 1]
    assert [line["spread"] for line in single] == ["–"]
    assert boards.seeds_of(build(seeds=1)) == []


def test_nothing_is_done_yet(tmp_path):
    study = build(seeds=1)
    for cell in study["cells"]:
        cell |= {"status": "left", "outcome": None}
    empty = {
        "matrix": [], "base_scores": [], "criteria": None, "largest": [], "paradox": [],
        "paradox_words": [], "verdict": [], "budget": None, "warnings": [], "facts": {},
    }  # fmt: skip
    _, outline = rendered(tmp_path, study | empty)
    assert "No teacher can be named yet: 0 of 30 trainings are done." in outline.words
    assert "0 of 30 trainings are done, 30 are left." in outline.words
    assert sections(outline) == ["outcomes", "trainings", "reading", "take-along", "provenance"]


def test_values_without_intervals(tmp_path):
    study = build(BASES[:1], seeds=1)
    for row in study["matrix"]:
        row["outcome"] |= {"low": None, "high": None}
        row |= {"rank_low": None, "rank_high": None}
    html, _ = rendered(tmp_path, study)
    assert "None" not in Outline(html).text


def test_what_is_said_of_sizes_is_not_said_twice(tmp_path):
    words = ["The largest is not the best.", "Within families nothing rises."]
    said = [{"kind": "paradox", "text": text} for text in words]
    html, _ = rendered(tmp_path, build(BASES[:1], paradox_words=words, verdict=said))
    top, _, rest = html.partition("</header>")
    size = rest.partition('id="size"')[2].partition("</section>")[0]
    assert [top.count(text) for text in words] == [1, 0]
    assert [size.count(text) for text in words] == [1, 1]


def test_without_a_provenance(tmp_path):
    (tmp_path / STUDY).write_text(json.dumps(build(BASES[:1])))
    html = study_report.render(tmp_path)
    assert 'id="command"' not in html and "Who teaches best" in html
    assert "The folder holds no provenance." in html
    assert html == study_report.render(tmp_path)


@pytest.mark.parametrize("text", [None, "{", "[]", '{"version": 7}'])
def test_a_folder_without_a_study(tmp_path, text):
    if text is not None:
        (tmp_path / STUDY).write_text(text)
    with pytest.raises(RunFolderError, match=r"study|not JSON"):
        study_report.render(tmp_path)


def test_words():
    assert [size_words(size) for size in (405.9, 7.0, 1.54, 0.124, 0.00045, None)] == [
        "406 B", "7 B", "1.54 B", "124 M", "450 k", ""
    ]  # fmt: skip
    assert rank_words({"rank": 2, "rank_low": 1, "rank_high": 4}) == "2 (1–4)"
    assert rank_words({"rank": 2, "rank_low": 2, "rank_high": 2}) == "2"
    assert rank_words({"rank": None}) == "–"
    assert [shade(value, 0.0, 6.0) for value in (6.0, 3.0, 0.0, None)] == [
        "shade-0", "shade-3", "shade-6", ""
    ]  # fmt: skip
    assert shade(1.0, 1.0, 1.0) == "shade-3"
    sampled = source("a", temperature=0.8, top_p=0.9, pick="best", samples=8)
    assert point_words(sampled) == "temperature 0.8, top-p 0.9, best of 8"
    assert point_words(source("a")) == "greedy"
    assert hours_words(3.25) == "3.2 hours" and hours_words(0.2) == "12 minutes"
    assert hours_words(0.01) == "36 seconds"
