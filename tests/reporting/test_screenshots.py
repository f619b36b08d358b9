"""Pictures of every section of every page, for a reviewer; only where PRECEPTOR_SCREENSHOTS is set.

`PRECEPTOR_SCREENSHOTS=DIR` names the folder; files are called PAGE-SECTION-THEME.png, those of a
narrow window PAGE-SECTION-THEME-narrow.png.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import browsing
import pytest
from pages import PAGES

FOLDER = os.environ.get("PRECEPTOR_SCREENSHOTS", "")
WIDTHS = {"": 1280, "-narrow": 420}
PNG = b"\x89PNG\r\n\x1a\n"
PLACES = """
const sections = [...document.querySelectorAll('main > section')];
const rest = sections.length ? sections : [document.querySelector('main')];
return [document.querySelector('header'), ...rest]
  .filter((node) => node.checkVisibility()).map((node) => {
    const box = node.getBoundingClientRect();
    const name = node.id || (node.matches('header') ? 'top' : 'main');
    return [name, box.left + scrollX, box.top + scrollY, box.width, box.height];
  });
"""
MARGIN = 14


@pytest.mark.skipif(not FOLDER, reason="PRECEPTOR_SCREENSHOTS is not set")
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", sorted(PAGES))
def test_pictures(
    browser: Any, page_of: Callable[[str], Path | str], name: str, theme: str
) -> None:
    folder = Path(FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    browsing.open_page(browser, page_of(name))
    browsing.theme(browser, theme)
    browser.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
    for suffix, width in WIDTHS.items():
        with browsing.window(browser, width):
            taken = [
                picture(browser, place, folder / f"{name}-{place[0]}-{theme}{suffix}.png")
                for place in browser.execute_script(PLACES)
            ]
        assert len(taken) > 1 and all(file.read_bytes().startswith(PNG) for file in taken)


def picture(browser: Any, place: list[Any], file: Path) -> Path:
    """Save what stands at `place` (name, left, top, width, height), whole, with a margin."""
    _, left, top, width, height = place
    clip = {
        "x": max(0, left - MARGIN),
        "y": max(0, top - MARGIN),
        "width": width + 2 * MARGIN,
        "height": min(height + 2 * MARGIN, 12_000),
        "scale": 1,
    }
    shot = browser.execute_cdp_cmd(
        "Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True}
    )
    file.write_bytes(base64.b64decode(shot["data"]))
    return file
