"""The page of a comparison in a real browser; skipped where Chromium or Selenium is missing.

What holds for every page stands in `test_every_page.py`, `test_accessibility.py` and
`test_hostile.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import browsing
import pytest
from browsing import count
from test_compare_report import TEACHERS, comparison

from preceptor.core.comparison import COMPARE
from preceptor.reporting.pages.compare import report as compare_report


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    (folder / COMPARE).write_text(json.dumps(comparison("Qwen2-1.5B", "Gemma-2-2B")))
    return compare_report.write(folder)


@pytest.fixture
def opened(browser: Any, report: Path) -> Any:
    return browsing.open_page(browser, report)


def test_charts_are_drawn_without_errors(opened: Any) -> None:
    assert count(opened, "#scatter-panels figure") == 3
    assert count(opened, "#scatter-panels circle") == 3 * len(TEACHERS)
    assert count(opened, "#beta-panels svg") == 3
    assert count(opened, ".forest circle") == 3 * 4
    assert browsing.console(opened) == []


def test_choosing_a_base(opened: Any) -> None:
    def shown(what: str) -> list[str]:
        return browsing.shown_choices(opened, what)

    browsing.click(opened, "#scatter details summary")
    assert shown("outcomes") == ["0"] == shown("agreement") == shown("scatter")
    browsing.click(opened, '[data-choices=outcomes] [data-index="2"]')
    browsing.click(opened, '[data-choices=scatter] [data-index="1"]')
    assert shown("outcomes") == ["2"] and shown("agreement") == ["0"]
    assert shown("scatter") == ["1"]  # the table of the same base as the charts
    assert count(opened, "[data-choices=outcomes] [aria-pressed=true]") == 1
    assert count(opened, "#scatter-panels circle") == 3 * len(TEACHERS)
    assert browsing.console(opened) == []
