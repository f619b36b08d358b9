"""The training report in a real browser; skipped where Chromium or Selenium is missing.

What holds for every page stands in `test_every_page.py`, `test_accessibility.py` and
`test_hostile.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import browsing
import pytest
from browsing import attributes, click, texts
from test_training_report import (
    HOSTILE,
    build_training_folder,
    logged_steps,
    quality_table,
    write_log,
)

from preceptor.core import artifacts
from preceptor.reporting.pages.training import report as training_report
from preceptor.reporting.pages.training.figures import shown

CURVES = "[data-figure=curves]"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training_report.write(build_training_folder(tmp_path_factory.mktemp("run")))


@pytest.fixture
def opened(browser: Any, report: Path) -> Any:
    return browsing.open_page(browser, report)


def _curves(browser: Any, figure: str = CURVES) -> list[str]:
    return attributes(browser, f"{figure} g[aria-label=line] path", "d")


def test_every_line_is_drawn_as_logged_and_smoothed(opened: Any) -> None:
    assert len(texts(opened, "[data-figure] svg[role=img]")) == 5 + 4 + 3
    assert len(_curves(opened)) == 2 * (4 + 3)
    assert len(_curves(opened, "[data-figure=ablation]")) == 2 * (3 + 3 + 2 + 2)
    assert len(_curves(opened, "[data-figure=pace]")) == 2 * 3
    assert all("NaN" not in path for path in _curves(opened, "[data-figure]"))


def test_charts_speak(opened: Any) -> None:
    rows = logged_steps(160, ("divergence", "attention"), every=5)
    words = attributes(opened, f"{CURVES} svg[role=img]", "aria-label")
    assert words[:2] == ["Next-token loss over steps", "Prediction loss over steps"]
    described = attributes(opened, f"{CURVES} svg[role=img]", "aria-description")
    start, end = shown(rows[0]["divergence"]), shown(rows[-1]["divergence"])
    assert described[1] == f"{start} at step 5, {end} at step 800"


def test_dot_plots_hold_every_model_seed_and_difference(opened: Any) -> None:
    assert len(texts(opened, "[data-quality=scores] circle")) == 2 * (4 + 3)
    assert len(texts(opened, "[data-quality=differences] circle")) == 2 * 2
    labels = texts(opened, "[data-quality=scores] .panel:first-child g[aria-label^='y-axis'] text")
    assert [label.strip("\u2068\u2069") for label in labels] == [
        *("base", "SFT on answers", "KD", "KD + DAE"),
    ]


def test_smoothing_is_switched(opened: Any) -> None:
    switch = "[data-controls=curves] [data-switch=smooth]"
    before, other = _curves(opened), _curves(opened, "[data-figure=ablation]")
    click(opened, switch)
    plain = _curves(opened)
    assert len(plain) == len(before) // 2
    assert plain[0] == before[0] and plain[0] != before[1]
    assert _curves(opened, "[data-figure=ablation]") == other  # each figure has its own switches
    click(opened, switch)
    assert _curves(opened) == before


def test_logarithmic_scale_is_switched(opened: Any) -> None:
    """Equal factors are equal distances, and only this figure changes."""
    middle = (
        f"const y = document.querySelector('{CURVES} svg[role=img]').scale('y');"
        "return [y.type, y.apply(1), y.apply(2), y.apply(4)]"
    )
    before, other = _curves(opened), _curves(opened, "[data-figure=ablation]")
    assert opened.execute_script(middle)[0] == "linear"
    click(opened, "[data-controls=curves] [data-switch=log]")
    kind, *at = opened.execute_script(middle)
    assert kind == "log" and at[0] - at[1] == pytest.approx(at[1] - at[2])
    assert _curves(opened) != before and _curves(opened, "[data-figure=ablation]") == other
    assert opened.get_log("browser") == []


def test_cursor_moves_by_key_and_by_pointer(opened: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    rows = logged_steps(160, ("divergence", "attention"), every=5)
    outputs = f"{CURVES} output"
    losses = ("next_token", "divergence", "attention", "loss", "grad_norm")
    assert texts(opened, outputs)[:5] == [shown(rows[-1][name]) for name in losses]
    slider = "[data-controls=curves] [data-cursor]"
    opened.execute_script("document.querySelector(arguments[0]).focus()", slider)
    opened.switch_to.active_element.send_keys("\ue012")  # the left arrow key
    assert texts(opened, outputs)[:5] == [shown(rows[-2][name]) for name in losses]
    assert attributes(opened, slider, "aria-valuetext") == ["step 795"]
    plot = opened.find_element("css selector", f"{CURVES} .plot")
    opened.execute_script("arguments[0].scrollIntoView({ block: 'center' })", plot)
    ActionChains(opened).move_to_element(plot).perform()
    (step,) = texts(opened, "[data-controls=curves] output")
    assert 300 < int(step) < 500
    row = next(row for row in rows if row["step"] == int(step))
    assert texts(opened, outputs)[:5] == [shown(row[name]) for name in losses]


def test_numbers_read_the_same_in_python_and_script(opened: Any) -> None:
    values = [0.0, -0.0004, 836.5, 1.005, -2.5, 0.125, 1234567.891, 0.22565, 999.6, 2e-5, 5234.5]
    script = "return arguments[0].map((value) => shown(value))"
    assert opened.execute_script(script, values) == [shown(value) for value in values]


def test_a_narrow_page_draws_its_charts_again(opened: Any) -> None:
    with browsing.window(opened, 420):
        assert len(_curves(opened)) == 2 * (4 + 3)


def test_hostile_names_stay_quiet(browser: Any, tmp_path: Path) -> None:
    build_training_folder(tmp_path, steps=8)
    quality = quality_table()
    for part in (quality["rows"][3], *quality["differences"]):
        part["model"] = HOSTILE
    artifacts.write_json(tmp_path / artifacts.QUALITY, quality)
    browsing.open_page(browser, training_report.write(tmp_path))
    label = texts(browser, "[data-quality=scores] g[aria-label^='y-axis'] text")[3]
    assert label.startswith("\u2068</script>")
    assert browser.get_log("browser") == []


def test_gaps_zeros_and_single_steps_are_drawn(browser: Any, tmp_path: Path) -> None:
    """A value that is missing breaks the line; zeros leave a logarithmic chart, not the page."""
    rows = [
        {"step": i, "next_token": None if i == 15 else 2 / i, "loss": 0.0, "grad_norm.hidden": 0.0}
        for i in range(1, 31)
    ]
    write_log(tmp_path / "metrics.jsonl", rows)
    write_log(
        tmp_path / "ablation" / "attention_only" / "metrics.jsonl", [{"step": 1, "attention": 1}]
    )
    browsing.open_page(browser, training_report.write(tmp_path))
    for line in _curves(browser)[:2]:
        assert line.count("M") == 2
    assert len(_curves(browser)) == 2 * 2
    click(browser, "[data-controls=curves] [data-switch=log]")
    assert len(texts(browser, "[data-figure=ablation] circle")) == 1
    assert browser.get_log("browser") == []
    assert json.loads(texts(browser, "#data")[0])["figures"]["ablation"]["window"] == 0


def test_tables_stand_without_charts(browser: Any, tmp_path: Path) -> None:
    """A folder with a quality table alone has dot plots and no curves."""
    artifacts.write_json(tmp_path / artifacts.QUALITY, quality_table() | {"differences": []})
    browsing.open_page(browser, training_report.write(tmp_path))
    assert len(texts(browser, "svg[role=img]")) == 2
    assert browser.get_log("browser") == []
