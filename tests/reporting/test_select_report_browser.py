"""The selection report in a real browser; skipped where Chromium or Selenium is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import browsing
import pytest

from preceptor.core import artifacts
from preceptor.reporting.pages.select import report as select_report
from preceptor.reporting.parts import wording

TEXTS = "[...document.querySelectorAll('%s')].map((node) => node.textContent)"


@pytest.fixture(scope="module")
def report(run_folder: Callable[..., Path]) -> Path:
    return select_report.write(run_folder(second_reward=True))


@pytest.fixture
def opened(browser: Any, report: Path) -> Any:
    return browsing.open_page(browser, report)


def _names(browser: Any, selector: str) -> list[str]:
    return browser.execute_script("return " + TEXTS % selector)


def _click(browser: Any, selector: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


def _slide(browser: Any, beta: float) -> None:
    browser.execute_script(
        "const slider = document.querySelector('#beta'); slider.value = arguments[0];"
        "slider.dispatchEvent(new Event('input', { bubbles: true }));",
        beta,
    )


def _open_samples(browser: Any) -> None:
    """What is in a fold is made when it is opened, which an event tells."""
    browser.execute_async_script(
        "const folds = [...document.querySelectorAll('#sample-list > details')];"
        "for (const fold of folds) fold.open = true;"
        "const done = arguments[0], full = () => folds.every((f) => f.querySelector('.answer'));"
        "(function wait() { if (full()) done(); else setTimeout(wait, 5); })();"
    )


def test_no_errors_no_network_no_dialog(opened: Any, report: Path) -> None:
    from selenium.common.exceptions import NoAlertPresentException

    opened.get_log("performance")
    opened.get_log("browser")
    opened.get(report.as_uri())
    _open_samples(opened)
    options = "document.querySelectorAll('#samples select')"
    assert opened.execute_script(f"return {options}.length") == 6
    opened.execute_script(
        f"for (const select of {options}) for (const option of select.options) {{"
        "select.value = option.value; select.dispatchEvent(new Event('change')); }"
    )
    with pytest.raises(NoAlertPresentException):
        _ = opened.switch_to.alert
    assert opened.get_log("browser") == []
    requests = [
        entry["message"]
        for entry in opened.get_log("performance")
        if '"Network.requestWillBeSent"' in entry["message"]
    ]
    assert [text for text in requests if "http://" in text or "https://" in text] == []
    assert len(requests) <= 2  # the page itself and its empty data: icon


def test_charts_are_drawn(opened: Any) -> None:
    assert len(_names(opened, "#scatter-chart circle")) == 20
    assert len(_names(opened, "#bump-chart circle")) == 20 * 8
    assert len(_names(opened, "#scatter-chart .point-label")) >= 5


def test_beta_slider_reorders_and_resets(opened: Any) -> None:
    start = _names(opened, "#order li")
    words = opened.execute_script("return document.querySelector('#order-words').textContent")
    _slide(opened, 0)
    assert _names(opened, "#order li") != start
    now = opened.execute_script("return document.querySelector('#order-words').textContent")
    assert now != words and "0.00" in now
    _click(opened, "#beta-reset")
    assert _names(opened, "#order li") == start


def test_slider_order_agrees_with_the_run(opened: Any) -> None:
    assert _names(opened, "#order bdi") == _names(opened, "#board tbody bdi")


def test_sorting_by_click_and_key(opened: Any) -> None:
    start = _names(opened, "#board tbody bdi")
    _click(opened, "th[data-sort=teacher] button")
    assert _names(opened, "#board tbody bdi") == sorted(start)
    script = "return document.querySelector('th[data-sort=teacher]').getAttribute('aria-sort')"
    assert opened.execute_script(script) == "ascending"
    opened.execute_script("document.querySelector('th[data-sort=teacher] button').focus()")
    opened.switch_to.active_element.send_keys("\ue007")  # the enter key
    assert _names(opened, "#board tbody bdi") == sorted(start, reverse=True)
    assert opened.execute_script(script) == "descending"
    assert len(_names(opened, "#board thead [aria-sort]")) == 1


def test_criterion_switch_agrees_with_the_server(opened: Any, report: Path) -> None:
    cells = TEXTS % "#board tbody td, #board tbody th"
    tidy = f"return {cells}.map((text) => text.trim().replace(/\\s+/g, ' '))"
    server = opened.execute_script(tidy)
    _click(opened, "#criteria button[data-criterion=length]")
    assert opened.execute_script(tidy) != server
    note = opened.execute_script("return document.querySelector('#board-note').textContent")
    assert note.startswith("Length, higher is better.")
    pressed = _names(opened, "#criteria [aria-pressed=true]")
    assert pressed == ["Length"]
    _click(opened, "#criteria button[data-criterion=car]")
    assert opened.execute_script(tidy) == server


def test_reward_choice_redraws_both_charts(opened: Any) -> None:
    script = (
        "return ['#scatter-chart', '#bump-chart'].map((id) => document.querySelector(id).innerHTML)"
    )
    start = opened.execute_script(script)
    opened.execute_script(
        "const select = document.querySelector('#scatter [data-reward-choice] select');"
        "select.value = 'armo'; select.dispatchEvent(new Event('change'));"
    )
    now = opened.execute_script(script)
    assert now[0] != start[0] and now[1] != start[1]
    others = "document.querySelector('#sensitivity [data-reward-choice] select').value"
    assert opened.execute_script("return " + others) == "armo"


def test_dark_mode_is_toggled_and_kept(opened: Any) -> None:
    colour = "return getComputedStyle(document.body).backgroundColor"
    light = opened.execute_script(colour)
    _click(opened, "#theme")
    dark = opened.execute_script(colour)
    assert dark != light
    opened.refresh()
    assert opened.execute_script(colour) == dark
    _click(opened, "#theme")
    assert opened.execute_script(colour) == light


def test_narrow_page_does_not_scroll_sideways(opened: Any) -> None:
    size = {"width": 420, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert opened.execute_script("return document.documentElement.scrollWidth") <= 420
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_hostile_names_stay_quiet(
    browser: Any, run_folder: Callable[..., Path], hostile_texts: list[str]
) -> None:
    folder = run_folder(n_instructions=8, teachers=hostile_texts)
    browser.get_log("browser")
    browser.get(select_report.write(folder).as_uri())
    assert sorted(_names(browser, "#order bdi"))[0].startswith("</script>")
    assert len(_names(browser, "#bump-chart circle")) == 6 * 8
    assert browser.get_log("browser") == []


def test_numbers_read_the_same_in_python_and_script(opened: Any) -> None:
    values = [0.0, -0.0004, 310.5, 1.005, -2.5, 0.125, 1234567.891, 0.22565]
    for decimals in (0, 2, 4):
        script = "return arguments[0].map((value) => number(value, arguments[1]))"
        shown = opened.execute_script(script, values, decimals)
        assert shown == [wording.number(value, decimals) for value in values]
    shares = [0, 0.001, 0.005, 0.125, 0.994, 0.5, 0.9999, 1]
    shown = opened.execute_script("return arguments[0].map((share) => percent(share))", shares)
    assert shown == [wording.percent(share) for share in shares]


@pytest.mark.parametrize("beta", [0, 10])
def test_one_teacher_alone_is_drawn(
    browser: Any, run_folder: Callable[..., Path], beta: float
) -> None:
    folder = run_folder(n_instructions=8, teachers=["alone"])
    browser.get_log("browser")
    browser.get(select_report.write(folder).as_uri())
    _slide(browser, beta)
    assert len(_names(browser, "#scatter-chart circle")) == 1
    _open_samples(browser)
    assert len(_names(browser, "#samples .answer")) == 6
    assert browser.get_log("browser") == []


def test_page_without_car_hides_the_slider(browser: Any, run_folder: Callable[..., Path]) -> None:
    folder = run_folder(n_instructions=8, with_car=False)
    (folder / artifacts.PROVENANCE).unlink()
    browser.get_log("browser")
    browser.get(select_report.write(folder).as_uri())
    hidden = "return [...document.querySelectorAll('#scatter [data-car]')].every((n) => n.hidden)"
    assert browser.execute_script(hidden)
    assert len(_names(browser, "#scatter-chart circle")) == 20
    assert browser.get_log("browser") == []
