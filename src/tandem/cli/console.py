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
from tandem.errors import BadRequest, Unavailable

if TYPE_CHECKING:
    import aiohttp

    from tandem.client.kubeconfig import Access

ESCAPE = b"\x1d"  # Ctrl+]
_RETRY_SECONDS = 1.0


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
    """Connect terminal and console. Without a terminal, pass bytes until stdin ends."""
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

    interactive = sys.stdin.isatty()
    if interactive:
        context.note(f"Connected to {name}. Leave with Ctrl+]")
    with _raw_terminal():
        typing = asyncio.create_task(_pump_input(socket))
        try:
            async for message in socket:
                if message.type is aiohttp.WSMsgType.BINARY:
                    await asyncio.to_thread(_write_all, message.data)
        finally:
            typing.cancel()
            left = typing.done() and not typing.cancelled()
            await asyncio.wait([typing])
    if interactive:
        print(file=sys.stderr)
    if socket.close_code not in (1000, 1001, 1005, None) and not left:
        raise Unavailable(
            f"the console of {name} was cut off: the machine ended, or somebody else opened it"
        )
    return 0


async def _pump_input(socket: aiohttp.ClientWebSocketResponse) -> None:
    """Send what is typed, until the escape key or the end of stdin, then close."""
    import asyncio
    import threading

    loop = asyncio.get_running_loop()
    typed: asyncio.Queue[bytes] = asyncio.Queue()

    def read() -> None:
        while data := os.read(sys.stdin.fileno(), 4096):
            before, escape, _ = data.partition(ESCAPE) if interactive else (data, b"", b"")
            loop.call_soon_threadsafe(typed.put_nowait, before)
            if escape:
                break
        loop.call_soon_threadsafe(typed.put_nowait, b"")

    interactive = sys.stdin.isatty()
    # A thread, as stdin may be a file, which no event loop can wait for; a daemon, as nothing can
    # wake it from a read when the console ends first.
    threading.Thread(target=_unless_closed, args=(read,), daemon=True).start()
    while data := await typed.get():
        await socket.send_bytes(data)
    await socket.close()


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
