"""What results give: data frames with pinned columns, figures, and HTML that holds no attack."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import preceptor
from preceptor.api.result import frame
from preceptor.core.comparison import COMPARE
from preceptor.core.errors import RunFolderError, SettingsError
from preceptor.reporting.parts.tables import table

HOSTILE = "</td><script>alert(1)</script> & $x^2$ \u202edlo"
LEADERBOARD = {
    "criterion": "text", "direction": "text", "unit": "text", "rank": "int64", "rank_low": "int64",
    "rank_high": "int64", "teacher": "text", "score": "float64", "score_low": "float64",
    "score_high": "float64", "first_in": "float64", "tied_with_first": "bool",
}  # fmt: skip


def kinds(data: Any) -> dict[str, str]:
    """Column -> dtype; `text` for any that holds texts."""
    from pandas.api.types import is_string_dtype

    return {name: "text" if is_string_dtype(data[name]) else str(data[name].dtype) for name in data}


class Tags(HTMLParser):
    """What a browser would make of HTML: tags with their attributes, and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(result: Any) -> Tags:
    tags = Tags()
    tags.feed(result._repr_html_())
    return tags


@pytest.fixture(scope="module")
def hostile(
    selected: preceptor.Selection, tmp_path_factory: pytest.TempPathFactory
) -> preceptor.Selection:
    """The same selection with a teacher whose name is an attack."""
    folder = tmp_path_factory.mktemp("hostile") / "run"
    shutil.copytree(selected.folder, folder)
    text = (folder / "ranking.json").read_text("utf-8")
    (folder / "ranking.json").write_text(text.replace('"cherry"', json.dumps(HOSTILE)), "utf-8")
    found = preceptor.open_run(folder)
    assert isinstance(found, preceptor.Selection) and found.recommended == HOSTILE
    return found


def test_a_selection(selected: preceptor.Selection) -> None:
    assert selected.recommended == "cherry" and selected.criteria[0] == "car"
    assert [row["teacher"] for row in selected.ranking()] == ["cherry", "beech", "ash"]
    assert selected.ranking("mean_reward") == selected.raw["criteria"]["mean_reward"]["teachers"]
    board = selected.to_pandas()
    assert kinds(board) == LEADERBOARD
    assert list(board["teacher"]) == ["cherry", "beech", "ash"] and set(board["criterion"]) == {
        "car"
    }
    by_loss = selected.to_pandas(criterion="perplexity")
    assert list(by_loss["score"]) == [row["score"] for row in selected.ranking("perplexity")]
    assert list(selected.tables)[:3] == ["leaderboard", "teachers", "agreement"]
    assert len(selected.to_pandas("leaderboard")) == 9
    assert len(selected.signals) == len(selected.answers) == 72
    assert kinds(selected.signals)["nll"] == "float64"
    assert selected.report.read_text("utf-8").startswith("<!doctype html>")
    assert Path(selected) == selected.folder
    assert repr(selected) == (
        f"Selection(folder='{selected.folder}', recommended='cherry', tied={selected.tied})"
    )
    assert "cherry" in selected.verdict


def test_a_selection_refuses_what_it_has_not(selected: preceptor.Selection, tmp_path: Path) -> None:
    for call in (selected.ranking, lambda name: selected.to_pandas(criterion=name)):
        with pytest.raises(SettingsError, match="did not compute 'cra'") as caught:
            call("cra")
        assert caught.value.found == "did you mean 'car'?"
    with pytest.raises(SettingsError, match="no table 'leaderbord'") as caught:
        selected.to_pandas("leaderbord")
    assert caught.value.found == "did you mean 'leaderboard'?"
    with pytest.raises(SettingsError, match="the table 'beta' is not by criterion"):
        selected.to_pandas("beta", criterion="car")
    with pytest.raises(SettingsError, match="no plot 'scater'"):
        selected.plot("scater")  # type: ignore[arg-type]
    with pytest.raises(FrozenInstanceError):
        selected.raw = {}  # type: ignore[misc]
    moved = preceptor.Selection(selected.raw, tmp_path / "gone")
    with pytest.raises(RunFolderError, match="lacks a file"):
        _ = moved.signals
    assert "gone" in parsed(moved).text, "a notebook shows what is left"


def test_numbers_and_gaps() -> None:
    """Counts stay whole; what is missing is no zero."""
    rows = [("a", 1, 0.5, True, None, 1), ("b", None, 1, False, None, 2.5)]
    found = frame(table("t", ("name", "count", "share", "there", "never", "mixed"), rows))
    assert kinds(found) == {
        "name": "text", "count": "Int64", "share": "float64", "there": "bool", "never": "float64",
        "mixed": "float64",
    }  # fmt: skip
    assert found["count"].isna().tolist() == [False, True]
    assert list(frame(table("t", ("name", "count"), ())).columns) == ["name", "count"]


