"""Tables as CSV and summaries as Markdown: whole, exact, and inert wherever they are opened."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from evaluations import build_evaluation_folder
from markdown_it import MarkdownIt
from studies import build, written
from test_compare_report import comparison
from test_training_report import build_training_folder

from preceptor.core import artifacts
from preceptor.core.comparison import COMPARE
from preceptor.core.errors import RunFolderError
from preceptor.reporting.exporting import exports
from preceptor.reporting.parts import markdown_text
from preceptor.reporting.parts.tables import as_csv, presented, table

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\nx", " =1", "\uff1d1"]
HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](https://evil.example) ![b](https://evil.example/i.png)",
    "a | b | c",
    "`code` ``two`` ```",
    "back\\|slash",
    "@someone and #12 and GH-7 and o/r#3",
    "https://evil.example www.evil.example a@b.example",
    "# heading",
    "1. list\n2. list\n\n| x |\n|--|\n",
    "**bold** _it_ ~~gone~~ $x$ :smile:",
    "&lt;b&gt; &#64;me",
    "right \u202eot tfel\u202c \u2067x\u2069 \ufeff\u200b",
    "nul \x00 bell \x07 lone \ud800 end",
]


class Tags(HTMLParser):
    """The tags of rendered Markdown, and its text outside code."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.prose, self._code = "", 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        self._code += tag == "code"

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag == "code"

    def handle_data(self, data: str) -> None:
        if not self._code:
            self.prose += data


def rendered(text: str) -> Tags:
    """By a renderer that would show any HTML it is given."""
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return Tags(reader.render(text))


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def test_csv_is_that_of_rfc_4180() -> None:
    made = table(
        "t", ("name", "value..."), [('a "b", c\nd', 0.1, None, 3), ("é👩‍👩‍👧", -1, 2.5e-9, 1)]
    )
    text = as_csv(made)
    assert text.startswith("name,value,value_low,value_high\r\n") and text.endswith("\r\n")
    assert read(text)[1:] == [['a "b", c\nd', "0.1", "", "3"], ["é👩‍👩‍👧", "-1", "2.5e-09", "1"]]
    assert float(read(as_csv(table("t", ("x",), [(1 / 3,)])))[1][0]) == 1 / 3, "every digit"
    odd = table("t", ("x",), [(float("nan"),), (True,), (None,), ("",)])
    assert read(as_csv(odd))[1:] == [[""], ["true"], [""], [""]]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula(text: str) -> None:
    made = table("t", (text, "n"), [(text, -1.5)])
    head, row = read(as_csv(made))
    assert head[0].startswith("'") and row[0].startswith("'"), (head, row)
    assert row[1] == "-1.5", "numbers stay numbers"


@pytest.mark.parametrize("text", HOSTILE)
def test_csv_keeps_hostile_text_in_its_cell(text: str) -> None:
    made = as_csv(table("t", ("a", "b"), [(text, "next"), ("last", text)]))
    rows = read(made.encode("utf-8").decode("utf-8"))
    assert [len(row) for row in rows] == [2, 2, 2] and (rows[1][1], rows[2][0]) == ("next", "last")
    assert "\x00" not in made


@pytest.mark.parametrize("text", HOSTILE)
def test_prose_is_text(text: str) -> None:
    tags = rendered(f"Before {markdown_text.prose(text)} after\n\n{markdown_text.prose(text)}\n")
    assert set(tags.found) == {"p"}, tags.found
    assert not re.search(r"@\w|#\d|GH-\d|https?://|www\.\w|:\w+:", tags.prose), tags.prose
    assert not re.search("[\u202a-\u202e\u2066-\u2069\ufeff\u200b]", tags.prose)


