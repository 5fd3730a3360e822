"""Reads and writes: revisions, conflicts, order, and what concurrent writers see of each other."""

from __future__ import annotations

import asyncio

import pytest

from tandem.errors import AlreadyExists, Conflict, NotFound, Unavailable
from tandem.store import Store
from tests.unit.store.conftest import doc, key


async def test_a_created_object_carries_the_store_s_revision(store: Store) -> None:
    created = await store.create(key("a"), doc("a"))
    assert created["metadata"]["resourceVersion"] == "1" == str(store.revision)
    assert store.get(key("a")) == created


async def test_every_write_to_any_resource_gets_the_next_revision(store: Store) -> None:
    await store.create(key("a"), doc("a"))
    other = await store.create(key("a", resource="pods"), doc("a"))
    gone = await store.delete(key("a"))
    assert (other["metadata"]["resourceVersion"], gone["metadata"]["resourceVersion"]) == ("2", "3")


async def test_the_caller_s_document_is_left_alone(store: Store) -> None:
    given = doc("a")
    await store.create(key("a"), given)
    assert given == doc("a")


async def test_a_document_that_was_read_can_be_altered_without_altering_the_store(
    store: Store,
) -> None:
    await store.create(key("a"), doc("a", "before"))
    store.get(key("a"))["data"]["value"] = "after"
    assert store.get(key("a"))["data"]["value"] == "before"


async def test_a_second_create_of_a_name_is_refused(store: Store) -> None:
    await store.create(key("a"), doc("a"))
    with pytest.raises(AlreadyExists, match='configmaps "a" already exists') as caught:
        await store.create(key("a"), doc("a"))
    assert caught.value.details == {"name": "a", "group": "", "kind": "configmaps"}


async def test_of_two_creates_in_flight_one_wins(store: Store) -> None:
    results = await asyncio.gather(
        store.create(key("a"), doc("a", "1")),
        store.create(key("a"), doc("a", "2")),
        return_exceptions=True,
    )
    assert isinstance(results[1], AlreadyExists)
    assert store.get(key("a"))["data"]["value"] == "1"


async def test_what_is_missing_is_not_found(store: Store) -> None:
    missing = key("a", resource="virtualmachines.kubevirt.io")
    for attempt in (store.update(missing, doc("a")), store.delete(missing)):
        with pytest.raises(NotFound):
            await attempt
    with pytest.raises(NotFound, match=r'virtualmachines.kubevirt.io "a" not found') as caught:
        store.get(missing)
    assert caught.value.details == {"name": "a", "group": "kubevirt.io", "kind": "virtualmachines"}


async def test_an_update_of_a_stale_document_conflicts(store: Store) -> None:
    read = await store.create(key("a"), doc("a", "1"))
    await store.update(key("a"), doc("a", "2"))
    read["data"]["value"] = "3"
    with pytest.raises(Conflict, match="the object has been modified"):
        await store.update(key("a"), read)
    assert store.get(key("a"))["data"]["value"] == "2"


async def test_an_update_is_checked_against_the_write_ahead_of_it(store: Store) -> None:
    read = await store.create(key("a"), doc("a", "1"))
    first = asyncio.create_task(store.update(key("a"), {**read, "data": {"value": "2"}}))
    second = asyncio.create_task(store.update(key("a"), {**read, "data": {"value": "3"}}))
    await first
    with pytest.raises(Conflict):
        await second


async def test_an_update_without_a_revision_always_applies(store: Store) -> None:
    await store.create(key("a"), doc("a", "1"))
    updated = await store.update(key("a"), doc("a", "2"))
    assert updated["metadata"]["resourceVersion"] == "2"


async def test_an_update_that_changes_nothing_is_not_written(store: Store) -> None:
    created = await store.create(key("a"), doc("a"))
    reordered = dict(reversed(created.items()))
    assert await store.update(key("a"), reordered) == created
    assert store.revision == 1


async def test_a_key_can_be_deleted_and_created_in_one_breath(store: Store) -> None:
    await store.create(key("a"), doc("a", "1"))
    await asyncio.gather(store.delete(key("a")), store.create(key("a"), doc("a", "2")))
    assert store.get(key("a"))["data"]["value"] == "2"
    assert len(store.list("configmaps").items) == 1


