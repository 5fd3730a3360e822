"""What the file keeps, what a failed commit leaves, and files that cannot be used."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import sys
from pathlib import Path

import pytest

from tandem.errors import AlreadyExists, Expired, NotFound, Unavailable
from tandem.store import Store, StoreUnreadable
from tandem.store.database import FORMAT, Database
from tests.unit.store.conftest import doc, key


def contents(path: Path) -> bytes:
    return path.read_bytes()


def replace(path: Path, data: bytes) -> None:
    path.write_bytes(data)


async def test_objects_and_revision_survive_reopening(path: Path) -> None:
    async with await Store.open(path) as store:
        kept = await store.create(key("a"), doc("a", "1"))
        kept = await store.update(key("a"), doc("a", "2"))
        await store.create(key("b"), doc("b"))
        await store.delete(key("b"))
    async with await Store.open(path) as store:
        assert store.list("configmaps").items == [kept]
        assert store.revision == 4, "though the newest revision left no object behind"
        assert (await store.create(key("c"), doc("c")))["metadata"]["resourceVersion"] == "5"


async def test_a_key_made_again_is_one_object_after_reopening(path: Path) -> None:
    async with await Store.open(path) as store:
        await store.create(key("a"), doc("a", "1"))
        await asyncio.gather(store.delete(key("a")), store.create(key("a"), doc("a", "2")))
    async with await Store.open(path) as store:
        assert [item["data"]["value"] for item in store.list("configmaps").items] == ["2"]


async def test_a_watch_resumes_over_a_restart_only_where_nothing_was_missed(path: Path) -> None:
    async with await Store.open(path) as store:
        await store.create(key("a"), doc("a"))
        await store.create(key("b"), doc("b"))
    async with await Store.open(path) as store:
        with pytest.raises(Expired):
            store.watch("configmaps", since=1)
        with store.watch("configmaps", since=2) as watch:
            await store.create(key("c"), doc("c"))
            assert (await anext(watch)).revision == 3


async def test_the_file_is_its_owner_s_alone(path: Path) -> None:
    async with await Store.open(path) as store:
        await store.create(key("a"), doc("a"))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(modes, 0o600)


async def test_a_second_daemon_on_the_same_file_is_refused(path: Path) -> None:
    async with await Store.open(path):
        with pytest.raises(Unavailable, match="another process is using it"):
            await Store.open(path)


async def test_a_missing_directory_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="No such file or directory"):
        await Store.open(tmp_path / "missing" / "store.db")


async def test_a_foreign_file_is_refused_and_left_as_it_is(path: Path) -> None:
    replace(path, b"not a database, " * 100)
    with pytest.raises(StoreUnreadable, match="cannot be read"):
        await Store.open(path)
    assert contents(path) == b"not a database, " * 100


async def test_another_program_s_database_is_refused(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = contents(path)
    with pytest.raises(StoreUnreadable, match="another program"):
        await Store.open(path)
    assert contents(path) == before


async def test_a_newer_format_is_refused_with_what_to_do(path: Path) -> None:
    await (await Store.open(path)).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    connection.close()
    with pytest.raises(StoreUnreadable, match="written by a newer Tandem") as caught:
        await Store.open(path)
    assert caught.value.hint


async def test_a_damaged_file_is_refused(path: Path) -> None:
    async with await Store.open(path) as store:
        for index in range(20):
            await store.create(key(str(index)), doc(str(index), "x" * 4000))
    data = bytearray(contents(path))
    data[4096:12288] = os.urandom(8192)
    replace(path, bytes(data))
    with pytest.raises(StoreUnreadable, match="cannot be read"):
        await Store.open(path)
    assert contents(path) == data


def limit_pages(store: Store, pages: int) -> None:
    """Let SQLite find the disk full: it may not use more pages than these."""
    assert store._database is not None
    connection = store._database._connection
    store._executor.submit(connection.execute, f"PRAGMA max_page_count = {pages}").result()


async def test_a_full_disk_fails_the_write_and_leaves_memory_as_the_file(path: Path) -> None:
    async with await Store.open(path) as store:
        kept = await store.create(key("a"), doc("a", "small"))
        limit_pages(store, 1)
        with store.watch("configmaps") as watch:
            with pytest.raises(Unavailable, match="full") as caught:
                await store.update(key("a"), doc("a", "x" * 100_000))
            assert caught.value.hint
            assert watch.caught_up, "nobody is told of what did not happen"
        assert store.get(key("a")) == kept
        assert store.revision == 1
        limit_pages(store, 1_000_000)
        await store.create(key("b"), doc("b"))
    async with await Store.open(path) as store:
        assert [item["metadata"]["name"] for item in store.list("configmaps").items] == ["a", "b"]


async def test_writes_built_upon_one_that_failed_fail_with_it(path: Path) -> None:
    async with await Store.open(path) as store:
        limit_pages(store, 1)
        first = asyncio.create_task(store.create(key("a"), doc("a", "x" * 100_000)))
        await asyncio.sleep(0)
        on_top = [
            asyncio.create_task(store.mutate(key("a"), lambda _: None)),
            asyncio.create_task(store.mutate(key("a"), lambda current: {**current, "more": 1})),
            asyncio.create_task(store.delete(key("a"))),
        ]
        results = await asyncio.gather(first, *on_top, return_exceptions=True)
        assert [type(result) for result in results] == [Unavailable] * 4
        with pytest.raises(NotFound):
            store.get(key("a"))
        limit_pages(store, 1_000_000)
        await store.create(key("a"), doc("a"))
        with pytest.raises(AlreadyExists):
            await store.create(key("a"), doc("a"))


async def test_no_failure_leaves_a_writer_waiting(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    async with await Store.open(path) as store:
        with monkeypatch.context() as patched:
            patched.setattr(Database, "commit", fail)
            with pytest.raises(Unavailable, match="the store failed: MemoryError"):
                await store.create(key("a"), doc("a"))
        await store.create(key("a"), doc("a"))


_WRITER = """
import asyncio, sys
from pathlib import Path
from tandem.store import Key, Store

async def write(store, worker):
    for number in range(1_000_000):
        name = f"{worker}-{number}"
        await store.create(Key("configmaps", "default", name), {"metadata": {"name": name}})
        print(name, flush=True)

async def main():
    store = await Store.open(Path(sys.argv[1]))
    await asyncio.gather(*(write(store, worker) for worker in range(8)))

asyncio.run(main())
"""


@pytest.mark.slow
async def test_every_acknowledged_write_survives_a_kill(path: Path) -> None:
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WRITER, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert writer.stdout is not None
    acknowledged = [(await writer.stdout.readline()).decode().strip() for _ in range(200)]
    writer.send_signal(signal.SIGKILL)
    rest = (await writer.stdout.read()).decode()
    acknowledged += rest.split("\n")[:-1]  # after the last line break it was cut short
    await writer.wait()
    async with await Store.open(path) as store:
        kept = {item["metadata"]["name"] for item in store.list("configmaps").items}
        assert store.revision >= len(kept)
    assert set(acknowledged) <= kept
