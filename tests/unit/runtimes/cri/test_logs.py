"""Log files as they are on disk: tails, rotation, and waking up when something is written."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tandem.runtimes.cri import logfiles, logrotation
from tandem.runtimes.cri.inotify import FolderWatcher
from tandem.runtimes.cri.logfiles import LogFile, rotated


def lines(first: int, last: int) -> bytes:
    return b"".join(b"2026-11-22T10:00:00Z stdout F %d\n" % n for n in range(first, last + 1))


def everything(file: LogFile) -> bytes:
    return b"".join(iter(lambda: file.read()[0], b""))


def away(path: Path, number: int) -> Path:
    """What ``path`` is called once it was rotated away."""
    return path.with_name(f"{path.name}.20261122-1000{number:02}.000000")


def write(path: Path) -> None:
    path.write_bytes(b"x")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "0.log"


@pytest.mark.parametrize("block", [10, 40, 1 << 16])
@pytest.mark.parametrize("tail", [0, 1, 7, 100, 101])
def test_a_tail_is_found_whatever_the_block_size(
    path: Path, monkeypatch: pytest.MonkeyPatch, block: int, tail: int
) -> None:
    monkeypatch.setattr(logfiles, "_TAIL_BLOCK", block)
    path.write_bytes(lines(1, 100))
    file = LogFile(path)
    file.seek(tail)
    assert everything(file) == lines(101 - min(tail, 100), 100)
    file.close()


def test_a_file_may_come_later(path: Path) -> None:
    file = LogFile(path)
    file.seek(5)
    assert file.read() == (b"", False)
    path.write_bytes(lines(1, 1))
    assert file.read() == (lines(1, 1), True)
    file.close()


def test_a_rotated_file_is_read_to_its_end_first(path: Path) -> None:
    path.write_bytes(lines(1, 2))
    file = LogFile(path)
    assert file.read() == (lines(1, 2), True)
    with path.open("ab") as writer:
        path.rename(away(path, 1))
        assert file.read() == (b"", False)  # the runtime has not opened the new one yet
        path.write_bytes(lines(4, 5))
        assert file.read() == (b"", False)  # it has, and still has the old one open
        assert file.waiting
        writer.write(lines(3, 3))
    assert file.read() == (lines(3, 3), False)
    assert file.read() == (lines(4, 5), True)
    assert file.read() == (b"", False)
    assert not file.waiting
    file.close()


def test_a_reader_who_is_late_by_several_rotations_misses_nothing(path: Path) -> None:
    path.write_bytes(lines(1, 2))
    file = LogFile(path)
    assert file.read() == (lines(1, 2), True)
    for number in range(1, 5):
        path.rename(away(path, number))
        path.write_bytes(lines(2 * number + 1, 2 * number + 2))
    logrotation._compress_all_but_newest(path)
    assert [entry.compressed for entry in rotated(path)] == [True, True, True, False]
    assert everything(file) == lines(3, 10)
    file.close()


def test_a_reader_whose_file_was_removed_goes_on_with_the_oldest_there_is(path: Path) -> None:
    path.write_bytes(lines(1, 2))
    file = LogFile(path)
    assert file.read() == (lines(1, 2), True)
    for number in range(1, 6):
        path.rename(away(path, number))
        path.write_bytes(lines(2 * number + 1, 2 * number + 2))
        os.utime(path, ns=(0, time.time_ns() + number * 10**9))
    logrotation._remove_excess(path, 4)  # and one more is coming
    assert everything(file) == lines(7, 12)
    file.close()


@pytest.mark.parametrize("tail", [0, 1, 19, 20, 21, 35, 40, 41, 60, 99, 100, 1000, None])
def test_what_was_rotated_away_is_part_of_the_log(path: Path, tail: int | None) -> None:
    for number in range(4):
        path.write_bytes(lines(20 * number + 1, 20 * number + 20))
        path.rename(away(path, number))
    path.write_bytes(lines(81, 100))
    logrotation._compress_all_but_newest(path)
    file = LogFile(path)
    file.seek(tail)
    assert everything(file) == lines(1 if tail is None else max(1, 101 - tail), 100)
    file.close()


def test_a_line_that_a_rotation_cut_in_two_is_one(path: Path) -> None:
    part = b"2026-11-22T10:00:00Z stdout P "
    path.write_bytes(lines(1, 3) + part + b"begin\n")
    path.rename(away(path, 1))
    end = b"2026-11-22T10:00:00Z stdout F end\n"
    path.write_bytes(end)
    for tail, expected in (
        (1, part + b"begin\n" + end),
        (2, lines(3, 3) + part + b"begin\n" + end),
    ):
        file = LogFile(path)
        file.seek(tail)
        assert everything(file) == expected
        file.close()


def test_files_that_are_older_than_what_is_asked_for_are_not_read(path: Path) -> None:
    now = datetime.now(UTC)
    for number, age in ((1, 60), (2, 20)):
        path.write_bytes(lines(number, number))
        written = int((now.timestamp() - age) * 1e9)
        os.utime(path, ns=(written, written))
        path.rename(away(path, number))
    path.write_bytes(lines(3, 3))
    file = LogFile(path)
    file.seek(None, now - timedelta(seconds=30))
    assert everything(file) == lines(2, 3)
    file.close()


def test_who_wants_what_is_there_now_is_not_led_on_for_ever(path: Path) -> None:
    path.write_bytes(lines(1, 2))
    path.rename(away(path, 1))
    path.write_bytes(lines(3, 4))
    file = LogFile(path, until=time.time() + 60)
    file.seek()
    assert file.read()[0] == lines(1, 2)
    late = time.time() + 120
    os.utime(path, (late, late))
    path.rename(away(path, 2))
    path.write_bytes(lines(5, 6))
    assert everything(file) == lines(3, 4)
    file.close()


def test_a_file_that_was_emptied_is_read_from_its_beginning(path: Path) -> None:
    path.write_bytes(lines(1, 9))
    file = LogFile(path)
    everything(file)
    path.write_bytes(lines(1, 1))
    assert file.read() == (lines(1, 1), True)
    file.close()


async def test_a_change_wakes_everybody_who_waits_for_the_folder(path: Path) -> None:
    watcher = FolderWatcher()
    one, two, other = asyncio.Event(), asyncio.Event(), asyncio.Event()
    (path.parent / "other").mkdir()
    with (
        watcher.watch(path.parent, one),
        watcher.watch(path.parent, two),
        watcher.watch(path.parent / "other", other),
    ):
        write(path)
        async with asyncio.timeout(2):
            await one.wait()
            await two.wait()
        assert not other.is_set()
        one.clear()
        with watcher.watch(path.parent, asyncio.Event()):
            pass  # one of several leaves, and the others still hear
        write(path)
        async with asyncio.timeout(2):
            await one.wait()
    assert not watcher._inotify.open


async def test_a_folder_that_is_not_there_cannot_be_watched(path: Path) -> None:
    watcher = FolderWatcher()
    with (
        pytest.raises(FileNotFoundError),
        watcher.watch(path.parent / "absent", asyncio.Event()),
    ):
        pass
    assert not watcher._inotify.open


async def test_a_watched_folder_may_go(path: Path) -> None:
    folder = path.parent / "gone"
    folder.mkdir()
    watcher, changed = FolderWatcher(), asyncio.Event()
    with watcher.watch(folder, changed):
        folder.rmdir()
        async with asyncio.timeout(2):
            await changed.wait()
    assert not watcher._inotify.open
