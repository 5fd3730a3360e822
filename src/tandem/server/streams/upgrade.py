"""The two ways in which a request becomes a connection of many streams: WebSocket, and SPDY/3.1.

Which of them, and which protocol inside, is settled by :func:`negotiate` before anything else is
done; the codes and words of its refusals are those of Kubernetes' servers. A SPDY connection is taken
out of the HTTP server's hands for as long as it lasts.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from aiohttp import WSCloseCode, WSMsgType, web

from tandem.errors import BadRequest, Forbidden
from tandem.server.streams.session import LINGER
from tandem.wire.connection import TransportLink
from tandem.wire.inbox import CHUNK

SPDY = "SPDY/3.1"
_VERSIONS = "X-Stream-Protocol-Version"

# A client whose machine is gone says nothing: the kernel asks, and ends the connection after two
# minutes without an answer. One that is only suspended answers.
_KEEPALIVE = (
    (socket.TCP_KEEPIDLE, 60),
    (socket.TCP_KEEPINTVL, 15),
    (socket.TCP_KEEPCNT, 4),
)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What a request asks for: ``protocol`` over WebSocket, or (``spdy``) over SPDY itself."""

    protocol: str
    spdy: bool


def negotiate(
    request: web.BaseRequest, *, websocket: Sequence[str], spdy: Sequence[str]
) -> Upgrade:
    """What the request asks for, out of the protocols there are for each way. Raises ``BadRequest``
    (no upgrade at all) and ``Forbidden`` (none of these protocols)."""
    wanted = request.headers.get("Upgrade", "").lower()
    if "upgrade" not in request.headers.get("Connection", "").lower() or not wanted:
        raise BadRequest("Upgrade request required")
    if wanted == "websocket":
        asked = _tokens(request, "Sec-WebSocket-Protocol") or [""]
        offered = websocket
    elif wanted == SPDY.lower():
        asked = _tokens(request, _VERSIONS)
        offered = spdy
        if not asked:
            raise BadRequest(f'unable to upgrade: "{_VERSIONS}" header is required')
    else:
        raise BadRequest(
            f'unable to upgrade: missing upgrade headers in request: "{wanted}" is not supported'
        )
    for protocol in asked:
        if protocol in offered:
            return Upgrade(protocol, spdy=wanted != "websocket")
    raise Forbidden(
        "unable to upgrade: unable to negotiate protocol: client supports "
        f"[{' '.join(asked)}], server accepts [{' '.join(offered)}]"
    )


@contextlib.asynccontextmanager
async def web_socket(
    request: web.BaseRequest, protocol: str
) -> AsyncIterator[web.WebSocketResponse]:
    """The request as a WebSocket. An end in order closes it in order (code 1000) and waits a moment
    for the client to say that it has everything."""
    protocols = (protocol,) if protocol else ()
    response = web.WebSocketResponse(protocols=protocols, compress=False, timeout=LINGER)
    await response.prepare(request)
    _keep_alive(request.transport)
    yield response
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(LINGER):
            await response.close(code=WSCloseCode.OK)


@contextlib.asynccontextmanager
async def spdy_link(
    request: web.BaseRequest, protocol: str
) -> AsyncIterator[tuple[web.StreamResponse, TransportLink]]:
    """The request as a bare connection. When the client is gone, the handler is cancelled, as ever.

    The response is what the handler must return: it has been sent, and nothing follows it.
    """
    transport, http = request.transport, request.protocol
    if transport is None:
        raise ConnectionResetError("the client is gone")
    assert isinstance(transport, asyncio.Transport)
    headers = {"Connection": "Upgrade", "Upgrade": SPDY, _VERSIONS: protocol}
    response = web.StreamResponse(status=101, headers=headers)
    response.force_close()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(CHUNK, loop)
    taken = _Taken(reader, http, loop)
    # Before the answer: what the client says after it is none of HTTP's business.
    transport.set_protocol(taken)
    taken.connection_made(transport)
    try:
        await response.prepare(request)
        _keep_alive(transport)
        writer = asyncio.StreamWriter(transport, taken, reader, loop)
        yield response, TransportLink(reader, writer)
    finally:
        if not taken.lost:
            transport.set_protocol(http)


class WebSocketLink:
    """A link in the binary messages of a WebSocket: SPDY, tunnelled."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def read(self) -> bytes:
        while True:
            message = await self._socket.receive()
            if message.type is not WSMsgType.BINARY:
                return b""  # closed, broken, or not a tunnel
            if message.data:
                return bytes(message.data)

    async def write(self, data: bytes) -> None:
        await self._socket.send_bytes(data)

    async def close(self) -> None:
        pass  # by whoever opened it


class _Taken(asyncio.StreamReaderProtocol):
    """The protocol of a connection that HTTP has let go; HTTP still hears of its end."""

    def __init__(
        self, reader: asyncio.StreamReader, http: asyncio.Protocol, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(reader, loop=loop)
        self._http = http
        self.lost = False

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.lost = True
        self._http.connection_lost(exc)


def _tokens(request: web.BaseRequest, name: str) -> list[str]:
    words = ",".join(request.headers.getall(name, ())).split(",")
    return [word.strip() for word in words if word.strip()]


def _keep_alive(transport: asyncio.BaseTransport | None) -> None:
    found = transport.get_extra_info("socket") if transport is not None else None
    if found is not None:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                found.setsockopt(socket.IPPROTO_TCP, option, value)
