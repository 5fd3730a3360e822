"""The work queue and the back-off."""

from __future__ import annotations

import asyncio
import itertools
import logging

import pytest

from tandem.control.backoff import Backoff, duration
from tandem.control.queue import LAST_RETRY_SECONDS, WorkQueue
from tandem.errors import Unavailable
from tests.unit.control.plant import FAKE_TIME

pytestmark = FAKE_TIME


async def test_one_item_is_never_worked_on_twice_at_once() -> None:
    running = most = calls = 0

    async def handle(_: str) -> None:
        nonlocal running, most, calls
        running += 1
        calls += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1

    queue = WorkQueue("test", handle)
    for _ in range(10):
        queue.add("a")
        await asyncio.sleep(0.1)
    await asyncio.sleep(5)
    assert most == 1
    assert calls == 2  # once, and once more for everything that was added meanwhile
    assert len(queue) == 0
    await queue.close()


async def test_different_items_are_worked_on_together() -> None:
    running = most = 0

    async def handle(_: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1

    queue = WorkQueue("test", handle)
    for number in range(100):
        queue.add(number)
    await asyncio.sleep(2)
    assert most == 100
    await queue.close()


async def test_failures_are_retried_ever_more_slowly(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    times: list[float] = []

    async def handle(_: str) -> None:
        times.append(asyncio.get_running_loop().time())
        raise Unavailable("away")

    queue = WorkQueue("test", handle)
    queue.add("a")
    await asyncio.sleep(200)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps[0] < 0.3
    assert all(gap <= LAST_RETRY_SECONDS * 1.2 for gap in gaps)
    assert gaps[-1] >= LAST_RETRY_SECONDS * 0.8
    await queue.close()


async def test_adding_cuts_a_retry_short() -> None:
    calls = 0

    async def handle(_: str) -> float | None:
        nonlocal calls
        calls += 1
        return 100.0 if calls == 1 else None

    queue = WorkQueue("test", handle)
    queue.add("a")
    await asyncio.sleep(1)
    queue.add("a")
    await asyncio.sleep(1)
    assert calls == 2
    assert len(queue) == 0
    await asyncio.sleep(200)
    assert calls == 2
    await queue.close()


async def test_closing_cancels_what_is_at_work() -> None:
    cancelled = False

    async def handle(_: str) -> None:
        nonlocal cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled = True
            raise

    queue = WorkQueue("test", handle)
    queue.add("a")
    await asyncio.sleep(1)
    await queue.close()
    assert cancelled
    queue.add("b")
    assert len(queue) == 0


async def test_waits_double_from_the_second_end_on() -> None:
    backoff = Backoff()
    waits = []
    for attempt in range(8):
        waits.append(round(wait := backoff.ended("c", attempt)))
        assert backoff.ended("c", attempt) == pytest.approx(wait)
        await asyncio.sleep(wait)
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]


async def test_ten_good_minutes_are_forgiven() -> None:
    backoff = Backoff()
    for attempt in range(3):
        await asyncio.sleep(backoff.ended("c", attempt))
    await asyncio.sleep(601)
    assert backoff.ended("c", 3) == 0
    assert backoff.ended("c", 4) == pytest.approx(10)


async def test_what_could_not_start_waits_at_once() -> None:
    backoff = Backoff()
    assert backoff.failed("c") == 10
    await asyncio.sleep(4)
    assert backoff.remaining("c") == pytest.approx(6)
    assert backoff.failed("c") == 20
    backoff.forget("c")
    assert backoff.remaining("c") == 0


@pytest.mark.parametrize(("seconds", "text"), [(10, "10s"), (80, "1m20s"), (300, "5m0s")])
def test_durations_read_as_in_go(seconds: float, text: str) -> None:
    assert duration(seconds) == text
