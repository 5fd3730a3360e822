"""A SPDY connection over a link: streams end on their own, slow readers slow the other end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tandem.wire.connection import Connection
from tandem.wire.inbox import Budget, Inbox, wait_ready

BUDGET = 100_000


class Pipe:
    """A link's one direction, that holds as much as a socket does."""

    def __init__(self) -> None:
        self.budget = Budget(BUDGET)
        self.inbox = Inbox(self.budget)
        self.passed = 0


@dataclass
class Ends:
    incoming: Pipe
    outgoing: Pipe

    async def read(self) -> bytes:
        return await self.incoming.inbox.read()

    async def write(self, data: bytes) -> None:
        await self.outgoing.budget.room()
        self.outgoing.passed += len(data)
        self.outgoing.inbox.feed(data)

    async def close(self) -> None:
        self.outgoing.inbox.end()
        self.incoming.inbox.end()


@dataclass
class World:
    client: Connection
    server: Connection
    up: Pipe
    down: Pipe


@pytest.fixture
async def world() -> AsyncIterator[World]:
    up, down = Pipe(), Pipe()
    client = Connection(Ends(down, up), client=True, budget=BUDGET)
    server = Connection(Ends(up, down), client=False, budget=BUDGET)
    tasks = [asyncio.create_task(end.run()) for end in (client, server)]
    yield World(client, server, up, down)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def all_of(stream: object) -> bytes:
    found = b""
    while data := await stream.read():  # type: ignore[attr-defined]
        found += data
    return found


async def test_each_direction_ends_on_its_own(world: World) -> None:
    near = await world.client.open({"streamtype": "data"})
    far = await world.server.accept()
    assert far is not None
    assert far.headers == {"streamtype": "data"}
    await near.write(b"question")
    await near.close_write()
    assert await all_of(far) == b"question"
    await far.write(b"answer")
    await far.close_write()
    assert await all_of(near) == b"answer"
    with pytest.raises(BrokenPipeError):
        await far.write(b"more")
    await far.close_write()  # once is enough, twice is no harm


async def test_a_slow_reader_stops_the_sender_and_loses_nothing(world: World) -> None:
    near = await world.client.open({})
    far = await world.server.accept()
    assert far is not None
    data = bytes(range(256)) * 8000

    async def send() -> None:
        await near.write(data)
        await near.close_write()

    sending = asyncio.create_task(send())
    for _ in range(1000):
        await asyncio.sleep(0)
    assert not sending.done()
    assert world.up.passed < 6 * BUDGET
    assert await all_of(far) == data
    await sending


async def test_a_stream_that_nobody_reads_can_be_dropped(world: World) -> None:
    near, other = await world.client.open({}), await world.client.open({})
    far, reader = await world.server.accept(), await world.server.accept()
    assert far is not None
    assert reader is not None
    sending = asyncio.create_task(near.write(bytes(20 * BUDGET)))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not sending.done()
    await far.close()
    with contextlib.suppress(BrokenPipeError):
        await sending
    assert near.dropped.is_set()
    await other.write(b"goes on")
    assert await reader.read() == b"goes on"


async def test_a_reset_ends_a_stream_after_what_came_before(world: World) -> None:
    near = await world.client.open({})
    far = await world.server.accept()
    assert far is not None
    # Both in one piece, as containerd sends a command's end.
    world.server._session.send(far.number, b"last words")
    world.server._session.reset(far.number)
    await world.server.ping()
    assert await all_of(near) == b"last words"
    await near.dropped.wait()
    with pytest.raises(BrokenPipeError):
        await near.write(b"x")


async def test_a_lost_link_is_an_error_wherever_somebody_waits(world: World) -> None:
    near = await world.client.open({})
    far = await world.server.accept()
    assert far is not None
    await far.write(b"before")
    waiting = asyncio.create_task(world.server.accept())
    assert await near.read() == b"before"
    world.down.inbox.end()
    world.up.inbox.end()
    with pytest.raises(ConnectionError):
        await near.read()
    with pytest.raises(ConnectionError):
        await far.read()
    with pytest.raises(ConnectionError):
        await near.write(b"x")
    with pytest.raises(ConnectionError):
        await world.client.open({})
    assert await waiting is None
    assert await world.server.accept() is None


async def test_the_wrong_protocol_is_told_and_ends_everything(world: World) -> None:
    near = await world.client.open({})
    world.up.inbox.feed(b"\x80\x02" + bytes(6))
    assert await world.server.accept() is not None
    assert await world.server.accept() is None
    await near.close()


async def test_streams_that_nobody_takes_are_refused_in_the_end(world: World) -> None:
    streams = [await world.client.open({}) for _ in range(256)]
    with pytest.raises(ConnectionRefusedError):
        await world.client.open({})
    assert len({stream.number for stream in streams}) == 256


async def test_an_inbox_gives_the_first_of_several(world: World) -> None:
    budget = Budget(10)
    one, two = Inbox(budget), Inbox(budget)
    waiting = asyncio.create_task(wait_ready([one, two]))
    await asyncio.sleep(0)
    two.feed(b"x" * 11)
    await waiting
    full = asyncio.create_task(budget.room())
    await asyncio.sleep(0)
    assert not full.done()
    assert await two.read() == b"x" * 11
    await full
    one.end(ConnectionResetError())
    with pytest.raises(ConnectionResetError):
        await one.read()
