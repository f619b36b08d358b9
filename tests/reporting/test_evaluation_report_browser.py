"""The page of an evaluation in a real browser; skipped where Chromium or Selenium is missing.

What holds for every page stands in `test_every_page.py`, `test_accessibility.py` and
`test_hostile.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import browsing
import pytest
from browsing import choose, click, count, texts
from evaluations import HOSTILE, MODELS, build_evaluation_folder, evaluation

from preceptor.core import artifacts
from preceptor.reporting.findings import evaluation_words as words
from preceptor.reporting.pages.evaluate import report as evaluation_report


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluation_report.write(build_evaluation_folder(tmp_path_factory.mktemp("run")))


@pytest.fixture
def opened(browser: Any, report: Path) -> Any:
    return browsing.open_page(browser, report)


def test_charts_are_drawn_and_speak(opened: Any) -> None:
    assert count(opened, "[data-charts=scores] circle") == 4 * len(MODELS)
    assert count(opened, "[data-charts=gaps] circle") == 4 * (len(MODELS) - 1)
    charts = opened.find_elements("css selector", "[data-charts] svg[role=img]")
    labels = [chart.get_dom_attribute("aria-label") for chart in charts]
    assert labels[0].replace("\u2068", "").replace("\u2069", "") == "Scores on alpaca_eval"
    described = charts[0].get_dom_attribute("aria-description")
    assert all(model in described for model in MODELS) and "[" in described


def test_better_is_right_in_every_chart(opened: Any) -> None:
    """The last benchmark's measure is a loss: its axis runs the other way."""
    script = (
        "return [...document.querySelectorAll('[data-charts=scores] .panel')].map((panel) => "
        "[...panel.querySelectorAll('circle')].map((dot) => dot.getBoundingClientRect().x))"
    )
    for places in opened.execute_script(script):
        assert places == sorted(places, reverse=True)


def test_radar_shows_the_chosen_models(opened: Any) -> None:
    assert count(opened, ".radar [data-model]") == 5
    assert count(opened, ".radar [data-model='0'] .mark") == 8
    click(opened, ".legend li:nth-child(2) button")
    assert count(opened, ".radar [data-model]") == 4
    assert count(opened, ".radar [data-model='1']") == 0
    pressed = ".legend [aria-pressed=true]"
    assert len(texts(opened, pressed)) == 4
    opened.find_elements("css selector", ".legend button")[1].send_keys("\ue007")  # the enter key
    assert count(opened, ".radar [data-model='1'] .mark") == 8
    title = texts(opened, ".radar [data-model='1'] .mark title")[0]
    assert title.replace("\u2068", "").replace("\u2069", "").startswith("aster-m, writing: ")


def test_switching_the_measure_and_back_agrees_with_the_server(opened: Any) -> None:
    cells = "#scores td, #scores th, [data-gaps] td, [data-gaps] th, [data-title-of]"
    server = texts(opened, cells)
    circles = "return document.querySelector('[data-charts=scores] .panel svg').outerHTML"
    chart = opened.execute_script(circles)
    choose(opened, "[data-measure-of='0']", 1)
    changed = texts(opened, cells)
    assert changed != server and "win rate, %" in changed
    assert opened.execute_script(circles) != chart
    choose(opened, "[data-measure-of='0']", 0)
    assert texts(opened, cells) == server
    assert opened.execute_script(circles) == chart


def test_redrawing_every_table_changes_nothing(opened: Any) -> None:
    tables = ("#scores", "[data-gaps]", "[data-categories]")
    every = ", ".join(f"{table} {cell}" for table in tables for cell in ("td", "th"))
    server = texts(opened, every)
    opened.execute_script("report.benchmarks.forEach((_, place) => chooseMeasure(place, 0))")
    assert texts(opened, every) == server


def test_sorting_by_click_and_key(opened: Any) -> None:
    names = "#scores tbody th bdi"
    start = texts(opened, names)
    sort = "return document.querySelector(arguments[0]).getAttribute('aria-sort')"
    assert opened.execute_script(sort, "th[data-sort='0']") == "descending"
    click(opened, "th[data-sort=name] button")
    assert texts(opened, names) == sorted(start)
    assert opened.execute_script(sort, "th[data-sort=name]") == "ascending"
    opened.execute_script("document.querySelector('th[data-sort=name] button').focus()")
    opened.switch_to.active_element.send_keys("\ue007")  # the enter key
    assert texts(opened, names) == sorted(start, reverse=True)
    click(opened, "th[data-sort='3'] button")
    assert opened.execute_script(sort, "th[data-sort='3']") == "ascending"  # a loss: lower first
    assert count(opened, "#scores thead [aria-sort]") == 1


