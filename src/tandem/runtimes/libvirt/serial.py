"""Reading the log of a serial console: from its rotated files, from the end, and as it grows.

virtlogd writes the log and rotates it: ``serial.log`` is the newest, ``serial.log.0`` the one before,
and so on. The log is bytes as the guest sent them; it has no times.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from tandem.host.follow import DirectoryWatch
from tandem.host.run import blocking
from tandem.runtimes.capabilities import LogOptions

_CHUNK = 1 << 16


async def read(path: Path, options: LogOptions, off: asyncio.Event) -> AsyncIterator[bytes]:
    """Chunks of the log at ``path``, as ``options`` ask. With ``follow``, until the machine is
    ``off`` and everything it said has been read."""
    left = options.limit_bytes
    async for chunk in _chunks(path, options, off):
        if left is None:
            yield chunk
        elif left > 0:
            yield chunk[:left]
            left -= len(chunk)
        else:
            return


async def _chunks(path: Path, options: LogOptions, off: asyncio.Event) -> AsyncIterator[bytes]:
    with contextlib.ExitStack() as stack:
        watch = None
        if options.follow:
            with contextlib.suppress(FileNotFoundError):
                watch = stack.enter_context(DirectoryWatch(path.parent))
        files = await blocking(_open_all, path)
        for file in files:
            stack.callback(file.close)
        if options.tail_lines is not None:
            files = await blocking(_seek_tail, files, options.tail_lines)
        for file in files:
            while chunk := await blocking(file.read, _CHUNK):
                yield chunk
        if watch is None:
            return
        current = files[-1] if files else None
        while True:
            ended = off.is_set()  # asked before reading: what it said last is read after its end
            replaced = await blocking(_replacement, path, current)
            if current is not None:
                while chunk := await blocking(current.read, _CHUNK):
                    yield chunk
            if replaced is not None:
                stack.callback(replaced.close)
                current = replaced
                continue
            if ended:
                return
            await _first_of(watch, off)


async def _first_of(watch: DirectoryWatch, off: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(watch.changed()), asyncio.ensure_future(off.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _open_all(path: Path) -> list[BinaryIO]:
    """The log's files, oldest first; a rotation in between may lose one, as it does on disk."""
    backups = sorted(
        (int(file.suffix[1:]), file)
        for file in path.parent.glob(f"{path.name}.*")
        if file.suffix[1:].isdigit()
    )
    opened: list[BinaryIO] = []
    for file in [*(file for _, file in reversed(backups)), path]:
        with contextlib.suppress(FileNotFoundError):
            opened.append(file.open("rb", buffering=0))
    return opened


def _replacement(path: Path, current: BinaryIO | None) -> BinaryIO | None:
    """The file that is the log now, opened, when that is not ``current``."""
    try:
        found = path.open("rb", buffering=0)
    except FileNotFoundError:
        return None
    if current is not None and os.path.sameopenfile(found.fileno(), current.fileno()):
        found.close()
        return None
    return found


def _seek_tail(files: list[BinaryIO], lines: int) -> list[BinaryIO]:
    """The files from the one on in which the last ``lines`` lines begin, set to where they do."""
    if lines == 0:
        for file in files:
            file.seek(0, os.SEEK_END)
        return files
    wanted = lines + 1  # the newline that ends the line before
    for index in range(len(files) - 1, -1, -1):
        file = files[index]
        end = position = file.seek(0, os.SEEK_END)
        while position > 0:
            size = min(_CHUNK, position)
            position -= size
            file.seek(position)
            block = file.read(size)
            if index == len(files) - 1 and position + size == end and not block.endswith(b"\n"):
                wanted -= 1  # the last line is not finished, and counts
            found = block.count(b"\n")
            if found >= wanted:
                offset = len(block)
                for _ in range(wanted):
                    offset = block.rfind(b"\n", 0, offset)
                file.seek(position + offset + 1)
                for newer in files[index + 1 :]:
                    newer.seek(0)
                return files[index:]
            wanted -= found
    for file in files:
        file.seek(0)
    return files
