"""The kernel's inotify, without a thread: who asks is called from the event loop.

One instance serves all waiters of an adapter: the kernel allows a user 128 of them, and logs may be
followed by more.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

MODIFY, CLOSE_WRITE, MOVED_FROM, MOVED_TO = 0x02, 0x08, 0x40, 0x80
CREATE, DELETE, DELETE_SELF, MOVE_SELF = 0x100, 0x200, 0x400, 0x800
OVERFLOW, IGNORED, ONLY_DIRECTORY, IS_DIRECTORY, ONE_SHOT = (
    0x4000,
    0x8000,
    1 << 24,
    1 << 30,
    1 << 31,
)
"""As in linux/inotify.h. ``IGNORED`` is told when a watch has ended, whatever ended it."""

_ANY = MODIFY | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF
_HEADER = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows

_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """Calls ``heard(watch, mask, name)`` for what happens to the folders that were added. A ``watch``
    of -1 is the kernel's word that it had to leave something out."""

    def __init__(self, heard: Callable[[int, int, str], None]) -> None:
        self._heard = heard
        self._descriptor: int | None = None

    @property
    def open(self) -> bool:
        """Whether the kernel keeps anything for us."""
        return self._descriptor is not None

    def add(self, folder: Path, mask: int) -> int:
        """Hear of ``mask`` in ``folder``; the same number for the same folder.

        Raises ``OSError`` when the folder is not there, or the kernel's limits are reached.
        """
        if self._descriptor is None:
            self._descriptor = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
            asyncio.get_running_loop().add_reader(self._descriptor, self._read)
        path = os.fsencode(folder)
        # ctypes takes the mask as a signed number unless it is told.
        return _checked(_libc.inotify_add_watch(self._descriptor, path, ctypes.c_uint32(mask)))

    def drop(self, watch: int) -> None:
        """Hear no more of it."""
        if self._descriptor is not None:
            _libc.inotify_rm_watch(self._descriptor, watch)  # fails if the folder is gone

    def close(self) -> None:
        """Let go of all. A later :meth:`add` begins anew. Idempotent."""
        if self._descriptor is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def _read(self) -> None:
        assert self._descriptor is not None, "a closed descriptor is not read"
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            watch, mask, _, length = _HEADER.unpack_from(data, offset)
            offset += _HEADER.size
            name = data[offset : offset + length].rstrip(b"\0")
            offset += length
            self._heard(-1 if mask & OVERFLOW else watch, mask, os.fsdecode(name))


class FolderWatcher:
    """Sets events when something in a folder is written, closed, made, moved or removed."""

    def __init__(self) -> None:
        self._inotify = Inotify(self._heard)
        self._waiters: dict[int, set[asyncio.Event]] = {}

    @contextlib.contextmanager
    def watch(self, folder: Path, changed: asyncio.Event) -> Iterator[None]:
        """Set ``changed`` at each change in ``folder``. Raises ``OSError`` as :meth:`Inotify.add`."""
        try:
            watch = self._inotify.add(folder, _ANY)
        except OSError:
            self._close_if_idle()
            raise
        waiters = self._waiters.setdefault(watch, set())
        waiters.add(changed)
        try:
            yield
        finally:
            waiters.discard(changed)
            if not waiters and self._waiters.get(watch) is waiters:
                del self._waiters[watch]
                self._inotify.drop(watch)
            self._close_if_idle()

    def _close_if_idle(self) -> None:
        if not self._waiters:
            self._inotify.close()

    def _heard(self, watch: int, mask: int, name: str) -> None:
        # Who missed something does not know what: everybody looks.
        told = self._waiters.values() if watch < 0 else [self._waiters.get(watch, set())]
        for waiters in told:
            for changed in waiters:
                changed.set()


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
