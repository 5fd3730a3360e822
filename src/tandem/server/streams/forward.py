"""pods/portforward: connections to ports inside a Pod, many at once.

For each connection the client opens two streams with one ``requestID``: ``data``, and ``error``, on
which this end says in a sentence why the connection came to nothing. That goes over SPDY, over SPDY
in a WebSocket, and, for older WebSocket clients, over two channels for each port of the query.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from aiohttp import web

from tandem.errors import BadRequest, Conflict, NotFound, TandemError, Unavailable
from tandem.runtimes.adapter import Phase, RuntimeAdapter
from tandem.runtimes.capabilities import HalfCloseStream, PortForward
from tandem.server.call import Api, Call
from tandem.server.query import Query
from tandem.server.streams import channels
from tandem.server.streams.session import LINGER, end, receiving, streaming
from tandem.server.streams.upgrade import (
    SPDY,
    WebSocketLink,
    negotiate,
    spdy_link,
    web_socket,
)
from tandem.wire.connection import Connection, Link, Stream

_PROTOCOL = "portforward.k8s.io"
_TUNNEL = f"{SPDY}+{_PROTOCOL}"

# Bytes that may wait in all connections of a session together: one that is slow stops the others
# only when it holds all of this.
_BUDGET = 4 * 1024 * 1024

# Kubernetes' own bound on the time between the two streams of a connection.
_PAIR_SECONDS = 30.0

_T = TypeVar("_T")
_Connect = Callable[[int], Awaitable[HalfCloseStream]]


class _Stream(Protocol):
    """The client's end of a connection, over SPDY and in channels alike. ``dropped`` is set when it
    takes no interest any more in either direction."""

    dropped: asyncio.Event

    async def read(self) -> bytes: ...

    async def write(self, data: bytes) -> None: ...

    async def close_write(self) -> None: ...

    async def close(self) -> None: ...


async def pod_portforward(api: Api, call: Call) -> web.StreamResponse:
    """GET or POST pods/NAME/portforward."""
    pod = api.store.get(call.key)
    upgrade = negotiate(call.request, websocket=(_TUNNEL, *channels.PROTOCOLS), spdy=(_PROTOCOL,))
    ports = [] if upgrade.spdy or upgrade.protocol == _TUNNEL else wanted_ports(call.query)
    uid, name = pod["metadata"]["uid"], call.target.name
    adapter = api.adapters.get("container")
    if not isinstance(adapter, PortForward) or not isinstance(adapter, RuntimeAdapter):
        raise Unavailable("no container runtime here forwards ports")
    missing = TandemError(f'pod not found ("{name}_{call.target.namespace}")')
    try:
        if (await adapter.get_status(uid)).phase is not Phase.RUNNING:
            raise missing
    except NotFound as error:
        raise missing from error

    async def connect(port: int) -> HalfCloseStream:
        return await adapter.port_forward(uid, port)

    forwarder = _Forwarder(connect, f"pod {name}, uid {uid}")
    async with streaming(api):
        if upgrade.spdy:
            async with spdy_link(call.request, upgrade.protocol) as (response, link):
                await forwarder.over_spdy(link)
            return response
        async with web_socket(call.request, upgrade.protocol) as socket:
            if upgrade.protocol == _TUNNEL:
                await forwarder.over_spdy(WebSocketLink(socket))
            else:
                await forwarder.over_channels(socket, upgrade.protocol, ports)
        return socket


def wanted_ports(query: Query) -> list[int]:
    """The ports of a query, each parameter one or several. Raises ``BadRequest``."""
    texts = ",".join([*query.texts("ports"), *query.texts("port")])
    if not texts:
        raise BadRequest('query parameter "port" is required')
    return [_port(text) for text in texts.split(",")]


def _port(text: str) -> int:
    try:
        port = int(text) if text.isascii() and text.isdigit() else -1
    except ValueError:  # thousands of digits
        port = -1
    if not 0 <= port <= 0xFFFF:
        raise BadRequest(f'unable to parse "{text[:40]}" as a port')
    if port < 1:
        raise BadRequest(f'port "{text[:40]}" must be > 0')
    return port


class _Forwarder:
    """One session. ``connect`` reaches a port, ``whose`` names the Pod in complaints."""

    def __init__(self, connect: _Connect, whose: str) -> None:
        self._connect, self._whose = connect, whose
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()

    async def over_spdy(self, link: Link) -> None:
        """Serve until the client leaves, or the Pod is gone."""
        connection = Connection(link, client=False, budget=_BUDGET)
        async with receiving(connection.run(), connection.ping) as gone:
            accepting = asyncio.create_task(self._accept(connection))
            over = asyncio.create_task(_until(self._over))
            try:
                await asyncio.wait([accepting, over, gone], return_when=asyncio.FIRST_COMPLETED)
            finally:
                await end(accepting, over)
                if not gone.done() and self._tasks:
                    # The Pod is gone: what its last connections have said is still told.
                    await asyncio.wait(self._tasks, timeout=1.0)
                await end(*self._tasks)
            if not gone.done():
                await connection.go_away()
                await asyncio.wait([gone], timeout=LINGER)

    async def over_channels(
        self, socket: web.WebSocketResponse, protocol: str, ports: list[int]
    ) -> None:
        """Serve one connection to each of ``ports``, until all have ended or the client leaves."""
        muxed = channels.Channels(socket, protocol, budget=_BUDGET)
        pairs = [
            (port, muxed.channel(2 * index), muxed.channel(2 * index + 1))
            for index, port in enumerate(ports)
        ]
        async with receiving(muxed.run(), socket.pong) as gone:
            for port, data, error in pairs:
                for stream in (data, error):  # tells the client which channels are whose
                    await stream.write(struct.pack("<H", port))
                self._start(self._forward(port, data, error))
            try:
                while self._tasks and not gone.done():
                    await asyncio.wait({*self._tasks, gone}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await end(*self._tasks)

    async def _accept(self, connection: Connection) -> None:
        """Pair the client's streams, and start a connection for each pair."""
        halves: dict[str, _Half] = {}
        loop = asyncio.get_running_loop()
        while (stream := await connection.accept()) is not None:
            kind = stream.headers.get("streamtype", "")
            port = _port_or_none(stream.headers.get("port", ""))
            if kind not in ("data", "error") or port is None:
                await stream.close()
                continue
            # Clients that are very old give no id; their two streams follow each other.
            first = stream.number - 2 if kind == "data" else stream.number
            request = stream.headers.get("requestid") or f"stream {first}"
            half = halves.pop(request, None)
            if half is None:
                timer = loop.call_later(_PAIR_SECONDS, self._give_up, halves, request)
                halves[request] = _Half(kind, stream, timer)
            elif half.kind == kind:
                halves[request] = half
                await stream.close()
            else:
                half.timer.cancel()
                data, error = (stream, half.stream) if kind == "data" else (half.stream, stream)
                self._start(self._forward(port, data, error))

    def _give_up(self, halves: dict[str, _Half], request: str) -> None:
        if half := halves.pop(request, None):
            words = b"timed out waiting for streams" if half.kind == "error" else b""
            self._start(_refuse(half.stream, words))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(self, port: int, data: _Stream, error: _Stream) -> None:
        complaint = ""
        with contextlib.suppress(ConnectionError):
            try:
                inner = await self._connect(port)
            except TandemError as failure:
                complaint = failure.message
                if isinstance(failure, NotFound | Conflict):
                    self._over.set()
            else:
                complaint = await _splice(data, inner, error)
            if complaint:
                complaint = f"error forwarding port {port} to {self._whose}: {complaint}"
            await _refuse(error, complaint.encode())
            await data.close_write()
            await data.close()


