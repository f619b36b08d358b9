"""The pages of `preceptor serve` in a real browser; skipped where there is none."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import console, has_dialog, requests

from preceptor.core import artifacts
from preceptor.reporting.pages.select import report as select_report
from served import Served, serving, training

HOSTILE = "<img src=x onerror=alert(1)>\u202egnp </script>".replace("/", "-")

DASHES = """return [...document.querySelectorAll('#panels figure:first-child figcaption line')].map(
  (line) => line.getAttribute('stroke-dasharray'))"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, run_folder: Callable[..., Path]) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    made = run_folder(n_instructions=6, teachers=["ash", "beech", "cherry", "date"])
    select_report.write(shutil.copytree(made, runs / "choice"))
    for number, name in enumerate(("one", "two", HOSTILE)):
        settings = {"base": name, "data": {"answers": "a"}, "training": {}}
        facts = {
            "status": "finished",
            "command": f"preceptor sft {number}.yaml",
            "settings": settings,
        }
        for inner in ("", "inside"):
            own = runs / f"trained-{name}" / inner
            own.mkdir(parents=True, exist_ok=True)
            artifacts.write_json(own / artifacts.PROVENANCE, facts)
            (own / artifacts.METRICS).write_text(
                f'{{"step": 1, "epoch": 1.0, "loss": 0.{number}}}\n'
            )
    return runs


@pytest.fixture(scope="module")
def server(runs: Path) -> Iterator[Served]:
    with serving(runs) as server:
        yield server


@pytest.fixture
def opened(browser: Any, server: Served) -> Any:
    browser.get("about:blank")  # an earlier page asks no more
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(server.url)
    return browser


def _texts(browser: Any, selector: str) -> list[str]:
    """Texts of what is seen."""
    script = (
        "return [...document.querySelectorAll(arguments[0])].filter((n) => n.checkVisibility())"
        ".map((n) => n.textContent.trim())"
    )
    return browser.execute_script(script, selector)


