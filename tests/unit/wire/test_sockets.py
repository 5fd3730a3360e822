"""A socket's two directions fail each on its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from tandem.wire.sockets import SocketStream


@pytest.fixture
async def ends() -> AsyncIterator[tuple[SocketStream, SocketStream]]:
    listener = socket.create_server(("127.0.0.1", 0))
    near = socket.create_connection(listener.getsockname())
    far, _ = listener.accept()
    listener.close()
    pair = SocketStream(near), SocketStream(far, b"first")
    yield pair
    for end in pair:
        await end.close()
        await end.close()


async def whole(stream: SocketStream) -> bytes:
    found = b""
    while data := await stream.read():
        found += data
    return found


async def test_one_direction_ends_and_the_other_goes_on(
    ends: tuple[SocketStream, SocketStream],
) -> None:
    near, far = ends
    await near.write(b"question")
    await near.close_write()
    assert await whole(far) == b"firstquestion"
    await far.write(b"answer")
    await far.close()
    assert await whole(near) == b"answer"


async def test_the_last_words_are_read_after_a_write_has_failed(
    ends: tuple[SocketStream, SocketStream],
) -> None:
    near, far = ends
    await near.write(b"never read")
    await far.write(b"last words")
    await far.close()
    with pytest.raises(ConnectionError):
        await near.write(bytes(50_000_000))
    with pytest.raises(BrokenPipeError):
        await near.write(b"x")
    assert await near.read() == b"last words"


async def test_closing_wakes_whoever_waits(ends: tuple[SocketStream, SocketStream]) -> None:
    near, _ = ends
    reading = asyncio.create_task(near.read())
    writing = asyncio.create_task(near.write(bytes(50_000_000)))
    done, _ = await asyncio.wait([reading, writing], timeout=0.1)
    assert not done
    await near.close()
    assert await reading == b""
    with pytest.raises(ConnectionError):
        await writing
    with pytest.raises(ConnectionError):
        await near.read()


async def test_a_write_that_was_cut_short_is_the_last(
    ends: tuple[SocketStream, SocketStream],
) -> None:
    near, _ = ends
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await near.write(bytes(50_000_000))
    with pytest.raises(BrokenPipeError):
        await near.write(b"x")
