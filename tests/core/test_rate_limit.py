"""Token buckets and waits, on a clock that the tests turn."""

from __future__ import annotations

import asyncio
import random

import pytest

from preceptor.core import retrying
from preceptor.core.rate_limit import BURST, Bucket, RateLimit
from preceptor.core.retrying import asked_wait, backoff


class Clock:
    """Time that passes in sleeps alone; sleepers wake in the order of their times."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        await asyncio.sleep(0)


def admitted(
    requests: float | None, tokens: float | None, amounts: list[float], pause: float = 0.0
) -> list[float]:
    """Seconds after the start at which requests of these token amounts are admitted."""
    clock = Clock()

    async def main() -> list[float]:
        limit = RateLimit(requests, tokens, clock, clock.sleep)
        if pause:
            limit.pause(pause)

        async def one(amount: float) -> float:
            await limit.admit(amount)
            return clock.now - 1000

        return await asyncio.gather(*(one(amount) for amount in amounts))

    return asyncio.run(main())


def test_a_bucket_by_hand() -> None:
    """120 a minute: 2 flow in each second, 12 fit in."""
    bucket = Bucket(120, now=0)
    assert bucket.capacity == 12
    assert bucket.wait(12, 0) == 0
    bucket.take(12, 0)
    assert bucket.wait(1, 0) == 0.5
    assert bucket.wait(1, 0.25) == 0.25
    assert bucket.wait(1, 0.5) == 0
    bucket.take(1, 0.5)
    assert bucket.wait(4, 100) == 0 and bucket.level == 12  # never more than fits in
    bucket.take(30, 100)  # more than fits in: a debt of 18
    assert bucket.wait(1, 100) == pytest.approx(9.5)
    bucket.give_back(25)
    assert bucket.level == 7


def test_more_than_a_bucket_holds_waits_until_it_is_full() -> None:
    bucket = Bucket(120, now=0)
    bucket.take(2, 0)
    assert bucket.wait(1000, 0) == 1.0


def test_requests_keep_to_the_rate_in_every_minute() -> None:
    at = admitted(60, None, [0.0] * 300)
    assert at == sorted(at)  # first come, first served
    assert at[5] == 0 and at[6] == pytest.approx(1.0)
    assert at[-1] == pytest.approx(294)
    for start in at:
        assert sum(start <= time < start + 60 for time in at) <= 60 * (1 + BURST)


def test_tokens_keep_to_the_rate_whatever_their_sizes() -> None:
    rng = random.Random(0)
    amounts = [float(rng.randint(1, 900)) for _ in range(200)]
    at = admitted(None, 6000, amounts)
    assert at == sorted(at)
    for start in at:
        taken = sum(a for a, time in zip(amounts, at, strict=True) if start <= time < start + 60)
        assert taken <= 6000 * (1 + BURST) + 900
    assert sum(amounts) / (at[-1] / 60) == pytest.approx(6000, rel=0.1)


def test_tokens_that_were_not_used_make_room() -> None:
    clock = Clock()

    async def main() -> float:
        limit = RateLimit(None, 6000, clock, clock.sleep)
        for _ in range(10):
            await limit.admit(600)
            limit.settle(600, 60)
        return clock.now - 1000

    assert asyncio.run(main()) == pytest.approx(9 * 60 / 100, abs=0.02)


def test_no_limit_is_no_wait_and_a_pause_holds_everyone() -> None:
    assert admitted(None, None, [1e9] * 5) == [0] * 5
    assert admitted(None, None, [1.0] * 3, pause=7.5) == [pytest.approx(7.5)] * 3


def test_waits_double_with_full_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying.random, "random", lambda: 0.5)
    assert [backoff(tries) for tries in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    monkeypatch.undo()
    drawn = [backoff(3) for _ in range(2000)]
    assert 0 <= min(drawn) < 0.1 and 3.9 < max(drawn) <= 4
    assert backoff(10**6) <= retrying.LONGEST_WAIT


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (None, None),
        ("3", 3.0),
        ("0.25", 0.25),
        ("-4", 0.0),
        ("Thu, 01 Jan 1970 00:02:10 GMT", 30.0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(said: str | None, seconds: float | None) -> None:
    headers = {} if said is None else {"retry-after": said}
    assert asked_wait(headers, now=100.0) == seconds
