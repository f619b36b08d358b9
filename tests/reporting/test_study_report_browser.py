"""The page of a study in a real browser; skipped where Chromium or Selenium is missing.

What holds for every page stands in `test_every_page.py`, `test_accessibility.py` and
`test_hostile.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import browsing
import pytest
from browsing import count
from studies import BASES, build, written

from preceptor.reporting.pages.study import report as study_report


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study_report.write(written(tmp_path_factory.mktemp("study"), build(arms=("sft", "kd"))))


@pytest.fixture
def opened(browser: Any, report: Path) -> Any:
    return browsing.open_page(browser, report)


def test_charts_are_drawn_without_errors(opened: Any) -> None:
    assert count(opened, "#family-panels figure") == len(BASES)
    assert count(opened, "#family-panels circle") >= 9 * len(BASES)
    assert count(opened, "#scatter-panels figure") == len(BASES)
    assert browsing.console(opened) == []


def test_another_criterion_and_another_arm(opened: Any) -> None:
    def shown(what: str) -> list[str]:
        return browsing.shown_choices(opened, what)

    before = browsing.texts(opened, "#scatter-panels")
    assert shown("arm") == ["0"] and shown("criteria") == ["0"]
    browsing.click(opened, '[data-choices=scatter] [data-index="2"]')
    browsing.click(opened, '[data-choices=arm] [data-index="1"]')
    browsing.click(opened, '[data-choices=criteria] [data-index="3"]')
    browsing.settle(opened)
    assert shown("arm") == ["1"] and shown("criteria") == ["3"]
    assert browsing.texts(opened, "#scatter-panels") != before
    assert count(opened, "#scatter-panels figure") == len(BASES)
    assert browsing.console(opened) == []
