"""What has arrived in a stream and was not read yet, and the bound on all of it in a connection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

CHUNK = 64 * 1024
"""Bytes that one read returns at most."""


class Budget:
    """Room for what a connection's streams hold unread. Who receives awaits :meth:`room` before it
    reads on, which is how a slow reader slows the sender: by more than one frame it is never passed.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._free = asyncio.Event()
        self._free.set()

    def take(self, size: int) -> None:
        """``size`` bytes more are held."""
        self._used += size
        if self._used >= self._limit:
            self._free.clear()

    def give(self, size: int) -> None:
        """``size`` bytes less are."""
        self._used -= size
        if self._used < self._limit:
            self._free.set()

    async def room(self) -> None:
        """Return once there is room."""
        await self._free.wait()


class Inbox:
    """The receiving side of one stream: one reader, who gets the bytes in order and then the end."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._chunks: deque[bytes] = deque()
        self._ended = False
        self._error: Exception | None = None
        self._discarding = False
        self._waiter: asyncio.Future[None] | None = None

    def feed(self, data: bytes) -> None:
        """Bytes have come."""
        if data and not self._discarding and not self._ended:
            self._budget.take(len(data))
            self._chunks.append(data)
            self._wake()

    def end(self, error: Exception | None = None) -> None:
        """No more will come: because the sender is done, or because of ``error``, which the reader
        gets after what has come before."""
        if not self._ended:
            self._ended, self._error = True, error
            self._wake()

    def discard(self) -> None:
        """Nobody reads any more: what has come and is to come is dropped, and holds up nobody."""
        self._discarding = True
        self._budget.give(sum(map(len, self._chunks)))
        self._chunks.clear()

    @property
    def ready(self) -> bool:
        """Whether there is something to read, be it the end."""
        return bool(self._chunks) or self._ended

    async def read(self) -> bytes:
        """The next bytes, ``b""`` at the end. Raises what the stream ended with."""
        await wait_ready([self])
        return self.read_now()

    def read_now(self) -> bytes:
        """:meth:`read` when :attr:`ready`."""
        if not self._chunks:
            if self._error is not None:
                raise self._error
            return b""
        parts: list[bytes] = []
        size = 0
        while self._chunks and (not parts or size + len(self._chunks[0]) <= CHUNK):
            parts.append(self._chunks.popleft())
            size += len(parts[-1])
        self._budget.give(size)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def watch(self, waiter: asyncio.Future[None] | None) -> None:
        """Have ``waiter`` done when something comes."""
        self._waiter = waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def wait_ready(inboxes: Sequence[Inbox]) -> None:
    """Return once one of ``inboxes`` is ready."""
    while not any(inbox.ready for inbox in inboxes):
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for inbox in inboxes:
            inbox.watch(waiter)
        try:
            await waiter
        finally:
            for inbox in inboxes:
                inbox.watch(None)