@pytest.mark.parametrize("text", HOSTILE)
def test_names_stand_as_code(text: str) -> None:
    made = table("t", ("teacher", "score..."), [(text, 0.5, 0.4, 0.6), ("next", 1.0, 0.9, 1.1)])
    tags = rendered(markdown_text.grid(presented(made)))
    cells = [tag for tag in tags.found if tag in ("td", "code")]
    assert cells == ["td", "code", "td"] * 2, "a name ends its cell"
    assert set(tags.found) <= {"table", "thead", "tbody", "tr", "th", "td", "code"}
    spoken = rendered(markdown_text.sentence(f"{text} is best by x.", [text, "x"]))
    assert set(spoken.found) <= {"p", "code"}, spoken.found


def test_ordinary_names_stay_readable() -> None:
    assert markdown_text.code("gemma-2-9b_it.v1") == "`gemma-2-9b_it.v1`"
    assert markdown_text.code("a`b") == "``a`b``" and markdown_text.code("`") == "`` ` ``"
    assert markdown_text.code("a|b", in_table=True) == "`a\\|b`"
    assert markdown_text.sentence("aster-m beats m.", ["m", "aster-m"]) == "`aster-m` beats m."
    assert markdown_text.prose("0.82 of 12 (v1.2)") == "0.82 of 12 (v1.2)"


def test_a_block_cannot_be_ended_from_inside() -> None:
    command = "preceptor select x\n```\n<b>out</b>\n````\n"
    tags = rendered(markdown_text.block(command, "sh") + "\n\nafter\n")
    assert tags.found == ["pre", "code", "p"] and tags.prose.strip() == "after"


def test_presented_rounds_to_what_intervals_show() -> None:
    made = table(
        "t",
        ("teacher", "rank...", "score...", "first_in", "n", "none"),
        [
            ("a", 1, 1, 3, 0.51234, 0.49, 0.53, 0.004, 1200, None),
            ("b", 2, 2, 2, -0.2, None, None, 1.0, 3, None),
        ],
    )
    shown = presented(made)
    assert shown.heads == ("teacher", "rank", "score", "first in", "n")
    assert shown.rows[0] == ("a", "1 (1–3)", "0.512 [0.490, 0.530]", "< 1%", "1,200")
    assert shown.rows[1] == ("b", "2", "−0.200", "100%", "3")
    assert presented(made, 1).left == 1


@pytest.fixture(scope="module")
def folders(
    tmp_path_factory: pytest.TempPathFactory, run_folder: Callable[..., Path]
) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("exports")
    (place / "compare").mkdir()
    (place / "compare" / COMPARE).write_text(json.dumps(comparison("one", "two")))
    models = ["base-notes", *HOSTILE[:4]]
    return {
        "select": run_folder(n_instructions=8, teachers=[*HOSTILE[:-1], "gemma-2-2b-it"]),
        "evaluate": build_evaluation_folder(place / "evaluate", models),
        "study": written(place / "study", build()),
        "compare": place / "compare",
        "distill": build_training_folder(place / "distill", steps=30),
    }


TABLES = {
    "select": "leaderboard teachers agreement beta",
    "evaluate": "scores categories differences retention quality judges gate",
    "study": "outcomes bases trainings criteria agreement largest families",
    "compare": "criteria agreement scores outcomes beta",
    "distill": "quality differences losses",
}


@pytest.mark.parametrize("kind", TABLES)
def test_every_kind_has_its_tables(kind: str, folders: dict[str, Path]) -> None:
    found = exports.tables(folders[kind])
    assert list(found) == TABLES[kind].split()
    for name, own in found.items():
        assert own.rows, name
        assert all(len(row) == len(own.columns) for row in own.rows), name
        rows = read(as_csv(own))
        assert {len(row) for row in rows} == {len(own.columns)}, name
        assert len(rows) == 1 + len(own.rows)


