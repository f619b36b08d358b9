"""Race, agreement, controls and tokens of the selection page in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import browsing
import pytest
from selections import add_controls, add_race, add_tokens, dress, read_ranking

from preceptor.core import artifacts
from preceptor.reporting.pages.select import report as select_report

MakeFolder = Callable[..., Path]
SECONDS = 3.0  # to the first chart: a bound for a busy machine, not a measurement
TEXTS = "return [...document.querySelectorAll('%s')].map((node) => node.textContent)"
TOKENS = "#sample-list details[open] .pair > div:first-child .tokens"


@pytest.fixture(scope="module")
def page(run_folder: MakeFolder) -> Path:
    return select_report.write(dress(run_folder(n_instructions=12)))


@pytest.fixture
def opened(browser: Any, page: Path) -> Any:
    return browsing.open_page(browser, page)


def texts(browser: Any, selector: str) -> list[str]:
    return browser.execute_script(TEXTS % selector)


def run(browser: Any, script: str, *arguments: Any) -> Any:
    return browser.execute_script(script, *arguments)


def press(browser: Any, *keys: str) -> None:
    for key in keys:
        browser.switch_to.active_element.send_keys(key)


def settled(browser: Any) -> None:
    """Two frames later: what observers of sizes draw is drawn."""
    browser.execute_async_script(
        "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done))"
    )


# the race


def test_the_timeline_has_a_bar_a_teacher_and_round(opened: Any, page: Path) -> None:
    settled(opened)
    rounds = read_ranking(page.parent)["race"]["rounds"]
    bars = run(
        opened, "return document.querySelectorAll('#race-chart g[aria-label=bar] rect').length"
    )
    assert bars == 20 + sum(len(one["active"]) for one in rounds)  # behind them, all that could be
    dots = "return document.querySelectorAll('#race-chart g[aria-label=dot] %s').length"
    gone = sum(len(one["eliminated"]) for one in rounds)
    assert run(opened, dots % "circle") + run(opened, dots % "path") == len(rounds) + gone
    label = run(opened, "return document.querySelector('#race-chart svg').ariaDescription")
    described = run(
        opened,
        "return document.querySelector('#race-chart svg').getAttribute('aria-description')",
    )
    assert f"{gone} dropped on the way" in (label or described)


def test_the_timeline_is_drawn_to_scale_by_key(opened: Any) -> None:
    settled(opened)
    widths = (
        "return [...document.querySelectorAll('#race-chart g[aria-label=bar] rect')]"
        ".map((bar) => Number(bar.getAttribute('width')))"
    )
    before = run(opened, widths)
    run(opened, "document.querySelector('#race-scale [data-scale=answers]').focus()")
    press(opened, "\ue007")
    after = run(opened, widths)
    assert len(after) == len(before) and after != before
    pressed = texts(opened, "#race-scale [aria-pressed=true]")
    assert pressed == ["By answers, to scale"]
    full = max(after)
    assert 20 / 805 - 0.01 < min(after) / full < 20 / 805 + 0.01  # the first round's bars
    press(opened, "\ue004", "\ue007")  # the tabulator leaves; shift would go back
    run(opened, "document.querySelector('#race-scale [data-scale=rounds]').click()")
    assert run(opened, widths) == before


def test_the_race_s_table_opens(opened: Any) -> None:
    run(opened, "document.querySelector('#race details summary').focus()")
    press(opened, "\ue007")
    assert run(opened, "return document.querySelector('#race details').open")
    assert len(texts(opened, "#race-table tbody tr")) == 20


# agreement and controls


def test_the_matrix_can_be_read_in_both_themes(opened: Any) -> None:
    """Text and ground of every shade differ by 4.5 at least (WCAG 2.2, contrast ratio)."""
    script = """
      const canvas = document.createElement('canvas').getContext('2d');
      const light = (colour) => {
        canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        const rgb = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((c) => c / 255)
          .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2];
      };
      const shades = ['n4', 'n3', 'n2', 'n1', '0', 'p1', 'p2', 'p3', 'p4'].map((s) => `rho-${s}`);
      const steps = [1, 2, 3, 4].map((s) => `t t${s}`);
      const box = document.querySelector('#samples');
      return [...shades, ...steps].map((name) => {
        const node = document.createElement('span');
        node.className = name; box.append(node);
        const found = getComputedStyle(node);
        const [a, b] = [light(found.color), light(found.backgroundColor)].sort((x, y) => y - x);
        node.remove();
        return [name, (a + 0.05) / (b + 0.05)];
      });
    """
    for _ in range(2):
        assert [pair for pair in run(opened, script) if pair[1] < 4.5] == []
        run(opened, "document.querySelector('#theme').click()")


def test_controls_chart_follows_the_criterion(opened: Any) -> None:
    settled(opened)
    chart = "return document.querySelector('#controls-chart').innerHTML"
    before = run(opened, chart)
    marks = "return document.querySelectorAll('#controls-chart g[aria-label=dot] > *').length"
    assert run(opened, marks) == 20
    legend = texts(opened, "#controls-legend > span")
    assert len(legend) == 5 and all("(4)" in text for text in legend)
    assert len(texts(opened, "#controls-criterion option")) == len(
        texts(opened, "#criteria button")
    )
    run(
        opened,
        "const select = document.querySelector('#controls-criterion'); select.value = 'perplexity';"
        "select.dispatchEvent(new Event('change'));",
    )
    assert run(opened, chart) != before and "Perplexity" in run(opened, chart)


# tokens


def test_every_token_is_coloured_underlined_and_told_by_pointer(opened: Any, page: Path) -> None:
    data = json.loads(run(opened, "return document.querySelector('#data').textContent"))
    answer = next(
        own for own in data["samples"][0]["answers"] if own["teacher"] == data["recommended"]
    )
    nodes = f"{TOKENS} .t"
    n = len(answer["pieces"]) + ("end" in answer)
    assert len(texts(opened, nodes)) == n
    steps = run(
        opened,
        f"return [...document.querySelectorAll('{nodes}')].map((node) => node.className)",
    )
    values = [*answer["nll"], *answer.get("end", [])[:1]]
    for name, value in zip(steps, values, strict=True):
        step = sum(value / 100 >= bound for bound in (0.5, 1.5, 3, 6))
        assert name.split()[:2] == ["t", f"t{step}"]
    place = values.index(max(values))
    from selenium.webdriver.common.action_chains import ActionChains

    node = run(opened, f"return document.querySelectorAll('{nodes}')[arguments[0]]", place)
    run(opened, "arguments[0].scrollIntoView({ block: 'center' })", node)
    ActionChains(opened).move_to_element(node).perform()
    said = texts(opened, "#sample-list .readout")[0]
    assert f"{max(values) / 100:.2f} nats" in said and f"Token {place + 1} of {n:,}." in said
    lines = "return getComputedStyle(arguments[0]).textDecorationThickness"
    assert run(opened, lines, node) == "4px"


def test_tokens_by_keys_alone(opened: Any) -> None:
    where = "return document.activeElement.dataset.place"
    run(opened, f"document.querySelector('{TOKENS} .t').focus()")
    press(opened, "\ue014", "\ue014")  # right, twice
    assert run(opened, where) == "2"
    assert "Token 3 of" in texts(opened, "#sample-list .readout")[0]
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert run(opened, outline) == "solid"
    press(opened, "\ue012")  # left
    assert run(opened, where) == "1"
    press(opened, "\ue015")  # down: the next one that surprises
    last = f"document.querySelectorAll('{TOKENS} .t').length - 1"
    at = int(run(opened, where))
    assert at > 1
    shown = run(opened, "return document.activeElement.className")
    assert "t3" in shown or "t4" in shown or at == run(opened, f"return {last}")
    press(opened, "\ue010")  # end
    assert int(run(opened, where)) == run(opened, f"return {last}")
    press(opened, "\ue014")
    assert int(run(opened, where)) == run(opened, f"return {last}")
    press(opened, "\ue011")  # home
    assert run(opened, where) == "0"
    stops = f"return document.querySelectorAll('{TOKENS} [tabindex=\"0\"]').length"
    assert run(opened, stops) == 1


def test_a_tap_tells_of_a_token(opened: Any) -> None:
    run(opened, f"document.querySelectorAll('{TOKENS} .t')[4].click()")
    assert "Token 5 of" in texts(opened, "#sample-list .readout")[0]
    assert run(opened, "return document.activeElement.dataset.place") == "4"


def test_the_colours_can_be_taken_off(opened: Any) -> None:
    ground = (
        f"return getComputedStyle(document.querySelector('{TOKENS} .t4, {TOKENS} .t3'))"
        ".backgroundColor"
    )
    before = run(opened, ground)
    run(opened, "document.querySelector('#heat-toggle').focus()")
    press(opened, " ")
    after = run(opened, ground)
    assert after == "rgba(0, 0, 0, 0)" != before
    press(opened, " ")
    assert run(opened, ground) == before


def test_the_most_surprising_tokens_stand_in_a_table(opened: Any) -> None:
    table = "#sample-list details[open] .pair > div:first-child table"
    nats = [float(text) for text in texts(opened, f"{table} tbody td:nth-child(3)")]
    assert len(nats) == 8 and nats == sorted(nats, reverse=True)
    assert texts(opened, f"{table} thead th") == ["Token", "after", "nats", "rank"]


def test_another_teacher_and_a_closed_sample_show_their_tokens(opened: Any) -> None:
    other = "#sample-list details[open] .pair > div:last-child"
    before = texts(opened, f"{other} .tokens")
    run(
        opened,
        f"const select = document.querySelector('{other} select'); select.value = '3';"
        "select.dispatchEvent(new Event('change'));",
    )
    assert texts(opened, f"{other} .tokens") != before
    folds = "#sample-list > details"
    second = f"return document.querySelectorAll('{folds}')[1].querySelectorAll('.t').length"
    assert run(opened, second) == 0  # made when it is opened
    run(opened, f"document.querySelectorAll('{folds}')[1].querySelector('summary').click()")
    settled(opened)
    assert run(opened, second) > 20


def test_hostile_tokens_are_inert_and_can_be_seen(
    browser: Any, run_folder: MakeFolder, hostile_texts: list[str]
) -> None:
    folder = run_folder(n_instructions=8, teachers=hostile_texts)
    add_tokens(folder)
    add_controls(folder, families=tuple(hostile_texts))
    add_race(folder)
    browser.get_log("browser")
    browser.get(select_report.write(folder).as_uri())
    for fold in range(6):
        run(
            browser,
            "const fold = document.querySelectorAll('#sample-list > details')[arguments[0]];"
            "fold.open = true;",
            fold,
        )
    settled(browser)
    for script in (
        "document.querySelector('[data-scale=answers]').click()",
        "for (const select of document.querySelectorAll('#samples select'))"
        "  for (const option of select.options) {"
        "    select.value = option.value; select.dispatchEvent(new Event('change')); }",
    ):
        run(browser, script)
    every = "".join(texts(browser, "#sample-list .tokens"))
    assert "alert('answer')" in every and "␀" in every and "[U+202E]" in every
    assert "[U+200D]" in every  # a joiner that is a token by itself
    assert not re.search("[\x00-\x08\u202a-\u202e\u2066-\u2069]", every)
    assert run(browser, "return document.querySelectorAll('main img, main b > script').length") == 0
    assert len(texts(browser, "#race-table tbody tr")) == 6
    assert browser.get_log("browser") == []


# the whole page


def test_no_error_no_request_and_nothing_cut_on_a_phone(opened: Any, page: Path) -> None:
    opened.get_log("performance")
    opened.get_log("browser")
    opened.get(page.as_uri())
    size = {"width": 420, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        settled(opened)
        run(opened, "for (const fold of document.querySelectorAll('details')) fold.open = true")
        settled(opened)
        assert run(opened, "return document.documentElement.scrollWidth") <= 420
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert opened.get_log("browser") == []
    sent = [
        entry["message"]
        for entry in opened.get_log("performance")
        if '"Network.requestWillBeSent"' in entry["message"]
    ]
    assert [text for text in sent if "http://" in text or "https://" in text] == []


def test_twenty_teachers_and_805_instructions_are_drawn_in_time(
    browser: Any, run_folder: MakeFolder, record_property: Callable[[str, object], None]
) -> None:
    folder = run_folder(n_instructions=805)
    path = select_report.write(dress(folder))
    first, whole = [], []
    for _ in range(3):  # the best of three: whatever else the machine does is none of the page's
        browser.get(path.as_uri())
        marks = run(
            browser,
            "return performance.getEntriesByName('first-chart').map((mark) => mark.startTime)",
        )
        assert len(marks) == 1 and marks[0] > 0
        first += marks
        loaded = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
        whole.append(run(browser, f"return {loaded}"))
    record_property("first chart, ms", min(first))
    record_property("whole page, ms", min(whole))
    assert min(first) < 1000 * SECONDS and min(whole) < 1000 * SECONDS
    assert (folder / artifacts.REPORT).stat().st_size < 3_000_000
    every = json.loads(run(browser, "return document.querySelector('#data').textContent"))[
        "samples"
    ]
    assert len(every) == 6 and all(len(sample["answers"]) == 20 for sample in every)
    assert all("pieces" in answer for sample in every for answer in sample["answers"])
