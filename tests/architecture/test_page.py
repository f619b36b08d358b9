"""`docs/architecture.md` says of the code what is so: rooms, files, layers, extras."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tools import house

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CODE = re.compile(r"`([^`\n]+)`")
# of an extra's requirements, what the package imports under another name
MODULES = {"math-verify": "math_verify", "lm-eval": "lm_eval"}


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"the page has no section {title!r}"
    return found.group(1)


def rows(text: str) -> Iterator[list[str]]:
    """Cells of each table row, heads and rules left out."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and not set(line) <= set("|- "):
            yield cells


def rooms() -> dict[str, str]:
    """What stands in the rows of each room; a row that begins with `…` goes on with the last."""
    found: dict[str, str] = {}
    last = ""
    for first, what in list(rows(section("Rooms")))[1:]:
        if not first.startswith("…"):
            last = CODE.findall(first)[0].rstrip("/")
        found[last] = f"{found.get(last, '')} {first if first.startswith('…') else ''} {what}"
    return found


def is_there(name: str) -> bool:
    """A file, folder or pattern: in the package, or in the repository."""
    return any(any(place.glob(name.rstrip("/"))) for place in (house.PACKAGE, ROOT))


def test_every_room_has_a_row() -> None:
    real = {path.name for path in house.PACKAGE.iterdir() if (path / "__init__.py").exists()}
    files = {path.name for path in house.PACKAGE.glob("*.py")} - {"__init__.py"}
    named = set(rooms()) | set(CODE.findall(" ".join(rooms().values())))
    assert {own.removesuffix(".py") for own in rooms()} >= real
    assert {own for own in rooms() if not own.endswith(".py")} == real
    assert files <= named, "a file at the top of the package is in no row"


@pytest.mark.parametrize("room", list(rooms()))
def test_files_of_a_room_exist(room: str) -> None:
    """`name.py`, `folder/` and `pattern_*` in a row are looked for in its room."""
    for name in CODE.findall(rooms()[room]):
        if re.fullmatch(r"[\w*/]+(\.py|/)|[\w.]*\*[\w.*]*", name):
            inside = any((house.PACKAGE / room).rglob(name.rstrip("/")))
            assert inside or is_there(name), f"{room}: {name}"


def shelves() -> set[str]:
    """Rooms whose `__init__.py` holds tables."""
    return {
        path.parent.name
        for path in house.PACKAGE.glob("*/__init__.py")
        if any(isinstance(node, ast.Assign) for node in house.parse(path).body)
    }


def names_of(room: str) -> set[str]:
    tree = house.parse(house.PACKAGE / room / "__init__.py")
    tables = [node.value for node in tree.body if isinstance(node, ast.Assign)]
    return {name for table in tables for name in ast.literal_eval(table)}


def test_shelves_are_marked_and_their_names_exist() -> None:
    marked = {
        CODE.findall(first)[0].rstrip("/"): what
        for first, what in list(rows(section("Rooms")))[1:]
        if "▣" in first
    }
    assert set(marked) == shelves()
    for room, what in marked.items():
        plain = {name for name in CODE.findall(what) if re.fullmatch(r"[a-z][a-z_0-9]+", name)}
        assert plain and plain <= names_of(room), room


def paths() -> list[str]:
    """Paths in prose and tables below the rooms, placeholders left out."""
    text = PAGE.partition("## Imports run down")[2]
    found = [name.partition(":")[0] for name in CODE.findall(text)]
    is_path = re.compile(r"[\w.*-]+/[\w.*/-]+|\w+\.(?:py|toml)")
    return sorted({name for name in found if is_path.fullmatch(name) and "NAME" not in name})


@pytest.mark.parametrize("path", paths())
def test_what_the_page_names_exists(path: str) -> None:
    bare = "/" not in path and any(house.PACKAGE.rglob(path))
    assert (is_there(path) or bare) == (path != "utils.py"), path  # "there is no `utils.py`"


