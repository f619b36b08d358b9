"""Rate limits: token buckets, and the line of those who wait for them.

A token bucket holds at most `capacity` and is filled evenly. Who takes more than it holds at most
waits until it is full, and leaves it in debt: so large requests pass too, and the rate is kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

BURST = 0.1  # of a minute's amount may be taken at once
MOMENT = 1e-6  # seconds; less is rounding
GLANCE_SECONDS = 1.0  # longest sleep in the line: something may have been given back meanwhile


class Bucket:
    """A token bucket without a clock of its own: every call says what time it is.

    In any span of s seconds at most (s / 60 + BURST) * per_minute are taken, or that and one
    amount where amounts are larger than the burst.

    Args:
        per_minute: what flows in per minute; the bucket is full at first.
        now: the time, in seconds.
    """

    def __init__(self, per_minute: float, now: float) -> None:
        self.per_second = per_minute / 60
        self.capacity = max(per_minute * BURST, 1.0)
        self.level, self._filled = self.capacity, now

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be taken; 0 if now."""
        self._fill(now)
        lacking = min(amount, self.capacity) - self.level
        seconds = lacking / self.per_second
        return seconds if seconds > MOMENT else 0.0

    def take(self, amount: float, now: float) -> None:
        self._fill(now)
        self.level -= amount

    def give_back(self, amount: float) -> None:
        """What was taken and not needed; a negative amount was needed beside it."""
        self.level = min(self.level + amount, self.capacity)

    def _fill(self, now: float) -> None:
        flowed = (now - self._filled) * self.per_second
        self.level = min(self.level + max(flowed, 0.0), self.capacity)
        self._filled = now


class RateLimit:
    """Requests and tokens per minute, first come, first served.

    Args:
        requests_per_minute, tokens_per_minute: None is no limit.
        now, sleep: the clock, in seconds.
    """

    def __init__(
        self,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._now, self._sleep = now, sleep
        self._requests = Bucket(requests_per_minute, now()) if requests_per_minute else None
        self._tokens = Bucket(tokens_per_minute, now()) if tokens_per_minute else None
        self._open_at = now()
        self._line = asyncio.Lock()  # wakes in the order of arrival

    async def admit(self, n_tokens: float) -> float:
        """Return when a request of so many tokens may start; gives the seconds waited."""
        arrived = self._now()
        async with self._line:
            while (seconds := self._wait(n_tokens, self._now())) > 0:
                await self._sleep(min(seconds, GLANCE_SECONDS))
            for bucket, amount in ((self._requests, 1), (self._tokens, n_tokens)):
                if bucket:
                    bucket.take(amount, self._now())
        return self._now() - arrived

    def settle(self, reserved: float, used: float) -> None:
        """Of the tokens that a request reserved, so many were used."""
        if self._tokens:
            self._tokens.give_back(reserved - used)

    def pause(self, seconds: float) -> None:
        """Admit nobody for so long: the server has said so."""
        self._open_at = max(self._open_at, self._now() + seconds)

    def _wait(self, n_tokens: float, now: float) -> float:
        waits = [self._open_at - now if self._open_at - now > MOMENT else 0.0]
        waits += [self._requests.wait(1, now)] if self._requests else []
        waits += [self._tokens.wait(n_tokens, now)] if self._tokens else []
        return max(waits)
