"""How long to wait before asking a server again."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

FIRST_WAIT = 1.0  # seconds; doubled with every further try
LONGEST_WAIT = 60.0


def backoff(tries: int) -> float:
    """Seconds to wait after `tries` >= 1 failed tries: exponential, with full jitter.

    Drawn evenly from 0 to min(LONGEST_WAIT, FIRST_WAIT * 2 ** (tries - 1)), so that many clients
    do not come back at the same moment.

    Source: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    return random.random() * min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(tries - 1, 60))


def asked_wait(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that the server asks to wait (`Retry-After`, RFC 9110, 10.2.3); None if it does not.

    Args:
        headers: of the reply, lower case or a mapping that does not mind.
        now: seconds since the epoch; the present when not given.
    """
    said = headers.get("retry-after")
    if said is None:
        return None
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(said).timestamp() - (
                time.time() if now is None else now
            )
        except ValueError:
            return None
    return max(seconds, 0.0) if seconds < float("inf") else None
