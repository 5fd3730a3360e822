"""Rotation: when it happens, what is kept, and what becomes of a rotation that fails."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from tandem.errors import Unavailable
from tandem.runtimes.cri import inotify, logrotation
from tandem.runtimes.cri.logfiles import LogFile, rotated
from tandem.runtimes.cri.logrotation import LogLimits, LogRotation

LIMITS = LogLimits(max_bytes=10_000, max_files=3)


class Writer:
    """A runtime that writes one container's log, a numbered line at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = 0
        self.running = True
        self.error: Exception | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = path.open("ab")

    def write(self, lines: int) -> None:
        for _ in range(lines):
            self.lines += 1
            self._file.write(b"2026-11-22T10:00:00Z stdout F line %06d\n" % self.lines)
        self._file.flush()

    async def reopen(self, path: Path) -> bool:
        assert path == self.path
        if self.error is not None:
            raise self.error
        if self.running:
            self._file.close()
            self._file = path.open("ab")
        return self.running

    def close(self) -> None:
        self._file.close()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    writer = Writer(tmp_path / "ns_pod_uid" / "main" / "0.log")
    yield writer
    writer.close()


@pytest.fixture
async def rotation(tmp_path: Path, writer: Writer) -> AsyncIterator[LogRotation]:
    rotation = LogRotation(tmp_path, LIMITS, writer.reopen)
    yield rotation
    await rotation.close()


async def eventually(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110  (files do not tell)
            await asyncio.sleep(0.01)


def kept(writer: Writer) -> int:
    return len(rotated(writer.path)) + 1


def read(path: Path) -> bytes:
    file = LogFile(path)
    file.seek()
    try:
        return b"".join(iter(lambda: file.read()[0], b""))
    finally:
        file.close()


async def test_a_log_that_grows_is_begun_anew_and_its_oldest_part_goes(
    writer: Writer, rotation: LogRotation
) -> None:
    rotation.start()
    for turn in range(1, 5):
        writer.write(300)
        await eventually(lambda: is_empty(writer.path))
        assert kept(writer) == min(turn + 1, LIMITS.max_files)
    numbers = [int(line.rpartition(b" ")[2]) for line in read(writer.path).splitlines()]
    assert numbers == list(range(601, 1201))


async def test_nothing_is_done_while_nobody_writes(writer: Writer, rotation: LogRotation) -> None:
    rotation.start()
    await asyncio.sleep(0.05)
    assert not rotation._growing
    writer.write(1)
    await eventually(lambda: rotation._growing)
    await eventually(lambda: not rotation._growing)  # at rest again
    assert kept(writer) == 1
    writer.write(300)
    await eventually(lambda: kept(writer) == 2)


async def test_what_comes_later_is_found(
    tmp_path: Path, writer: Writer, rotation: LogRotation
) -> None:
    writer.close()
    rotation.start()
    await asyncio.sleep(0.05)
    other = Writer(tmp_path / "ns_other_uid" / "side" / "0.log")
    rotation._reopen = other.reopen
    other.write(300)
    await eventually(lambda: kept(other) == 2)
    other.close()
    restarted = Writer(other.path.with_name("1.log"))  # the next attempt of the same container
    rotation._reopen = restarted.reopen
    restarted.write(300)
    await eventually(lambda: kept(restarted) == 2)
    restarted.close()


async def test_what_grew_while_no_daemon_ran_is_found(
    writer: Writer, rotation: LogRotation
) -> None:
    writer.write(300)
    rotation.start()
    await eventually(lambda: kept(writer) == 2)


async def test_a_container_that_has_ended_keeps_its_log_as_it_is(
    writer: Writer, rotation: LogRotation
) -> None:
    writer.running = False
    writer.write(300)
    rotation.start()
    await eventually(lambda: not rotation._growing and not rotation._tasks)
    assert kept(writer) == 1
    assert read(writer.path).count(b"\n") == 300


async def test_a_runtime_that_is_away_loses_nothing(
    writer: Writer, rotation: LogRotation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logrotation, "_RETRY_SECONDS", 0.05)
    writer.error = Unavailable("it is away")
    rotation.start()
    writer.write(300)
    await asyncio.sleep(0.5)
    await eventually(writer.path.exists)
    writer.write(1)
    assert read(writer.path).count(b"\n") == 301
    writer.error = None
    await eventually(lambda: kept(writer) == 2)
    assert read(writer.path).count(b"\n") == 301


async def test_a_rotation_that_was_cut_short_is_finished(
    writer: Writer, rotation: LogRotation
) -> None:
    writer.write(5)
    writer.path.rename(writer.path.with_name("0.log.20261122-100000.000000"))
    rotation.start()
    await eventually(writer.path.exists)
    writer.write(5)
    assert read(writer.path).count(b"\n") == 10


def is_empty(path: Path) -> bool:
    """Whether the log was rotated; between its two steps there is no file at all."""
    try:
        return path.stat().st_size == 0
    except FileNotFoundError:
        return False


async def test_a_calm_log_is_compressed_but_for_its_newest_part(
    writer: Writer, rotation: LogRotation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logrotation, "_CALM_SECONDS", 0.1)
    rotation.start()
    for _ in range(2):
        writer.write(300)
        await eventually(lambda: is_empty(writer.path))
        await asyncio.sleep(0.2)
    await eventually(lambda: rotated(writer.path)[0].compressed)
    first, second = rotated(writer.path)
    assert not second.compressed
    assert gzip.decompress(first.path.read_bytes()).startswith(b"2026-11-22T10:00:00Z")
    assert read(writer.path).count(b"\n") == 600


async def test_without_watches_the_logs_are_looked_at(
    writer: Writer, rotation: LogRotation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object, folder: Path, mask: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(inotify.Inotify, "add", refuse)
    monkeypatch.setattr(logrotation, "_SWEEP_SECONDS", 0.05)
    rotation.start()
    writer.write(300)
    await eventually(lambda: kept(writer) == 2)


async def test_a_follower_who_is_slow_reads_every_line_of_a_flood(
    writer: Writer, rotation: LogRotation
) -> None:
    rotation._limits = LogLimits(max_bytes=10_000, max_files=1000)
    rotation.start()
    file, seen = LogFile(writer.path), b""
    for _ in range(40):
        writer.write(400)
        await asyncio.sleep(0.06)
        seen += file.read()[0]  # at most one file of many at a time
    assert kept(writer) > 5
    while data := file.read()[0]:
        seen += data
    file.close()
    numbers = [int(line.rpartition(b" ")[2]) for line in seen.splitlines()]
    assert numbers == list(range(1, writer.lines + 1))
