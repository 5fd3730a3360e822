"""Keeps the containers' logs from filling the disk: each is begun anew when it has grown too long.

Nothing is looked at while nobody writes: the kernel tells of the first write to a log, which is then
looked at again and again, the sooner the faster it grows, until it is at rest. So a flood of lines is
noticed within seconds and then cut every few dozen milliseconds, and a silent container costs nothing.

What is rotated away keeps the kubelet's names (``0.log.20261122-101500``, with a fraction) and is
compressed when the log is calm, all but the newest, which somebody may still be reading.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import os
import shutil
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tandem.errors import TandemError
from tandem.runtimes.adapter import LABEL_ID, LABEL_OWNER
from tandem.runtimes.cri import inotify
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.client import LIST_CONTAINERS, REOPEN_LOG, CriClient
from tandem.runtimes.cri.container import LABEL_CONTAINER_NAME
from tandem.runtimes.cri.inotify import Inotify
from tandem.runtimes.cri.logfiles import COMPRESSED, UNFINISHED, rotated

_log = logging.getLogger(__name__)

_SOONEST, _LATEST = 0.05, 2.0  # seconds between two looks at a log that grows
_FIRST_LOOK = 0.1  # after the first write, when nobody knows yet how fast it grows
_CALM_SECONDS = 10.0  # after a rotation without another one, before it is worth compressing
_RETRY_SECONDS = 10.0  # after a rotation that failed; the kubelet's interval
_SWEEP_SECONDS = 10.0  # where the kernel has no watch left to give

_NEW_FOLDER = inotify.CREATE | inotify.MOVED_TO | inotify.ONLY_DIRECTORY
_WRITE = inotify.MODIFY | inotify.ONE_SHOT | inotify.ONLY_DIRECTORY


@dataclass(frozen=True, slots=True)
class LogLimits:
    """``max_bytes``: a log longer than this is rotated. ``max_files``: the files of one container's
    log that are kept, the one that is written among them; at least 2."""

    max_bytes: int = 10 << 20
    max_files: int = 5


@dataclass(slots=True)
class _Growing:
    """A log that is written to, as it was when it was last looked at."""

    size: int
    at: float
    timer: asyncio.TimerHandle | None = None


class LogRotation:
    """Rotates the logs below ``root`` (``POD/CONTAINER/ATTEMPT.log``).

    ``reopen`` has the runtime write to the path anew; it returns False when the container of that log
    does not run, and raises when it cannot be done now.
    """

    def __init__(
        self, root: Path, limits: LogLimits, reopen: Callable[[Path], Awaitable[bool]]
    ) -> None:
        self._root = root
        self._limits = limits
        self._reopen = reopen
        self._inotify = Inotify(self._heard)
        # As text, of which a thousand weigh a quarter of as many paths.
        self._parents: dict[int, str] = {}  # folders in which folders are awaited
        self._silent: dict[int, str] = {}  # containers' folders in which a write is awaited
        self._growing: dict[Path, _Growing] = {}
        self._calming: dict[Path, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._packing = asyncio.Semaphore(1)  # it is work for a processor, and never urgent
        self._running = False

    def start(self) -> None:
        """Begin, with what is there already. Idempotent."""
        if self._running:
            return
        try:
            self._root.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            _log.warning("the logs in %s cannot be rotated: %s", self._root, error)
            return
        self._running = True
        self._look_into(self._root)

    async def close(self) -> None:
        """Stop. What has begun is finished, so that no log is left without its path. Idempotent."""
        self._running = False
        self._inotify.close()
        for known in (self._parents, self._silent):
            known.clear()
        timers = [growing.timer for growing in self._growing.values()]
        for timer in (*timers, *self._calming.values(), self._sweeper):
            if timer is not None:
                timer.cancel()
        self._growing.clear()
        self._calming.clear()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- hearing of writes -------------------------------------------------------------------

    def _heard(self, watch: int, mask: int, name: str) -> None:
        if watch < 0:  # something was left out: whatever it was, it is found by looking
            self._look_into(self._root)
        elif parent := self._parents.get(watch):
            if mask & inotify.IGNORED:
                del self._parents[watch]
            elif mask & inotify.IS_DIRECTORY:
                self._look_into(Path(parent, name))
        elif folder := self._silent.get(watch):
            # The watch ends with what it was for, and the kernel may use its number again.
            if mask & inotify.IGNORED:
                del self._silent[watch]
            elif name:
                self._grows(Path(folder))

    def _look_into(self, folder: Path) -> None:
        """Await what comes in a folder that may be new, and find what has come already."""
        depth = len(folder.relative_to(self._root).parts)
        try:
            if depth == 2:
                self._await_write(folder)
                return
            self._parents[self._inotify.add(folder, _NEW_FOLDER)] = str(folder)
            for entry in os.scandir(folder):
                if entry.is_dir(follow_symlinks=False):
                    self._look_into(Path(entry.path))
        except (FileNotFoundError, NotADirectoryError):
            return  # gone meanwhile
        except OSError as error:
            self._sweep_later(error)

    def _sweep_later(self, error: OSError) -> None:
        if self._sweeper is None and self._running:
            _log.warning("the kernel cannot watch over more logs; looking at them: %s", error)
            loop = asyncio.get_running_loop()
            self._sweeper = loop.call_later(_SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        for folder in self._root.glob("*/*"):
            if folder not in self._growing:
                self._grows(folder)
        self._look_into(self._root)

    def _await_write(self, folder: Path) -> None:
        if folder in self._growing:
            return
        self._silent[self._inotify.add(folder, _WRITE)] = str(folder)
        path = _newest(folder)
        if path is None:
            return
        # What was written before the watch was set is found now, or never.
        if _size(path) >= self._limits.max_bytes:
            self._grows(folder)
        elif not path.exists():  # somebody was killed between the two steps of a rotation
            self._spawn(self._mend(path))

    # -- looking at what grows ---------------------------------------------------------------

    def _grows(self, folder: Path) -> None:
        if self._running and folder not in self._growing:
            loop = asyncio.get_running_loop()
            growing = self._growing[folder] = _Growing(-1, loop.time())
            growing.timer = loop.call_later(_FIRST_LOOK, self._look, folder)

    def _look(self, folder: Path) -> None:
        growing = self._growing[folder]
        path = _newest(folder)
        if path is None:
            self._rest(folder)
            return
        size = _size(path)
        if size >= self._limits.max_bytes:
            self._spawn(self._rotate(folder, path))
        elif size == growing.size:
            self._rest(folder)
        else:
            self._look_again(folder, size)

    def _look_again(self, folder: Path, size: int) -> None:
        growing, loop = self._growing[folder], asyncio.get_running_loop()
        now = loop.time()
        grown = size - growing.size if growing.size >= 0 else size
        rate = grown / max(now - growing.at, 0.001)
        # Halfway to the limit, at the speed that it has now.
        wait = (self._limits.max_bytes - size) / rate / 2 if rate > 0 else _LATEST
        growing.size, growing.at = size, now
        wait = min(max(wait, _SOONEST), _LATEST)
        growing.timer = loop.call_later(wait, self._look, folder)

    def _rest(self, folder: Path) -> None:
        """It does not grow any more: hear of the next write."""
        before = self._growing.pop(folder)
        if not self._running:
            return
        try:
            self._await_write(folder)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            self._sweep_later(error)
            return
        # A write between the last look and the watch is one that nobody tells of.
        path = _newest(folder)
        if path is not None and _size(path) != before.size:
            self._grows(folder)

    # -- rotating ----------------------------------------------------------------------------

    async def _rotate(self, folder: Path, path: Path) -> None:
        again = _FIRST_LOOK
        try:
            # First, as it makes room where there is none left.
            await asyncio.to_thread(_remove_excess, path, self._limits.max_files)
            if not await self._begin_anew(path):
                self._growing.pop(folder, None)  # it has ended: nothing more will come
                self._watch_for_the_next(folder)
                return
            self._calm_down(path)
        except (OSError, TandemError) as error:
            _log.warning("the log %s cannot be rotated now: %s", path, error)
            again = _RETRY_SECONDS
        if (growing := self._growing.get(folder)) and self._running:
            loop = asyncio.get_running_loop()
            if again == _FIRST_LOOK:  # judge the new file by how fast the old one has grown
                again = _SOONEST
            growing.size, growing.at = 0, loop.time()
            growing.timer = loop.call_later(again, self._look, folder)

    async def _begin_anew(self, path: Path) -> bool:
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S.%f")
        away = path.with_name(f"{path.name}.{stamp}")
        await asyncio.to_thread(path.rename, away)
        done = False
        try:
            done = await self._reopen(path)
        finally:
            if not done:
                await asyncio.to_thread(_put_back, away, path)
        return done

    async def _mend(self, path: Path) -> None:
        try:
            await self._reopen(path)
        except TandemError as error:
            _log.warning("the log %s is not written to now: %s", path, error)

    def _watch_for_the_next(self, folder: Path) -> None:
        """The container may be started again; its next attempt has a file of its own."""
        with contextlib.suppress(OSError):
            self._silent[self._inotify.add(folder, _WRITE)] = str(folder)

    def _calm_down(self, path: Path) -> None:
        if timer := self._calming.pop(path, None):
            timer.cancel()
        if self._running:
            loop = asyncio.get_running_loop()
            self._calming[path] = loop.call_later(_CALM_SECONDS, self._calm, path)

    def _calm(self, path: Path) -> None:
        del self._calming[path]
        self._spawn(self._pack(path))

    async def _pack(self, path: Path) -> None:
        async with self._packing:
            if not self._running:
                return
            try:
                await asyncio.to_thread(_compress_all_but_newest, path)
            except OSError as error:
                _log.warning("a log that was rotated cannot be compressed: %s", error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="log-rotation")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def reopen_log(client: CriClient, owner: str, path: Path) -> bool:
    """Have the runtime write to ``path`` anew, which is the log of one of ``owner``'s containers.
    False: that container does not run."""
    attempt, folder = path.name.partition(".")[0], path.parent
    labels = {
        LABEL_OWNER: owner,
        LABEL_ID: folder.parent.name.rpartition("_")[2],
        LABEL_CONTAINER_NAME: folder.name,
    }
    wanted = cri.ContainerFilter(
        state=cri.ContainerStateValue(state=cri.CONTAINER_RUNNING), label_selector=labels
    )
    listed = await client.call(LIST_CONTAINERS, cri.ListContainersRequest(filter=wanted))
    for container in listed.containers:
        if str(container.metadata.attempt) == attempt:
            request = cri.ReopenContainerLogRequest(container_id=container.id)
            await client.call(REOPEN_LOG, request, whole=True)
            return True
    return False


def _newest(folder: Path) -> Path | None:
    """The log of the container's last attempt, which may be on its way to another name."""
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except OSError:
        return None
    attempts = [int(stem) for stem, _, _ in (n.partition(".log") for n in names) if stem.isdigit()]
    return folder / f"{max(attempts)}.log" if attempts else None


