"""Whether a page shows what its commands print."""

from __future__ import annotations

import re
from pathlib import Path

from blocks import Block, PageError, read_blocks

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")
LEFT_OUT = ("…", "...")


def check_output(block: Block, found: str) -> None:
    """The block's lines are those that were printed (raises PageError, which shows both)."""
    parted = (word.partition("=") for word in block.said("output")[0].split())
    options = {name: value for name, _, value in parted}
    unknown = set(options) - {"last-digit", "within", "numbers"}
    if unknown:
        raise PageError(f"{block.place}: `output` has no option {', '.join(unknown)}")
    shown, printed = _lines(block.text), _lines(found)
    if all(line.strip() in LEFT_OUT for line in shown):
        raise PageError(f"{block.place}: nothing is shown of what was printed")
    parts: list[list[str]] = [[]]
    for line in shown:
        if line.strip() in LEFT_OUT:
            parts.append([])
        else:
            parts[-1].append(line)
    place = 0
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        starts = range(place, len(printed) - len(part) + 1)
        if number == 0:
            starts = starts[:1]
        if last and part:
            starts = starts[-1:]
        for start in starts:
            if _same(part, printed[start : start + len(part)], options):
                place = start + len(part)
                break
        else:
            _fail(block, found)
    if len(parts) == 1 and place != len(printed):
        _fail(block, found)


def _fail(block: Block, found: str) -> None:
    raise PageError(f"{block.place}: shown is\n{block.text}\nprinted was\n{found}")


def _lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.splitlines()]
    while lines and not lines[0]:
        lines.pop(0)
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _same(shown: list[str], printed: list[str], options: dict[str, str]) -> bool:
    return all(_alike(*pair, options) for pair in zip(shown, printed, strict=True))


def _alike(shown: str, printed: str, options: dict[str, str]) -> bool:
    if not options:
        return shown == printed
    if _words(shown) != _words(printed):
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True)
    return all(_near(a.replace(",", ""), b.replace(",", ""), options) for a, b in pairs)


def _words(line: str) -> str:
    """A line without its numbers; spaces and ruled lines count once."""
    return " ".join(re.sub(r"─+", "─", NUMBER.sub("#", line)).split())


def _near(shown: str, printed: str, options: dict[str, str]) -> bool:
    if options.get("numbers") == "any" or shown == printed:
        return True
    gap = abs(float(shown) - float(printed))
    decimals = len(shown.partition(".")[2])
    allowed = int(options.get("last-digit", 0)) * 10**-decimals
    share = float(options.get("within", "0").rstrip("%")) / 100 * abs(float(shown))
    return gap <= max(allowed, share) * (1 + 1e-9)


def with_output(page: Path, text: str, number: int, found: str) -> str:
    """The text of a page with what was printed in its block of this number.

    A block in which lines are left out is compared instead (raises PageError).
    """
    block = list(read_blocks(page, text.splitlines()))[number]
    if any(line.strip() in LEFT_OUT for line in _lines(block.text)):
        check_output(block, found)
        return text
    lines, first = text.split("\n"), block.line
    last = next(
        place for place in range(first, len(lines)) if re.match(r" *(```|~~~)", lines[place])
    )
    return "\n".join(lines[:first] + _lines(found) + lines[last:])
