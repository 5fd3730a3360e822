"""A SPDY connection over a link: streams that are read and written as any others.

One task runs :meth:`Connection.run`, which receives; everybody who writes waits for the link, so a
slow other end slows the writers down. When the link fails or the other end breaks the protocol, all
streams end with an error.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Protocol

from tandem.wire.inbox import CHUNK, Budget, Inbox
from tandem.wire.spdy import (
    Data,
    Event,
    GoAway,
    Opened,
    ProtocolError,
    Replied,
    Reset,
    Session,
    Status,
)

_QUEUED_LIMIT = (
    64 * 1024
)  # answers (to pings) that may wait for a writer before receiving waits too


_UNACCEPTED = 256  # streams that the other end may open before somebody here takes them


class Link(Protocol):
    """What carries a connection: bytes both ways, in order. ``read`` returns ``b""`` at the end;
    both raise ``ConnectionError`` when it is broken."""

    async def read(self) -> bytes: ...

    async def write(self, data: bytes) -> None: ...

    async def close(self) -> None: ...


class TransportLink:
    """A link over asyncio's streams (TCP, TLS)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self) -> bytes:
        return await self._reader.read(CHUNK)

    async def write(self, data: bytes) -> None:
        if self._writer.transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        self._writer.transport.abort()


class Stream:
    """One stream of a connection. Each direction ends on its own."""

    def __init__(self, connection: Connection, number: int, headers: Mapping[str, str]) -> None:
        self.number = number
        self.headers = headers
        self.inbox = Inbox(connection.budget)
        self.dropped = asyncio.Event()  # the other end wants neither direction any more
        self.replied: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._connection = connection

    async def read(self) -> bytes:
        """The next bytes; ``b""`` when the other end is done, or has reset the stream. Raises
        ``ConnectionError`` when the connection is lost."""
        return await self.inbox.read()

    async def write(self, data: bytes) -> None:
        """Send ``data``, waiting while the other end takes none. Raises ``BrokenPipeError`` when it
        takes no more in this stream."""
        await self._connection.send(self.number, data)

    async def close_write(self) -> None:
        """Say that no more will be sent; reading goes on."""
        await self._connection.send(self.number, b"", fin=True)

    async def close(self) -> None:
        """End both directions at once."""
        self.inbox.discard()
        self.inbox.end()
        await self._connection.reset(self.number)


