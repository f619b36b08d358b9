"""Files and functions stay small enough to read, and every file says what it is for."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tools import house

FILES = house.python_files()


def short(path: Path) -> str:
    return str(path.relative_to(house.PACKAGE))


def test_the_house_is_within_its_limits() -> None:
    files = house.measure()
    assert len(files) > 40 and len(files) == len(FILES)
    assert house.PACKAGE / "cli.py" in FILES
    assert house.faults(files) == []
    assert house.Limit(400, 400) == house.FILE
    assert house.Limit(40, 80) == house.FUNCTION


@pytest.mark.parametrize("file", FILES, ids=short)
def test_a_file_says_what_it_is_for(file: Path) -> None:
    assert ast.get_docstring(house.parse(file)), "the file has no docstring"


def test_packages_do_no_work() -> None:
    """`__init__.py` holds a docstring and at most tables of names."""
    for file in house.PACKAGE.glob("*/**/__init__.py"):
        for node in house.parse(file).body:
            assert isinstance(node, ast.Assign | ast.Expr), f"{file}: {ast.dump(node)[:60]}"
            if isinstance(node, ast.Assign):
                assert isinstance(ast.literal_eval(node.value), dict | str), file


def test_the_package_itself_imports_what_is_asked_for() -> None:
    """At its top it imports `typing` alone; the names of the API come through `__getattr__`."""
    for node in house.parse(house.PACKAGE / "__init__.py").body:
        if isinstance(node, ast.ImportFrom):
            assert node.module in ("__future__", "typing")
        elif isinstance(node, ast.If):
            assert ast.unparse(node.test) == "TYPE_CHECKING" and not node.orelse
        elif isinstance(node, ast.FunctionDef):
            assert node.name in ("__getattr__", "__dir__")
        elif isinstance(node, ast.Assign):
            assert isinstance(ast.literal_eval(node.value), dict | list | str)
        else:
            assert isinstance(node, ast.Expr), ast.dump(node)[:60]


def body(lines: int) -> str:
    return "".join(f"    x = {n}\n" for n in range(lines - 1))


def test_what_is_too_long_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Counted by hand: a file of 401 lines, a function of 81, and others at the limits."""
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "long.py").write_text("x = 1\n" * 401)
    (tmp_path / "room" / "full.py").write_text("x = 1\n" * 400)
    wide = f"def wide():\n{body(81)}\n\n"
    within = f"def within():\n    def inner():\n        pass\n{body(78)}"
    (tmp_path / "top.py").write_text(wide + within)
    assert house.main(tmp_path) == 1
    told = capsys.readouterr()
    assert told.err.splitlines() == [
        "too long: room/long.py: 401 lines, 400 are the limit",
        "too long: top.py: wide has 81 lines, 80 are the limit",
        "too long: p90 of files: 401 lines, 400 are the limit",
        "too long: p90 of functions: 81 lines, 40 are the limit",
    ]
    rows = {line.split()[0]: line.split()[1:] for line in told.out.splitlines()[2:]}
    assert rows["room"] == "2 801 400 401 401 0 0 0 0".split()
    assert rows["top.py"] == "1 163 163 163 163 3 80 81 81".split()
    assert rows["all"] == "3 964 400 401 401 3 80 81 81".split()


def test_percentiles_by_hand() -> None:
    assert [house.percentile(range(1, 11), share) for share in (0.5, 0.9, 1.0)] == [5, 9, 10]
    assert house.percentile([7], 0.9) == 7 and house.percentile([], 0.9) == 0
