"""The files of one container's log: the one that is written, and those it was before it was rotated.

    0.log   0.log.20261122-101500.123456   0.log.20261122-101458.002311.gz

They are one log: a reader goes from each to the next in order, through compressed ones too, and is not
misled by a rotation in between. Blocking; there is nothing of the runtime in here but who writes.
"""

from __future__ import annotations

import fcntl
import gzip
import os
import signal
import time
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, cast

from tandem.runtimes.cri.logformat import ends_line, start_of_last_lines

COMPRESSED, UNFINISHED = ".gz", ".tmp"

_CHUNK = 256 * 1024
_TAIL_BLOCK = 64 * 1024
_QUIET_SECONDS = 0.5  # without a write, where the kernel cannot say whether there is a writer


@dataclass(frozen=True, slots=True)
class Rotated:
    """A file that was rotated away. ``stamp`` orders them; ``written`` is when the container last
    wrote to it (nanoseconds), which compressing keeps."""

    path: Path
    stamp: str
    inode: int
    written: int

    @property
    def compressed(self) -> bool:
        """Whether it is packed by gzip."""
        return self.path.name.endswith(COMPRESSED)


def rotated(path: Path) -> list[Rotated]:
    """What ``path`` was before, the oldest first."""
    found: dict[str, Rotated] = {}
    prefix = f"{path.name}."
    try:
        entries = sorted(os.scandir(path.parent), key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
    for entry in entries:
        if not entry.name.startswith(prefix) or entry.name.endswith(UNFINISHED):
            continue
        stamp = entry.name.removeprefix(prefix).removesuffix(COMPRESSED)
        try:
            facts = entry.stat()
        except FileNotFoundError:
            continue  # compressed or removed just now
        # Its compressed form comes after it here, and is whole: it counts where both are there.
        found[stamp] = Rotated(Path(entry.path), stamp, facts.st_ino, facts.st_mtime_ns)
    return sorted(found.values(), key=lambda file: file.stamp)


@dataclass(slots=True)
class _Opened:
    """A file that is read. ``stamp`` None: it was the one that is written when it was opened."""

    raw: BinaryIO
    file: BinaryIO
    stamp: str | None

    @classmethod
    def at(cls, path: Path, stamp: str | None) -> _Opened | None:
        try:
            raw = open(path, "rb", buffering=0)  # noqa: SIM115  (closed by close)
        except FileNotFoundError:
            return None
        packed = path.name.endswith(COMPRESSED)
        return cls(raw, cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw, stamp)

    @classmethod
    def of(cls, rotated: Rotated) -> _Opened | None:
        """It may be compressed since it was listed."""
        packed = rotated.path.with_name(rotated.path.name + COMPRESSED)
        return cls.at(rotated.path, rotated.stamp) or cls.at(packed, rotated.stamp)

    @property
    def facts(self) -> os.stat_result:
        return os.fstat(self.raw.fileno())

    @property
    def packed(self) -> bool:
        return self.file is not self.raw

    def close(self) -> None:
        self.file.close()
        self.raw.close()


class LogFile:
    """A reader of the log at ``path``, which may not be there yet, and may be rotated meanwhile.

    ``until``: a time (seconds since 1970) after which no further file is begun, so that who wants
    what is there now comes to an end, however fast it grows.
    """

    def __init__(self, path: Path, *, until: float | None = None) -> None:
        self.path = path
        self._until = until
        self._open: _Opened | None = None
        self.waiting = False
        """Whether what is read was rotated away and its writer has not let go of it yet: there may be
        a little more in it before the next file counts."""

    def seek(self, lines: int | None = None, since: datetime | None = None) -> None:
        """Begin at the last ``lines`` lines of all, or at the beginning with None; what was written
        before ``since`` may be left out."""
        # In this order: what is rotated in between is then in the list, not between both.
        current = _Opened.at(self.path, None)
        older = rotated(self.path)
        if current is not None:
            mine = [file.inode for file in older]
            if (inode := current.facts.st_ino) in mine:
                del older[mine.index(inode) :]
        if since is not None:
            older = [file for file in older if file.written >= since.timestamp() * 1e9]
        self._open = current
        if lines is None:
            if first := next(filter(None, map(_Opened.of, older)), None):
                self._take(first)
            return
        start = 0
        if current is not None:
            start, lines = _from_the_end(current.file, lines)
            current.file.seek(start)
        while start == 0 and older:
            opened = _Opened.of(older.pop())
            if opened is None:
                return  # removed meanwhile: the log begins after it by now
            self._take(opened)
            start, lines = _from_the_beginning(opened.file, lines)
            opened.file.seek(start)

    def read(self) -> tuple[bytes, bool]:
        """The next piece, empty when there is none now; and whether it begins another file."""
        self.waiting = False
        fresh = self._open is None
        if fresh:
            self._take(_Opened.at(self.path, None))
        while self._open is not None:
            if data := self._open.file.read(_CHUNK):
                return data, fresh
            if self._open.stamp is None:
                if self._emptied():
                    self._open.file.seek(0)
                    fresh = True
                    continue
                if not self._moved_away():
                    break
            if self._until is not None and self._open.facts.st_mtime > self._until:
                break
            if not self._open.packed:
                if not _let_go(self._open.raw):
                    self.waiting = True
                    break
                if data := self._open.file.read(_CHUNK):  # written since, before it was let go of
                    return data, fresh
            following = self._following(self._open)
            if following is None:  # the runtime is about to make it
                break
            self._take(following)
            fresh = True
        return b"", False

    def close(self) -> None:
        self._take(None)

    def _take(self, opened: _Opened | None) -> None:
        if self._open is not None:
            self._open.close()
        self._open = opened

    def _emptied(self) -> bool:
        assert self._open is not None, "asked of an open file"
        return self._open.facts.st_size < self._open.file.tell()

    def _moved_away(self) -> bool:
        """Whether the path leads to another file by now."""
        assert self._open is not None, "asked of an open file"
        try:
            return os.stat(self.path).st_ino != self._open.facts.st_ino
        except FileNotFoundError:
            return False  # rotated away, and the next one is not there yet

    def _following(self, mine: _Opened) -> _Opened | None:
        """The file that comes after ``mine``, which is complete."""
        while True:
            newer = self._newer(mine)
            for opened in map(_Opened.of, newer):
                if opened is not None:
                    return opened
            current = _Opened.at(self.path, None)
            if current is None:
                return None
            if not self._newer(mine):
                return current
            current.close()  # rotated once more just now: what came between is read first

    def _newer(self, mine: _Opened) -> list[Rotated]:
        files = rotated(self.path)
        facts = mine.facts
        if mine.stamp is None:
            for file in files:
                moved = file.inode == facts.st_ino
                if moved or (file.compressed and file.written == facts.st_mtime_ns):
                    mine.stamp = file.stamp
                    break
        if mine.stamp is None:  # removed by now, or moved to where we do not know
            return [file for file in files if file.written > facts.st_mtime_ns]
        return [file for file in files if file.stamp > mine.stamp]


def _let_go(file: BinaryIO) -> bool:
    """Whether nobody can write to ``file`` any more.

    The kernel grants a read lease only where there is no writer; it is given back at once. Were it
    broken in between, the signal would be one that means nothing.
    """
    try:
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return False
    except OSError:  # another's file, or a file system without leases
        return time.time() - os.fstat(file.fileno()).st_mtime > _QUIET_SECONDS
    return True


def _from_the_end(file: BinaryIO, lines: int) -> tuple[int, int]:
    """Where the last ``lines`` lines begin in the file that is written, and how many more are to be
    found before it. A line that has not ended yet is one too."""
    begin = file.seek(0, os.SEEK_END)
    data = b""
    while True:
        # Twice as much each time: what was read already is looked through again.
        step = min(max(_TAIL_BLOCK, len(data)), begin)
        begin -= step
        file.seek(begin)
        data = file.read(step) + data
        start, left = start_of_last_lines(data, lines, from_beginning=begin == 0)
        if start is not None:
            return begin + start, left


def _from_the_beginning(file: BinaryIO, lines: int) -> tuple[int, int]:
    """The same for a file that was rotated away. A line that has not ended in it ends in the next
    one, where it was counted."""
    starts = deque([0], maxlen=lines + 1)
    offset, rest = 0, b""
    for chunk in iter(lambda: file.read(_CHUNK), b""):
        *records, rest = (rest + chunk).split(b"\n")
        for record in records:
            offset += len(record) + 1
            if ends_line(record):
                starts.append(offset)
    found = len(starts) - 1
    return starts[0], lines - found
