"""plain.kubevirt.io: a two-way byte stream in the binary frames of a WebSocket.

Frames have no meaning of their own; text frames are ignored. The end of the stream (the guest has
powered off) is a close with code 1000, by which virtctl knows it from a broken connection.
"""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import WSCloseCode, WSMsgType, web

from tandem.errors import TandemError
from tandem.runtimes.capabilities import ByteStream
from tandem.server.call import Api

PROTOCOL = "plain.kubevirt.io"

# Some proxies and firewalls drop a connection on which nothing moves.
_HEARTBEAT = 25.0


async def serve_stream(
    api: Api, request: web.BaseRequest, stream: ByteStream
) -> web.StreamResponse:
    """Join the request's WebSocket and ``stream`` until either ends; closes both."""
    socket = web.WebSocketResponse(protocols=(PROTOCOL,), compress=False, heartbeat=_HEARTBEAT)
    task = asyncio.current_task()
    assert task is not None
    api.streams.add(task)
    try:
        await socket.prepare(request)
        sending = asyncio.create_task(_send(stream, socket))
        receiving = asyncio.create_task(_receive(stream, socket))
        try:
            await asyncio.wait([sending, receiving], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for side in (sending, receiving):
                side.cancel()
            await asyncio.gather(sending, receiving, return_exceptions=True)
        await socket.close(code=WSCloseCode.OK)
    finally:
        api.streams.discard(task)
        await stream.close()
    return socket


async def _send(stream: ByteStream, socket: web.WebSocketResponse) -> None:
    with contextlib.suppress(TandemError, ConnectionError):
        while data := await stream.read():
            await socket.send_bytes(data)


async def _receive(stream: ByteStream, socket: web.WebSocketResponse) -> None:
    with contextlib.suppress(TandemError, ConnectionError):
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                await stream.write(message.data)
