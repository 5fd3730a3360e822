"""Waking up when something in a folder changes, by the kernel's inotify, without a thread.

One inotify instance serves all waiters of an adapter: the kernel allows a user 128 of them, and logs
may be followed by more.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path

_MODIFY, _MOVED_FROM, _MOVED_TO = 0x02, 0x40, 0x80
_CREATE, _DELETE, _DELETE_SELF, _MOVE_SELF = 0x100, 0x200, 0x400, 0x800
_MASK = _MODIFY | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF
_HEADER = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows

_libc = ctypes.CDLL(None, use_errno=True)


class FolderWatcher:
    """Sets events when something in a folder is written, made, moved or removed."""

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._waiters: dict[int, set[asyncio.Event]] = {}

    @contextlib.contextmanager
    def watch(self, folder: Path, changed: asyncio.Event) -> Iterator[None]:
        """Set ``changed`` at each change in ``folder``.

        Raises ``OSError`` when the folder is not there, or the kernel's limits are reached.
        """
        watch = self._add(folder)
        waiters = self._waiters.setdefault(watch, set())
        waiters.add(changed)
        try:
            yield
        finally:
            waiters.discard(changed)
            if not waiters and self._waiters.get(watch) is waiters:
                del self._waiters[watch]
                self._drop(watch)

    def _add(self, folder: Path) -> int:
        if self._descriptor is None:
            self._descriptor = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
            asyncio.get_running_loop().add_reader(self._descriptor, self._read)
        try:
            # The kernel hands out the same number for the same folder.
            return _checked(_libc.inotify_add_watch(self._descriptor, os.fsencode(folder), _MASK))
        except OSError:
            self._close_if_idle()
            raise

    def _drop(self, watch: int) -> None:
        if self._descriptor is not None:
            _libc.inotify_rm_watch(self._descriptor, watch)  # fails if the folder is gone
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._descriptor is not None and not self._waiters:
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
            watch, _, _, length = _HEADER.unpack_from(data, offset)
            offset += _HEADER.size + length
            # -1 tells of an overflow: everybody may have missed something.
            told = self._waiters.values() if watch < 0 else [self._waiters.get(watch, set())]
            for waiters in told:
                for changed in waiters:
                    changed.set()


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
