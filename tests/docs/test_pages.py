"""Every fenced block of the documentation is run, checked or parsed, as its page says.

The tutorial has a file of its own, since it is the longest.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import pytest
from blocks import ROOT, blocks_of, outcome_of, pages
from givens import Givens
from running import run_page

OF_THEIR_OWN = (ROOT / "docs" / "tutorial.md",)
WITH_BLOCKS = [page for page in pages() if page not in OF_THEIR_OWN and blocks_of(page)]


@pytest.mark.parametrize(
    "page", WITH_BLOCKS, ids=[str(page.relative_to(ROOT)) for page in WITH_BLOCKS]
)
def test_page(page: Path, tmp_path: Path, givens: Givens) -> None:
    run_page(page, tmp_path, givens)


def test_no_block_escapes() -> None:
    """Blocks are as many as pairs of fences, and each has one outcome."""
    found: Counter[str] = Counter()
    for page in pages():
        blocks = blocks_of(page)
        fences = re.findall(r"^ *(?:```|~~~)", page.read_text("utf-8"), re.MULTILINE)
        assert 2 * len(blocks) == len(fences), page
        found.update(outcome_of(block) for block in blocks)
    for outcome, number in found.most_common():
        sys.stdout.write(f"{number:4} {outcome}\n")
    assert set(OF_THEIR_OWN) <= set(pages())
