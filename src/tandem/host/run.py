"""The one way to run a program: no shell; bounded in time, output and processor time; typed errors.

Programs are run for their effect or their answer and end by themselves (``qemu-img``, ``xorriso``, a
probe); what has to outlive the daemon is never started from here. A program that is not waited for
any longer, because its time is up or the caller was cancelled, is killed with its whole process group
before the call returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from tandem.errors import DeadlineExceeded, TandemError, Unavailable

DEFAULT_TIMEOUT_SECONDS = 30.0
MAX_OUTPUT_BYTES = 1 << 20  # no program here says more; one that does has gone wrong

_CHUNK = 1 << 16
_END_SECONDS = 5.0
_MESSAGE_BYTES = 2000  # how much of what a failed program said goes into the error


P = ParamSpec("P")
T = TypeVar("T")


async def blocking(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``function`` in a thread, and see its end even when the caller is cancelled.

    A thread cannot be stopped, and one that still works behind the back of a cancelled caller would
    make things again that the caller is undoing. For short work only: a few milliseconds of files.
    """
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        raise


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended. ``returncode`` is negative when a signal killed it, as in subprocess."""

    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def said(self) -> str:
        """What it said last, for an error message: standard error, else standard output."""
        words = self.stderr.strip() or self.stdout.strip()
        return words[-_MESSAGE_BYTES:].decode(errors="replace")


class ProgramFailed(TandemError):
    """A program ended with another status than 0, or said more than it may. ``finished`` has it."""

    def __init__(self, message: str, finished: Finished) -> None:
        super().__init__(message)
        self.finished = finished


@dataclass(frozen=True, slots=True)
class Account:
    """The user that a program is to run as; needs root. Supplementary groups are ``groups`` only."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


async def run(
    *argv: str | os.PathLike[str],
    timeout: float = DEFAULT_TIMEOUT_SECONDS,
    cpu_seconds: int | None = None,
    input: bytes = b"",
    account: Account | None = None,
    accept: Iterable[int] | None = (0,),
    hint: str | None = None,
) -> Finished:
    """Run ``argv`` to its end, without a shell, and return how it ended.

    ``timeout`` bounds it by the clock; ``cpu_seconds`` by the processor time it uses, so that a busy
    host does not make a healthy program look stuck (it is then killed by SIGXCPU). ``accept`` are the
    exit statuses that are no failure; None accepts every end, signals included. ``hint`` is added
    when the program is not installed.

    Raises ``Unavailable`` (not installed, or may not be run), ``DeadlineExceeded``, ``ProgramFailed``.
    """
    command = [os.fspath(word) for word in argv]
    name = os.path.basename(command[0])
    if cpu_seconds is not None:
        command = ["prlimit", f"--cpu={cpu_seconds}", "--core=0", "--", *command]
    as_account: dict[str, Any] = (
        {"user": account.uid, "group": account.gid, "extra_groups": account.groups}
        if account
        else {}
    )
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE if input else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C"},  # their words are read by code and by people
            **as_account,
        )
    except OSError as error:
        raise Unavailable(f"cannot run {name}: {error.strerror}", hint=hint) from error
    try:
        async with asyncio.timeout(timeout):
            finished = await _communicate(process, name, input)
    except TimeoutError as error:
        raise DeadlineExceeded(f"{name} did not finish within {timeout:g} s") from error
    finally:
        if process.returncode is None:
            await asyncio.shield(_end(process))
    if accept is not None and finished.returncode not in accept:
        how = (
            f"with status {finished.returncode}"
            if finished.returncode >= 0
            else f"by {signal.Signals(-finished.returncode).name}"
        )
        raise ProgramFailed(f"{name} ended {how}: {finished.said}", finished)
    return finished


async def _communicate(process: asyncio.subprocess.Process, name: str, input: bytes) -> Finished:
    assert process.stdout is not None
    assert process.stderr is not None

    async def feed() -> None:
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                process.stdin.write(input)
                await process.stdin.drain()
            process.stdin.close()

    async def collect(stream: asyncio.StreamReader) -> bytes:
        collected = bytearray()
        while chunk := await stream.read(_CHUNK):
            if len(collected) <= MAX_OUTPUT_BYTES:
                collected += chunk
                if len(collected) > MAX_OUTPUT_BYTES:
                    _kill(process)
        return bytes(collected)

    _, stdout, stderr = await asyncio.gather(
        feed(), collect(process.stdout), collect(process.stderr)
    )
    finished = Finished(await process.wait(), stdout, stderr)
    if max(len(stdout), len(stderr)) > MAX_OUTPUT_BYTES:
        raise ProgramFailed(f"{name} said more than {MAX_OUTPUT_BYTES} bytes", finished)
    return finished


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill the program, and see it gone."""
    _kill(process)
    # asyncio only reports an end once the pipes are at theirs, and stops reading into a full buffer.
    # A child that left the group may hold them open: that is not waited for.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_SECONDS):
            for stream in (process.stdout, process.stderr):
                while stream is not None and await stream.read(_CHUNK):
                    pass
            await process.wait()
