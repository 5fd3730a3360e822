"""Commands inside pretend containers, and connections to their ports.

A command is a program of ``MemoryRuntime.programs``, by its first word: a coroutine that is given its
:class:`Process` and returns its exit code. There are ``cat``, ``wc -c``, ``head -c N`` (of zeros),
``sizes`` (says its terminal's size, each time), and whatever :mod:`tandem.runtimes.memory.script`
understands (``sh -c "echo x; exit 3"``). A port is a coroutine of ``MemoryRuntime.ports`` that is
given the inner end of each connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from tandem.errors import DeadlineExceeded, InvalidSpec
from tandem.runtimes.capabilities import ExecResult, HalfCloseStream
from tandem.runtimes.memory.script import plan
from tandem.wire.inbox import Budget, Inbox, wait_ready

_PIPE_BYTES = 64 * 1024  # as the kernel's


class Pipe:
    """Bytes one way: who writes waits while it is full."""

    def __init__(self) -> None:
        self._budget = Budget(_PIPE_BYTES)
        self.inbox = Inbox(self._budget)

    async def read(self) -> bytes:
        return await self.inbox.read()

    async def write(self, data: bytes) -> None:
        await self._budget.room()
        self.inbox.feed(data)

    def end(self) -> None:
        """No more will be written."""
        self.inbox.end()


class Connection:
    """One end of a connection. See :class:`tandem.runtimes.capabilities.HalfCloseStream`."""

    def __init__(self, incoming: Pipe, outgoing: Pipe) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self.serving: asyncio.Task[None] | None = None  # who serves the other end

    async def read(self) -> bytes:
        return await self._incoming.read()

    async def write(self, data: bytes) -> None:
        await self._outgoing.write(data)

    async def close_write(self) -> None:
        self._outgoing.end()

    async def close(self) -> None:
        self._outgoing.end()
        self._incoming.inbox.discard()
        self._incoming.end()
        if self.serving is not None:
            self.serving.cancel()


@dataclass(slots=True)
class Process:
    """What a program is given. ``sizes``: of its terminal, columns and rows, as they change."""

    command: Sequence[str]
    tty: bool = False
    stdin: Pipe = field(default_factory=Pipe)
    stdout: Pipe = field(default_factory=Pipe)
    stderr: Pipe = field(default_factory=Pipe)
    sizes: asyncio.Queue[tuple[int, int] | None] = field(default_factory=asyncio.Queue)


Program = Callable[[Process], Awaitable[int]]
Listener = Callable[[HalfCloseStream], Awaitable[None]]


class Session:
    """An :class:`~tandem.runtimes.capabilities.ExecSession` of a process that runs here. Its tasks
    end when it is closed."""

    def __init__(self, process: Process, run: Awaitable[int]) -> None:
        self._process = process
        self._ending = asyncio.create_task(self._run(run))
        self._outputs = [(1, process.stdout), (2, process.stderr)]

    async def read(self) -> tuple[int, bytes] | None:
        while self._outputs:
            await wait_ready([pipe.inbox for _, pipe in self._outputs])
            for number, pipe in self._outputs:
                if pipe.inbox.ready:
                    if data := await pipe.read():
                        return number, data
                    self._outputs.remove((number, pipe))
                    break
        return None

    async def write(self, data: bytes) -> None:
        await self._process.stdin.write(data)

    async def close_stdin(self) -> None:
        self._process.stdin.end()

    async def resize(self, columns: int, rows: int) -> None:
        self._process.sizes.put_nowait((columns, rows))

    async def wait(self) -> int:
        return await asyncio.shield(self._ending)

    async def close(self) -> None:
        self._ending.cancel()
        await asyncio.gather(self._ending, return_exceptions=True)

    async def _run(self, run: Awaitable[int]) -> int:
        try:
            return await run
        finally:
            self._process.stdin.inbox.discard()
            self._process.stdout.end()
            self._process.stderr.end()


def start(programs: dict[str, Program], command: Sequence[str], *, tty: bool) -> Session:
    """Run ``command``; one that there is not fails when it is waited for, as it does in containers."""
    process = Process(command, tty)
    program = programs.get(command[0], _script) if command else _missing
    return Session(process, program(process))


async def run(
    programs: dict[str, Program], command: Sequence[str], *, timeout: float
) -> ExecResult:
    """Run ``command`` to its end without input. Raises ``DeadlineExceeded``."""
    session = start(programs, command, tty=False)
    said = {1: b"", 2: b""}
    try:
        async with asyncio.timeout(timeout):
            await session.close_stdin()
            while chunk := await session.read():
                said[chunk[0]] += chunk[1]
            return ExecResult(await session.wait(), said[1], said[2])
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"command {' '.join(command)!r} did not end within {timeout:g} s"
        ) from error
    finally:
        await session.close()


async def beside(other: Coroutine[Any, Any, None], main: Coroutine[Any, Any, int]) -> int:
    """What ``main`` returns, while ``other`` goes on."""
    task = asyncio.create_task(other)
    try:
        return await main
    finally:
        task.cancel()


def connect(listener: Listener) -> Connection:
    """The outer end of a connection to ``listener``."""
    inward, outward = Pipe(), Pipe()
    inner = Connection(inward, outward)

    async def serve() -> None:
        with contextlib.suppress(ConnectionError):
            await listener(inner)
        await inner.close()

    outer = Connection(outward, inward)
    outer.serving = asyncio.create_task(serve())
    return outer


async def _missing(process: Process) -> int:
    name = process.command[0] if process.command else ""
    raise InvalidSpec(f'failed to start exec: exec: "{name}": executable file not found in $PATH')


async def _script(process: Process) -> int:
    words = plan(process.command)
    if not words.outputs and words.end is None and process.command[0] not in ("sleep", "sh"):
        return await _missing(process)
    clock = 0.0
    for after, line in words.outputs:
        await asyncio.sleep(after - clock)
        clock = after
        await process.stdout.write(line)
    if words.end is None:
        await asyncio.Event().wait()
        return 0
    await asyncio.sleep(words.end[0] - clock)
    return words.end[1]


async def _cat(process: Process) -> int:
    while data := await process.stdin.read():
        await process.stdout.write(data)
    return 0


async def _count(process: Process) -> int:
    total = 0
    while data := await process.stdin.read():
        total += len(data)
    await process.stdout.write(f"{total}\n".encode())
    return 0


async def _head(process: Process) -> int:
    left = int(process.command[2])
    while left:
        size = min(left, 32 * 1024)
        await process.stdout.write(bytes(size))
        left -= size
    return 0


async def _sizes(process: Process) -> int:
    while size := await process.sizes.get():
        await process.stdout.write(b"%d %d\n" % size)
    return 0


PROGRAMS: dict[str, Program] = {"cat": _cat, "wc": _count, "head": _head, "sizes": _sizes}
"""The programs that every container has."""
