"""How long files and functions are, room by room, and whether that is short enough.

`python -m tools.house` prints the table. Its exit status is 1 where a limit is broken, and the
lines below the table say where. A room is a folder of the package; a file at its top is one, too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "preceptor"


@dataclass(frozen=True)
class Limit:
    """In lines: what nine of ten must not exceed, and what none may."""

    p90: int
    most: int


FILE = Limit(p90=400, most=400)
FUNCTION = Limit(p90=40, most=80)


@dataclass(frozen=True)
class Measured:
    """One file: its place in the package, its lines, and the lines of each of its functions."""

    path: Path
    lines: int
    functions: tuple[tuple[str, int], ...]

    @property
    def room(self) -> str:
        return self.path.parts[0]


@cache
def parse(path: Path) -> ast.Module:
    """The syntax tree of a file, read once."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def python_files(package: Path = PACKAGE) -> list[Path]:
    return sorted(package.rglob("*.py"))


def measure(package: Path = PACKAGE) -> list[Measured]:
    """Every Python file below a folder; a nested function counts by itself and in its outer one."""
    return [
        Measured(
            path.relative_to(package),
            len(path.read_text(encoding="utf-8").splitlines()),
            tuple(_functions(parse(path))),
        )
        for path in python_files(package)
    ]


def _functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def percentile(lengths: Sequence[int], share: float) -> int:
    """The least length that at least `share` of all lengths do not exceed; 0 of none."""
    ordered = sorted(lengths)
    places = (n for n in range(len(ordered)) if n + 1 >= share * len(ordered))
    return ordered[next(places)] if ordered else 0


def faults(files: Sequence[Measured]) -> list[str]:
    """What is too long, each in one line."""
    found = [
        f"{file.path}: {file.lines} lines, {FILE.most} are the limit"
        for file in files
        if file.lines > FILE.most
    ]
    found += [
        f"{file.path}: {name} has {lines} lines, {FUNCTION.most} are the limit"
        for file in files
        for name, lines in file.functions
        if lines > FUNCTION.most
    ]
    lengths = {
        "files": ([file.lines for file in files], FILE),
        "functions": ([lines for file in files for _, lines in file.functions], FUNCTION),
    }
    found += [
        f"p90 of {what}: {most} lines, {limit.p90} are the limit"
        for what, (all_of, limit) in lengths.items()
        if (most := percentile(all_of, 0.9)) > limit.p90
    ]
    return found


def table(files: Sequence[Measured]) -> Iterator[str]:
    """A line a room, and one of all."""
    yield f"{'':16} {'':>5} {'':>7}   lines of a file   lines of a function"
    yield f"{'room':16} {'files':>5} {'lines':>7}   p50  p90  max   {'number':>6}  p50  p90  max"
    rooms = sorted({file.room for file in files})
    for name in [*rooms, "all"]:
        own = [file for file in files if name in (file.room, "all")]
        lengths = [file.lines for file in own]
        inner = [lines for file in own for _, lines in file.functions]
        yield (
            f"{name:16} {len(own):>5} {sum(lengths):>7}  {_three(lengths)}  "
            f"{len(inner):>6} {_three(inner)}"
        )


def _three(lengths: Sequence[int]) -> str:
    three = percentile(lengths, 0.5), percentile(lengths, 0.9), max(lengths, default=0)
    return " ".join(f"{number:>4}" for number in three)


def main(package: Path = PACKAGE) -> int:
    files = measure(package)
    for line in table(files):
        print(line)
    wrong = faults(files)
    for line in wrong:
        print(f"too long: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