def _put_back(away: Path, path: Path) -> None:
    if not path.exists():  # else the runtime has begun it anew all the same
        away.rename(path)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _remove_excess(path: Path, max_files: int) -> None:
    """Make room for one more: the file that is written is about to be rotated away."""
    files = rotated(path)
    for file in files[: max(0, len(files) - (max_files - 2))]:
        for form in (file.path, file.path.with_name(file.path.name + COMPRESSED)):
            form.unlink(missing_ok=True)


def _compress_all_but_newest(path: Path) -> None:
    for leftover in path.parent.glob(f"{path.name}.*{UNFINISHED}"):
        leftover.unlink(missing_ok=True)
    for file in rotated(path)[:-1]:
        if not file.compressed:
            _compress(file.path)


def _compress(path: Path) -> None:
    """Put the compressed form into the file's place; readers find either, whole."""
    unfinished = path.with_name(path.name + UNFINISHED)
    facts = path.stat()
    try:
        with open(path, "rb") as source, open(unfinished, "wb") as target:
            os.fchmod(target.fileno(), facts.st_mode & 0o777)
            with gzip.GzipFile(fileobj=target, mode="wb", filename="", mtime=0) as packed:
                shutil.copyfileobj(source, packed, 1 << 20)
        # When it was last written to, by which readers know it again.
        os.utime(unfinished, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        unfinished.rename(path.with_name(path.name + COMPRESSED))
        path.unlink()
    except FileNotFoundError:
        return  # removed as one too many, or with its Pod
    finally:
        unfinished.unlink(missing_ok=True)