@dataclass(frozen=True, slots=True)
class _Half:
    """A stream that waits for its other one."""

    kind: str
    stream: Stream
    timer: asyncio.TimerHandle


async def _refuse(stream: _Stream, words: bytes) -> None:
    """Say the last words, if any, in a stream, and end it."""
    with contextlib.suppress(ConnectionError):
        if words:
            await stream.write(words)
        await stream.close_write()
        await stream.close()


async def _splice(data: _Stream, inner: HalfCloseStream, error: _Stream) -> str:
    """Carry everything both ways until both are done, or either end has broken off; returns what
    the inner end broke off with."""

    async def inward() -> None:
        # An inner end that takes no more may still have something to say.
        with contextlib.suppress(_InnerError):
            while chunk := await data.read():
                await _inner(inner.write(chunk))
            await _inner(inner.close_write())
        while await data.read():
            pass

    async def outward() -> None:
        while chunk := await _inner(inner.read()):
            await data.write(chunk)
        await data.close_write()
        # kubectl ends its side only when this stream has ended too.
        await error.close_write()

    ways = [asyncio.create_task(inward()), asyncio.create_task(outward())]
    dropped = asyncio.create_task(_until(data.dropped))
    pending: set[asyncio.Task[None]] = {*ways, dropped}
    try:
        while not dropped.done() and any(not way.done() for way in ways):
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    except _InnerError as failure:
        return str(failure)
    finally:
        await end(*ways, dropped)
        await inner.close()
    return ""


class _InnerError(Exception):
    """The connection inside the Pod broke off."""


async def _inner(step: Awaitable[_T]) -> _T:
    try:
        return await step
    except (ConnectionError, TandemError) as error:
        raise _InnerError(str(error)) from error


async def _until(event: asyncio.Event) -> None:
    await event.wait()


def _port_or_none(text: str) -> int | None:
    try:
        return _port(text)
    except BadRequest:
        return None
