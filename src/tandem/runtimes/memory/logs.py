"""Which lines of a kept log ``LogOptions`` select."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tandem.runtimes.capabilities import LogOptions

Line = tuple[datetime, bytes]


def stamped(line: Line) -> bytes:
    """The line with its time before it, as ``--timestamps`` shows it."""
    return line[0].strftime("%Y-%m-%dT%H:%M:%S.%fZ ").encode() + line[1]


def select(lines: Sequence[Line], options: LogOptions) -> bytes:
    """The part of ``lines`` that ``options`` ask for, as one chunk."""
    chosen = [line for line in lines if options.since is None or line[0] >= options.since]
    if options.tail_lines is not None:
        chosen = chosen[max(0, len(chosen) - options.tail_lines) :]
    text = b"".join(stamped(line) if options.timestamps else line[1] for line in chosen)
    return text if options.limit_bytes is None else text[: options.limit_bytes]
