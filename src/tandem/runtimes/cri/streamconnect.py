"""Connections to the streaming server of a CRI runtime.

CRI answers Exec and Attach with a URL that is good for one use. Behind it is SPDY/3.1 with the
streams of ``v4.channel.k8s.io``. Its WebSocket flavour is not used, as it cannot end a process's
input.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from urllib.parse import urlsplit

from tandem.errors import DeadlineExceeded, TandemError, Unavailable, Unsupported
from tandem.wire.connection import Connection, Stream, TransportLink
from tandem.wire.inbox import CHUNK

# Kubernetes' own bound on the time until all streams are there.
_CREATION_SECONDS = 30.0

# Bytes that may wait between a process that writes and a client that does not read.
_BUDGET = 256 * 1024

_MAX_REFUSAL = 4096


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
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80, limit=CHUNK)
    try:
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        request = (
            f"POST {path} HTTP/1.1",
            f"Host: {parts.netloc}",
            "Content-Length: 0",
            "Connection: Upgrade",
            "Upgrade: SPDY/3.1",
            "X-Stream-Protocol-Version: v4.channel.k8s.io",
        )
        writer.write("\r\n".join([*request, "", ""]).encode())
        await writer.drain()
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError as error:
            raise Unavailable("the container runtime's streaming server makes no sense") from error
        status = head.split(b" ", 2)[1:2]
        if status != [b"101"]:
            refusal = (await reader.read(_MAX_REFUSAL)).decode("utf-8", "replace").strip()
            raise TandemError(f"the container runtime refused the streams: {refusal}")
    except BaseException:
        writer.transport.abort()
        raise
    return Connection(TransportLink(reader, writer), client=True, budget=_BUDGET)
