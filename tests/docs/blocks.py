"""The fenced blocks of a page, and the directives that say how a test treats each of them.

CONTRIBUTING.md, section "Documentation", is the list of directives for who writes a page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^( *)(`{3,}|~{3,}) *([\w+-]*) *(.*)$")
COMMENT = re.compile(r"^ *<!-- test: *(.*?) *-->$")
ALONE = ("plan", "output", "by", "parse")  # each says what becomes of the block
BESIDE = ("given", "with", "fails", "settings", "into")  # these may stand beside others
SHELL = ("sh", "bash")


class PageError(AssertionError):
    """A block that cannot be run, or did not do what its page says."""


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, what it holds, what its directives say.

    Attributes:
        place: `page:line`, for messages.
        directives: name and the text after it, in their order.
    """

    page: Path
    line: int
    language: str
    title: str
    text: str
    directives: tuple[tuple[str, str], ...]

    @property
    def place(self) -> str:
        near = self.page.is_relative_to(ROOT)
        return f"{self.page.relative_to(ROOT) if near else self.page}:{self.line}"

    def said(self, name: str) -> list[str]:
        """What the directives of a name say, in their order."""
        return [text for own, text in self.directives if own == name]


def pages() -> list[Path]:
    """All pages whose blocks are run."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page, in their order (raises PageError)."""
    return list(read_blocks(page, page.read_text("utf-8").splitlines()))


def read_blocks(page: Path, lines: list[str]) -> Iterator[Block]:
    """The blocks of a page's lines, in their order (raises PageError)."""
    said: list[tuple[str, str]] = []
    rows = enumerate(lines, 1)
    for number, line in rows:
        comment, fence = COMMENT.match(line), FENCE.match(line)
        if comment:
            name, _, text = comment[1].partition(" ")
            said.append((name, text.strip()))
            continue
        if line.lstrip().startswith("<!-- test"):
            raise PageError(f"{page}:{number}: a directive is one line by itself")
        if not fence:
            if said:
                raise PageError(f"{page}:{number}: a directive stands on the line before a block")
            continue
        indent, mark, language, rest = fence.groups()
        title = re.fullmatch(r'title="([\w./-]+)"', rest.strip())
        if rest.strip() and not title:
            raise PageError(f"{page}:{number}: a fence has a language and a title, not {rest!r}")
        text = []
        for _, inner in rows:
            if inner.strip() == mark:
                break
            text.append(inner.removeprefix(indent))
        else:
            raise PageError(f"{page}:{number}: the block has no end")
        body = "\n".join(text) + "\n"
        yield Block(page, number, language, title[1] if title else "", body, tuple(said))
        said = []


def outcome_of(block: Block) -> str:
    """What becomes of a block, in words (raises PageError where its directives do not say one)."""
    names = [name for name, _ in block.directives]
    for name in names:
        if name not in (*ALONE, *BESIDE):
            raise PageError(f"{block.place}: unknown directive {name!r}")
    alone = [name for name in names if name in ALONE]
    if len(alone) > 1:
        raise PageError(f"{block.place}: {' and '.join(alone)} exclude each other")
    _refuse_misplaced(block, names)
    if alone == ["by"]:
        return "run by a test of its own"
    if alone == ["output"]:
        return "compared with what was printed"
    if alone == ["parse"]:
        if len(block.said("parse")[0].split()) < 2:
            raise PageError(f"{block.place}: `parse` needs a reason, in words")
        return "parsed"
    if block.language in SHELL:
        return "planned" if alone else "run, made small" if "with" in names else "run"
    if block.language in ("python", "sql"):
        return "run"
    if block.language == "yaml":
        return "checked as settings"
    if block.language == "json":
        return "read"
    if block.title:
        return "written for other blocks"
    raise PageError(
        f"{block.place}: a {block.language or 'plain'} block needs a title or a directive"
    )


def _refuse_misplaced(block: Block, names: list[str]) -> None:
    fits = {
        "plan": block.language in SHELL,
        "with": block.language in SHELL,
        "fails": block.language in (*SHELL, "python"),
        "settings": block.language == "yaml",
        "into": block.language == "yaml",
        "output": block.language not in (*SHELL, "python", "sql"),
    }
    for name in names:
        if not fits.get(name, True):
            raise PageError(f"{block.place}: {name!r} says nothing of a {block.language} block")
        if name in ("given", "with", "by", "into") and not all(block.said(name)):
            raise PageError(f"{block.place}: {name!r} names nothing")
