"""What the browser tests do with a page: open it, read it, press its controls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CANARY = "window.ran = (what) => { (window.hasRun ||= []).push(what); };"
SETTLED = "requestAnimationFrame(() => setTimeout(arguments[arguments.length - 1], {0}))"
LOCAL = ("file:", "data:", "blob:", "about:")
INK = "return getComputedStyle(document.body).color"
GROUND = "return getComputedStyle(document.body).backgroundColor"


def settle(browser: Any, milliseconds: int = 50) -> None:
    """Wait until what changed is drawn."""
    browser.execute_async_script(SETTLED.replace("{0}", str(milliseconds)))


def open_page(browser: Any, page: Path | str, *, fresh: bool = True) -> Any:
    """`page` (a file, or an address), opened with an empty console; its charts are drawn.

    Args:
        fresh: forget what an earlier page has stored, the theme say.
    """
    address = page if isinstance(page, str) else page.as_uri()
    if fresh:  # files share what they store
        browser.execute_script("try { localStorage.clear(); } catch { /* no page is open yet */ }")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(address)
    settle(browser)
    return browser


def console(browser: Any) -> list[Any]:
    """What the console said since it was last read."""
    return browser.get_log("browser")


def requests(browser: Any) -> list[str]:
    """Addresses that were asked for since the log was last read."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def has_dialog(browser: Any) -> bool:
    """Whether an alert, a question or the like is open."""
    from selenium.common.exceptions import NoAlertPresentException

    try:
        _ = browser.switch_to.alert.text
    except NoAlertPresentException:
        return False
    return True


def texts(browser: Any, selector: str) -> list[str]:
    """Text of every element, white space tidied."""
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])]"
        ".map((node) => node.textContent.trim().replace(/\\s+/g, ' '))",
        selector,
    )


def count(browser: Any, selector: str) -> int:
    return browser.execute_script("return document.querySelectorAll(arguments[0]).length", selector)


def attributes(browser: Any, selector: str, name: str) -> list[str]:
    """An attribute of every element; null where it has none."""
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])]"
        ".map((node) => node.getAttribute(arguments[1]))",
        selector,
        name,
    )


def click(browser: Any, selector: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


def choose(browser: Any, selector: str, value: Any) -> None:
    """Another value of a select or of a slider."""
    browser.execute_script(
        "const own = document.querySelector(arguments[0]); own.value = arguments[1];"
        "own.dispatchEvent(new Event(own.matches('select') ? 'change' : 'input',"
        " { bubbles: true }));",
        selector,
        value,
    )


def shown_choices(browser: Any, what: str) -> list[str]:
    """Which blocks of a choice are in sight."""
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])]"
        ".filter((node) => node.offsetParent).map((node) => node.dataset.index)",
        f'[data-choice="{what}"]',
    )


def overflow(browser: Any) -> int:
    """Pixels by which the page is wider than its window."""
    return browser.execute_script(
        "const root = document.documentElement; return root.scrollWidth - root.clientWidth"
    )


def press_everything(browser: Any) -> None:
    """Open every fold, press every button and choose every option once, some more than once."""
    browser.execute_script(
        "for (const fold of document.querySelectorAll('details')) fold.open = true;"
    )
    settle(browser)
    browser.execute_script(
        "for (const button of document.querySelectorAll('button')) {"
        "  if (!button.matches('[data-download], [data-copy]')) button.click();"
        "}"
        "for (const box of document.querySelectorAll('input')) {"
        "  if (box.type === 'checkbox') box.click();"
        "  else { box.value = box.min; box.dispatchEvent(new Event('input', { bubbles: true })); }"
        "}"
        "for (const select of document.querySelectorAll('select')) {"
        "  for (const option of [...select.options].slice(0, 30)) {"
        "    select.value = option.value;"
        "    select.dispatchEvent(new Event('change', { bubbles: true }));"
        "  }"
        "}"
    )
    settle(browser)


@contextmanager
def window(browser: Any, width: int, height: int = 900) -> Iterator[None]:
    """A window of other size; charts are drawn anew before and after."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    settle(browser)
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        settle(browser)


@contextmanager
def media(browser: Any, kind: str = "", **features: str) -> Iterator[None]:
    """Another medium (`print`), or wishes of the reader (`prefers_reduced_motion="reduce"`)."""
    wishes = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": kind, "features": wishes})
    settle(browser)
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def theme(browser: Any, name: str) -> None:
    """Show the page in `light` or `dark`, by its button."""
    browser.execute_script(
        "if (document.documentElement.dataset.theme !== arguments[0])"
        " document.querySelector('#theme').click()",
        name,
    )
