"""What all streams of the server have in common: they end with it, and they notice a dead client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from tandem.server.call import Api

LINGER = 10.0
"""Seconds that the end of a session waits for the client to have taken all of it."""

# A connection that is not read, because a process takes no input, does not show that the client is
# gone; writing to it does. Also, kubectl gives up a minute after the last answer to its pings, which
# wait behind such input: the sign that is sent to a WebSocket is an answer.
_BEAT_SECONDS = 20.0


@contextlib.asynccontextmanager
async def streaming(api: Api) -> AsyncIterator[None]:
    """Around a stream: the server cancels it when it stops."""
    task = asyncio.current_task()
    assert task is not None
    api.streams.add(task)
    try:
        yield
    finally:
        api.streams.discard(task)


@contextlib.asynccontextmanager
async def receiving(
    run: Awaitable[None], sign: Callable[[], Awaitable[None]]
) -> AsyncIterator[asyncio.Task[None]]:
    """Have ``run`` receive in a task of its own, which is done when the client is gone, and give the
    client a ``sign`` of life now and then."""

    async def receive() -> None:
        beating = asyncio.create_task(_beat(sign))
        main = asyncio.ensure_future(run)
        try:
            await asyncio.wait([main, beating], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(main, beating)

    task = asyncio.create_task(receive())
    try:
        yield task
    finally:
        await end(task)


async def _beat(sign: Callable[[], Awaitable[None]]) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            await asyncio.sleep(_BEAT_SECONDS)
            await sign()


async def end(*tasks: asyncio.Future[None]) -> None:
    """Cancel ``tasks`` and wait for their ends, whatever those are."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
