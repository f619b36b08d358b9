"""Runs to draw pages from, the pages, and a real browser to look at them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from browsing import CANARY
from hostile import FEW
from selection_runs import build_run_folder

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,900",
]


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Builds a run folder from `build_run_folder`'s keywords in a directory of its own."""

    def build(**keywords: Any) -> Path:
        folder = tmp_path_factory.mktemp("run")
        return build_run_folder(folder, **keywords)

    return build


@pytest.fixture(scope="session")
def hostile_texts() -> list[str]:
    """Strings that break out of careless pages; the synthetic answers contain them in turn."""
    return list(FEW)


@pytest.fixture(scope="session")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path | str]]:
    """The page of a name in `pages.PAGES` (a file, or an address), made once."""
    from pages import PAGES

    with ExitStack() as stack:

        @cache
        def find(name: str) -> Path | str:
            folder = tmp_path_factory.mktemp(name)
            PAGES[name].build(folder)
            return PAGES[name].shown(folder, stack)

        yield find


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real browser; the test is skipped where Chromium or Selenium is missing."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    chromedriver = shutil.which("chromedriver")
    if not (chromium and chromedriver):
        pytest.skip("Chromium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.set_capability("unhandledPromptBehavior", "ignore")
    # named, or Selenium would ask the network which one fits
    service = webdriver.ChromeService(executable_path=chromedriver)
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_script_timeout(60)
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": CANARY})
    yield driver
    driver.quit()
