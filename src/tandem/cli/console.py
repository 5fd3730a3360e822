"""``tandem console``: a machine's serial console in this terminal, until Ctrl+]."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from tandem.cli.context import Context, add_client
from tandem.cli.machines import machine_name
from tandem.errors import BadRequest, NotFound, Unavailable

if TYPE_CHECKING:
    import aiohttp

    from tandem.client.kubeconfig import Access

ESCAPE = b"\x1d"  # Ctrl+]
_RETRY_SECONDS = 1.0
_QUIET_SECONDS = 1.0


def arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """The flags of ``console``."""
    parser.add_argument("name", metavar="NAME", help="a running machine: web, or vm/web")
    parser.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="how long to wait for the machine to run [300]",
    )
    add_client(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Connect terminal and console. Without a terminal, pass bytes until stdin has ended and the
    machine is quiet."""
    import asyncio

    access = context.access(args)
    name = machine_name(args.name)
    return asyncio.run(_session(access, name, args.namespace, args.timeout, context))


async def _session(
    access: Access, name: str, namespace: str | None, timeout: float, context: Context
) -> int:
    import asyncio

    from tandem.client.aio import AsyncClient

    deadline = asyncio.get_running_loop().time() + timeout
    async with AsyncClient(access) as client:
        told = False
        while True:
            try:
                async with client.console(name, namespace=namespace) as socket:
                    return await _attached(socket, name, context)
            except NotFound as error:
                error.hint = f"a machine that is off has no console: tandem start {name}"
                raise
            except BadRequest as error:  # not running yet
                if asyncio.get_running_loop().time() + _RETRY_SECONDS > deadline:
                    raise
                if not told:
                    context.note(f"{error.message}; waiting for {name} to run")
                    told = True
                await asyncio.sleep(_RETRY_SECONDS)


async def _attached(socket: aiohttp.ClientWebSocketResponse, name: str, context: Context) -> int:
    import asyncio

    import aiohttp

    session = _Session(socket, interactive=sys.stdin.isatty())
    if session.interactive:
        context.note(f"Connected to {name}. Leave with Ctrl+]")
    with _raw_terminal():
        typing = asyncio.create_task(session.pump_input())
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                session.heard()
                await asyncio.to_thread(_write_all, message.data)
        typing.cancel()
        await asyncio.wait([typing])
    if session.left:
        if session.interactive:
            print(file=sys.stderr)
    elif socket.close_code == aiohttp.WSCloseCode.OK:
        context.note(f"The console of {name} ended: the machine did, or somebody else opened it")
    else:
        raise Unavailable(f"the connection to the console of {name} was lost")
    return 0


class _Session:
    """One connection: what is typed goes in, until we leave."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, *, interactive: bool) -> None:
        import asyncio

        self.interactive = interactive
        self.left = False
        self._socket = socket
        self._loop = asyncio.get_running_loop()
        self._typed: asyncio.Queue[bytes] = asyncio.Queue()
        self._heard = asyncio.Event()

    def heard(self) -> None:
        """Note that the machine said something."""
        self._heard.set()

    async def pump_input(self) -> None:
        """Send what is typed, until the escape key or the end of stdin, then close."""
        import asyncio
        import threading

        # A thread, as stdin may be a file, which no event loop can wait for; a daemon, as nothing
        # can wake it from a read when the console ends first.
        threading.Thread(target=_unless_closed, args=(self._read_input,), daemon=True).start()
        while data := await self._typed.get():
            await self._socket.send_bytes(data)
        if not self.interactive:
            # A script's last line shall be answered: go when the machine has nothing more to say.
            with suppress(TimeoutError):
                while True:
                    self._heard.clear()
                    await asyncio.wait_for(self._heard.wait(), _QUIET_SECONDS)
        self.left = True
        await self._socket.close()

    def _read_input(self) -> None:
        escape = b""
        while not escape and (data := os.read(sys.stdin.fileno(), 4096)):
            if self.interactive:
                data, escape, _ = data.partition(ESCAPE)
            if data:
                self._loop.call_soon_threadsafe(self._typed.put_nowait, data)
        self._loop.call_soon_threadsafe(self._typed.put_nowait, b"")


def _unless_closed(read: Callable[[], None]) -> None:
    # The loop is closed when the console ended first, and nobody waits for this key any more.
    with suppress(RuntimeError, OSError):
        read()


def _write_all(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


@contextmanager
def _raw_terminal() -> Iterator[None]:
    """Every key goes to the guest, Ctrl+C included; the terminal is put back whatever happens."""
    if not sys.stdin.isatty():
        yield
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
