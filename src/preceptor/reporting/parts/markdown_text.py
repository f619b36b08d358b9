"""Markdown that holds text of strangers, and stays text wherever it is pasted.

Pull requests, model cards and chats each read their own Markdown. Two forms are inert in all of
them: `code` (nothing inside is read, mentions and links included), and `prose`, in which every
character that could begin markup is escaped and every token that a site would link is broken by a
WORD JOINER, which takes no room.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from preceptor.reporting.parts.page import marked, visible
from preceptor.reporting.parts.tables import PLAIN, Presented

_JOINER = "\u2060"
# Controls of the direction of text, and other characters that nobody sees.
_DISGUISE = re.compile("[\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\x80-\x9f]")
_MARKUP = re.compile(r"([\\`*_{}\[\]<>|~$&!])")
_LINE_START = re.compile(r"^([#+=:>-]|\d+[.)](?=\s|$))")
# What sites link in plain text: mentions and mails, numbers of issues, addresses, emoji.
_LINKED = re.compile(
    r"(@)(?=\w)|((?:https?|ftp|mailto|xmpp):)|(www)(?=\.)|(#|GH-)(?=\d)|(:)(?=[\w+-]+:)",
    re.IGNORECASE,
)


def one_line(text: object) -> str:
    """Text on one line: white space joined, what would disguise it replaced."""
    return _shown(" ".join(str(text).split()))


def _shown(line: str) -> str:
    return _DISGUISE.sub("\ufffd", visible(line)).encode("utf-8", "replace").decode("utf-8")


def prose(text: object) -> str:
    """Text among words: no markup, link, image, mention or table border in it becomes active."""
    escaped = _MARKUP.sub(r"\\\1", one_line(text))
    escaped = _LINE_START.sub(_shielded, escaped)
    return _LINKED.sub(lambda hit: hit[0] + _JOINER, escaped)


def _shielded(hit: re.Match[str]) -> str:
    """A number of a list is escaped at its point, anything else at its first character."""
    token = hit[0]
    return f"{token[:-1]}\\{token[-1]}" if token[0].isdigit() else f"\\{token}"


def code(text: object, in_table: bool = False) -> str:
    """A name as a code span; in a table, a bar in it is escaped as tables ask for."""
    kept = one_line(text)
    if in_table:  # after a backslash, renderers disagree on whether a bar ends the cell
        kept = kept.replace("\\|", "\\¦").replace("|", "\\|")
    if not kept:
        return "–"
    longest = max((len(run) for run in re.findall("`+", kept)), default=0)
    fence = "`" * (longest + 1)
    space = " " if kept[0] in "` " or kept[-1] in "` " else ""
    return f"{fence}{space}{kept}{space}{fence}"


def block(text: str, language: str = "") -> str:
    """Lines as a fenced block, which nothing inside can end."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    kept = "\n".join(_shown(line) for line in lines)
    longest = max((len(run) for run in re.findall("`+", kept)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{kept}\n{fence}"


def sentence(text: str, names: Iterable[str]) -> str:
    """Prose in which every one of `names` stands as code."""
    known = [one_line(name) for name in names if len(name) > 1]
    parts = marked(one_line(text), known)
    return "".join(
        code(part) if named else _between(part, first=i == 0)
        for i, (part, named) in enumerate(parts)
    )


def _between(part: str, first: bool) -> str:
    """Words between names, with the spaces at their ends."""
    if not part.strip():
        return part
    head, tail = part[: len(part) - len(part.lstrip())], part[len(part.rstrip()) :]
    body = prose(part)
    if not first and re.match(r"\\[#+=:-]", body):  # it does not begin a line
        body = body[1:]
    return head + body + tail


def grid(own: Presented) -> str:
    """A table; names of the data stand as code, numbers to the right."""
    if not own.rows:
        return ""
    lines = [
        _line([prose(head) for head in own.heads]),
        _line([":--" if text else "--:" for text in own.text]),
    ]
    for cells, names in zip(own.rows, own.names, strict=True):
        columns = zip(own.sources, cells, names, strict=True)
        lines.append(_line([_cell(*column) for column in columns]))
    return "\n".join(lines)


def _cell(column: str, text: str, named: bool) -> str:
    if not named:
        return text  # a number of ours
    return prose(text) if column in PLAIN else code(text, in_table=True)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
