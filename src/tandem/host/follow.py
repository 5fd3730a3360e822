"""Waiting for files to change, by inotify: no polling while nothing happens, no delay when it does."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
from pathlib import Path
from types import TracebackType

_MODIFY, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE_SELF = 0x2, 0x40, 0x80, 0x100, 0x400
_WATCHED = _MODIFY | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE_SELF

# Where inotify is not to be had (the user's limit of watches), look again this often.
_POLL_SECONDS = 0.25

_libc = ctypes.CDLL(None, use_errno=True)


class DirectoryWatch:
    """Tells when something in a directory was written, made, renamed or removed.

    A directory rather than a file is watched because logs are rotated: the file that one reads is
    renamed and another appears under its name. Use as a context manager, on the event loop.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fd = -1
        self._news = asyncio.Event()

    def __enter__(self) -> DirectoryWatch:
        fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if fd >= 0:
            if _libc.inotify_add_watch(fd, os.fsencode(self._directory), _WATCHED) >= 0:
                self._fd = fd
                asyncio.get_running_loop().add_reader(fd, self._drain)
            else:
                os.close(fd)
                if ctypes.get_errno() == errno.ENOENT:
                    raise FileNotFoundError(errno.ENOENT, "no such directory", self._directory)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    async def changed(self) -> None:
        """Wait for a change since the last time this returned, or since entering."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if self._fd >= 0 else _POLL_SECONDS):
                await self._news.wait()
        self._news.clear()

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(
                self._fd, 1 << 16
            )  # which file it was does not matter: there is one of interest
        self._news.set()