class Connection:
    """One end of a SPDY connection over ``link``. ``budget``: bytes that may wait to be read in all
    streams together before nothing more is received."""

    def __init__(self, link: Link, *, client: bool, budget: int) -> None:
        self.budget = Budget(budget)
        self._link = link
        self._session = Session(client=client)
        self._streams: dict[int, Stream] = {}
        self._opened: asyncio.Queue[Stream | None] = asyncio.Queue()
        self._sending = asyncio.Lock()
        self._error: Exception | None = None

    async def run(self) -> None:
        """Receive until the connection ends, in order or not. Never raises for how it ends."""
        error: Exception = ConnectionResetError("the connection was lost")
        try:
            while data := await self._link.read():
                try:
                    events = self._session.receive(data)
                except ProtocolError as violation:
                    error = ConnectionAbortedError(str(violation))
                    self._session.go_away(1)
                    await self._flush()
                    break
                for event in events:
                    self._handle(event)
                await self._answer()
                await self.budget.room()
        except ConnectionError as lost:
            error = lost
        finally:
            self._end(error)

    async def accept(self) -> Stream | None:
        """The next stream that the other end opens; None when the connection has ended."""
        if self._error is not None and self._opened.empty():
            return None
        return await self._opened.get()

    async def open(self, headers: Mapping[str, str]) -> Stream:
        """Open a stream, and wait until the other end has taken it. Raises ``ConnectionError``."""
        self._check()
        stream = Stream(self, self._session.open(headers), headers)
        self._streams[stream.number] = stream
        await self._flush()
        await stream.replied
        return stream

    async def send(self, number: int, data: bytes, *, fin: bool = False) -> None:
        """Send in a stream. See :meth:`Stream.write`."""
        if not data and not fin:
            return
        for begin in range(0, max(len(data), 1), CHUNK):
            part = data[begin : begin + CHUNK] if len(data) > CHUNK else data
            async with self._sending:
                self._check()
                if not self._session.can_send(number):
                    if fin:
                        return
                    raise BrokenPipeError("the other end takes no more in this stream")
                self._session.send(number, part, fin=fin and begin + CHUNK >= len(data))
                if self._session.has_ended(number):
                    self._streams.pop(number, None)
                await self._write()

    async def reset(self, number: int) -> None:
        """End a stream. See :meth:`Stream.close`."""
        self._streams.pop(number, None)
        self._session.reset(number, Status.CANCEL)
        if self._error is None:
            with contextlib.suppress(ConnectionError):
                await self._flush()

    async def ping(self) -> None:
        """Send a sign of life, which finds out whether the other end is still there."""
        self._check()
        self._session.ping()
        await self._answer()

    async def go_away(self) -> None:
        """Say that no more streams are taken, and that no more is to come in those there are."""
        with contextlib.suppress(ConnectionError):
            self._session.go_away()
            await self._flush()

    async def close(self) -> None:
        """End the connection at once."""
        self._end(ConnectionResetError("the connection was closed"))
        await self._link.close()

    def discard(self) -> None:
        """Drop what comes in any stream from now on."""
        for stream in self._streams.values():
            stream.inbox.discard()

    def _check(self) -> None:
        if self._error is not None:
            raise ConnectionResetError(str(self._error)) from self._error

    async def _answer(self) -> None:
        """Send what the session has to say by itself. A writer who is at it, and who may have to
        wait long, does so for us: what comes in meanwhile (Ctrl-C) is not held up by that."""
        if not self._sending.locked() or self._session.queued > _QUEUED_LIMIT:
            await self._flush()

    async def _flush(self) -> None:
        async with self._sending:
            await self._write()

    async def _write(self) -> None:
        while data := self._session.take():
            await self._link.write(data)

    def _handle(self, event: Event) -> None:
        match event:
            case Opened(number, headers, fin):
                self._take(number, headers, fin=fin)
            case Replied(number, fin):
                if stream := self._streams.get(number):
                    _settle(stream.replied, None)
                    if fin:
                        stream.inbox.end()
            case Data(number, data, fin):
                if stream := self._streams.get(number):
                    stream.inbox.feed(data)
                    if fin:
                        stream.inbox.end()
                        # Otherwise it has ended by what is still to be handled: a reset.
                        if self._session.has_ended(number):
                            del self._streams[number]
            case Reset(number):
                if stream := self._streams.pop(number, None):
                    stream.dropped.set()
                    _settle(stream.replied, ConnectionRefusedError("the stream was refused"))
                    stream.inbox.end()
            case GoAway():
                pass  # it opens no more; what is open goes on until it closes the link

    def _take(self, number: int, headers: Mapping[str, str], *, fin: bool) -> None:
        if self._opened.qsize() >= _UNACCEPTED:
            self._session.reset(number, Status.REFUSED_STREAM)
            return
        stream = Stream(self, number, headers)
        if fin:
            stream.inbox.end()
        self._streams[number] = stream
        self._session.reply(number)
        self._opened.put_nowait(stream)

    def _end(self, error: Exception) -> None:
        if self._error is not None:
            return
        self._error = error
        for stream in self._streams.values():
            stream.dropped.set()
            stream.inbox.end(ConnectionResetError(str(error)))
            _settle(stream.replied, ConnectionResetError(str(error)))
        self._streams.clear()
        self._opened.put_nowait(None)


def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
        future.exception()  # seen, should nobody wait for it
