"""Connections to the streaming server of a CRI runtime.

CRI answers Exec and Attach with a URL that is good for one use. Behind it is SPDY/3.1 with the
streams of ``v4.channel.k8s.io``. Its WebSocket flavour is not used, as it cannot end a process's
input.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from tandem.errors import DeadlineExceeded, TandemError, Unavailable, Unsupported
from tandem.wire.connection import Connection, Stream
from tandem.wire.sockets import SocketStream

# Kubernetes' own bound on the time until all streams are there.
_CREATION_SECONDS = 30.0

# Bytes that may wait between a process that writes and a client that does not read.
_BUDGET = 256 * 1024

_MAX_HEAD = 16 * 1024  # bytes, and of a refusal's body


class Streaming:
    """An open connection with its streams by name; ``close`` when done with it."""

    def __init__(self, connection: Connection) -> None:
        self.streams: dict[str, Stream] = {}
        self._connection = connection
        self._receiving = asyncio.create_task(connection.run())

    async def open(self, names: Iterable[str]) -> None:
        """Open a stream of each name."""
        for name in names:
            self.streams[name] = await self._connection.open({"streamtype": name})

    async def close(self) -> None:
        """End it at once. Idempotent."""
        self._receiving.cancel()
        await asyncio.gather(self._receiving, return_exceptions=True)
        await self._connection.close()


async def connect(url: str, names: Iterable[str]) -> Streaming:
    """Connect to ``url`` and open streams of these names, in their order. Raises ``Unavailable``,
    ``DeadlineExceeded``, ``Unsupported``, and what the runtime says."""
    try:
        async with asyncio.timeout(_CREATION_SECONDS):
            streaming = Streaming(await _upgrade(url))
            try:
                await streaming.open(names)
            except BaseException:
                await streaming.close()
                raise
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"the container runtime did not open streams within {_CREATION_SECONDS:g} s"
        ) from error
    except (OSError, EOFError) as error:
        raise Unavailable(f"cannot reach the container runtime's streams: {error}") from error
    return streaming


async def _upgrade(url: str) -> Connection:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise Unsupported(
            f"the container runtime's streams are at {url.partition('/exec')[0]}, not plain http",
            hint="turn off TLS of its streaming server, which listens on the loopback only",
        )
    family = socket.AF_INET6 if ":" in parts.hostname else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setblocking(False)
    stream = SocketStream(made)
    try:
        await asyncio.get_running_loop().sock_connect(made, (parts.hostname, parts.port or 80))
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        request = (
            f"POST {path} HTTP/1.1",
            f"Host: {parts.netloc}",
            "Content-Length: 0",
            "Connection: Upgrade",
            "Upgrade: SPDY/3.1",
            "X-Stream-Protocol-Version: v4.channel.k8s.io",
        )
        await stream.write("\r\n".join([*request, "", ""]).encode())
        head, rest = await _head(stream)
        if head.split(b" ", 2)[1:2] != [b"101"]:
            while len(rest) < _MAX_HEAD and (more := await stream.read()):
                rest += more
            refusal = rest[:_MAX_HEAD].decode("utf-8", "replace").strip()
            raise TandemError(f"the container runtime refused the streams: {refusal}")
    except BaseException:
        await stream.close()
        raise
    return Connection(SocketStream(made, rest), client=True, budget=_BUDGET)


async def _head(stream: SocketStream) -> tuple[bytes, bytes]:
    """The answer's head, and what came with it."""
    found = b""
    while b"\r\n\r\n" not in found:
        more = await stream.read()
        found += more
        if not more or len(found) > _MAX_HEAD:
            raise EOFError("its answer makes no sense")
    head, _, rest = found.partition(b"\r\n\r\n")
    return head, rest
