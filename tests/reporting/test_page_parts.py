"""What all pages are made with: visible control characters, names told from words, origins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hostile import TEXTS

from preceptor.core import artifacts
from preceptor.core.errors import RunFolderError
from preceptor.reporting.parts import origins, page


def test_control_characters_can_be_seen() -> None:
    assert page.visible("a\x00b\x1b\x7f\x85\tc\n") == "a\u2400b\u241b\u2421[U+0085]\tc\n"
    assert page.visible("\u202eabc\u202c \u2066x\u2069") == "[U+202E]abc[U+202C] [U+2066]x[U+2069]"
    assert page.visible("שלום 👩‍👩‍👧‍👦 e\u0301") == "שלום 👩‍👩‍👧‍👦 e\u0301"  # text stays as it is


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text)[1:20])
def test_no_visible_text_turns_its_neighbours_round(text: str) -> None:
    shown = page.visible(text)
    controls = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
    assert not controls & set(shown)
    assert page.visible(shown) == shown


@pytest.mark.parametrize(
    ("sentence", "names", "found"),
    [
        ("a beats b", ["a", "b"], [("a", True), (" beats ", False), ("b", True)]),
        ("abba beats b", ["a", "b"], [("abba beats ", False), ("b", True)]),
        ("gemma-2 beats gemma", ["gemma", "gemma-2"],
         [("gemma-2", True), (" beats ", False), ("gemma", True)]),
        ("x [y] (z)", ["[y]", "(z)"], [("x ", False), ("[y]", True), (" ", False), ("(z)", True)]),
        ("gemma-2-9b and a/b@c", ["gemma", "b", "c"], [("gemma-2-9b and a/b@c", False)]),
        ("it is a.", ["a"], [("it is ", False), ("a", True), (".", False)]),
        ("none", [], [("none", False)]),
        ("blank", ["", " "], [("blank", False)]),
    ],
)  # fmt: skip
def test_names_are_marked(sentence: str, names: list[str], found: page.Words) -> None:
    assert page.marked(sentence, names) == found
    assert "".join(text for text, _ in found) == sentence


def test_every_page_has_the_common_style_first() -> None:
    """Once, also where a page names it itself."""
    for styles in (("pages/ask/report.css",), ("parts/page.css", "pages/ask/report.css")):
        context = {
            "origin": {"basics": {}, "rest": {}, "settings": None, "recorded": True},
            "data": page.embed_json({}),
        }
        html = page.render_page("parts/page_frame.html.j2", context, styles=styles, scripts=())
        assert html.count(page.asset("parts/page.css")) == 1
        assert html.index(page.asset("parts/page.css")) < html.index(
            page.asset("pages/ask/report.css")
        )


def test_what_a_run_took() -> None:
    asked = {"a": {"cost": 1.5, "seconds": 60}, "b": {"cost": 2, "seconds": 120}}
    facts: dict[str, Any] = {"asked": asked, "stage_seconds": {"scoring": 540.0}}
    assert origins.spent(facts) == "it took 12 minutes and cost 3.50"
    assert origins.spent(facts | {"wall_seconds_of_last_run": 7200}) == (
        "it took 2.0 hours and cost 3.50"
    )
    assert origins.spent({"wall_seconds_of_last_run": 0.4}) == "it took under a second"
    assert origins.spent({"asked": {"a": {"cost": 0.25}}}) == "it cost 0.25"
    assert origins.spent({}) == ""
    broken = {
        "asked": [1],
        "stage_seconds": {"x": "long", "y": None},
        "wall_seconds_of_last_run": {},
    }
    assert origins.spent(broken) == ""
    assert origins.spent({"stage_seconds": {"x": float("nan"), "y": True}}) == ""


def test_a_verdict_stays_one_sentence() -> None:
    assert origins.with_cost("A beats B.", "it took 2 hours") == "A beats B; it took 2 hours."
    assert origins.with_cost("A beats B.", "") == "A beats B."


def test_the_origin_of_a_run(tmp_path: Path) -> None:
    assert origins.origin_of(tmp_path)["recorded"] is False
    facts = {"preceptor": "0.6.0", "status": "finished", "command": "preceptor ask", "settings": {},
             "models": {"a": "sha256:0"}}  # fmt: skip
    artifacts.write_json(tmp_path / artifacts.PROVENANCE, facts)
    found = origins.origin_of(tmp_path)
    assert found["command"] == "preceptor ask" and found["raw"] == facts
    assert found["basics"] == {"Made with preceptor": "0.6.0", "Status": "finished"}
    assert found["rest"] == {"settings": {}, "models": {"a": "sha256:0"}}
    (tmp_path / artifacts.SETTINGS).write_text("a: 1\n")
    found = origins.origin_of(tmp_path)
    assert found["settings"] == "a: 1\n" and found["rest"] == {"models": {"a": "sha256:0"}}
    artifacts.write_json(tmp_path / artifacts.PROVENANCE, ["no", "record"])
    assert origins.origin_of(tmp_path)["rest"] == ["no", "record"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "holds no asking"),
        ("[]", "holds no asking"),
        ("{", "not JSON"),
        ('{"version": 2}', "version this release cannot read"),
    ],
)
def test_result_files_that_cannot_be_read(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / artifacts.ASK
    if text is not None:
        path.write_text(text)
    with pytest.raises(RunFolderError, match=words) as refused:
        origins.read_result(path, 1, "asking", "ask")
    assert str(path) in str(refused.value)
    path.write_text(json.dumps({"version": 1, "points": []}))
    assert origins.read_result(path, 1, "asking", "ask")["points"] == []
