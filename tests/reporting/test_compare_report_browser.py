"""The page of a comparison in a real browser; skipped where Chromium or Selenium is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_compare_report import HOSTILE, TEACHERS, comparison

from preceptor.core.comparison import COMPARE
from preceptor.reporting import compare_report


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Any:
    (tmp_path / COMPARE).write_text(json.dumps(comparison("Qwen2-1.5B", "Gemma-2-2B")))
    page = compare_report.write(tmp_path)
    browser.get_log("browser")
    browser.get(page.as_uri())
    return browser


def _count(browser: Any, selector: str) -> int:
    return browser.execute_script(f"return document.querySelectorAll('{selector}').length")


def _shown(browser: Any, what: str) -> list[str]:
    script = (
        "return [...document.querySelectorAll(arguments[0])]"
        ".filter((node) => node.offsetParent).map((node) => node.dataset.index)"
    )
    return browser.execute_script(script, f'[data-choice="{what}"]')


def test_charts_are_drawn_without_errors(opened: Any) -> None:
    assert _count(opened, "#scatter-panels figure") == 3
    assert _count(opened, "#scatter-panels circle") == 3 * len(TEACHERS)
    assert _count(opened, "#beta-panels svg") == 3
    assert _count(opened, ".forest circle") == 3 * 4
    assert opened.get_log("browser") == []


def test_choosing_a_base(opened: Any) -> None:
    assert _shown(opened, "outcomes") == ["0"] and _shown(opened, "agreement") == ["0"]
    opened.execute_script(
        "document.querySelector('[data-choices=outcomes] [data-index=\"2\"]').click();"
        "document.querySelector('[data-choices=scatter] [data-index=\"1\"]').click()"
    )
    assert _shown(opened, "outcomes") == ["2"] and _shown(opened, "agreement") == ["0"]
    assert _count(opened, "[data-choices=outcomes] [aria-pressed=true]") == 1
    assert _count(opened, "#scatter-panels circle") == 3 * len(TEACHERS)
    assert opened.get_log("browser") == []


def test_hostile_names_are_text(opened: Any) -> None:
    from selenium.common.exceptions import NoAlertPresentException

    with pytest.raises(NoAlertPresentException):
        _ = opened.switch_to.alert
    assert HOSTILE in opened.execute_script("return document.body.textContent")
