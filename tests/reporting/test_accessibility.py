"""Every page for readers with a keyboard, a screen reader, other eyes, a narrow window or paper.

axe-core (tests/vendor/axe-core) looks for what a rule can find; the rest is checked by hand.
Skipped where Chromium or Selenium is missing.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import browsing
import pytest
from pages import PAGES

AXE = Path(__file__).parents[1] / "vendor" / "axe-core" / "axe.min.js"
WIDE, NARROW = 1280, 420
RULES = {  # None: all of them, asked once; then those that could differ
    ("light", WIDE): None,
    ("dark", WIDE): ["color-contrast", "link-in-text-block"],
    ("light", NARROW): ["scrollable-region-focusable", "target-size"],
}
OPEN = """
for (const fold of document.querySelectorAll('details')) {
  const place = [...fold.parentNode.children].indexOf(fold);
  fold.open = !fold.closest('[data-print=open]') || place < 2;
}
for (const block of document.querySelectorAll('.later')) block.classList.add('chosen');
"""
CLOSE = """
for (const fold of document.querySelectorAll('details')) fold.open = false;
for (const block of document.querySelectorAll('.later')) block.classList.remove('chosen');
"""
FAULTS = """
const [rules, done] = arguments;
const options = rules ? { runOnly: { type: 'rule', values: rules } }
  : { rules: { 'target-size': { enabled: true } } };  // of WCAG 2.2, not among axe's defaults
axe.run(document, { resultTypes: ['violations'], ...options }).then((found) => done(
  found.violations.map((rule) => [rule.impact, rule.id, rule.help, rule.nodes.length,
    ...rule.nodes.slice(0, 3).map(
      (node) => `${node.target.join(' ')}: ${node.html.slice(0, 160)}`)].join(' | '))),
  (error) => done([`critical | axe failed: ${error}`]));
"""
STRUCTURE = """
const faults = [], all = (selector) => [...document.querySelectorAll(selector)];
const seen = (node) => node.checkVisibility();
const fault = (what, node) => faults.push(`${what}: ${node.outerHTML.slice(0, 160)}`);
const named = (node) => (node.getAttribute('aria-label') ?? '').trim()
  || (node.getAttribute('aria-labelledby') ?? '').split(' ')
    .some((id) => document.getElementById(id)?.textContent.trim());
if (!document.documentElement.lang) faults.push('no language');
if (!document.title.trim()) faults.push('no title');
const heads = all('h1, h2, h3, h4, h5, h6').filter(seen);
if (heads.filter((head) => head.matches('h1')).length !== 1) faults.push('not one h1');
heads.reduce((before, head) => {
  const level = Number(head.tagName[1]);
  if (level > before + 1) fault(`from h${before} to h${level}`, head);
  return level;
}, 0);
for (const th of all('th:not([scope])')) fault('no scope', th);
for (const table of all('table')) {
  if (!table.querySelector('th')) fault('a table without heads', table);
  const box = table.closest('[role=group]');
  if (!table.caption && !named(table) && !(box && named(box))) fault('a table without name', table);
}
for (const svg of all('svg:not([aria-hidden=true]):not(svg svg)')) {
  if (svg.getAttribute('role') !== 'img' || !named(svg)) fault('a chart without name', svg);
  const told = svg.getAttribute('aria-description') || svg.closest('table')
    || svg.closest('section').querySelector('table');
  if (!told) fault('a chart without a text alternative', svg);
}
for (const section of all('main > section')) if (!named(section)) fault('a section', section);
for (const own of all('input, select, textarea')) {
  if (!own.labels.length && !named(own)) fault('no label', own);
}
const ids = all('[id]').map((node) => node.id);
for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push(`twice #${id}`);
return faults;
"""
LISTEN = """
window.reached = [];
document.activeElement.blur();
document.addEventListener('focusin', (event) => {
  const look = getComputedStyle(event.target);
  const ring = look.outlineStyle !== 'none' && parseFloat(look.outlineWidth) >= 2;
  window.reached.push([event.target, ring]);
});
const all = 'a[href], button, input, select, textarea, summary, [tabindex]:not([tabindex="-1"])';
window.wanted = [...document.querySelectorAll(all)].filter(
  (node) => node.checkVisibility({ visibilityProperty: true }) && !node.disabled);
