"""The CRI log format, without I/O: records in, a container's output out.

A record is one line of the file: ``<time> <stream> <tags> <content>``. Its first tag says whether the
container's line ends there (``F``) or goes on in the next record (``P``); runtimes cut lines at some
kilobytes.
"""

from __future__ import annotations

from datetime import datetime

from tandem.runtimes.capabilities import LogOptions

_LONGEST_HEADER = 128  # bytes; a time, a stream's name and the tags need about half of it


class Formatter:
    """Turns the bytes of a log file, in any pieces, into what ``options`` ask for."""

    def __init__(self, options: LogOptions) -> None:
        self._timestamps = options.timestamps
        self._since = options.since
        self._left = options.limit_bytes
        # Who asks for the last lines gets no more of them, though more are written meanwhile.
        self._lines = None if options.follow else options.tail_lines
        self._rest = b""
        self._line_start = True

    @property
    def finished(self) -> bool:
        """Whether a limit is reached, so that no further bytes matter."""
        return (self._left is not None and self._left <= 0) or self._lines == 0

    def feed(self, data: bytes) -> bytes:
        """The output in ``data``; the beginning of an unfinished record waits for the next call."""
        records = (self._rest + data).split(b"\n")
        self._rest = records.pop()
        return self._cut(b"".join(map(self._format, records)))

    def restart(self) -> None:
        """The file was begun anew: a record that was unfinished in the old one never ends."""
        self._rest = b""

    def _format(self, record: bytes) -> bytes:
        if self._lines == 0:
            return b""
        time, content, ends = _parse(record)
        if self._lines is not None and ends:
            self._lines -= 1
        if self._since is not None and (written := _moment(time)) is not None:
            if written < self._since:
                return b""
            self._since = None  # times do not go back
        if self._timestamps and self._line_start and time:
            content = time + b" " + content
        self._line_start = ends
        return content + b"\n" if ends else content

    def _cut(self, output: bytes) -> bytes:
        if self._left is None:
            return output
        output = output[: self._left]
        self._left -= len(output)
        return output


def start_of_last_lines(data: bytes, lines: int, *, from_beginning: bool) -> tuple[int | None, int]:
    """Where in ``data``, the end of a file, its last ``lines`` lines begin, and how many of them are
    missing there.

    ``from_beginning``: ``data`` is the whole file. None: they begin before ``data``.
    """
    end = len(data) - data.endswith(b"\n")
    found, last = 0, True
    while end > 0:
        start = data.rfind(b"\n", 0, end) + 1
        if start == 0 and not from_beginning:
            return None, 0  # the record may have begun before
        # A line that the container has not ended yet is one too.
        if last or ends_line(data[start : start + _LONGEST_HEADER]):
            if found == lines:
                return min(end + 1, len(data)), 0
            found += 1
        last = False
        end = start - 1
    return (0, lines - found) if from_beginning else (None, 0)


def ends_line(record: bytes) -> bool:
    """Whether the container's line ends with this record, of which the beginning is enough."""
    return _parse(record)[2]


def _parse(record: bytes) -> tuple[bytes, bytes, bool]:
    """The time, the content, and whether the line ends. What is no record is content as it is."""
    parts = record.split(b" ", 3)
    if len(parts) < 3 or parts[1] not in (b"stdout", b"stderr"):
        return b"", record, True
    content = parts[3] if len(parts) == 4 else b""
    return parts[0], content, parts[2].split(b":")[0] != b"P"


def _moment(time: bytes) -> datetime | None:
    try:
        moment = datetime.fromisoformat(time.decode("ascii"))
    except ValueError:
        return None
    return moment if moment.tzinfo else None
