"""channel.k8s.io: streams in the messages of a WebSocket, the first byte of each saying which.

The base64 flavours are for browsers: text messages, a digit and then base64. From version 5 on, the
channel 255 says which other one the client has ended. The server ends them all by closing.
"""

from __future__ import annotations

import asyncio
import base64
import binascii

from aiohttp import WSMsgType, web

from tandem.wire.inbox import Budget, Inbox

BINARY = ("channel.k8s.io", "v4.channel.k8s.io", "v5.channel.k8s.io")
BASE64 = ("base64.channel.k8s.io", "v4.base64.channel.k8s.io")
PROTOCOLS = ("", *BINARY, *BASE64)
"""The flavours that are spoken; no name is the first of them."""

_CLOSE = 255


class Channel:
    """One channel of a socket, as a stream."""

    def __init__(self, channels: Channels, number: int) -> None:
        self.inbox = Inbox(channels.budget)
        self.dropped = asyncio.Event()
        self._channels, self._number = channels, number

    async def read(self) -> bytes:
        """The next bytes; ``b""`` when the client has ended the channel. Raises
        ``ConnectionError`` when it is gone."""
        return await self.inbox.read()

    async def write(self, data: bytes) -> None:
        """Send ``data``; waits while the client takes none."""
        await self._channels.send(self._number, data)

    async def close_write(self) -> None:
        """End the channel in both directions: the client cannot be told of one of them."""
        self.dropped.set()

    async def close(self) -> None:
        """Drop what the client still sends in it."""
        self.inbox.discard()


class Channels:
    """The channels of ``socket``. ``budget``: bytes that may wait to be read in all of them
    together before no more are received."""

    def __init__(self, socket: web.WebSocketResponse, protocol: str, *, budget: int) -> None:
        self.budget = Budget(budget)
        self._socket = socket
        self._base64 = protocol in BASE64
        self._closes = protocol.startswith("v5.")
        self._channels: dict[int, Channel] = {}

    def channel(self, number: int) -> Channel:
        """The channel of this number; what comes in others is dropped."""
        return self._channels.setdefault(number, Channel(self, number))

    async def run(self) -> None:
        """Receive until the client is gone. Never raises for that."""
        async for message in self._socket:
            self._receive(message.type, message.data)
            await self.budget.room()
        for channel in self._channels.values():
            channel.inbox.end(ConnectionResetError("the client is gone"))
            channel.dropped.set()

    async def send(self, number: int, data: bytes) -> None:
        """Send one message."""
        if self._base64:
            await self._socket.send_str(f"{number}{base64.b64encode(data).decode()}")
        else:
            await self._socket.send_bytes(bytes((number,)) + data)

    def discard(self) -> None:
        """Drop what comes from now on."""
        for channel in self._channels.values():
            channel.inbox.discard()

    def _receive(self, kind: WSMsgType, data: bytes | str) -> None:
        message = data.encode() if isinstance(data, str) else data
        if not message:
            return
        number, content = message[0], message[1:]
        if self._base64:
            if kind is not WSMsgType.TEXT:
                return
            try:
                number, content = number - ord("0"), base64.b64decode(content, validate=True)
            except binascii.Error:
                return
        if number == _CLOSE and self._closes and len(content) == 1:
            number, content = content[0], b""
            if channel := self._channels.get(number):
                channel.inbox.end()
        elif channel := self._channels.get(number):
            channel.inbox.feed(content)
