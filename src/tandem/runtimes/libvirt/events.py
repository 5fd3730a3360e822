"""Events to any number of listeners, none of whom can hold up another or be skipped in silence."""

from __future__ import annotations

import asyncio
from collections import deque

from tandem.runtimes.adapter import EventKind, RuntimeEvent

MAX_WAITING = 1024
"""Events that a listener may be behind before they are replaced by one ``RESYNC``."""

RESYNC = RuntimeEvent(EventKind.RESYNC)


class Listener:
    """One consumer's queue."""

    def __init__(self) -> None:
        self._waiting: deque[RuntimeEvent] = deque()
        self._ready = asyncio.Event()
        self._ended = False

    def put(self, event: RuntimeEvent) -> None:
        """Add an event; one too many, or a ``RESYNC``, replaces all that wait."""
        if event is RESYNC or len(self._waiting) >= MAX_WAITING:
            self._waiting.clear()
            event = RESYNC
        self._waiting.append(event)
        self._ready.set()

    def end(self) -> None:
        """Let :meth:`get` return None once the queue is empty."""
        self._ended = True
        self._ready.set()

    async def get(self) -> RuntimeEvent | None:
        """The next event; None at the end."""
        while not self._waiting:
            if self._ended:
                return None
            self._ready.clear()
            await self._ready.wait()
        return self._waiting.popleft()


class Broadcast:
    """Hands each event to every listener."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()

    def __len__(self) -> int:
        return len(self._listeners)

    def listen(self) -> Listener:
        """A new listener; give it back with :meth:`leave`."""
        listener = Listener()
        self._listeners.add(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        """The listener wants no more."""
        self._listeners.discard(listener)

    def tell(self, event: RuntimeEvent) -> None:
        """Tell everybody."""
        for listener in self._listeners:
            listener.put(event)

    def end(self) -> None:
        """There will be no more events."""
        for listener in self._listeners:
            listener.end()