async def test_a_delete_can_ask_for_a_revision_and_an_identity(store: Store) -> None:
    await store.create(key("a"), doc("a"))
    with pytest.raises(Conflict, match="UID in precondition: other"):
        await store.delete(key("a"), uid="other")
    with pytest.raises(Conflict, match="ResourceVersion in precondition: 7"):
        await store.delete(key("a"), resource_version="7")
    await store.delete(key("a"), uid="uid-of-a", resource_version="1")
    with pytest.raises(NotFound):
        store.get(key("a"))


async def test_concurrent_mutations_all_count(store: Store) -> None:
    await store.create(key("a"), doc("a", "0"))

    def one_more(current: dict[str, object]) -> dict[str, object]:
        data = current["data"]
        assert isinstance(data, dict)
        data["value"] = str(int(data["value"]) + 1)
        return current

    await asyncio.gather(*(store.mutate(key("a"), one_more) for _ in range(50)))
    assert store.get(key("a"))["data"]["value"] == "50"


async def test_a_mutation_to_none_or_to_the_same_is_no_write(store: Store) -> None:
    created = await store.create(key("a"), doc("a"))
    assert await store.mutate(key("a"), lambda _: None) == created
    assert await store.mutate(key("a"), lambda current: current) == created
    assert store.revision == 1


async def test_a_mutation_that_raises_changes_nothing(store: Store) -> None:
    await store.create(key("a"), doc("a"))

    def refuse(current: dict[str, object]) -> dict[str, object]:
        current.clear()
        raise Conflict("no")

    with pytest.raises(Conflict, match="no"):
        await store.mutate(key("a"), refuse)
    assert store.get(key("a"))["data"] == {"value": ""}


async def test_lists_are_ordered_by_namespace_and_name(store: Store) -> None:
    for namespace, name in (("b", "x"), ("a", "y"), ("a", "x"), ("ab", "x")):
        await store.create(key(name, namespace), doc(f"{namespace}/{name}"))
    names = [item["metadata"]["name"] for item in store.list("configmaps").items]
    assert names == ["a/x", "a/y", "ab/x", "b/x"]


async def test_a_list_of_a_namespace_holds_no_other(store: Store) -> None:
    for namespace in ("a", "a-b", "a.b", "aa"):
        await store.create(key("x", namespace), doc(namespace))
    listing = store.list("configmaps", "a")
    assert [item["metadata"]["name"] for item in listing.items] == ["a"]
    assert listing.revision == 4
    assert store.list("configmaps", "missing").items == []
    assert store.list("pods").items == []


async def test_a_raw_list_holds_the_same_objects_and_filters_by_label(store: Store) -> None:
    await store.create(key("a"), doc("a", app="web"))
    await store.create(key("b"), doc("b", app="db"))
    await store.create(key("c"), {"metadata": {"name": "c"}})
    assert len(store.list_bytes("configmaps").items) == 3
    chosen = store.list_bytes("configmaps", labels=lambda labels: labels.get("app") == "web")
    assert chosen.items == [store.get_bytes(key("a"))]


async def test_a_caller_that_gives_up_does_not_take_its_write_back(store: Store) -> None:
    writing = asyncio.create_task(store.create(key("a"), doc("a")))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await store.create(key("b"), doc("b"))
    assert store.get(key("a"))["metadata"]["resourceVersion"] == "1"


async def test_what_is_built_upon_a_write_does_not_care_whether_its_caller_gave_up(
    store: Store,
) -> None:
    writing = asyncio.create_task(store.create(key("a"), doc("a")))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(store.mutate(key("a"), lambda _: None))
    await asyncio.sleep(0)
    writing.cancel()
    assert (await waiting)["metadata"]["resourceVersion"] == "1"


async def test_a_closed_store_takes_no_writes() -> None:
    store = await Store.open(None)
    await store.close()
    await store.close()
    with pytest.raises(Unavailable, match="closed"):
        await store.create(key("a"), doc("a"))


async def test_closing_finishes_what_was_asked_for() -> None:
    store = await Store.open(None)
    writes = [asyncio.create_task(store.create(key(str(i)), doc(str(i)))) for i in range(10)]
    await asyncio.sleep(0)
    await store.close()
    assert all(written["metadata"]["uid"] for written in await asyncio.gather(*writes))
