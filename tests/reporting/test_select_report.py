"""The selection report: self-contained, inert whatever answers say, readable without scripts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from outline import Outline

from preceptor.core import artifacts
from preceptor.core.errors import RunFolderError
from preceptor.reporting.findings import agreement
from preceptor.reporting.pages.select import report as select_report
from preceptor.reporting.pages.select import samples as select_samples
from preceptor.reporting.parts import page, wording

MakeFolder = Callable[..., Path]


@pytest.fixture(scope="module")
def folder(run_folder: MakeFolder) -> Path:
    return run_folder()


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return select_report.render(folder)


@pytest.fixture(scope="module")
def outline(html: str) -> Outline:
    return Outline(html)


def _ranking(folder: Path) -> dict[str, Any]:
    return json.loads((folder / artifacts.RANKING).read_text())


def _change(folder: Path, **values: Any) -> None:
    artifacts.write_json(folder / artifacts.RANKING, _ranking(folder) | values)


def test_page_is_self_contained(outline: Outline) -> None:
    policies = [
        attributes["content"]
        for _, attributes in outline.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1 and (policies[0] or "").startswith("default-src 'none';")
    for tag, attributes in outline.tags:
        for key in ("src", "href", "action", "srcset", "poster"):
            value = attributes.get(key)
            assert value is None or value == "data:," or value.startswith("#"), (tag, attributes)
        assert not [key for key in attributes if key.startswith("on")], (tag, attributes)
    for name in select_report.STYLES:
        assert "@import" not in page.asset(name) and "url(" not in page.asset(name)


def test_own_scripts_never_build_markup_from_text() -> None:
    for name in select_report.SCRIPTS:
        if not name.startswith("vendor/"):
            source = page.asset(name)
            for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
                assert word not in source, (name, word)


def test_hostile_answers_are_inert_and_exact(
    folder: Path, html: str, outline: Outline, hostile_texts: list[str]
) -> None:
    assert "</script><script>alert('answer')" not in html
    assert not re.search("[\u202a-\u202e\u2028\u2029\x00-\x08\x7f]", html)
    data = json.loads(outline.data)
    table = pq.read_table(folder / artifacts.ANSWERS).to_pylist()
    exact = {(row["instruction_id"], row["teacher"]): row["response"] for row in table}
    seen: set[str] = set()
    for sample in data["samples"]:
        for answer in sample["answers"]:
            text = exact[sample["id"], data["teachers"][answer["teacher"]]]
            assert answer["text"] == text[: len(answer["text"])]
            assert answer.get("of", len(text)) == len(text)
            seen |= {hostile for hostile in hostile_texts if hostile in answer["text"]}
    assert seen == set(hostile_texts)


def test_hostile_names_are_inert(run_folder: MakeFolder, hostile_texts: list[str]) -> None:
    folder = run_folder(n_instructions=8, teachers=hostile_texts)
    _change(folder, base=hostile_texts[0], warnings=hostile_texts)
    outline = Outline(select_report.render(folder))
    assert [tag for tag, _ in outline.tags].count("script") == 2 + len(select_report.SCRIPTS)
    assert "img" not in [tag for tag, _ in outline.tags]
    assert set(json.loads(outline.data)["teachers"]) == set(hostile_texts)
    assert hostile_texts[0] in outline.text


def test_embedded_json_returns_the_same_value() -> None:
    value = {"</script>": "<!-- & \u2028\u2029 \u202e\ufeff\x85 \U0001f600 é", "n": [1, None, 0.5]}
    text = str(page.embed_json(value))
    assert json.loads(text) == value
    assert not set("<>&\u2028\u2029\u202e") & set(text)


def test_verdict_names_teacher_base_criterion_and_ties(folder: Path, outline: Outline) -> None:
    ranking = _ranking(folder)
    words = " ".join(outline.text.split())
    tied = ranking["criteria"]["car"]["tied_with_first"]
    start = f"By CAR, {ranking['recommended']} is the recommended teacher for en-terse"
    assert start in words
    assert tied and f"{start}, but it cannot be separated from {tied[0]}" in words
    assert "resamples of the 30 instructions" in words


def test_verdict_without_ties_and_with_every_resample(run_folder: MakeFolder) -> None:
    folder = run_folder(n_instructions=8, teachers=["one", "two"])
    ranking = _ranking(folder)
    ranking["criteria"]["car"]["tied_with_first"] = []
    ranking["criteria"]["car"]["teachers"][0]["p_best"] = 1.0
    artifacts.write_json(folder / artifacts.RANKING, ranking)
    words = " ".join(Outline(select_report.render(folder)).text.split())
    assert f"By CAR, {ranking['recommended']} is the recommended teacher for en-terse: " in words
    assert "it came first in all 400 resamples of the 8 instructions; this took 16 answers" in words


def test_every_criterion_has_switch_ranks_and_definition(folder: Path, outline: Outline) -> None:
    keys = list(_ranking(folder)["criteria"])
    buttons = [a["data-criterion"] for _, a in outline.tags if "data-criterion" in a]
    assert buttons == keys
    assert list(json.loads(outline.data)["criteria"]) == keys
    for key in keys:
        assert wording.label(key) in outline.text
        assert _ranking(folder)["criteria"][key]["description"] in outline.text


def test_leaderboard_stands_in_the_html(folder: Path, outline: Outline) -> None:
    table = outline.text[outline.text.index("Leaderboard") :]
    places = []
    for row in _ranking(folder)["criteria"]["car"]["teachers"]:
        places.append(table.index(row["teacher"], places[-1] if places else 0))
        assert f"{row['score']:.3f}"[:5] in table
    assert places == sorted(places)
    assert [a.get("aria-sort") for _, a in outline.tags if a.get("data-sort") == "rank"] == [
        "ascending"
    ]


def test_same_folder_gives_same_bytes(folder: Path) -> None:
    first = select_report.write(folder).read_bytes()
    assert select_report.write(folder).read_bytes() == first
    assert [path.name for path in folder.glob(".*")] == []


def test_size_stays_bounded(run_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_folder(n_instructions=120, second_reward=True)
    assert select_report.write(folder).stat().st_size < 1_200_000
    monkeypatch.setattr(select_samples, "MAX_BYTES", 100_000)
    data = json.loads(Outline(select_report.render(folder)).data)
    assert len(json.dumps(data["samples"], ensure_ascii=False).encode()) <= 100_000
    assert any("of" in answer for sample in data["samples"] for answer in sample["answers"])


def test_samples_are_the_extremes_for_and_against(folder: Path, outline: Outline) -> None:
    ranking = _ranking(folder)
    rows = pq.read_table(folder / artifacts.SIGNALS).to_pylist()
    own: dict[str, float] = {}
    others: dict[str, list[float]] = {}
    for row in rows:
        if row["teacher"] == ranking["recommended"]:
            own[row["instruction_id"]] = row["reward.reward"]
        else:
            others.setdefault(row["instruction_id"], []).append(row["reward.reward"])
    gap = {name: own[name] - sum(rest) / len(rest) for name, rest in others.items()}
    order = sorted(gap, key=lambda name: -gap[name])
    samples = json.loads(outline.data)["samples"]
    assert [sample["id"] for sample in samples] == order[:3] + order[:-4:-1]
    for sample in samples:
        assert sample["gap"] == pytest.approx(gap[sample["id"]])
        assert len(sample["answers"]) == len(ranking["teachers"])
        for answer in sample["answers"]:
            assert 0.04 < answer["loss"] < 2 and answer["tokens"] > 0


def test_field_solves_reward_from_car_when_a_map_was_applied(run_folder: MakeFolder) -> None:
    folder = run_folder(n_instructions=8)
    ranking = _ranking(folder)
    plain = json.loads(Outline(select_report.render(folder)).data)["fields"]["reward"]
    for facts in ranking["teachers"].values():
        facts["rewards"]["reward"] = 10 * facts["rewards"]["reward"] - 7  # before the map
    ranking["rewards"]["reward"]["map"] = "affine"
    artifacts.write_json(folder / artifacts.RANKING, ranking)
    mapped = json.loads(Outline(select_report.render(folder)).data)["fields"]["reward"]
    assert plain["map"] == "none" and mapped["map"] == "affine"
    assert mapped["means"] == pytest.approx(plain["means"])


def test_report_without_car_answers_or_provenance(run_folder: MakeFolder) -> None:
    folder = run_folder(n_instructions=8, with_car=False)
    for name in (artifacts.ANSWERS, artifacts.PROVENANCE, artifacts.SETTINGS):
        (folder / name).unlink()
    outline = Outline(select_report.render(folder))
    ids = [attributes.get("id") for _, attributes in outline.tags]
    assert "sensitivity" not in ids and "scatter" in ids
    assert "By Mean reward" in outline.text
    assert "no answers to quote" in outline.text and "no provenance" in outline.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "version"),
        ({"recommended": "nobody"}, "'nobody'"),
        ({"recommended_by": "absent"}, "'absent'"),
    ],
)
def test_unusable_ranking_is_refused(
    run_folder: MakeFolder, change: dict[str, Any], words: str
) -> None:
    folder = run_folder(n_instructions=4, teachers=["one", "two"])
    _change(folder, **change)
    with pytest.raises(RunFolderError, match=words) as error:
        select_report.render(folder)
    assert error.value.next_step


def test_missing_and_broken_ranking_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no ranking"):
        select_report.render(tmp_path)
    (tmp_path / artifacts.RANKING).write_text("{")
    with pytest.raises(RunFolderError, match="not JSON"):
        select_report.render(tmp_path)


def test_words() -> None:
    assert wording.label("car.armo") == "CAR · armo"
    assert wording.label("my_own") == "My own"
    assert [wording.percent(x) for x in (0, 0.004, 0.5, 0.999, 1)] == [
        "0%",
        "< 1%",
        "50%",
        "> 99%",
        "100%",
    ]
    assert wording.number(-1234.5, 1) == "−1,234.5"
    assert wording.number(-0.001, 2) == "0.00"
    assert [wording.number(x, 0) for x in (310.5, 0.5, -2.5)] == ["311", "1", "−3"]
    assert wording.number(1.005, 2) == "1.01" and wording.percent(0.125) == "13%"
    assert agreement.spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert agreement.spearman([1, 1], [1, 2]) is None
    joined = "".join(joint + name for joint, name in wording.listing(list("abcdef")))
    assert joined == "a, b, c and 3 others"


def test_one_teacher_alone_is_reported(run_folder: MakeFolder) -> None:
    outline = Outline(select_report.render(run_folder(n_instructions=8, teachers=["alone"])))
    samples = json.loads(outline.data)["samples"]
    assert [sample["gap"] for sample in samples] == [None] * 6
    assert "By CAR, alone is the recommended teacher" in " ".join(outline.text.split())


def test_report_imports_no_model_library() -> None:
    code = (
        "import sys, preceptor.reporting.pages.select.report;"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