@pytest.mark.parametrize("kind", ["select", "evaluate", "study", "compare", "distill"])
def test_the_summary_is_inert_and_complete(kind: str, folders: dict[str, Path]) -> None:
    text = exports.markdown(folders[kind])
    tags = rendered(text)
    allowed = "h2 p strong table thead tbody tr th td code pre ul li".split()
    assert set(tags.found) <= set(allowed), sorted(set(tags.found) - set(allowed))
    assert tags.found.count("table") >= 2 - (kind == "compare"), "a name has ended a table"
    assert not re.search(r"(?<![\w\u2060])@\w|https?://|www\.\w", tags.prose)
    if kind != "compare":  # its folder holds no provenance
        assert f"```sh\npreceptor {kind} " in text and "\n\npreceptor 0." in text
        assert ("torch 2" in text) == (kind != "study"), "of those versions that are recorded"
    assert text == exports.markdown(folders[kind])


def test_numbers_are_those_of_the_result(folders: dict[str, Path]) -> None:
    ranking = json.loads((folders["select"] / artifacts.RANKING).read_text())
    board = exports.tables(folders["select"])["leaderboard"]
    assert board.rows[0][0] == ranking["recommended_by"]
    for key, criterion in ranking["criteria"].items():
        own = board.only(("teacher", "score", "score_low", "rank_high"), criterion=key).rows
        for row, known in zip(own, criterion["teachers"], strict=True):
            assert row == tuple(known[k] for k in ("teacher", "score", "low", "rank_high"))
    scores = exports.tables(folders["evaluate"])["scores"]
    lower = scores.only(("score",), benchmark="wiki").rows
    assert list(lower) == sorted(lower), "the best first, also where lower is better"


def test_winners_and_pilot_of_a_selection(run_folder: Callable[..., Path]) -> None:
    folder = run_folder(n_instructions=8)
    path = folder / artifacts.RANKING
    ranking = json.loads(path.read_text())
    row = ranking["criteria"]["car"]["teachers"][1]
    cell = {"difference": 0.1, "low": 0.05, "high": 0.2}
    ranked = {
        "value": "law", "n_instructions": 5, "recommended": row["teacher"], "tied_with_first": [],
        "teachers": [row], "against_overall": cell | {"separable": True},
    }  # fmt: skip
    few = {"value": "=art", "n_instructions": 1, "recommended": None, "why": "too few"}
    ranking["by"] = {"column": "domain", "groups": [ranked, few]}
    score = {"score": 0.5, "low": 0.4, "high": 0.6}
    student = {"teacher": "t", "seeds": [0, 1], "over_base": cell, "n_tokens": 9} | score
    ranking["pilot"] = {"rows": [student], "base": score, "verdict": "open"}
    ranking["pilot_recommended"] = "t"
    rho = {"spearman": 0.5, "p_value": 0.2}
    ranking["controls"] = {
        "criteria": {"car": {"n": 20, "length": rho, "size": None, "first_without_length": "t"}}
    }
    path.write_text(json.dumps(ranking))
    found = exports.tables(folder)
    assert found["controls"].rows == (("car", 20, 0.5, 0.2, *[None] * 6, "t"),)
    assert found["winners"].columns[:3] == ("domain", "instructions", "teacher")
    assert [r[-1] for r in found["winners"].rows] == [None, "too few"]
    assert read(as_csv(found["winners"]))[2][0] == "'=art"
    assert found["pilot"].rows[0] == ("t", 0.5, 0.4, 0.6, 0.1, 0.05, 0.2, 2, 9)
    text = exports.markdown(folder)
    assert "**Winners by domain**" in text and "**Pilot: students of the finalists**" in text


