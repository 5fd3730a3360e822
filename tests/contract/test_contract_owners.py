"""Ownership: strangers are seen and never touched, and two owners do not meet."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from tandem.errors import NotFound
from tandem.runtimes.adapter import EventKind, Phase, RuntimeAdapter
from tests.contract.harness import Harness


async def test_a_stranger_is_reported_and_left_alone(
    harness: Harness, adapter: RuntimeAdapter
) -> None:
    stranger = await harness.add_stranger()
    try:
        assert stranger not in [status.id for status in await adapter.list()]
        assert stranger in [status.id for status in await adapter.list(strangers=True)]
        await adapter.delete(stranger, grace_seconds=0)
        assert await harness.stranger_runs(stranger)
        with pytest.raises(NotFound):
            await adapter.get_status(stranger)
    finally:
        await harness.remove_stranger(stranger)


async def test_our_own_are_no_strangers(harness: Harness, adapter: RuntimeAdapter) -> None:
    created = await adapter.create(harness.spec("ours"))
    assert created.id not in [status.id for status in await adapter.list(strangers=True)]


async def test_two_owners_do_not_meet(harness: Harness) -> None:
    async with harness.make_adapter("tandem") as mine, harness.make_adapter("other") as yours:
        await mine.create(harness.spec("mine"))
        await yours.create(harness.spec("yours"))
        assert [status.spec_id for status in await mine.list()] == ["mine"]
        assert [status.spec_id for status in await yours.list()] == ["yours"]
        with pytest.raises(NotFound):
            await yours.get_status("mine")
        await yours.delete("mine", grace_seconds=0)
        assert (await mine.get_status("mine")).phase is Phase.RUNNING


async def test_the_same_id_of_two_owners_is_two_workloads(harness: Harness) -> None:
    async with harness.make_adapter("tandem") as mine, harness.make_adapter("other") as yours:
        first = await mine.create(harness.spec("same"))
        second = await yours.create(harness.other_spec("same"))
        assert first.created_at != second.created_at
        await yours.delete("same", grace_seconds=0)
        assert (await mine.get_status("same")).phase is Phase.RUNNING


async def test_events_are_only_our_own(harness: Harness) -> None:
    async with (
        harness.make_adapter("tandem") as mine,
        harness.make_adapter("other") as yours,
        aclosing(mine.events()) as stream,  # type: ignore[type-var]
        asyncio.timeout(harness.patience),
    ):
        assert (await anext(stream)).kind is EventKind.RESYNC
        await yours.create(harness.spec("yours"))
        await mine.create(harness.spec("mine"))
        async for event in stream:
            assert event.id == "mine"
            break
