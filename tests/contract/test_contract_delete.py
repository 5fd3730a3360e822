"""``delete``: asks, waits, forces, and gives back everything."""

from __future__ import annotations

import asyncio
import time

import pytest

from tandem.errors import NotFound
from tandem.runtimes.adapter import RuntimeAdapter
from tests.contract.harness import Harness


async def test_a_deleted_workload_is_gone_with_everything(
    harness: Harness, adapter: RuntimeAdapter
) -> None:
    await adapter.create(harness.spec("goes"))
    await adapter.delete("goes", grace_seconds=0)
    with pytest.raises(NotFound):
        await adapter.get_status("goes")
    assert await adapter.list() == []
    assert await harness.leftovers() == []


async def test_deleting_what_is_not_there_succeeds(adapter: RuntimeAdapter) -> None:
    await adapter.delete("never-was")
    await adapter.delete("never-was", grace_seconds=0)


async def test_deleting_twice_succeeds(harness: Harness, adapter: RuntimeAdapter) -> None:
    await adapter.create(harness.spec("twice"))
    await adapter.delete("twice", grace_seconds=0)
    await adapter.delete("twice", grace_seconds=0)


async def test_the_id_in_the_status_deletes_too(harness: Harness, adapter: RuntimeAdapter) -> None:
    status = await adapter.create(harness.spec("by-native-id"))
    await adapter.delete(status.id, grace_seconds=0)
    assert await adapter.list() == []


async def test_an_obedient_workload_ends_within_its_grace(
    harness: Harness, adapter: RuntimeAdapter
) -> None:
    await adapter.create(harness.spec("obeys"))
    await harness.settle()
    started = time.monotonic()
    await adapter.delete("obeys", grace_seconds=60)
    assert time.monotonic() - started < 30
    assert await adapter.list() == []


async def test_a_stubborn_workload_is_forced_after_its_grace(
    harness: Harness, adapter: RuntimeAdapter
) -> None:
    await adapter.create(harness.stubborn_spec("stays"))
    started = time.monotonic()
    await adapter.delete("stays", grace_seconds=harness.grace)
    assert time.monotonic() - started >= harness.grace * 0.9
    assert await adapter.list() == []


async def test_a_forced_delete_overtakes_a_graceful_one(
    harness: Harness, adapter: RuntimeAdapter
) -> None:
    await adapter.create(harness.stubborn_spec("overtaken"))
    graceful = asyncio.create_task(adapter.delete("overtaken", grace_seconds=60))
    await asyncio.sleep(harness.grace / 2)
    started = time.monotonic()
    await adapter.delete("overtaken", grace_seconds=0)
    async with asyncio.timeout(harness.patience):
        await graceful
    assert time.monotonic() - started < harness.patience
    assert await adapter.list() == []


async def test_what_has_ended_is_deleted_without_waiting(
    harness: Harness, adapter: RuntimeAdapter
) -> None:
    await adapter.create(harness.ending_spec("ended", 0))
    await harness.wait_for(adapter, "ended", lambda status: status.finished_at is not None)
    started = time.monotonic()
    await adapter.delete("ended", grace_seconds=60)
    assert time.monotonic() - started < harness.patience
    assert await harness.leftovers() == []


async def test_an_id_can_be_used_again(harness: Harness, adapter: RuntimeAdapter) -> None:
    first = await adapter.create(harness.spec("again"))
    await adapter.delete("again", grace_seconds=0)
    second = await adapter.create(harness.other_spec("again"))
    assert second.created_at != first.created_at
