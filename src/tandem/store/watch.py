"""Watches: a bounded log of changes per resource, and cursors that read along it.

A watch has no queue of its own. It is a position in the log of its resource, so a thousand watches of
one resource cost a thousand positions, and a watch that reads too slowly is noticed when the log has
dropped what it has not read yet: it is then cut off with ``Expired``, never skipped over.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from types import TracebackType

from tandem.errors import Expired
from tandem.store.types import StoreEvent

BATCH = 256
"""Most events handed out at once, so that one busy watch does not hold up the loop."""


class Log:
    """The newest changes of one resource (or of all), oldest first, bounded in number and bytes.

    ``floor`` is the revision up to which changes are forgotten: who has seen less must list again.
    """

    def __init__(self, floor: int, *, max_events: int, max_bytes: int) -> None:
        self.floor = floor
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._events: list[StoreEvent] = []
        self._dropped = 0  # positions count from the first event ever; this many are gone
        self._bytes = 0
        self._watches: dict[Watch, None] = {}  # a set that keeps the order of arrival

    def position_after(self, revision: int) -> int:
        """The position of the first change after ``revision``. Raises ``Expired``."""
        if revision < self.floor:
            raise _expired(revision, self.floor)
        return self._dropped + bisect_right(
            self._events, revision, key=lambda event: event.revision
        )

    @property
    def end(self) -> int:
        """The position of the next change."""
        return self._dropped + len(self._events)

    def read(self, position: int, limit: int) -> list[StoreEvent]:
        """Up to ``limit`` changes from ``position`` on. Raises ``Expired`` when some are gone."""
        start = position - self._dropped
        if start < 0:
            raise Expired(
                "the watch read too slowly and was cut off: changes it has not seen are compacted",
                hint="List again, and watch from the list's resourceVersion.",
            )
        return self._events[start : start + limit]

    def append(self, event: StoreEvent) -> None:
        """Record a change and wake the watches that wait for it."""
        position = self.end
        self._events.append(event)
        self._bytes += len(event.data)
        for watch in self._watches:
            watch.offer(event, position)
        self._trim()

    def add(self, watch: Watch) -> None:
        """Let ``watch`` be woken by changes."""
        self._watches[watch] = None

    def remove(self, watch: Watch) -> None:
        """Forget ``watch``."""
        self._watches.pop(watch, None)

    def end_watches(self) -> None:
        """End every watch, as when the store closes."""
        for watch in list(self._watches):
            watch.close()

    def _trim(self) -> None:
        if len(self._events) <= self._max_events and self._bytes <= self._max_bytes:
            return
        # Drop to three quarters at once: dropping one by one would move the whole list each time.
        count = 0
        events, bytes_ = len(self._events), self._bytes
        while events > 1 and (
            events > self._max_events * 3 // 4 or bytes_ > self._max_bytes * 3 // 4
        ):
            bytes_ -= len(self._events[count].data)
            count += 1
            events -= 1
        if count:
            self.floor = self._events[count - 1].revision
            del self._events[:count]
            self._dropped += count
            self._bytes = bytes_


class Watch:
    """Changes in order, as an async iterator; close it, or use it as an (async) context manager.

    Iteration ends when the watch or the store is closed, and raises ``Expired`` when the reader was
    too slow. One reader at a time.
    """

    def __init__(self, log: Log, namespace: str | None, since: int | None) -> None:
        self._log = log
        self._namespace = namespace
        self._position = log.end if since is None else log.position_after(since)
        self._ready: deque[StoreEvent] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._closed = False
        log.add(self)

    @property
    def caught_up(self) -> bool:
        """Whether every change committed so far has been handed out: what a bookmark may say."""
        return not self._ready and (self._waiting is not None or self._position >= self._log.end)

    async def batch(self) -> list[StoreEvent]:
        """The next changes, at least one, at most ``BATCH``; empty when the watch is closed.

        Raises ``Expired`` when this reader was too slow.
        """
        if self._ready:
            events = list(self._ready)
            self._ready.clear()
            return events
        while not self._closed:
            while events := self._log.read(self._position, BATCH):
                self._position += len(events)
                if mine := [event for event in events if self._wants(event)]:
                    return mine
            waiting = self._waiting = asyncio.get_running_loop().create_future()
            try:
                await waiting
            finally:
                self._waiting = None
                if waiting.cancelled():  # nothing this watch wants came while it waited
                    self._position = self._log.end
        return []

    def offer(self, event: StoreEvent, position: int) -> None:
        """Wake the reader for ``event``, if it waits and wants it (called by the log)."""
        waiting = self._waiting
        if waiting is None or waiting.done() or not self._wants(event):
            return
        # A reader that waits has missed nothing it wants: it may jump over the rest, however much
        # of that the log has dropped meanwhile.
        self._position = position
        waiting.set_result(None)

    def close(self) -> None:
        """End the iteration. Idempotent."""
        self._closed = True
        self._log.remove(self)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _wants(self, event: StoreEvent) -> bool:
        return self._namespace is None or event.key.namespace == self._namespace

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> StoreEvent:
        if not self._ready:
            self._ready.extend(await self.batch())
            if not self._ready:
                raise StopAsyncIteration
        return self._ready.popleft()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Watch:
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        self.close()


def _expired(revision: int, floor: int) -> Expired:
    return Expired(
        f"too old resource version: {revision} ({floor})",
        hint="List again, and watch from the list's resourceVersion.",
    )
