"""Reading the containers' output from the files that the runtime writes.

Following costs nothing while nothing is written: the kernel wakes the reader, and the runtime's events
tell when the container has ended. The files that a log was rotated into are read as the one log that
they are, each to its end before the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

from tandem.errors import NotFound, TandemError
from tandem.runtimes.adapter import EventKind
from tandem.runtimes.capabilities import LogOptions
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.events import EventHub
from tandem.runtimes.cri.inotify import FolderWatcher
from tandem.runtimes.cri.logfiles import LogFile
from tandem.runtimes.cri.logformat import Formatter
from tandem.runtimes.cri.pods import Pods
from tandem.runtimes.cri.status import attempt_order

# Seconds. The runtime says EXITED when it has written all, some 40 ms after the event.
_SETTLE = 10.0
_PATIENCE, _PAUSE = 1.0, 0.02  # seconds; the runtime lets go of a rotated file within milliseconds
_LOOK_INTERVAL = 1.0  # seconds, where the kernel has no watch left to give


class LogReader:
    """Reads the logs of one owner's Pods."""

    def __init__(self, pods: Pods, hub: EventHub) -> None:
        self._pods = pods
        self._hub = hub
        self._watcher = FolderWatcher()

    async def read(
        self, id: str, container: str, options: LogOptions
    ) -> AsyncGenerator[bytes, None]:
        """Chunks of the log of ``container``; see :class:`tandem.runtimes.capabilities.Logs`."""
        wanted = await self._attempt(id, container, previous=options.previous)
        following = options.follow and not options.previous
        file = LogFile(Path(wanted.log_path), until=None if following else time.time())
        formatter = Formatter(options)
        try:
            await asyncio.to_thread(file.seek, options.tail_lines, options.since)
            if following:
                name = wanted.metadata.name
                async for output in self._follow(id, name, wanted.id, file, formatter):
                    yield output
            else:
                async for output in _rest(file, formatter, patiently=True):
                    yield output
        finally:
            file.close()

    async def _attempt(self, id: str, container: str, *, previous: bool) -> cri.ContainerStatus:
        sandbox = await self._pods.sandbox(id)
        found = await self._pods.containers(sandbox.id)
        names = {item.metadata.name for item in found}
        if not container and len(names) == 1:
            container = names.pop()
        attempts = sorted((c for c in found if c.metadata.name == container), key=attempt_order)
        if previous and len(attempts) == 1:
            raise NotFound(f"previous terminated container {container!r} in Pod {id!r} not found")
        status = (
            await self._pods.container(attempts[-2 if previous else -1].id) if attempts else None
        )
        if status is None:
            raise NotFound(f"container {container!r} in Pod {id!r} not found")
        return status

    async def _follow(
        self, id: str, name: str, container: str, file: LogFile, formatter: Formatter
    ) -> AsyncGenerator[bytes, None]:
        changed, ended = asyncio.Event(), asyncio.Event()
        ending = asyncio.create_task(self._await_end(id, name, container, ended, changed))
        try:
            with self._watching(file.path.parent, changed):
                while not formatter.finished:
                    changed.clear()
                    last = ended.is_set()  # before the file is read: all is written by then
                    async for output in _rest(file, formatter, patiently=last):
                        yield output
                    if last:
                        return
                    await changed.wait()
        finally:
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)

    @contextlib.contextmanager
    def _watching(self, folder: Path, changed: asyncio.Event) -> Iterator[None]:
        looking: asyncio.Task[None] | None = None
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._watcher.watch(folder, changed))
            except OSError:
                looking = asyncio.create_task(_set_regularly(changed))
            try:
                yield
            finally:
                if looking is not None:
                    looking.cancel()

    async def _await_end(
        self, id: str, name: str, container: str, ended: asyncio.Event, changed: asyncio.Event
    ) -> None:
        """Set both events when ``container`` has ended, or nobody can tell any more."""
        async with contextlib.aclosing(self._hub.listen()) as stream:
            async for event in stream:
                ours = event.id == id and event.container in ("", name)
                told = event.kind in (EventKind.STOPPED, EventKind.DELETED)
                if event.kind is EventKind.RESYNC:
                    sighting = self._hub.sightings.get(container)
                    told = sighting is not None and sighting.exit_code is not None
                    if await self._has_ended(container):
                        break
                elif not ours:
                    continue
                if told and await self._settled(container):
                    break
        ended.set()
        changed.set()

    async def _settled(self, container: str) -> bool:
        """Whether ``container``, of which an end was told, has ended in CRI's eyes too."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE):
                while not await self._has_ended(container):  # noqa: ASYNC110  (nobody tells)
                    await asyncio.sleep(0.01)
                return True
        return False

    async def _has_ended(self, container: str) -> bool:
        try:
            status = await self._pods.container(container)
        except TandemError:
            return False  # the runtime is away; its return is told
        return status is None or status.state == cri.CONTAINER_EXITED


async def _rest(
    file: LogFile, formatter: Formatter, *, patiently: bool = False
) -> AsyncGenerator[bytes, None]:
    """What is there now. ``patiently``: nobody comes back for what a file that was rotated away just
    now will still get, so that is waited for."""
    left = _PATIENCE
    while not formatter.finished:
        data, anew = await asyncio.to_thread(file.read)
        if anew:
            formatter.restart()
        if not data:
            if not (patiently and file.waiting and left > 0):
                return
            await asyncio.sleep(_PAUSE)
            left -= _PAUSE
        if output := formatter.feed(data):
            yield output


async def _set_regularly(changed: asyncio.Event) -> None:
    while True:
        await asyncio.sleep(_LOOK_INTERVAL)
        changed.set()