def test_exchanges_are_filtered(opened: Any) -> None:
    shown = "#sample-list > details:not([hidden])"
    assert count(opened, shown) == 60
    assert texts(opened, "#sample-count") == ["60 of 60 items"]
    choose(opened, "[data-filter=benchmark]", "1")
    assert count(opened, shown) == 20
    options = texts(opened, "[data-filter=category] option")
    assert len(options) == 1 + 8
    choose(opened, "[data-filter=category]", "math")
    choose(opened, "[data-filter=why]", "gap")
    found = texts(opened, shown + " > summary .gap")
    assert found and all("math" in text and "apart" in text for text in found)
    choose(opened, "[data-filter=benchmark]", "")
    assert count(opened, shown) == 30


def test_models_of_the_exchanges_are_chosen(opened: Any) -> None:
    first = "#sample-list > details[open] "
    assert count(opened, first + ".column") == 2
    click(opened, "#sample-models button:nth-child(4)")
    assert texts(opened, first + ".who") == ["base-notes", "birch-l", "cedar-s"]
    assert count(opened, first + ".judged") == 3
    click(opened, "#sample-list > details:nth-child(30) > summary")
    opened.execute_async_script("setTimeout(arguments[0], 50)")
    assert count(opened, "#sample-list > details:nth-child(30) .column") == 3


def test_a_narrow_page_draws_its_charts_again(opened: Any) -> None:
    with browsing.window(opened, 420):
        assert count(opened, ".radar [data-model]") == 5


def test_hostile_names_stay_quiet(browser: Any, tmp_path: Path) -> None:
    build_evaluation_folder(tmp_path, HOSTILE)
    made = evaluation(HOSTILE)
    made["benchmarks"][1]["measures"][0]["title"] = HOSTILE[0]
    artifacts.write_json(tmp_path / artifacts.EVALUATION, made)
    browsing.open_page(browser, evaluation_report.write(tmp_path))
    assert not browsing.has_dialog(browser)
    assert any(text.startswith("</script>") for text in texts(browser, "#scores tbody bdi"))
    assert count(browser, ".radar [data-model]") == 5
    assert count(browser, ".legend button") == 6
    assert count(browser, "#scores img, #samples img, svg script") == 0
    assert browser.get_log("browser") == []


def test_gaps_and_single_models_are_drawn(browser: Any, tmp_path: Path) -> None:
    """A missing category leaves a gap in the radar; one model has no differences."""
    made = evaluation(["alone"])
    own = made["benchmarks"][1]["scores"][0]["categories"]
    own["math"] = {"grade": {"value": None, "low": None, "high": None}}
    made["benchmarks"][0]["scores"][0]["measures"] = {}
    artifacts.write_json(tmp_path / artifacts.EVALUATION, made)
    browsing.open_page(browser, evaluation_report.write(tmp_path))
    assert count(browser, ".radar .mark") == 7
    path = "return document.querySelector('.radar [data-model] path').getAttribute('d')"
    assert "NaN" not in browser.execute_script(path)
    assert count(browser, "[data-charts=scores] circle") == 3
    assert texts(browser, "[data-charts=scores] .quiet") == ["no scores"]
    assert browser.get_log("browser") == []


def test_words_read_the_same_in_python_and_script(opened: Any) -> None:
    values = [0.0, 0.00002, 0.0009, 0.0344, 0.0355, 0.5, 1.0]
    shown = opened.execute_script("return arguments[0].map((p) => pWords(p))", values)
    assert shown == [words.p_words(p) for p in values]
    for place, text in words.READINGS.items():
        assert opened.execute_script("return readings[arguments[0]]", place) == text


def test_many_models_are_told_apart(browser: Any, tmp_path: Path) -> None:
    """Of twenty models the radar shows five at first, each with a colour of its own."""
    artifacts.write_json(tmp_path / artifacts.EVALUATION, evaluation([f"m{i}" for i in range(20)]))
    browsing.open_page(browser, evaluation_report.write(tmp_path))
    colours = (
        "return [...document.querySelectorAll('.radar [data-model]')].map((g) => g.style.color)"
    )
    first = browser.execute_script(colours)
    assert len(first) == 5 == len(set(first))
    for place in range(1, 21):
        button = f".legend li:nth-child({place}) button[aria-pressed=false]"
        browser.execute_script("document.querySelector(arguments[0])?.click()", button)
    looks = browser.execute_script(
        "return [...document.querySelectorAll('.radar [data-model]')].map((group) => ["
        "group.style.color,"
        "group.querySelector('path').getAttribute('stroke-dasharray'),"
        "group.querySelector('.mark').getAttribute('d')].join())"
    )
    assert len(looks) == 20 == len(set(looks))
    assert browser.get_log("browser") == []
