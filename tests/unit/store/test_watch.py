"""Watches: order, resumption, filters, and the reader that is too slow."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from tandem.errors import Expired
from tandem.store import Store, StoreEvent, Watch
from tests.unit.store.conftest import doc, key


async def take(watch: Watch, count: int) -> list[StoreEvent]:
    return [await anext(watch) for _ in range(count)]


async def test_a_watch_tells_of_each_change_in_order(store: Store) -> None:
    with store.watch("configmaps") as watch:
        await store.create(key("a"), doc("a", "1"))
        await store.update(key("a"), doc("a", "2"))
        await store.delete(key("a"))
        events = await take(watch, 3)
    assert [(event.type, event.revision) for event in events] == [
        ("ADDED", 1),
        ("MODIFIED", 2),
        ("DELETED", 3),
    ]
    assert events[0].previous is None
    assert events[1].previous == events[0].data
    last = msgspec.json.decode(events[2].data)
    assert last["data"] == {"value": "2"}
    assert last["metadata"]["resourceVersion"] == "3", "a deletion is seen at its own revision"


async def test_a_watch_resumes_after_a_revision(store: Store) -> None:
    for name in "abc":
        await store.create(key(name), doc(name))
    with store.watch("configmaps", since=1) as watch:
        assert [event.key.name for event in await take(watch, 2)] == ["b", "c"]


async def test_a_watch_from_a_list_misses_nothing_and_repeats_nothing(store: Store) -> None:
    await store.create(key("a"), doc("a"))
    listing = store.list("configmaps")
    await store.create(key("b"), doc("b"))
    with store.watch("configmaps", since=listing.revision) as watch:
        await store.create(key("c"), doc("c"))
        assert [event.key.name for event in await take(watch, 2)] == ["b", "c"]


async def test_a_watch_sees_its_own_resource_and_namespace_only(store: Store) -> None:
    with store.watch("configmaps", "mine") as watch:
        await store.create(key("a", "other"), doc("a"))
        await store.create(key("a", "mine", "secrets"), doc("a"))
        await store.create(key("b", "mine"), doc("b"))
        assert [event.key for event in await take(watch, 1)] == [key("b", "mine")]
        assert watch.caught_up


async def test_a_watch_of_everything_sees_all_resources_in_the_store_s_order(store: Store) -> None:
    with store.watch(None) as watch:
        await store.create(key("a", resource="pods"), doc("a"))
        await store.create(key("a", resource="secrets"), doc("a"))
        assert [event.key.resource for event in await take(watch, 2)] == ["pods", "secrets"]


async def test_a_waiting_watch_wakes(store: Store) -> None:
    with store.watch("configmaps") as watch:
        waiting = asyncio.create_task(watch.batch())
        await asyncio.sleep(0)
        assert watch.caught_up
        await store.create(key("a"), doc("a"))
        assert [event.key.name for event in await waiting] == ["a"]


async def test_a_change_is_seen_by_watches_no_later_than_by_its_writer(store: Store) -> None:
    with store.watch("configmaps") as watch:
        await store.create(key("a"), doc("a"))
        assert not watch.caught_up
        assert (await anext(watch)).key.name == "a"


async def test_closing_ends_a_watch_that_waits(store: Store) -> None:
    watch = store.watch("configmaps")
    waiting = asyncio.create_task(watch.batch())
    await asyncio.sleep(0)
    watch.close()
    assert await waiting == []
    assert [event async for event in watch] == []


async def test_closing_the_store_ends_its_watches() -> None:
    store = await Store.open(None)
    waiting = asyncio.create_task(store.watch(None).batch())
    await asyncio.sleep(0)
    await store.close()
    assert await waiting == []


async def test_a_revision_that_the_store_never_reached_is_expired(store: Store) -> None:
    with pytest.raises(Expired, match="newer than the store"):
        store.watch("configmaps", since=5)


async def test_what_the_history_has_dropped_is_expired() -> None:
    async with await Store.open(None, history_events=4) as store:
        for index in range(10):
            await store.create(key(str(index)), doc(str(index)))
        with pytest.raises(Expired, match="too old resource version: 1"):
            store.watch("configmaps", since=1)
        with store.watch("configmaps", since=9) as watch:
            assert (await anext(watch)).revision == 10


async def test_the_history_is_bounded_in_bytes_too() -> None:
    async with await Store.open(None, history_bytes=10_000) as store:
        for index in range(5):
            await store.create(key(str(index)), doc(str(index), "x" * 4000))
        with pytest.raises(Expired):
            store.watch("configmaps", since=1)


async def test_one_resource_s_changes_do_not_push_another_s_out_of_the_history() -> None:
    async with await Store.open(None, history_events=4) as store:
        await store.create(key("a", resource="pods"), doc("a"))
        for index in range(10):
            await store.create(key(str(index), resource="events"), doc(str(index)))
        with store.watch("pods", since=0) as watch:
            assert (await anext(watch)).revision == 1


async def test_a_reader_that_is_too_slow_is_cut_off_and_not_skipped_over() -> None:
    async with await Store.open(None, history_events=4) as store:
        with store.watch("configmaps") as watch:
            await store.create(key("first"), doc("first"))
            assert (await anext(watch)).key.name == "first"
            for index in range(10):
                await store.create(key(str(index)), doc(str(index)))
            with pytest.raises(Expired, match="too slowly"):
                await anext(watch)


async def test_a_reader_that_waits_is_not_cut_off_by_changes_it_does_not_want() -> None:
    async with await Store.open(None, history_events=4) as store:
        with store.watch("configmaps", "quiet") as watch:
            waiting = asyncio.create_task(watch.batch())
            for index in range(10):
                await store.create(key(str(index), "busy"), doc(str(index)))
            await store.create(key("a", "quiet"), doc("a"))
            assert [event.key.name for event in await waiting] == ["a"]


async def test_a_reader_that_stopped_waiting_has_not_fallen_behind() -> None:
    async with await Store.open(None, history_events=4) as store:
        with store.watch("configmaps", "quiet") as watch:
            waiting = asyncio.create_task(watch.batch())
            for index in range(10):
                await store.create(key(str(index), "busy"), doc(str(index)))
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert watch.caught_up
            await store.create(key("a", "quiet"), doc("a"))
            assert [event.key.name for event in await watch.batch()] == ["a"]


async def test_a_batch_is_bounded_so_that_others_get_their_turn(store: Store) -> None:
    with store.watch("configmaps") as watch:
        await asyncio.gather(*(store.create(key(str(i)), doc(str(i))) for i in range(300)))
        sizes = [len(await watch.batch()), len(await watch.batch())]
    assert sizes == [256, 44]
