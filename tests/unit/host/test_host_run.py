"""Programs: run to their end, bounded, and gone when nobody waits for them."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path

import pytest

from tandem.errors import DeadlineExceeded, Unavailable
from tandem.host import run as module
from tandem.host.run import Account, ProgramFailed, blocking, run


async def test_a_program_is_run_without_a_shell() -> None:
    finished = await run("echo", "$HOME; exit 1")
    assert finished.stdout == b"$HOME; exit 1\n"
    assert finished.returncode == 0


async def test_input_is_fed_and_a_program_that_ignores_it_is_fine() -> None:
    assert (await run("cat", input=b"a\0b")).stdout == b"a\0b"
    assert (await run("true", input=b"x" * 1_000_000)).returncode == 0


async def test_a_failure_says_what_the_program_said() -> None:
    with pytest.raises(ProgramFailed, match="ended with status 3: it is broken") as caught:
        await run("sh", "-c", "echo it is broken >&2; exit 3")
    assert caught.value.finished.returncode == 3


async def test_ends_that_are_accepted_are_no_failures() -> None:
    assert (await run("sh", "-c", "exit 3", accept=(0, 3))).returncode == 3
    killed = await run("sh", "-c", "kill -TERM $$", accept=None)
    assert killed.returncode == -signal.SIGTERM


async def test_a_program_that_is_not_there_is_unavailable_with_the_hint() -> None:
    with pytest.raises(Unavailable, match="no-such-program") as caught:
        await run("/no/no-such-program", hint="install it")
    assert caught.value.hint == "install it"


async def test_a_program_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(DeadlineExceeded):
        await run("sh", "-c", f"sleep 60 & echo $$ $! > {pids}; wait", timeout=0.1)
    for pid in pids.read_text().split():
        assert not _runs(int(pid))


async def test_cancelling_kills_it_before_the_call_returns(tmp_path: Path) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    task = asyncio.create_task(run("sh", "-c", f"echo $$ > {told}; exec sleep 60"))
    pid = int(await asyncio.to_thread(told.read_text))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not _runs(pid)


async def test_output_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OUTPUT_BYTES", 1000)
    with pytest.raises(ProgramFailed, match="more than 1000 bytes"):
        await run("sh", "-c", "yes")


async def test_a_program_that_talks_into_the_void_is_killed_in_time() -> None:
    with pytest.raises(DeadlineExceeded):
        await run("sh", "-c", "yes | head -c 300000; sleep 60", timeout=0.1)


async def test_processor_time_is_limited() -> None:
    limit = await run("sh", "-c", "ulimit -t", cpu_seconds=7)
    assert limit.stdout == b"7\n"


async def test_it_can_run_as_another_user() -> None:
    finished = await run("id", "-u", account=Account(65534, 65534))
    assert finished.stdout == b"65534\n"


async def test_a_cancelled_blocking_call_is_waited_for() -> None:
    started, go = threading.Event(), threading.Event()
    done = []

    def work() -> None:
        started.set()
        go.wait(5)
        done.append(True)

    task = asyncio.create_task(blocking(work))
    await asyncio.to_thread(started.wait, 5)
    task.cancel()
    asyncio.get_running_loop().call_later(0.02, go.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [True]


def _runs(pid: int) -> bool:
    """Whether the process lives; one that only waits to be reaped does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
