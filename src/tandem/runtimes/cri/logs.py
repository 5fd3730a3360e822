"""Reading the containers' output from the files that the runtime writes.

Following costs nothing while nothing is written: the kernel wakes the reader, and the runtime's events
tell when the container has ended. A file that was rotated is read to its end before the new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import BinaryIO

from tandem.errors import NotFound, TandemError
from tandem.runtimes.adapter import EventKind
from tandem.runtimes.capabilities import LogOptions
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.events import EventHub
from tandem.runtimes.cri.inotify import FolderWatcher
from tandem.runtimes.cri.logformat import Formatter, start_of_last_lines
from tandem.runtimes.cri.pods import Pods
from tandem.runtimes.cri.status import attempt_order

_CHUNK = 256 * 1024
_TAIL_BLOCK = 64 * 1024
# Seconds. The runtime says EXITED when it has written all, some 40 ms after the event.
_SETTLE = 10.0
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
        file = LogFile(Path(wanted.log_path))
        formatter = Formatter(options)
        try:
            await asyncio.to_thread(file.seek_lines, options.tail_lines)
            if options.follow and not options.previous:
                name = wanted.metadata.name
                async for output in self._follow(id, name, wanted.id, file, formatter):
                    yield output
            else:
                async for output in _rest(file, formatter):
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
                    async for output in _rest(file, formatter):
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


class LogFile:
    """A log file that may not be there yet, and may be rotated while it is read. Blocking."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None

    def seek_lines(self, lines: int | None) -> None:
        """Begin at the last ``lines`` lines, or at the beginning with None."""
        if lines is None or not self._open():
            return
        assert self._file is not None, "an opened file is there"
        begin = self._file.seek(0, os.SEEK_END)
        data = b""
        while True:
            step = min(_TAIL_BLOCK, begin)
            begin -= step
            self._file.seek(begin)
            data = self._file.read(step) + data
            found = start_of_last_lines(data, lines, from_beginning=begin == 0)
            if found is not None:
                self._file.seek(begin + found)
                return

    def read(self) -> tuple[bytes, bool]:
        """The next piece, empty when there is none now; and whether it begins another file."""
        fresh = self._file is None and self._open()
        if self._file is None:
            return b"", False
        if data := self._file.read(_CHUNK):
            return data, fresh
        if not self._replaced():
            return b"", False
        if data := self._file.read(_CHUNK):  # written before it was moved away, after we looked
            return data, False
        self.close()
        return (self._file.read(_CHUNK) if self._open() and self._file else b""), True

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> bool:
        try:
            self._file = open(self.path, "rb", buffering=0)  # noqa: SIM115  (closed by close)
        except FileNotFoundError:
            return False
        return True

    def _replaced(self) -> bool:
        """Whether the path leads to another file by now, or to less of this one."""
        assert self._file is not None, "asked of an open file"
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return False  # rotated away, and the next one is not there yet
        here = os.fstat(self._file.fileno())
        return there.st_ino != here.st_ino or there.st_size < self._file.tell()


async def _rest(file: LogFile, formatter: Formatter) -> AsyncGenerator[bytes, None]:
    """What is there now."""
    while not formatter.finished:
        data, anew = await asyncio.to_thread(file.read)
        if anew:
            formatter.restart()
        if not data:
            return
        if output := formatter.feed(data):
            yield output


async def _set_regularly(changed: asyncio.Event) -> None:
    while True:
        await asyncio.sleep(_LOOK_INTERVAL)
        changed.set()
