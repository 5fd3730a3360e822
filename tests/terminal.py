"""A program in a terminal of its own, and somebody in front of it."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

PATIENCE = 30.0


class Terminal:
    """Runs ``command`` in a terminal of 80 columns and 24 rows; kills it in the end."""

    def __init__(self, command: Sequence[str | Path]) -> None:
        self._master, slave = os.openpty()
        self.resize(80, 24)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command], stdin=slave, stdout=slave, stderr=slave
        )
        os.close(slave)
        self.seen = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def resize(self, columns: int, rows: int) -> None:
        """Change the window, which the program is told."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def shows(self, words: str) -> None:
        """Wait until ``words`` are on the screen, after those that were waited for before."""
        self._read_until(words.encode())
        self.seen = self.seen.partition(words.encode())[2]

    def ends(self) -> int:
        """Wait for the program's end; its exit code."""
        self._read_until(None)
        return self.process.wait(PATIENCE)

    def _read_until(self, words: bytes | None) -> None:
        deadline = time.monotonic() + PATIENCE
        while words is None or words not in self.seen:
            assert time.monotonic() < deadline, f"{words!r} is not shown: {self.seen!r}"
            if select.select([self._master], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self._master, 65536)
                except OSError:  # everybody on the other side has gone
                    assert words is None, f"it ended without {words!r}: {self.seen!r}"
                    return
