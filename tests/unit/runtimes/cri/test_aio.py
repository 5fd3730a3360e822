"""Doing a thing whole, and several at once."""

from __future__ import annotations

import asyncio

import pytest

from tandem.runtimes.cri.aio import to_the_end, together


async def test_cancellations_wait_for_the_work() -> None:
    release = asyncio.Event()
    done = []

    async def work() -> None:
        await release.wait()
        done.append(1)

    task = asyncio.create_task(to_the_end(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.sleep(0)
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [1]


async def test_the_works_own_failure_is_raised() -> None:
    async def fail() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await to_the_end(fail())


async def test_a_cancellation_is_not_lost_behind_a_failure() -> None:
    release = asyncio.Event()

    async def fail() -> None:
        await release.wait()
        raise ValueError

    task = asyncio.create_task(to_the_end(fail()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("others", [0, 2])
async def test_one_failure_is_raised_as_itself_and_stops_the_rest(others: int) -> None:
    stopped = []

    async def wait(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(number)

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await together([fail(), *(wait(number) for number in range(others))])
    assert sorted(stopped) == list(range(others))


async def test_results_come_in_order() -> None:
    async def give(number: int) -> int:
        await asyncio.sleep(0)
        return number

    assert await together(give(number) for number in range(3)) == [0, 1, 2]
    assert await together([]) == []
