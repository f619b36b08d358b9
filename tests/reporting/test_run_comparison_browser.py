"""Two runs, and what a page gives along, in a real browser; skipped where there is none."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import browsing
import pytest
from evaluations import build_evaluation_folder
from hostile import FEW, TOGETHER, poison
from selection_runs import build_run_folder
from studies import build, written
from test_accessibility import AXE, FAULTS, OPEN, STRUCTURE
from test_hostile import ALIVE
from test_training_report import build_training_folder

from preceptor.core import artifacts
from preceptor.reporting.exporting import exports
from preceptor.reporting.pages.select import report as select_report
from preceptor.reporting.pages.two_runs import report as run_comparison


def _selection(folder: Path, n: int) -> None:
    """A selection by two criteria."""
    build_run_folder(folder, n_instructions=8 + 4 * n, teachers=[*FEW, "aster", "birch"])
    path = folder / artifacts.RANKING
    ranking = json.loads(path.read_text())
    ranking["criteria"] = {key: ranking["criteria"][key] for key in ("car", "length")}
    artifacts.write_json(path, ranking)


RUNS: dict[str, Callable[[Path, int], object]] = {
    "select": _selection,
    "evaluate": lambda folder, n: build_evaluation_folder(folder, ["base", "x", "y"][: 3 - n]),
    "study": lambda folder, n: written(folder, build(["one", "two"][: 2 - n])),
    "training": lambda folder, n: build_training_folder(folder, steps=20 + 20 * n),
}


def compared(browser: Any, place: Path, kind: str, give: Callable[[], str] | None = None) -> Any:
    """The page of two runs of a kind, opened."""
    folders = [place / "first", place / "second"]
    for n, folder in enumerate(folders):
        folder.mkdir()
        RUNS[kind](folder, n)
        if give is not None:
            poison(folder, give)
    page = place / "comparison.html"
    run_comparison.write(page, run_comparison.Comparison(folders[0], folders[1]))
    assert page.stat().st_size < 3_000_000
    return browsing.open_page(browser, page)


def drawn(browser: Any, section: str, selector: str) -> int:
    return browsing.count(browser, f'#{section} [data-index="0"] [data-chart] {selector}')


def test_slopes_of_two_selections(browser: Any, tmp_path: Path) -> None:
    compared(browser, tmp_path, "select")
    assert browsing.console(browser) == []
    assert drawn(browser, "ranks", "svg[role=img]") == 1
    assert drawn(browser, "ranks", "g.dot > *") == 2 * len([*FEW, "aster", "birch"])
    (words,) = browsing.texts(browser, '#ranks [data-index="0"] svg')
    assert "aster" in words and "onerror" in words, "hostile names are text"
    assert browsing.shown_choices(browser, "ranks") == ["0"]
    browsing.click(browser, "[data-choices=ranks] [data-index='1']")
    browsing.settle(browser)
    assert browsing.shown_choices(browser, "ranks") == ["1"]
    assert browsing.count(browser, "#ranks .chosen svg") == 1
    assert browsing.console(browser) == []


def test_intervals_and_losses(browser: Any, tmp_path: Path) -> None:
    compared(browser, tmp_path, "training")
    assert drawn(browser, "quality", "g.dot > *") == 8
    assert drawn(browser, "losses", "g.line path") == 2
    assert browsing.texts(browser, "#losses .legend li")[:2] == ["A first", "B second"]
    assert browsing.console(browser) == []


@pytest.mark.parametrize("kind", RUNS)
def test_nothing_of_a_stranger_runs(browser: Any, tmp_path: Path, kind: str) -> None:
    """All that would run or make an element stands in every field of both runs."""
    compared(browser, tmp_path, kind, lambda: TOGETHER)
    browsing.press_everything(browser)
    assert browser.execute_script("return window.hasRun ?? []") == []
    assert browser.execute_script(ALIVE) == [] and not browsing.has_dialog(browser)
    assert browsing.console(browser) == []


@pytest.mark.parametrize(("kind", "theme"), [("select", "dark"), ("training", "light")])
def test_everybody_can_use_it(browser: Any, tmp_path: Path, kind: str, theme: str) -> None:
    compared(browser, tmp_path, kind)
    browsing.theme(browser, theme)
    browser.execute_script(AXE.read_text(encoding="utf-8"))
    browser.execute_script(OPEN)
    browsing.settle(browser)
    assert browser.execute_async_script(FAULTS, None) == []
    assert browser.execute_script(STRUCTURE) == []
    for width in (1280, 420):
        with browsing.window(browser, width):
            assert browsing.overflow(browser) <= 0


@pytest.fixture
def downloads(browser: Any, tmp_path: Path) -> Path:
    """A folder that the browser saves into."""
    folder = tmp_path / "saved"
    folder.mkdir()
    behaviour = {"behavior": "allow", "downloadPath": str(folder)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    return folder


def saved(folder: Path, name: str) -> str:
    deadline = time.monotonic() + 10
    while not (folder / name).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return (folder / name).read_bytes().decode("utf-8")


def test_taking_along_works_from_a_file(
    browser: Any, run_folder: Callable[..., Path], downloads: Path
) -> None:
    from selenium.webdriver.common.keys import Keys

    folder = run_folder(n_instructions=10, teachers=[*FEW, "aster"])
    path = select_report.write(folder)
    text = exports.markdown(folder)
    assert (folder / "report.md").read_text("utf-8") == text
    browsing.open_page(browser, path)
    buttons = browser.find_elements("css selector", "#take-along [data-download]")
    assert len(buttons) == 1 + len(exports.tables(folder))
    buttons[0].send_keys(Keys.ENTER)
    board = exports.as_csv(exports.tables(folder)["leaderboard"])
    assert saved(downloads, "select-leaderboard.csv") == board
    buttons[-1].send_keys(Keys.SPACE)
    assert saved(downloads, "select.md") == text
    copied = (
        "const done = arguments[0]; const got = [];"
        "navigator.clipboard.writeText = async (text) => { got.push(text); };"
        "document.querySelector('[data-copy=markdown]').click();"
        "setTimeout(() => done(got), 100);"
    )
    assert browser.execute_async_script(copied) == [text]
    assert browsing.console(browser) == []
    assert all(url.startswith(browsing.LOCAL) for url in browsing.requests(browser))
    assert (folder / artifacts.REPORT).stat().st_size < 3_000_000
