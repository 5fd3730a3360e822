"""Watch: what is sent, in which order, and when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from tandem.server import changes, watching
from tandem.store import Store
from tests.unit.server.conftest import Client, Doc, Lines, World, config_map, eventually

MAPS = "/api/v1/namespaces/default/configmaps"
MERGE = "application/merge-patch+json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@asynccontextmanager
async def watch(client: Client, path: str, **headers: str) -> AsyncIterator[Lines]:
    async with client.session.get(path, headers=headers) as response:
        assert response.status == 200, await response.read()
        yield Lines(response)


async def _label(client: Client, name: str, **labels: str | None) -> Doc:
    patch = {"metadata": {"labels": labels}}
    return (await client.ask("PATCH", f"{MAPS}/{name}", patch, type=MERGE)).doc


@pytest.mark.parametrize("revision", ["", "&resourceVersion=0"])
async def test_a_watch_begins_with_what_is_there(client: Client, revision: str) -> None:
    await client.create(MAPS, config_map("a"))
    async with watch(client, f"{MAPS}?watch=1{revision}") as lines:
        assert await lines.take(1) == [("ADDED", "a")]
        await client.create(MAPS, config_map("b"))
        await _label(client, "a", x="1")
        await client.ask("DELETE", f"{MAPS}/b")
        assert await lines.take(3) == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]


async def test_a_watch_goes_on_from_a_revision(client: Client) -> None:
    await client.create(MAPS, config_map("a"))
    revision = (await client.get(MAPS))["metadata"]["resourceVersion"]
    await client.create(MAPS, config_map("b"))
    async with watch(client, f"{MAPS}?watch=true&resourceVersion={revision}") as lines:
        assert await lines.take(1) == [("ADDED", "b")]


async def test_events_carry_the_revision_of_their_change(client: Client) -> None:
    created = await client.create(MAPS, config_map("a"))
    async with watch(client, f"{MAPS}?watch=1") as lines:
        await lines.next()
        await client.ask("DELETE", f"{MAPS}/a")
        deleted = await lines.next()
    before = int(created["metadata"]["resourceVersion"])
    assert int(deleted["object"]["metadata"]["resourceVersion"]) > before


@pytest.mark.parametrize(
    "path",
    ["/api/v1/watch/namespaces/default/configmaps", f"{MAPS}?watch", "/api/v1/watch/configmaps"],
)
async def test_the_older_spelling_is_a_watch_too(client: Client, path: str) -> None:
    await client.create(MAPS, config_map("a"))
    async with watch(client, path) as lines:
        assert await lines.take(1) == [("ADDED", "a")]


@pytest.mark.parametrize(
    "path",
    [
        f"{MAPS}?watch=1&fieldSelector=metadata.name%3Db",
        "/api/v1/watch/namespaces/default/configmaps/b",
        f"{MAPS}/b?watch=1",
        "/api/v1/configmaps?watch=1&fieldSelector=metadata.name%3Db",
    ],
)
async def test_one_object_can_be_watched(client: Client, path: str) -> None:
    for name in "abc":
        await client.create(MAPS, config_map(name))
    async with watch(client, path) as lines:
        assert await lines.take(1) == [("ADDED", "b")]
        await _label(client, "a", x="1")
        await _label(client, "b", x="1")
        assert await lines.take(1) == [("MODIFIED", "b")]


async def test_an_object_appears_and_disappears_as_it_matches(client: Client) -> None:
    await client.create(MAPS, config_map("a"))
    async with watch(client, f"{MAPS}?watch=1&labelSelector=on") as lines:
        await _label(client, "a", on="1")
        await _label(client, "a", on="2")
        gone = await _label(client, "a", on=None)
        await _label(client, "a", other="1")
        assert await lines.take(2) == [("ADDED", "a"), ("MODIFIED", "a")]
        last = await lines.next()
        assert last["type"] == "DELETED"
        # The last state that matched, at the revision at which it ceased to.
        assert last["object"]["metadata"]["labels"] == {"on": "2"}
        revision = last["object"]["metadata"]["resourceVersion"]
        assert revision == gone["metadata"]["resourceVersion"]
        await client.create(MAPS, config_map("b", labels={"on": "1"}))
        await client.ask("DELETE", f"{MAPS}/a")
        await client.ask("DELETE", f"{MAPS}/b")
        assert await lines.take(2) == [("ADDED", "b"), ("DELETED", "b")]


async def test_a_table_names_its_columns_once(client: Client) -> None:
    await client.create(MAPS, config_map("a"))
    await client.create(MAPS, config_map("b"))
    async with watch(client, f"{MAPS}?watch=1", Accept=TABLE) as lines:
        first, second = await lines.next(), await lines.next()
        await _label(client, "a", x="1")
        third = await lines.next()
    assert [event["object"]["kind"] for event in (first, second, third)] == ["Table"] * 3
    assert first["object"]["columnDefinitions"]
    assert not second["object"]["columnDefinitions"]
    assert not third["object"]["columnDefinitions"]
    assert third["object"]["rows"][0]["cells"][0] == "a"


@pytest.mark.slow
async def test_a_watch_ends_when_its_time_is_up(client: Client) -> None:
    path = f"{MAPS}?watch=1&timeoutSeconds=1&allowWatchBookmarks=1"
    async with asyncio.timeout(5), watch(client, path) as lines:
        bookmark = await lines.next()
        assert bookmark["type"] == "BOOKMARK"
        assert bookmark["object"]["kind"] == "ConfigMap"
        assert await lines.ended()


async def test_bookmarks_say_how_far_the_watch_has_come(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "BOOKMARK_EVERY", 0.01)
    path = f"{MAPS}?watch=1&allowWatchBookmarks=true"
    async with watch(world.client, path) as lines:
        assert (await lines.next())["type"] == "BOOKMARK"
        await world.client.create("/api/v1/namespaces/other/configmaps", config_map("elsewhere"))
        async with asyncio.timeout(5):
            while True:
                event = await lines.next()
                assert event["type"] == "BOOKMARK"
                revision = event["object"]["metadata"]["resourceVersion"]
                if revision == str(world.store.revision):
                    break


async def test_initial_events_end_with_a_bookmark_that_says_so(client: Client) -> None:
    await client.create(MAPS, config_map("a"))
    path = (
        f"{MAPS}?watch=1&sendInitialEvents=true&allowWatchBookmarks=true"
        "&resourceVersionMatch=NotOlderThan&resourceVersion=1"
    )
    async with watch(client, path) as lines:
        assert await lines.take(1) == [("ADDED", "a")]
        mark = await lines.next()
        assert mark["type"] == "BOOKMARK"
        annotations = mark["object"]["metadata"]["annotations"]
        assert annotations == {"k8s.io/initial-events-end": "true"}


async def test_initial_events_can_be_left_out(client: Client) -> None:
    await client.create(MAPS, config_map("a"))
    path = f"{MAPS}?watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan"
    async with watch(client, path) as lines:
        await client.create(MAPS, config_map("b"))
        assert await lines.take(1) == [("ADDED", "b")]


@pytest.mark.parametrize(
    "query",
    [
        "watch=1&sendInitialEvents=true",
        "watch=1&resourceVersionMatch=Exact",
        "watch=1&resourceVersion=abc",
        "watch=1&timeoutSeconds=abc",
        "watch=1&fieldSelector=no.such%3Dx",
    ],
)
async def test_a_bad_query_is_refused_before_the_stream_begins(client: Client, query: str) -> None:
    assert (await client.get(f"{MAPS}?{query}", status=400))["kind"] == "Status"


async def test_a_revision_that_cannot_be_continued_is_an_error_line(world: World) -> None:
    async with watch(world.client, f"{MAPS}?watch=1&resourceVersion=999") as lines:
        event = await lines.next()
        assert event["type"] == "ERROR"
        assert event["object"]["code"] == 410
        assert event["object"]["reason"] == "Expired"
        assert await lines.ended()


async def test_a_watch_that_reads_too_slowly_is_cut_off(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()
    original: Any = watching._Watcher._begin

    async def held(self: Any, listing: Any) -> None:
        await original(self, listing)
        await gate.wait()

    monkeypatch.setattr(watching._Watcher, "_begin", held)
    monkeypatch.setattr(world.store._log("configmaps"), "_max_events", 3)
    async with watch(world.client, f"{MAPS}?watch=1") as lines:
        for index in range(8):
            await world.client.create(MAPS, config_map(f"m{index}"))
        gate.set()
        event = await lines.next()
        assert event["type"] == "ERROR"
        assert event["object"]["code"] == 410


async def test_stopping_the_server_ends_watches_at_once_and_in_order(world: World) -> None:
    async with watch(world.client, f"{MAPS}?watch=1") as lines:
        async with asyncio.timeout(1):
            await world.server.stop()
            assert await lines.ended()


async def test_a_client_that_goes_leaves_no_watch_behind(world: World) -> None:
    async with watch(world.client, f"{MAPS}?watch=1"):
        assert len(world.server._api.watches) == 1
    await eventually(lambda: not world.server._api.watches)


async def test_an_object_is_encoded_once_for_all_who_watch(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    shaped: list[str] = []
    line = changes.Lines.line

    def counted(self: Any, type_: Any, data: bytes, *, first: bool) -> bytes:
        shaped.append(msgspec.json.decode(data)["metadata"]["name"])
        return line(self, type_, data, first=first)

    monkeypatch.setattr(changes.Lines, "line", counted)
    async with (
        watch(world.client, f"{MAPS}?watch=1") as one,
        watch(world.client, f"{MAPS}?watch=1") as two,
    ):
        await world.client.create(MAPS, config_map("a"))
        assert await one.take(1) == await two.take(1) == [("ADDED", "a")]
    assert shaped == ["a"]


async def test_the_store_can_be_closed_under_a_watch(world: World) -> None:
    async with watch(world.client, f"{MAPS}?watch=1") as lines:
        store: Store = world.store
        await store.close()
        assert await lines.ended()
