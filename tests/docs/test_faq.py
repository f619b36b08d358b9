"""Every error that the page of questions quotes is one that the code can raise."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "faq.md").read_text("utf-8")
HEADS = re.findall(r"^### (.*)$", PAGE, re.MULTILINE)
QUOTED = [
    (doubled or single).strip()
    for head in HEADS
    for doubled, single in re.findall(r"``(.+?)``|`([^`]+)`", head)
]
ERRORS = ("PreceptorError", "SettingsError", "DataError", "ModelError", "RunFolderError", "Refusal")


def as_pattern(node: ast.expr) -> list[str]:
    """Regular expressions of the texts that an expression can be."""
    if isinstance(node, ast.Constant):
        return [re.escape(str(node.value))]
    if isinstance(node, ast.JoinedStr):
        parts = [
            re.escape(str(p.value)) if isinstance(p, ast.Constant) else ".*?" for p in node.values
        ]
        return ["".join(parts)]
    if isinstance(node, ast.IfExp):
        return [*as_pattern(node.body), *as_pattern(node.orelse)]
    if isinstance(node, ast.BinOp):
        return [f"{a}{b}" for a in as_pattern(node.left) for b in as_pattern(node.right)]
    return []  # a name: its text is made elsewhere


def raised() -> list[re.Pattern[str]]:
    """What errors of the package say first."""
    found = []
    for file in sorted((ROOT / "src" / "preceptor").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and node.args:
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if name in ERRORS or name.startswith(("_fail", "_no_", "_refus", "refuse_")):
                    found += as_pattern(node.args[0])
    return [re.compile(pattern) for pattern in found if re.sub(r"\.\*\?|\W", "", pattern)]


RAISED = raised()


@pytest.mark.parametrize("message", QUOTED)
def test_a_quoted_error_is_raised(message: str) -> None:
    assert any(pattern.fullmatch(message) for pattern in RAISED), message


def test_the_test_can_fail() -> None:
    assert len(QUOTED) >= 30 and len(set(QUOTED)) == len(QUOTED)
    assert not any(pattern.fullmatch("the model is tired") for pattern in RAISED)
    for message in QUOTED:  # no pattern is so wide that it takes any of them
        assert not any(pattern.fullmatch(f"zzz {message} zzz") for pattern in RAISED), message