@cache
def defined(path: str) -> set[str]:
    """Names that a file defines at its top."""
    tree = house.parse(house.PACKAGE / path)
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else []
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def test_what_a_file_is_said_to_hold_is_in_it() -> None:
    """`path: name` and `name` of `path`."""
    said = re.findall(r"`([\w/]+\.py): (\w+)`", PAGE)
    said += [(path, name) for name, path in re.findall(r"`(\w+)`\s+of\s+`([\w/]+\.py)`", PAGE)]
    assert len(said) > 8
    for path, name in said:
        assert name in defined(path), f"{path} defines no {name}"


def layers(container: str = "preceptor") -> list[set[str]]:
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    (contract,) = (c for c in contracts if c.get("containers") == [container])
    return [set(map(str.strip, row.split("|"))) for row in contract["layers"]]


def listed(title: str, text: str) -> list[set[str]]:
    """The layers that stand after a title."""
    (found,) = re.findall(rf"\*\*{title}\*\*[^`]*((?:`[^`]+`[\s→]*)+)", text)
    return [set(map(str.strip, row.split("|"))) for row in CODE.findall(found)]


def test_the_layers_are_the_contract() -> None:
    """In the lists, and in the picture above them."""
    text = section("Imports run down")
    assert listed("Layers", text) == layers()
    assert listed("Rooms of the recipes", text) == layers("preceptor.recipes")
    assert listed("Floors of a report", text) == layers("preceptor.reporting")
    rooms = {path.parent.name for path in (house.PACKAGE / "reporting").glob("*/__init__.py")}
    assert rooms == set().union(*layers("preceptor.reporting"))
    (picture,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    drawn = [set(re.findall(r"\w+", line)) for line in picture.splitlines()]
    assert [row for row in drawn if row] == layers()


def test_the_heavy_contract_is_told() -> None:
    """Which libraries, and who reaches none of them."""
    (contract,) = (
        c for c in PROJECT["tool"]["importlinter"]["contracts"] if c["type"] == "forbidden"
    )
    (told,) = re.findall(r"\*\*Heavy libraries\.\*\*(.*?)\n\n", section("Imports run down"), re.S)
    for name in contract["forbidden_modules"]:
        assert name in told
    for module in contract["source_modules"]:
        name = module.removeprefix("preceptor.").removeprefix("recipes.")
        assert f"`{name}`" in told, name


# extras


def module_of(requirement: str) -> str:
    name = re.split(r"[\[<>=~ ;]", requirement)[0]
    return MODULES.get(name, name.replace("-", "_"))


def imported(path: Path) -> set[str]:
    """Top names of what a file imports, also inside functions and by `import_module`."""
    found = set()
    for node in ast.walk(house.parse(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            text = ast.unparse(node.args[0]).lstrip("f").strip("'\"")
            found.add(text)
    return {name.partition(".")[0] for name in found}


def sites() -> dict[str, set[str]]:
    """The files that import what an extra brings, by extra; extras of none are left out."""
    always = {module_of(own) for own in PROJECT["project"]["dependencies"]}
    by_file = {
        str(path.relative_to(house.PACKAGE)): imported(path) for path in house.python_files()
    }
    found = {}
    for extra, requirements in PROJECT["project"]["optional-dependencies"].items():
        if extra in ("test", "dev", "docs"):
            continue
        brought = {module_of(own) for own in requirements} - always
        files = {name for name, modules in by_file.items() if modules & brought}
        if files:
            found[extra] = files
    return found


def test_the_table_of_extras_is_the_imports() -> None:
    text = section("Imports run down")
    table = {cells[0].strip("`"): cells[2] for cells in rows(text)}
    assert table.pop("Extra") == "Imported by"
    assert {extra: set(CODE.findall(files)) for extra, files in table.items()} == sites()
    assert {"train", "openai", "vllm", "ray", "verify", "lm-eval"} <= set(table)
