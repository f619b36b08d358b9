"""The tutorial, word for word: every command is run, and every output is compared."""

from __future__ import annotations

import re
from pathlib import Path

from blocks import ROOT, blocks_of, outcome_of
from givens import Givens
from running import run_page

PAGE = ROOT / "docs" / "tutorial.md"


def test_tutorial(tmp_path: Path, givens: Givens) -> None:
    run_page(PAGE, tmp_path, givens)


def test_nothing_is_assumed_or_made_small() -> None:
    """A newcomer starts from an empty folder, and types what is shown."""
    for block in blocks_of(PAGE):
        names = {name for name, _ in block.directives}
        assert not names & {"given", "with", "plan", "by", "into"}, block.place
        if outcome_of(block) == "parsed":
            assert "pip install" in block.text or "preceptor serve" in block.text, block.place


def test_the_demo_types_what_make_does() -> None:
    [recipe] = re.findall(r"^demo:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    typed = [block.text for block in blocks_of(ROOT / "docs" / "demo.md")]
    assert recipe.replace("\t$(BIN)/", "") in typed
