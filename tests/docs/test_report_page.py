"""The page on reading a report tells of every section that the report has, under its own name."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "src" / "preceptor" / "reporting"
OF_A_SELECTION = ("pages/select/*.html.j2", "parts/*.html.j2")


def sections() -> set[str]:
    """Headings of the report's sections, up to what is filled in."""
    files = sorted(file for pattern in OF_A_SELECTION for file in TEMPLATES.glob(pattern))
    texts = [file.read_text("utf-8") for file in files]
    found = {head for text in texts for head in re.findall(r"<h2[^>]*>(.*?)</h2>", text)}
    plain = {re.sub(r"\{.*", "", head).strip() for head in found}
    return {head for head in plain if head}


def test_every_section_is_told() -> None:
    page = (ROOT / "docs" / "how-to" / "read-the-report.md").read_text("utf-8")
    told = re.findall(r"^## (.*)$", page, re.MULTILINE)
    found = sections()
    assert {"Leaderboard", "Sample answers", "Winners by", "Do the criteria agree?"} <= found
    for head in found:
        assert any(own == head or own.startswith(f"{head} ") for own in told), head
    for own in told[1:]:  # the first is about the sentence at the top, which has no heading
        assert any(own == head or own.startswith(f"{head} ") for head in found), own
