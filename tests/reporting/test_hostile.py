"""No text of a stranger does anything: every field of every page, in a real browser.

Skipped where Chromium or Selenium is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import browsing
import pytest
from hostile import LONE, MARK, TEXTS, TOGETHER, poison, turns
from outline import Outline
from pages import FILES, PAGES, RUNS

from preceptor.reporting.parts.page import visible

ALIVE = f"""
const faults = [...document.querySelectorAll('.{MARK}, iframe, object, embed, base, form, img')];
for (const node of document.querySelectorAll('*')) {{
  for (const {{ name, value }} of node.attributes) {{
    const runs = name === 'href' && /^\\s*javascript:/i.test(value);
    if (name.startsWith('on') || runs) faults.push(node);
  }}
}}
return faults.map((node) => node.outerHTML.slice(0, 200));
"""
WRITTEN = """
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
while (walker.nextNode()) {
  const { parentElement, nodeValue } = walker.currentNode;
  if (!parentElement.closest('script, style')) found.push(nodeValue);
}
return found.join('\\n');
"""
LOOSE = """
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
while (walker.nextNode()) {
  const { parentElement: own, nodeValue: text } = walker.currentNode;
  if (own.closest('script, style')) continue;
  if (/[\\u202a-\\u202e]/.test(text)) found.push(`turned round: ${text}`);
  const isolated = own.closest('bdi, [dir=auto], pre')
    || (own.closest('svg, option') && /\\u2068/.test(text)) || own.matches('title')
    || getComputedStyle(own).unicodeBidi.includes('isolate');
  if (/[\\u05d0-\\u064a]/.test(text) && !isolated) found.push(`not isolated: ${text}`);
}
return found.map((text) => text.slice(0, 160));
"""


@contextmanager
def opened(browser: Any, name: str, folder: Path, give: Callable[[], str]) -> Iterator[set[str]]:
    """The page of a run whose every text is hostile, with everything pressed; the texts."""
    page = PAGES[name]
    page.build(folder)
    given = poison(folder, give, page.names)
    with ExitStack() as stack:
        browsing.open_page(browser, page.shown(folder, stack))
        browsing.press_everything(browser)
        yield given


@pytest.mark.parametrize("name", sorted(PAGES))
def test_what_would_run_is_text(browser: Any, tmp_path: Path, name: str) -> None:
    """All that would run or make an element stands in every field at once."""
    with opened(browser, name, tmp_path, lambda: TOGETHER):
        assert not browsing.has_dialog(browser)
        assert browser.execute_script("return window.hasRun ?? []") == []
        assert browser.execute_script(ALIVE) == []
        assert browsing.console(browser) == []
        least = 20 if name in FILES else 1
        assert browser.execute_script(WRITTEN).count(visible(TOGETHER)) >= least


@pytest.mark.parametrize("name", sorted(PAGES))
def test_every_text_stands_there_as_it_is(browser: Any, tmp_path: Path, name: str) -> None:
    """Whole, with its control characters in sight, isolated, and within the window."""
    with opened(browser, name, tmp_path, turns()) as given:
        assert browser.execute_script("return window.hasRun ?? []") == []
        assert browser.execute_script(ALIVE) == []
        assert browsing.console(browser) == []
        assert browser.execute_script(LOOSE) == []
        if name in RUNS:
            written = browser.execute_script(WRITTEN)
            assert len(given) > 15
            assert [text for text in given if visible(text) not in written] == []
            assert visible(LONE).encode("utf-8", "replace").decode() in written
        for width in (1280, 420):
            with browsing.window(browser, width):
                assert browsing.overflow(browser) <= 0


def test_no_text_makes_an_element(tmp_path: Path) -> None:
    """Without a browser: a page has the same elements, whatever its names are."""
    page = PAGES["compare"]

    def elements(place: int, text: str) -> Counter[str]:
        folder = tmp_path / str(place)
        folder.mkdir()
        page.build(folder)
        poison(folder, lambda: text, page.names)
        assert page.write is not None
        html = page.write(folder).read_text(encoding="utf-8")
        return Counter(tag for tag, _ in Outline(html).tags)

    plain = elements(0, "plain")
    changed = [text for place, text in enumerate(TEXTS, 1) if elements(place, text) != plain]
    assert changed == []
