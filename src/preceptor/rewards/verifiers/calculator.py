"""The process that compares mathematics: a line [right answer, response, seconds] in, a line out.

The line out is 1 or 0, or a text that says what is wrong with the right answer. The kernel ends the
process when one line takes more seconds of computing than it may, whatever it is doing.
"""

from __future__ import annotations

import json
import re
import signal
import sys
from typing import Any

MEMORY = 4 << 30  # bytes; an expression that needs more cannot be compared
ANCHOR = re.compile(r"\\boxed|\$|\\\(|\\\[|####|answer is", re.IGNORECASE)
PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}\s+[A-Za-z]{2,}")


def equal(wanted: str, response: str) -> int | str:
    """1 if the response's final answer equals the right one, else 0; a text if that is none."""
    from math_verify import parse, verify

    options: dict[str, Any] = {"parsing_timeout": None}  # the kernel keeps the time
    right = parse(as_text(wanted), **options)
    if not right:
        return f"the right answer holds no mathematics: {wanted[-120:]!r}"
    given = parse(response, **options)
    if any(isinstance(a, str) and a.strip() and a in given for a in right):
        return 1  # before anything is computed
    return int(verify(right, given, timeout_seconds=None))


def as_text(wanted: str) -> str:
    """A right answer as a text that an expression can be found in.

    GSM8K's form is read after `####`. A bare expression is put into a box, for LaTeX is looked for
    between delimiters alone.
    """
    wanted = wanted.rpartition("####")[2].strip()
    if ANCHOR.search(wanted) or PROSE.search(wanted):
        return wanted
    return f"\\boxed{{{wanted}}}"


def main() -> None:
    """Answer line by line until the input ends."""
    import logging
    import resource

    import math_verify  # noqa: F401 - before the clock runs

    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    for line in sys.stdin:
        wanted, response, seconds = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            found: int | str = equal(wanted, response)
        except (MemoryError, RecursionError):
            found = 0
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
