"""What holds for every page in a real browser; skipped where Chromium or Selenium is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import browsing
import pytest
from pages import FILES, PAGES, RUNS

Shown = tuple[Any, Path | str]  # the browser with the page in it, and the page


@pytest.fixture(scope="module", params=sorted(PAGES))
def shown(
    request: pytest.FixtureRequest, browser: Any, page_of: Callable[[str], Path | str]
) -> Shown:
    page = page_of(request.param)
    return browsing.open_page(browser, page), page


of_files = pytest.mark.parametrize("shown", FILES, indirect=True, scope="module")
of_runs = pytest.mark.parametrize("shown", RUNS, indirect=True, scope="module")


@of_runs
def test_says_one_sentence_first_with_confidence_and_cost(shown: Shown) -> None:
    browser, _ = shown
    (verdict,) = browsing.texts(browser, "header #verdict")
    assert verdict.endswith(".") and ". " not in verdict
    words = ("interval", "confidence", "resamples")
    assert any(word in verdict for word in words), verdict
    assert any(word in verdict for word in ("took", "cost", "asked or trained nothing")), verdict
    first = "return document.querySelector('h1').nextElementSibling.id"
    assert browser.execute_script(first) == "verdict"


@of_runs
def test_gives_the_command_that_makes_it_again(shown: Shown) -> None:
    browser, _ = shown
    (command,) = browsing.texts(browser, "#provenance #command")
    assert command.startswith("preceptor ")
    grant = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    browser.execute_cdp_cmd("Browser.grantPermissions", grant)
    button = browser.find_element("css selector", "[data-copy=command]")
    browser.execute_script("arguments[0].scrollIntoView({ block: 'center' })", button)
    button.click()
    browsing.settle(browser, 100)
    assert browsing.texts(browser, "[data-copy=command]") == ["Copied"]
    assert browsing.texts(browser, ".command [role=status]") == ["Copied"]
    pasted = (
        "const done = arguments[0];"
        "navigator.clipboard.readText().then(done, (error) => done(String(error)))"
    )
    assert browser.execute_async_script(pasted) == command
    browser.execute_cdp_cmd("Browser.resetPermissions", {})


def test_is_dark_or_light_as_the_system_until_the_reader_chooses(shown: Shown) -> None:
    browser, page = shown

    def ground() -> str:
        browsing.settle(browser)
        return browser.execute_script(browsing.GROUND)

    with browsing.media(browser, prefers_color_scheme="light"):
        light = ground()
    with browsing.media(browser, prefers_color_scheme="dark"):
        dark = ground()
        assert dark != light
        browsing.click(browser, "#theme")
        assert ground() == light
        browsing.open_page(browser, page, fresh=False)
        assert ground() == light  # kept, whatever the system says
        browsing.click(browser, "#theme")
        assert ground() == dark
        assert browsing.attributes(browser, "#theme", "aria-pressed") == ["true"]


@pytest.mark.parametrize("width", [420, 1280])
def test_does_not_scroll_sideways(shown: Shown, width: int) -> None:
    browser, _ = shown
    with browsing.window(browser, width):
        assert browsing.overflow(browser) <= 0


@of_files
def test_works_from_a_file_without_errors_network_or_dialogs(shown: Shown) -> None:
    """The last one: it leaves the page with everything pressed."""
    browser, page = shown
    browsing.open_page(browser, page)
    browsing.press_everything(browser)
    assert not browsing.has_dialog(browser)
    assert browsing.console(browser) == []
    asked = browsing.requests(browser)
    assert [url for url in asked if not url.startswith(browsing.LOCAL)] == []
    assert sum(url.startswith("file:") for url in asked) == 1  # the page itself, and nothing beside
