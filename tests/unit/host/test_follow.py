"""Waiting for changes in a directory."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tandem.host import follow
from tandem.host.follow import DirectoryWatch


async def test_a_write_a_new_file_and_a_rename_are_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with DirectoryWatch(tmp_path) as watch:
        async with asyncio.timeout(5):
            log.write_text("made")
            await watch.changed()
            with log.open("a") as file:
                file.write("written")
            await watch.changed()
            log.rename(tmp_path / "log.0")
            await watch.changed()


async def test_nothing_is_told_while_nothing_happens(tmp_path: Path) -> None:
    with DirectoryWatch(tmp_path) as watch:
        waiting = asyncio.create_task(watch.changed())
        await asyncio.sleep(0.02)
        assert not waiting.done()
        (tmp_path / "new").touch()
        await asyncio.wait_for(waiting, 5)


async def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), DirectoryWatch(tmp_path / "gone"):
        pass


async def test_without_inotify_it_looks_again_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoInotify:
        def inotify_init1(self, _flags: int) -> int:
            return -1

    monkeypatch.setattr(follow, "_libc", NoInotify())
    monkeypatch.setattr(follow, "_POLL_SECONDS", 0.01)
    with DirectoryWatch(tmp_path) as watch:
        await asyncio.wait_for(watch.changed(), 5)
