"""The page of an asking in a real browser; skipped where Chromium or Selenium is missing.

What holds for every page stands in `test_every_page.py`, `test_accessibility.py` and
`test_hostile.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import browsing
import pytest
from browsing import count


@pytest.fixture
def opened(browser: Any, page_of: Callable[[str], Path | str]) -> Any:
    return browsing.open_page(browser, page_of("ask"))


def test_charts_are_drawn_and_speak(opened: Any) -> None:
    assert count(opened, "#worth-panels figure") == 2
    assert count(opened, "#worth-panels circle") == 2 * 4 * 2 * 3  # decodings, best and worst, k
    described = browsing.attributes(opened, "#worth-panels svg[role=img]", "aria-description")
    assert all("temperature 0.6, top-p 0.9, best: " in str(words) for words in described)
    looks = browsing.attributes(opened, "#worth-panels figure:first-child .legend line",
                                "stroke-dasharray")  # fmt: skip
    assert len(set(looks)) == len(looks) == 4  # told by more than their colour


def test_choosing_a_reward_changes_every_part(opened: Any) -> None:
    before = browsing.attributes(opened, "#worth-panels svg[role=img]", "aria-label")
    assert set(browsing.shown_choices(opened, "reward")) == {"0"}
    browsing.click(opened, '[data-choices=reward] [data-index="1"]')
    browsing.settle(opened)
    assert set(browsing.shown_choices(opened, "reward")) == {"1"}
    assert browsing.attributes(opened, "#worth-panels svg[role=img]", "aria-label") != before
    assert browsing.console(opened) == []


def test_answers_of_the_chosen_teachers(opened: Any) -> None:
    first = "#sample-list > details[open] "
    assert count(opened, first + ".column") == 4  # highest and lowest of two teachers
    browsing.click(opened, "#sample-teachers button:nth-child(3)")
    assert count(opened, first + ".column") == 5
    browsing.click(opened, "#sample-teachers button:nth-child(1)")
    assert browsing.texts(opened, first + ".who") == ["birch-l", "birch-l", "cedar-s (recorded)"]
    assert browsing.console(opened) == []
