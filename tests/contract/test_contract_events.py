"""``events``: a RESYNC first, each change once it happens, and never a silent gap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import aclosing

import pytest

from tandem.runtimes.adapter import EventKind, RuntimeAdapter, RuntimeEvent
from tests.contract.harness import Harness

Stream = AsyncIterator[RuntimeEvent]


async def _next(harness: Harness, stream: Stream) -> RuntimeEvent:
    async with asyncio.timeout(harness.patience):
        return await anext(stream)


async def _until(
    harness: Harness, stream: Stream, id: str, kinds: Collection[EventKind]
) -> EventKind:
    """The first event of ``id`` that is one of ``kinds``."""
    async with asyncio.timeout(harness.patience):
        async for event in stream:
            if event.id == id and event.kind in kinds:
                return event.kind
    raise AssertionError("the stream ended")


def _events(adapter: RuntimeAdapter) -> aclosing[Stream]:  # type: ignore[type-var]
    return aclosing(adapter.events())  # type: ignore[type-var]


async def test_the_first_event_says_to_list(harness: Harness, adapter: RuntimeAdapter) -> None:
    async with _events(adapter) as stream:
        assert (await _next(harness, stream)).kind is EventKind.RESYNC


async def test_a_life_is_told_from_beginning_to_end(
    harness: Harness, adapter: RuntimeAdapter
) -> None:
    async with _events(adapter) as stream:
        await _next(harness, stream)
        await adapter.create(harness.spec("life"))
        await _until(harness, stream, "life", {EventKind.STARTED})
        await adapter.delete("life", grace_seconds=0)
        await _until(harness, stream, "life", {EventKind.STOPPED, EventKind.DELETED})


async def test_an_end_by_itself_is_told(harness: Harness, adapter: RuntimeAdapter) -> None:
    async with _events(adapter) as stream:
        await _next(harness, stream)
        await adapter.create(harness.ending_spec("ends", 0))
        await _until(harness, stream, "ends", {EventKind.STOPPED})
        status = await harness.wait_for(adapter, "ends", lambda s: s.finished_at is not None)
        assert status.phase is harness.clean_end


async def test_a_crash_is_told(harness: Harness, adapter: RuntimeAdapter) -> None:
    async with _events(adapter) as stream:
        await _next(harness, stream)
        await adapter.create(harness.spec("crashes"))
        await harness.crash("crashes")
        await _until(harness, stream, "crashes", {EventKind.STOPPED})


async def test_two_consumers_both_hear(harness: Harness, adapter: RuntimeAdapter) -> None:
    async with _events(adapter) as one, _events(adapter) as two:
        await _next(harness, one)
        await _next(harness, two)
        await adapter.create(harness.spec("heard"))
        await _until(harness, one, "heard", {EventKind.STARTED})
        await _until(harness, two, "heard", {EventKind.STARTED})


@pytest.mark.needs("drop_events")
async def test_a_broken_stream_comes_back_with_a_resync(
    harness: Harness, adapter: RuntimeAdapter
) -> None:
    async with _events(adapter) as stream:
        await _next(harness, stream)
        await harness.drop_events(adapter)
        assert (await _next(harness, stream)).kind is EventKind.RESYNC
        await adapter.create(harness.spec("later"))
        await _until(harness, stream, "later", {EventKind.STARTED})