return window.wanted.length;
"""
REACHED = """
const nodes = new Set(window.reached.map(([node]) => node));
const told = (node) => node.outerHTML.slice(0, 120);
return [window.wanted.filter((node) => !nodes.has(node)).map(told),
  window.reached.filter(([, ring]) => !ring).map(([node]) => told(node)),
  window.reached[0]?.[0].matches('.skip') ?? false];
"""


@pytest.fixture(scope="module", params=sorted(PAGES))
def shown(
    request: pytest.FixtureRequest, browser: Any, page_of: Callable[[str], Path | str]
) -> Any:
    browsing.open_page(browser, page_of(request.param))
    browser.execute_script(AXE.read_text(encoding="utf-8"))
    return browser


@pytest.mark.parametrize(("theme", "width"), RULES)
def test_axe_finds_nothing(shown: Any, theme: str, width: int) -> None:
    """Everything is unfolded: what is hidden would not be looked at.

    Rules about names and structure find the same whatever the colours and the width are.
    """
    with browsing.window(shown, width):
        browsing.theme(shown, theme)
        shown.execute_script(OPEN)
        browsing.settle(shown)
        found = shown.execute_async_script(FAULTS, RULES[theme, width])
        shown.execute_script(CLOSE)
    assert found == []  # not even what axe calls moderate or minor


def test_has_an_outline_and_names_for_all(shown: Any) -> None:
    shown.execute_script(OPEN)
    browsing.settle(shown)
    faults = shown.execute_script(STRUCTURE)
    shown.execute_script(CLOSE)
    assert faults == []


def test_everything_is_reached_by_tab_and_seen_to_be(shown: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    shown.execute_script("scrollTo(0, 0); document.body.focus();")
    n = shown.execute_script(LISTEN)
    assert n > 3
    ActionChains(shown).send_keys(Keys.TAB * (n + 2)).perform()
    missed, without_ring, skip_first = shown.execute_script(REACHED)
    assert missed == [] and without_ring == []
    assert skip_first


def test_the_skip_link_leads_to_the_results(shown: Any) -> None:
    (target,) = browsing.attributes(shown, ".skip", "href")
    assert browsing.count(shown, f"main{target}[tabindex='-1'], main {target}") == 1
    browsing.click(shown, ".skip")
    inside = "return document.querySelector('main').contains(document.activeElement)"
    assert shown.execute_script(inside) or target != "#content"


def test_nothing_moves_where_the_reader_wants_rest(shown: Any) -> None:
    moving = (
        "return [...document.querySelectorAll('*')].filter((node) => {"
        "  const look = getComputedStyle(node);"
        "  return look.animationName !== 'none' || parseFloat(look.transitionDuration) > 0"
        "    || look.scrollBehavior === 'smooth';"
        "}).map((node) => node.outerHTML.slice(0, 80))"
    )
    with browsing.media(shown, prefers_reduced_motion="reduce"):
        assert shown.execute_script(moving) == []
        assert shown.execute_script("return document.getAnimations().length") == 0


def test_prints_what_was_folded_and_no_controls(shown: Any) -> None:
    """As a PDF: light, unfolded (save quoted texts: those that are open), without controls."""
    browsing.theme(shown, "dark")
    shown.execute_script(
        "window.closed = null;"
        "addEventListener('beforeprint', () => { window.closed = [...document.querySelectorAll("
        "'details:not([open])')].filter((fold) => !fold.closest('[data-print=open]')).length; },"
        " { once: true });"
    )
    printed = shown.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    document = base64.b64decode(printed["data"])
    assert document.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", document)) >= 1 and len(document) > 10_000
    assert shown.execute_script("return window.closed") == 0
    controls = (
        "#theme, .skip, .choices button, .controls :is(button, select, input), .command button"
    )
    seen = (
        "return [...document.querySelectorAll(arguments[0])]"
        ".filter((node) => node.checkVisibility()).map((node) => node.outerHTML.slice(0, 90))"
    )
    with browsing.media(shown, "print"):
        shown.execute_script("dispatchEvent(new Event('beforeprint'))")
        assert shown.execute_script(seen, controls) == []
        assert shown.execute_script(browsing.GROUND) == "rgb(255, 255, 255)"
        later = ".later, .of-choice"
        assert len(shown.execute_script(seen, later)) == browsing.count(shown, later)
        shown.execute_script("dispatchEvent(new Event('afterprint'))")
    browsing.theme(shown, "light")
