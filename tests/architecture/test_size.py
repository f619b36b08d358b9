"""Files and functions stay small enough to read, and every file says what it is for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import preceptor

PACKAGE = Path(preceptor.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
FILE_LINES, FUNCTION_LINES = 400, 80


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_there_is_something_to_measure() -> None:
    assert len(FILES) > 40 and PACKAGE / "cli.py" in FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_file(file: Path) -> None:
    text = file.read_text("utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) <= FILE_LINES
    assert ast.get_docstring(tree), "the file has no docstring"
    long = {
        node.name: lines
        for node in functions(tree)
        if (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES
    }
    assert long == {}


def test_most_functions_fit_on_a_screen() -> None:
    lengths = sorted(
        (node.end_lineno or 0) - node.lineno + 1
        for file in FILES
        for node in functions(ast.parse(file.read_text("utf-8")))
    )
    assert lengths[int(0.9 * len(lengths))] <= 40


def test_packages_do_no_work() -> None:
    """`__init__.py` holds a docstring and at most tables of names."""
    for file in PACKAGE.rglob("__init__.py"):
        for node in ast.parse(file.read_text("utf-8")).body:
            assert isinstance(node, ast.Assign | ast.Expr), f"{file}: {ast.dump(node)[:60]}"
            if isinstance(node, ast.Assign):
                assert isinstance(ast.literal_eval(node.value), dict | str), file