def test_html_is_inert_and_whole(
    hostile: preceptor.Selection, made_up: dict[str, Any], tmp_path: Path
) -> None:
    evaluations, studies = made_up.values()
    results = [
        hostile,
        preceptor.open_run(
            evaluations.build_evaluation_folder(tmp_path / "e", [HOSTILE, "b", "c"])
        ),
        preceptor.open_run(studies.written(tmp_path / "s", studies.build(["base", HOSTILE]))),
    ]
    for result in results:
        found = parsed(result)
        assert set(found.tags) <= {
            "div", "p", "small", "table", "thead", "tbody", "tr", "th", "td", "bdi",
        }  # fmt: skip
        assert found.attributes <= {"style"}
        assert "alert(1)" in found.text and "\u202e" not in found.text
        assert str(result.folder) in found.text
        assert "table" in found.tags


def test_a_selection_is_drawn(
    hostile: preceptor.Selection, selected: preceptor.Selection, pictures: Callable[[Any], bytes]
) -> None:
    axes: Any = selected.plot()
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["cherry", "beech", "ash"]
    first, *others = axes.get_yticklabels()
    assert first.get_color() == "#0067a3" and all(o.get_color() != "#0067a3" for o in others)
    drawn = sorted(x for line in axes.lines if len(line.get_xdata()) == 2 for x in line.get_xdata())
    ends = [row[end] for row in selected.ranking() for end in ("low", "high")]
    assert drawn == sorted(ends)
    assert axes.get_title(loc="left") == "Teachers for base by CAR"
    assert "95% intervals" in axes.get_xlabel()
    assert len(pictures(axes)) > 5000
    scatter: Any = selected.plot("scatter")
    dots = {tuple(line.get_xydata()[0]) for line in scatter.lines if len(line.get_xdata()) == 1}
    facts = selected.raw["teachers"].values()
    assert dots == {(own["loss"], own["rewards"]["reward"]) for own in facts}
    assert {"ash", "beech", "cherry"} <= {text.get_text() for text in scatter.texts}
    assert len(pictures(scatter)) > 5000
    beta = selected.plot("beta")
    assert [tick.get_text() for tick in beta.get_xticklabels()] == "0 0.5 1 2 3 5 10".split()
    assert len(pictures(beta)) > 5000
    for kind in ("leaderboard", "scatter", "beta"):
        assert len(pictures(hostile.plot(kind))) > 5000, "names are no mathematics"
    alone = selected.plot(criterion="perplexity", ax=axes.figure.subplots())
    assert "lower is better" in alone.get_xlabel()


def test_other_results_are_drawn(
    tmp_path: Path,
    made_up: dict[str, Any],
    pictures: Callable[[Any], bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evaluations, studies = made_up.values()
    exam = preceptor.open_run(evaluations.build_evaluation_folder(tmp_path / "e"))
    study = preceptor.open_run(studies.written(tmp_path / "s", studies.build()))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / COMPARE).write_text(
        json.dumps(studies.comparison(["base", "other"])), "utf-8"
    )
    compared = preceptor.open_run(tmp_path / "c")
    assert isinstance(exam, preceptor.Evaluation) and isinstance(study, preceptor.Study)
    assert isinstance(compared, preceptor.Comparison)
    drawn: list[Any] = [exam.plot(), study.plot(), compared.plot()]
    for axes in drawn:
        values = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
        names = [tick.get_text() for tick in axes.get_yticklabels()]
        assert len(values) == len(names) > 1 and values == sorted(values, reverse=True)
        assert len(pictures(axes)) > 5000
    for call, message in (
        (lambda: exam.plot("mtbench"), "no benchmark 'mtbench'"),
        (lambda: exam.plot(measure="x"), "no measure 'x'"),
        (lambda: study.plot("x"), "no base 'x'"),
        (lambda: study.plot(arm="x"), "no arm 'x'"),
        (lambda: compared.plot("x"), "no base 'x'"),
    ):
        with pytest.raises(SettingsError, match=message):
            call()
    assert study.criteria is not None and len(study.criteria.outcomes)
    assert len(study.matrix) == len(study.raw["matrix"]) and study.findings
    assert kinds(study.matrix)["outcome"] == "float64"
    assert list(exam.scores.columns) == [
        "benchmark", "measure", "direction", "model", "score", "score_low", "score_high", "items",
    ]  # fmt: skip
    assert exam.passed == (not any(row["holds"] for row in exam.raw["gate"]))
    assert len(exam.differences) and set(exam.models) >= set(exam.differences["model"])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(preceptor.PreceptorError, match="drawing needs a package") as caught:
        exam.plot()
    assert caught.value.next_step == "pip install 'preceptor[plot]'"
