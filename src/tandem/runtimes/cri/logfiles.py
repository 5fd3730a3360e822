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
from collections import deque
from collections.abc import Iterator
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


class LogFile:
    """A reader of the log at ``path``, which may not be there yet, and may be rotated meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._raw: BinaryIO | None = None
        self._file: BinaryIO | None = None
        self._stamp: str | None = None  # of the file that is open; None: the one that is written
        self.waiting = False
        """Whether the file that is open was rotated away and its writer has not let go of it yet:
        there may be a little more in it before the next one counts."""

    def seek(self, lines: int | None = None, since: datetime | None = None) -> None:
        """Begin at the last ``lines`` lines of all, or at the beginning with None; what was written
        before ``since`` may be left out."""
        # Any file that is opened after this list was made is newer than all in it.
        older = rotated(self.path)
        if since is not None:
            older = [file for file in older if file.written >= since.timestamp() * 1e9]
        if lines is None:
            if older:
                self._open_rotated(older)
            return
        if self._open_current():
            assert self._file is not None, "an opened file is there"
            start, lines = _from_the_end(self._file, lines)
            if start > 0:
                self._file.seek(start)
                return
        while older:
            file = older.pop()
            if not self._open_rotated([file]):
                return  # removed meanwhile: the log begins after it by now
            assert self._file is not None, "an opened file is there"
            start, lines = _from_the_beginning(self._file, lines)
            self._file.seek(start)
            if start > 0:
                return
        if self._file is not None:
            self._file.seek(0)

    def read(self) -> tuple[bytes, bool]:
        """The next piece, empty when there is none now; and whether it begins another file."""
        fresh = self._file is None and self._open_current()
        self.waiting = False
        while self._file is not None:
            if data := self._file.read(_CHUNK):
                return data, fresh
            if not self._moved_away():
                return b"", False
            if self._stamp is None and not self._left_alone():
                self.waiting = True
                return b"", False
            if data := self._file.read(_CHUNK):  # written before it was let go of
                return data, fresh
            if not self._open_next():
                return b"", False
            fresh = True
        return b"", False

    def close(self) -> None:
        for file in (self._file, self._raw):
            if file is not None:
                file.close()
        self._file = self._raw = None

    # -- opening -----------------------------------------------------------------------------

    def _open_current(self) -> bool:
        try:
            raw = open(self.path, "rb", buffering=0)  # noqa: SIM115  (closed by close)
        except FileNotFoundError:
            return False
        self._take(raw, raw, None)
        return True

    def _open_rotated(self, files: list[Rotated]) -> bool:
        """Open the first of ``files`` that is still there, in whichever form."""
        for file in files:
            plain = file.path.with_name(file.path.name.removesuffix(COMPRESSED))
            for path in (file.path, plain.with_name(plain.name + COMPRESSED)):
                try:
                    raw = open(path, "rb", buffering=0)  # noqa: SIM115  (closed by close)
                except FileNotFoundError:
                    continue
                unpacked = gzip.GzipFile(fileobj=raw) if path.suffix == COMPRESSED else raw
                self._take(raw, cast(BinaryIO, unpacked), file.stamp)
                return True
        return False

    def _open_next(self) -> bool:
        """Go on to the file after the one that is open, which has been read to its end."""
        before = self._raw
        assert before is not None, "asked of an open file"
        mine = os.fstat(before.fileno())
        if self._stamp is None:
            self._stamp = self._find_stamp(mine)
        while True:
            newer = self._newer(mine)
            if newer:
                if self._open_rotated(newer):
                    return True
                continue  # removed meanwhile
            stamp = self._stamp
            keep_raw, keep_file = self._raw, self._file
            self._raw = self._file = None
            if not self._open_current():  # the runtime is about to make it
                self._raw, self._file = keep_raw, keep_file
                return False
            self._close(keep_file, keep_raw)
            self._stamp = stamp
            newer = self._newer(mine)
            if not newer:
                self._stamp = None
                return True
            # It was rotated once more before it was opened: what came between is read first.

    def _take(self, raw: BinaryIO, file: BinaryIO, stamp: str | None) -> None:
        self.close()
        self._raw, self._file, self._stamp = raw, file, stamp

    @staticmethod
    def _close(*files: BinaryIO | None) -> None:
        for file in files:
            if file is not None:
                file.close()
