"""Log files as they are on disk: tails, rotation, and waking up when something is written."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tandem.runtimes.cri import logs
from tandem.runtimes.cri.inotify import FolderWatcher
from tandem.runtimes.cri.logs import LogFile


def lines(first: int, last: int) -> bytes:
    return b"".join(b"2026-11-22T10:00:00Z stdout F %d\n" % n for n in range(first, last + 1))


def everything(file: LogFile) -> bytes:
    return b"".join(iter(lambda: file.read()[0], b""))


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
    monkeypatch.setattr(logs, "_TAIL_BLOCK", block)
    path.write_bytes(lines(1, 100))
    file = LogFile(path)
    file.seek_lines(tail)
    assert everything(file) == lines(101 - min(tail, 100), 100)
    file.close()


def test_a_file_may_come_later(path: Path) -> None:
    file = LogFile(path)
    file.seek_lines(5)
    assert file.read() == (b"", False)
    path.write_bytes(lines(1, 1))
    assert file.read() == (lines(1, 1), True)
    file.close()


def test_a_rotated_file_is_read_to_its_end_first(path: Path) -> None:
    path.write_bytes(lines(1, 2))
    file = LogFile(path)
    assert file.read() == (lines(1, 2), True)
    with path.open("ab") as writer:
        path.rename(path.with_suffix(".old"))
        assert file.read() == (b"", False)  # the runtime has not opened the new one yet
        writer.write(lines(3, 3))
        writer.flush()
        path.write_bytes(lines(4, 5))
        assert file.read() == (lines(3, 3), False)
        assert file.read() == (lines(4, 5), True)
        assert file.read() == (b"", False)
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
    assert watcher._descriptor is None


async def test_a_folder_that_is_not_there_cannot_be_watched(path: Path) -> None:
    watcher = FolderWatcher()
    with (
        pytest.raises(FileNotFoundError),
        watcher.watch(path.parent / "absent", asyncio.Event()),
    ):
        pass
    assert watcher._descriptor is None


async def test_a_watched_folder_may_go(path: Path) -> None:
    folder = path.parent / "gone"
    folder.mkdir()
    watcher, changed = FolderWatcher(), asyncio.Event()
    with watcher.watch(folder, changed):
        folder.rmdir()
        async with asyncio.timeout(2):
            await changed.wait()
    assert watcher._descriptor is None
