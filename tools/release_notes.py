"""What a release says: its section of the changelog.

`python -m tools.release_notes vX.Y.Z` prints the section. Its exit status is 1 where the tag is not
the version of the package, or the changelog has no dated section for it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEADING = re.compile(r"^## \[([^\]]+)\](?: - (\d{4}-\d{2}-\d{2}))?$", re.MULTILINE)


def version(root: Path = ROOT) -> str:
    """The package's version, read without importing it."""
    text = (root / "src" / "preceptor" / "__init__.py").read_text(encoding="utf-8")
    (found,) = re.findall(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    return found


def sections(root: Path = ROOT) -> dict[str, tuple[str, str]]:
    """Version (or `Unreleased`) -> (date, text), the newest first."""
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    heads = list(HEADING.finditer(text))
    ends = [*(head.start() for head in heads[1:]), len(text)]
    return {
        head[1]: (head[2] or "", text[head.end() : end].strip())
        for head, end in zip(heads, ends, strict=True)
    }


def fault(tag: str, root: Path = ROOT) -> str:
    """Why a tag makes no release; empty where it does."""
    wanted = f"v{version(root)}"
    if tag != wanted:
        return f"the tag is {tag}, the version makes it {wanted}"
    date, text = sections(root).get(version(root), ("", ""))
    if not date or not text:
        return f"CHANGELOG.md has no section `## [{version(root)}] - YYYY-MM-DD` with text"
    return ""


def main(tag: str, root: Path = ROOT) -> int:
    wrong = fault(tag, root)
    if wrong:
        print(wrong, file=sys.stderr)
        return 1
    print(sections(root)[version(root)][1])
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
