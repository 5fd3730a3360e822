"""The log of a serial console: whole, from its end, and as it grows and is rotated."""

# ruff: noqa: ASYNC240 - the files are tiny
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tandem.runtimes.capabilities import LogOptions
from tandem.runtimes.libvirt import serial


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "serial.log"


async def _read(log: Path, off: asyncio.Event | None = None, **options: int | bool) -> bytes:
    chosen = LogOptions(**options)  # type: ignore[arg-type]
    return b"".join([chunk async for chunk in serial.read(log, chosen, off or asyncio.Event())])


async def test_a_log_is_read_whole_with_what_was_rotated(log: Path) -> None:
    log.with_name("serial.log.1").write_bytes(b"first\n")
    log.with_name("serial.log.0").write_bytes(b"second\n")
    log.with_name("serial.log.old").write_bytes(b"not a log\n")
    log.write_bytes(b"third\n")
    assert await _read(log) == b"first\nsecond\nthird\n"


async def test_a_log_that_is_not_there_yet_is_empty(log: Path) -> None:
    assert await _read(log) == b""


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (0, b""),
        (1, b"e"),
        (2, b"d\ne"),
        (3, b"c\nd\ne"),
        (5, b"a\nb\nc\nd\ne"),
        (9, b"a\nb\nc\nd\ne"),
    ],
)
async def test_the_last_lines_are_found_across_files(
    log: Path, lines: int, expected: bytes
) -> None:
    log.with_name("serial.log.0").write_bytes(b"a\nb\nc\n")
    log.write_bytes(b"d\ne")
    assert await _read(log, tail_lines=lines) == expected


async def test_the_last_lines_of_a_long_log(log: Path) -> None:
    lines = [b"%d %s\n" % (number, b"x" * (number % 300)) for number in range(3000)]
    log.write_bytes(b"".join(lines))
    for count in (1, 500, 2999, 3000, 3001):
        assert await _read(log, tail_lines=count) == b"".join(lines[-count:])


async def test_no_more_than_the_limit_is_given(log: Path) -> None:
    log.write_bytes(b"x" * 200_000)
    assert len(await _read(log, limit_bytes=100_000)) == 100_000
    assert await _read(log, limit_bytes=0) == b""


async def _next(chunks: AsyncIterator[bytes]) -> bytes:
    async with asyncio.timeout(5):
        return await anext(chunks)


async def test_following_gives_what_is_written_until_the_machine_is_off(log: Path) -> None:
    log.write_bytes(b"before\n")
    off = asyncio.Event()
    chunks = serial.read(log, LogOptions(follow=True), off)
    assert await _next(chunks) == b"before\n"
    with log.open("ab", buffering=0) as file:
        file.write(b"after\n")
        assert await _next(chunks) == b"after\n"
        file.write(b"last words\n")
        off.set()
    assert await _next(chunks) == b"last words\n"
    with pytest.raises(StopAsyncIteration):
        await _next(chunks)


async def test_following_goes_on_over_a_rotation(log: Path) -> None:
    log.write_bytes(b"one\n")
    chunks = serial.read(log, LogOptions(follow=True), asyncio.Event())
    assert await _next(chunks) == b"one\n"
    with log.open("ab", buffering=0) as file:
        file.write(b"two\n")
        assert await _next(chunks) == b"two\n"
        file.write(b"three\n")
    log.rename(log.with_name("serial.log.0"))
    log.write_bytes(b"four\n")
    seen = b""
    while not seen.endswith(b"four\n"):
        seen += await _next(chunks)
    assert seen == b"three\nfour\n"


async def test_following_what_does_not_exist_yet_waits_for_it(log: Path) -> None:
    chunks = serial.read(log, LogOptions(follow=True), asyncio.Event())
    waiting = asyncio.create_task(_next(chunks))
    await asyncio.sleep(0.01)
    log.write_bytes(b"here\n")
    assert await waiting == b"here\n"


async def test_following_a_machine_that_is_off_ends_at_once(log: Path) -> None:
    off = asyncio.Event()
    off.set()
    log.write_bytes(b"all\n")
    assert await _read(log, off, follow=True) == b"all\n"