def test_asking_routing_store_and_sets(tmp_path: Path) -> None:
    mean = {"mean": 0.5, "low": 0.4, "high": 0.6}
    of_k = [{"k": 1} | mean]
    point = {
        "teacher": "ash", "temperature": 0.7, "top_p": 0.9, "max_new_tokens": 8,
        "n_instructions": 2, "n_answers": 4, "samples": 2, "n_tokens_mean": 3.5, "cut_share": 0.25,
        "cost": 0.0, "rewards": {"r": mean | {"n_missing": 0, "best_of": of_k, "worst_of": of_k}},
    }  # fmt: skip
    ask = tmp_path / "ask"
    ask.mkdir()
    asked = {"version": 1, "n_instructions": 2, "n_answers": 4, "confidence": 0.95,
             "rewards": {"r": {"kind": "column"}}, "points": [point]}  # fmt: skip
    artifacts.write_json(ask / artifacts.ASK, asked)
    assert {k: len(v.rows) for k, v in exports.tables(ask).items()} == {
        "rewards": 1, "points": 1, "of_k": 2,
    }  # fmt: skip
    assert "`ash` (temperature 0.7, top-p 0.9) has the highest mean r, 0.500" in exports.markdown(
        ask
    )
    ways = dict.fromkeys(("routed", "single", "oracle", "random"), mean)
    minus = {"routed_minus": {"single": mean}}
    found = {"n_prompts": 9, "single": "ash", "means": {"score": ways | minus, "reward": ways}}
    route = tmp_path / "route"
    route.mkdir()
    routed = {"held_out": found, "routed": {"teachers": {"ash": 3}}, "verdict": "gain",
              "confidence": 0.95}  # fmt: skip
    artifacts.write_json(route / "route.json", routed)
    assert len(exports.tables(route)["held_out"].rows) == 8
    assert "is better than `ash` for all on 9 prompts" in exports.markdown(route)
    store = tmp_path / "cache"
    (store / "signals").mkdir(parents=True)
    facts = {"kind": "top_k", "k": 4, "teacher": "ash", "positions": 10, "samples": 2,
             "bytes_per_token": 12.0}  # fmt: skip
    artifacts.write_json(store / "signals" / "store.json", facts)
    assert "at 10 tokens of 2 samples" in exports.markdown(store)
    sets = tmp_path / "sets"
    sets.mkdir()
    known = {"status": "finished", "settings": {"run": "r", "sets": {}}, "sets": {"best": 5}}
    artifacts.write_json(sets / artifacts.PROVENANCE, known)
    (sets / artifacts.CARD).write_text("# card")
    assert "1 training set was written: `best` (5 rows)." in exports.markdown(sets)


def test_what_a_page_carries_is_bounded(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    take = exports.take_along(folders["select"])
    assert take is not None and not take["left_out"]
    data = json.loads(take["data"])
    own = exports.tables(folders["select"])
    assert [file["file"] for file in data["csv"]] == [f"select-{name}.csv" for name in own]
    assert data["csv"][0]["text"] == as_csv(own["leaderboard"])
    assert "<" not in take["data"] and data["markdown"] == "select.md"
    monkeypatch.setattr(exports, "EMBEDDED", 2000)
    small = exports.take_along(folders["select"])
    assert small is not None and "Leaderboard" in small["left_out"] and len(small["data"]) < 4000
    assert exports.take_along(folders["select"].parent) is None


def test_files_are_written_whole(folders: dict[str, Path], tmp_path: Path) -> None:
    own = exports.tables(folders["study"])
    paths = exports.write_csv(own, tmp_path / "a" / "b")
    assert [path.name for path in paths] == [f"{name}.csv" for name in own]
    assert paths[0].read_bytes().decode("utf-8") == as_csv(own["outcomes"])
    written_to = exports.write_summary(folders["study"])
    assert written_to is not None and written_to == folders["study"] / "study.md"
    assert written_to.read_text("utf-8") == exports.markdown(folders["study"])
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunFolderError, match="folder cannot be made"):
        exports.write_csv(own, tmp_path / "file")


def test_a_result_changed_by_hand_is_an_error(tmp_path: Path) -> None:
    (tmp_path / artifacts.EVALUATION).write_text('{"benchmarks": [{}]}')
    with pytest.raises(RunFolderError, match=r"evaluation\.json is incomplete"):
        exports.tables(tmp_path)
    known: Any = exports.write_summary(tmp_path / "nothing")
    assert known is None
