"""Two runs of one kind on one page: what they say of each other, and what they do not."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluations import build_evaluation_folder
from outline import Outline
from studies import BASES, build, grid, written
from test_compare_report import comparison
from test_training_report import build_training_folder, quality_table

from preceptor.core import artifacts
from preceptor.core.comparison import COMPARE
from preceptor.core.errors import RunFolderError
from preceptor.reporting.pages.two_runs import report as run_comparison
from preceptor.reporting.pages.two_runs.pairs import (
    Paired,
    differing,
    labels,
    overlap,
    reading,
)
from preceptor.reporting.pages.two_runs.report import Comparison, family_of
from preceptor.reporting.parts import page

HOSTILE = "</script><script>alert(1)</script>"


def changed(folder: Path, to: Path, **more: Any) -> Path:
    """A copy of a run whose provenance has other entries."""
    shutil.copytree(folder, to)
    path = to / artifacts.PROVENANCE
    artifacts.write_json(path, json.loads(path.read_text()) | more)
    return to


@pytest.fixture
def selections(run_folder: Callable[..., Path], tmp_path: Path) -> tuple[Path, Path]:
    """Two selections: the second one has other settings, and lost a teacher."""
    first = run_folder(n_instructions=20)
    settings = {"base": "en-terse", "beta": 3.0, "rewards": [{"name": "reward", "kind": "column"}]}
    a = changed(first, tmp_path / "a", settings=settings)
    b = changed(first, tmp_path / "b", settings=settings | {"beta": 1.0, "by": HOSTILE})
    ranking = json.loads((b / artifacts.RANKING).read_text())
    rows = ranking["criteria"]["car"]["teachers"]
    rows[0], rows[2] = rows[2] | {"rank": 1, "rank_low": 1, "rank_high": 1}, rows[0] | {"rank": 3}
    ranking["criteria"]["car"] |= {"teachers": rows[:-1], "tied_with_first": [rows[2]["teacher"]]}
    ranking["recommended"] = rows[0]["teacher"]
    artifacts.write_json(b / artifacts.RANKING, ranking)
    return a, b


def table_of(own: Comparison, key: str) -> list[dict[str, Any]]:
    panels = {section.key: section.panels[0].table for section in own.found.sections}
    found = panels[key] if key in panels else own.tables()[key]
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def test_two_selections(selections: tuple[Path, Path]) -> None:
    own = Comparison(*selections)
    first, second = (json.loads((f / artifacts.RANKING).read_text()) for f in selections)
    said = own.found.verdict
    assert said[0].startswith(
        f"The runs disagree: A recommends {first['recommended']}, B recommends "
        f"{second['recommended']}; "
    )
    assert "B cannot separate the two" in said[0]
    assert said[1].startswith("Spearman's rho of the ranks of the 19 teachers of both is 0.9")
    assert "1 teachers are in A alone, 0 in B alone." in said
    rows = {row["teacher"]: row for row in table_of(own, "ranks")}
    best = rows[second["recommended"]]
    assert (best["A_rank"], best["B_rank"], best["moved_up"]) == (3, 1, 2)
    assert best["moved_up_low"] is None, "nothing is paired"
    alone = [row for row in rows.values() if row["B_rank"] is None]
    assert len(alone) == 1 and alone[0]["moved_up"] is None
    kept = next(row for row in rows.values() if row["A_rank"] == 10)
    assert kept["rank_intervals"] == "overlap" and kept["score_intervals"] is None
    assert any("not on one scale: they differ in beta" in words for words in own.found.warnings)
    whole = own.tables()["ranks"]
    assert whole.columns[:3] == ("criterion", "teacher", "A_rank")
    assert len(whole.only(("teacher",), criterion="CAR").rows) == 20
    assert len(whole.rows) == 20 * len(first["criteria"])


def test_scores_are_compared_on_one_scale_alone(selections: tuple[Path, Path]) -> None:
    first = selections[0]
    same = changed(first, first.parent / "same", preceptor="9.9")
    own = Comparison(first, same)
    assert own.found.verdict[0].startswith("Both runs recommend ")
    assert own.found.verdict[0].endswith(" (95% intervals).")
    assert {row["score_intervals"] for row in table_of(own, "ranks")} == {"overlap"}
    assert own.found.warnings == ()
    assert table_of(own, "differs") == [
        {"what": "version", "name": "preceptor", "A": "0.1.0", "B": "9.9"}
    ]
    other = changed(first, first.parent / "other", models={"base": "sha256:1"})
    assert any("not on one scale" in words for words in Comparison(first, other).found.warnings)


def test_a_paired_statement_has_its_place(selections: tuple[Path, Path]) -> None:
    teacher = json.loads((selections[0] / artifacts.RANKING).read_text())["recommended"]
    paired = Paired({(teacher,): (-2, -4, 0)}, ("On the same 20 instructions, x.",), 20)
    own = Comparison(*selections, paired)
    row = next(row for row in table_of(own, "ranks") if row["teacher"] == teacher)
    assert (row["moved_up"], row["moved_up_low"], row["moved_up_high"]) == (-2, -4, 0)
    text = Outline(own.html()).words
    assert "−2 [−4, 0]" in text and "On the same 20 instructions, x." in text
    assert "both runs on the same 20 instructions" in text
    none = Comparison(*selections, Paired(why="a race asks"))
    assert "There is no joint statement: a race asks." in Outline(none.html()).words


def test_two_evaluations(tmp_path: Path) -> None:
    first = build_evaluation_folder(tmp_path / "a", ["base", "x", "y"])
    second = build_evaluation_folder(tmp_path / "b", ["base", "x", HOSTILE])
    path = second / artifacts.EVALUATION
    found = json.loads(path.read_text())
    own_x = found["benchmarks"][0]["scores"][1]["measures"]["length_controlled"]
    own_x.update({"value": 99.0, "low": 98.0, "high": 99.5})
    del found["benchmarks"][3]
    artifacts.write_json(path, found)
    own = Comparison(first, second)
    rows = {row["model"]: row for row in table_of(own, "scores")}
    assert rows["x"]["B_less_A"] == pytest.approx(99.0 - rows["x"]["A_score"])
    assert rows["x"]["intervals"] == "apart" and rows["x"]["reading"] is None
    assert rows["base"]["intervals"] == "overlap" and rows["y"]["B_score"] is None
    assert own.found.verdict[0].endswith("the intervals of x do not overlap.")
    assert "Only B has the models " + HOSTILE + "." in own.found.warnings
    assert "Only A has the benchmarks wiki." in own.found.warnings
    key = ("alpaca_eval", "length_controlled", "x")
    told = Comparison(first, second, Paired({key: (30.0, 20.0, 40.0)}, (), 120))
    assert told.found.verdict[0].endswith("x did better in B.")
    html = told.html()
    assert html.count("<script>alert") == 0 and "B better" in Outline(html).words


def test_a_lower_score_may_be_the_better_one() -> None:
    assert reading((-1.0, -2.0, -0.5), "lower") == "B better"
    assert reading((-1.0, -2.0, -0.5)) == "B worse"
    assert reading((-1.0, -2.0, 0.5)) == "not separable" and reading(None) is None
    assert overlap(0, 1, 1, 2) == "overlap" and overlap(0, 1, 1.1, 2) == "apart"
    assert overlap(0, 1, None, 2) is None


def test_two_studies(tmp_path: Path) -> None:
    first = written(tmp_path / "a", build())
    made = build(BASES[1:])
    made["outcome"] = {"title": "accuracy", "measures": ["lab.accuracy"]}
    second = written(tmp_path / "b", made)
    own = Comparison(first, second)
    assert [panel.label for panel in own.found.sections[0].panels] == BASES[1:]
    assert [panel.label for panel in own.found.sections[1].panels] == [
        "Mean over bases",
        *BASES[1:],
    ]
    assert any("outcomes are not on one scale" in words for words in own.found.warnings)
    row = table_of(own, "outcomes")[0]
    assert {row["A_rank"], row["B_rank"]} <= set(range(1, 11)) and row["intervals"] is None
    assert "The criterion nearest to the outcomes is car in both" in " ".join(own.found.verdict)
    apart = Comparison(second, written(tmp_path / "c", build(["other"])))
    assert "share no base and arm" in apart.found.verdict[0]
    assert "share no base and arm" in Outline(apart.html()).words
    assert Comparison(first, written(tmp_path / "d", grid())).found.sections[0].panels


def test_two_trainings(tmp_path: Path) -> None:
    first = build_training_folder(tmp_path / "a", steps=40)
    second = build_training_folder(tmp_path / "b", steps=60)
    table = quality_table()
    table["rows"][-1]["model"] = "SFT twice"
    for row in table["differences"]:
        row["model"] = "SFT twice"
    artifacts.write_json(second / artifacts.QUALITY, table)
    own = Comparison(first, second)
    general = {row["model"]: row for row in table_of(own, "quality")}
    assert general["KD"]["B_less_A"] == 0 and general["KD + DAE"]["B_score"] is None
    both = general["KD + DAE (A), SFT twice (B)"]
    assert (both["A_score"], both["B_score"], both["intervals"]) == (0.82, 0.82, "overlap")
    assert own.found.verdict[0] == (
        "On general: KD + DAE (A) 0.82 [0.79, 0.85], SFT twice (B) 0.82 [0.79, 0.85]; each with "
        "the interval of its own run."
    )
    told = Comparison(first, second, Paired({("main", "", "general"): (0.1, 0.05, 0.2)}))
    assert told.found.verdict[0].endswith("; B is better beyond chance.")
    labels_ = [panel.label for panel in own.found.sections[1].panels]
    assert labels_[0] == "Weighted sum of the losses" and labels_[-1] == "Attention loss"
    chart: Any = own.found.sections[1].panels[0].chart
    assert [line["points"][-1][0] for line in chart["lines"]] == [200, 300]
    (second / artifacts.QUALITY).unlink()
    none = Comparison(first, second)
    assert "nothing is said of what the students can do" in none.found.verdict[0]
    assert "No quality was measured in both runs" in none.found.warnings[0]


def test_settings_differ_by_name() -> None:
    one = {"a": {"b": 1, "c": None}, "l": [{"name": "x", "n": 1}, {"name": "y"}], "m": [1, 2]}
    other = {"a": {"b": 2}, "l": [{"name": "y"}, {"name": "x", "n": 3}], "m": [1, 3], "d": {}}
    assert list(differing(one, other)) == [("a.b", 1, 2), ("l[x].n", 1, 3), ("m", [1, 2], [1, 3])]
    assert list(differing(None, {"a": 1})) == [("a", None, 1)]


def test_labels_differ(tmp_path: Path) -> None:
    assert labels(tmp_path / "runs" / "a", tmp_path / "runs" / "b") == ("a", "b")
    one, other = tmp_path / "x" / "seed-0" / "sft", tmp_path / "y" / "seed-0" / "sft"
    assert labels(one, other) == ("x/seed-0/sft", "y/seed-0/sft")


def test_what_cannot_be_compared(
    run_folder: Callable[..., Path], selections: tuple[Path, Path], tmp_path: Path
) -> None:
    first = selections[0]
    training = build_training_folder(tmp_path / "kd", steps=5)
    with pytest.raises(RunFolderError, match=r"unlike kinds(.|\n)*select and distill"):
        family_of(first, training)
    with pytest.raises(RunFolderError, match="stands twice"):
        family_of(first, first / ".." / "a")
    with pytest.raises(RunFolderError, match="no folder that preceptor wrote"):
        family_of(first, tmp_path / "nothing")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / COMPARE).write_text(json.dumps(comparison(name)))
    with pytest.raises(RunFolderError, match="runs of compare are not compared"):
        family_of(tmp_path / "one", tmp_path / "two")
    (first / artifacts.RANKING).write_text('{"criteria": {}}')
    with pytest.raises(RunFolderError, match="incomplete or was changed by hand"):
        Comparison(*selections)


def test_the_page_is_self_contained_and_the_same(selections: tuple[Path, Path]) -> None:
    html = run_comparison.render(*selections)
    assert html == run_comparison.render(*selections) and len(html) < 3_000_000
    outline = Outline(html)
    for tag, attributes in outline.tags:
        for key in ("src", "href", "action"):
            value = attributes.get(key)
            assert value is None or value == "data:," or value.startswith("#"), (tag, attributes)
        assert not [key for key in attributes if key.startswith("on")], (tag, attributes)
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert outline.words.count(HOSTILE) >= 1 and "<script>alert" not in html
    script = page.asset("pages/two_runs/report.js")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)


def test_the_comparison_as_markdown(selections: tuple[Path, Path]) -> None:
    text = Comparison(*selections).markdown()
    assert text.startswith("## Teacher selection: two runs\n\n**The runs disagree: A recommends `")
    assert "- A: `a`\n- B: `b`" in text
    assert "| setting | `beta` | `3.0` | `1.0` |" in text
    assert f"`{HOSTILE}`" in text and "```sh\npreceptor select settings.yaml" in text
