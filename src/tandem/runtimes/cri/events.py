"""One stream of events from the runtime, shared by everybody who listens.

The stream is open while somebody listens. Each listener has a bounded queue of its own; one that lags
loses its queue and is told to list again, which costs it one listing and nobody else anything.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncGenerator, Callable

from tandem.errors import TandemError, Unsupported
from tandem.runtimes.adapter import EventKind, RuntimeEvent
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.client import VERSION, CriClient
from tandem.runtimes.cri.sources import ContainerdEvents, CriEvents, Polling, Source
from tandem.runtimes.cri.status import Sighting

_log = logging.getLogger(__name__)

_QUEUE_LENGTH = 4096
"""Events a listener may lag: a hundred Pods of several containers coming and going at once."""

_FIRST_BACKOFF, _MAX_BACKOFF = 0.05, 1.0  # seconds; status must be right a second after a restart

RESYNC = RuntimeEvent(EventKind.RESYNC)


class _Listener:
    """A bounded queue that turns into one ``RESYNC`` when it is full."""

    def __init__(self) -> None:
        self._events: deque[RuntimeEvent] = deque()
        self._waiting = asyncio.Event()
        self._ended = False

    def put(self, event: RuntimeEvent) -> None:
        if event.kind is EventKind.RESYNC or len(self._events) >= _QUEUE_LENGTH:
            # Whatever was to be told is in the listing that follows.
            self._events.clear()
            event = RESYNC
        self._events.append(event)
        self._waiting.set()

    def end(self) -> None:
        self._ended = True
        self._waiting.set()

    async def get(self) -> RuntimeEvent | None:
        """The next event; None when there will be none any more."""
        while not self._events and not self._ended:
            self._waiting.clear()
            await self._waiting.wait()
        return self._events.popleft() if self._events else None


class EventHub:
    """Events of one owner's workloads, for any number of listeners.

    ``sightings``, by container id, are what events said and CRI's status may not say yet; they are
    kept only while somebody listens. ``connected`` is called whenever the stream begins.
    """

    def __init__(
        self, client: CriClient, owner: str, *, connected: Callable[[], None] = lambda: None
    ) -> None:
        self.sightings: dict[str, Sighting] = {}
        self._client = client
        self._owner = owner
        self._connected = connected
        self._listeners: set[_Listener] = set()
        self._live = False
        self._task: asyncio.Task[None] | None = None

    async def listen(self) -> AsyncGenerator[RuntimeEvent, None]:
        """Events from now on, a ``RESYNC`` first and after each break of the stream, until closed."""
        listener = _Listener()
        if self._live:
            listener.put(RESYNC)
        self._listeners.add(listener)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="events of the container runtime")
        try:
            while (event := await listener.get()) is not None:
                yield event
        finally:
            self._listeners.discard(listener)
            if not self._listeners:
                await self._stop()

    async def close(self) -> None:
        """Stop listening to the runtime, and end what all listeners are told."""
        for listener in self._listeners:
            listener.end()
        await self._stop()

    async def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        backoff = _FIRST_BACKOFF
        source: Source | None = None
        try:
            while True:
                try:
                    source = source or await self._first_source()
                    await source.run(self._emit)
                except Unsupported:
                    source = self._next_source(source)
                    continue
                except TandemError as error:
                    _log.info("no events from the container runtime: %s", error.message)
                except Exception:
                    # A message that we do not understand may not silence what comes after it.
                    _log.exception("the stream of events failed")
                if self._live:
                    backoff = _FIRST_BACKOFF
                    source = None  # what comes back may be another version
                self._lost()
                await asyncio.sleep(backoff * random.uniform(0.5, 1.0))
                backoff = min(backoff * 2, _MAX_BACKOFF)
        finally:
            self._lost()

    def _emit(self, event: RuntimeEvent) -> None:
        if event.kind is EventKind.RESYNC:
            self._live = True
            self._connected()
        for listener in self._listeners:
            listener.put(event)

    def _lost(self) -> None:
        self._live = False
        self.sightings.clear()

    async def _first_source(self) -> Source:
        # containerd's own stream comes first: every version of it has one, it tells of memory kills,
        # and its CRI stream, where it has one, serves a single listener only.
        version = await self._client.call(VERSION, cri.VersionRequest())
        if version.runtime_name == "containerd":
            return ContainerdEvents(self._client, self._owner, self.sightings)
        return CriEvents(self._client, self._owner)

    def _next_source(self, source: Source | None) -> Source:
        if isinstance(source, ContainerdEvents):
            return CriEvents(self._client, self._owner)
        _log.warning("the container runtime tells no events; its state is looked at instead")
        return Polling(self._client, self._owner)