def _click(browser: Any, selector: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


def _type(browser: Any, text: str) -> None:
    script = "const box = document.getElementById('filter'); box.value = arguments[0]; " + (
        "box.dispatchEvent(new Event('input'))"
    )
    browser.execute_script(script, text)


def _until(look: Callable[[], Any], seconds: float = 20) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def _clean(browser: Any, server: Served) -> list[str]:
    """Nothing was complained of, and nobody else was asked for anything; what was asked for."""
    assert not has_dialog(browser)
    assert console(browser) == []
    asked = requests(browser)
    assert asked and [url for url in asked if not url.startswith((server.url, "data:"))] == []
    return asked


TOP = "#list > .runs > .run > .row h2"


def test_the_list_asks_nobody_else_and_shows_every_run(opened: Any, server: Served) -> None:
    names = _texts(opened, TOP)
    shown = HOSTILE.replace("\u202e", "[U+202E]")
    assert sorted(names) == sorted(["choice", "trained-one", "trained-two", f"trained-{shown}"])
    assert _texts(opened, ".run .said")[0]
    assert _texts(opened, "details.inner > summary") == ["1 run inside"] * 3
    times = _texts(opened, ".when time")
    assert times and set(times) <= {"just now", "1 minute ago", "2 minutes ago"}
    time.sleep(1.3)  # it asks again after a second
    assert f"{server.url}api/runs" in _clean(opened, server)


def test_filter_kind_state_and_order(opened: Any, server: Served) -> None:
    _type(opened, "TWO")
    assert _texts(opened, TOP) == ["trained-two"]
    _type(opened, "inside trained-one")  # what a folded run holds is found, and unfolded
    assert _texts(opened, TOP) == ["trained-one"]
    assert _texts(opened, "details.inner h3") == ["inside"]
    _type(opened, "no such run")
    assert _texts(opened, TOP) == [] and _texts(opened, "#none") == ["No run fits."]
    _type(opened, "")
    opened.execute_script(
        "const box = document.getElementById('kind'); box.value = 'select'; "
        "box.dispatchEvent(new Event('change'))"
    )
    assert _texts(opened, TOP) == ["choice"]
    opened.execute_script(
        "const box = document.getElementById('kind'); box.value = ''; "
        "box.dispatchEvent(new Event('change')); const sort = document.getElementById('sort'); "
        "sort.value = 'name'; sort.dispatchEvent(new Event('change'))"
    )
    names = _texts(opened, TOP)
    assert names[0] == "choice" and names[-2:] == ["trained-one", "trained-two"]
    _click(opened, "[data-show=running]")
    assert _texts(opened, TOP) == []
    _click(opened, "[data-show=finished]")
    assert len(_texts(opened, TOP)) == 4
    _clean(opened, server)


def test_two_runs_of_a_kind_are_compared(opened: Any, server: Served, runs: Path) -> None:
    pick = '.run[data-name="{}"] [data-pick]'
    assert _texts(opened, "#compare") == []
    _click(opened, pick.format("trained-two"))
    assert "choose a second run of the same kind" in _texts(opened, "#compare p")[0]
    assert opened.find_element("css selector", pick.format("choice")).is_enabled() is False
    _click(opened, pick.format("trained-one"))
    command = f"preceptor report {runs}/trained-two {runs}/trained-one"
    assert _texts(opened, "#compare code") == [command]
    _click(opened, "#compare [data-clear]")
    assert _texts(opened, "#compare") == []
    assert opened.find_element("css selector", pick.format("choice")).is_enabled()


def test_themes_and_phones(opened: Any) -> None:
    _click(opened, "#theme")
    dark = opened.execute_script("return getComputedStyle(document.body).backgroundColor")
    _click(opened, "#theme")
    assert opened.execute_script("return getComputedStyle(document.body).backgroundColor") != dark
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert opened.execute_script(wide) == 0
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_report_is_a_page_of_no_origin(opened: Any, server: Served) -> None:
    """Its scripts draw, and reach neither the server nor what the browser keeps."""
    key = server.runs()["choice"]["id"]
    opened.get(f"{server.url}runs/{key}/")
    assert opened.execute_script("return origin") == "null"
    assert _texts(opened, "h1")
    assert len(opened.find_elements("css selector", "svg")) > 1
    assert console(opened) == []
    ask = (
        "const done = arguments[0]; fetch('/api/runs').then(() => done('read'), "
        "() => done('refused'))"
    )
    assert opened.execute_async_script(ask) == "refused"
    opened.get_log("browser")  # that it was refused


def test_a_run_is_followed_to_its_report(browser: Any, tmp_path: Path) -> None:
    folder = tmp_path / f"runs {HOSTILE}"
    with serving(tmp_path) as server, training(folder, 12, HOSTILE) as go:
        go(3)
        run = server.wait_for(lambda: next(iter(server.runs().values()), None))
        browser.get_log("browser")
        browser.get_log("performance")
        browser.get(f"{server.url}runs/{run['id']}/")
        assert _texts(browser, "#state .chip") == ["running"]
        assert _texts(browser, ".stage .title bdi") == ["training"]
        lines = "return document.querySelectorAll('#panels path[d]').length"
        assert _until(lambda: browser.execute_script(lines)) >= 2
        assert "cut" in _texts(browser, ".said-lines .warning")[0]
        percent = _texts(browser, ".stage .share")
        go(5)
        _until(lambda: _texts(browser, ".stage .share") != percent)
        assert _texts(browser, "#panels figcaption b")[0] == "0.375"
        _clean(browser, server)
        go(4)
        _until(lambda: server.runs()[folder.name]["state"] == "finished")
        _until(lambda: _texts(browser, "#state .chip") != ["running"])
        _until(lambda: browser.execute_script("return origin") == "null")  # that of its report
        assert console(browser) == []
        assert "0.25" in browser.page_source


def test_a_stopped_run_shows_how_it_goes_on(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        folder = tmp_path / "student"
        with training(folder, 5, command="preceptor sft 's 1.yaml'") as go:
            go(1)
            for name in ("other", "third"):  # students of controls have logs of their own
                place = folder / "controls" / name
                place.mkdir(parents=True)
                shutil.copy(folder / "metrics.jsonl", place)
            run = server.wait_for(lambda: server.runs().get("student"))
            browser.get(f"{server.url}runs/{run['id']}/")
            assert _texts(browser, "#resume") == []
        _until(lambda: _texts(browser, "#state .chip") == ["stopped"])
        assert _texts(browser, "#resume code") == ["preceptor sft 's 1.yaml'"]
        assert _texts(browser, ".stage .mark") == ["begun"]
        names = _texts(browser, "#panels figure:first-child figcaption bdi")
        assert names == ["the student", "controls/other", "controls/third"]
        _until(lambda: len(set(browser.execute_script(DASHES))) == 3)  # not by colour alone
        with training(tmp_path / "student", 5) as go:
            _until(lambda: _texts(browser, "#state .chip") == ["running"])
            time.sleep(0.6)  # it tells of itself twice a second
            go(1)
            _until(lambda: "2 of 5 steps" in " ".join(_texts(browser, ".stage small")))
        assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []
