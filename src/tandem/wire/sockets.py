"""A socket whose two directions fail each on its own.

asyncio's transports drop what has arrived when a write fails. But an other end that closes before it
has read everything, as servers do that have seen enough, has often said something last.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

from tandem.wire.inbox import CHUNK


class SocketStream:
    """A connected socket as a stream, and as a link. ``first``: bytes to read before its own.

    A ``write`` that is cancelled leaves the writing direction broken, as part of it may have gone.
    """

    def __init__(self, connected: socket.socket, first: bytes = b"") -> None:
        connected.setblocking(False)
        self._socket, self._first = connected, first
        self._users = 0
        self._closed = self._broken = False

    async def read(self) -> bytes:
        """The next bytes; ``b""`` at the end. Raises ``ConnectionError``."""
        if self._first:
            first, self._first = self._first, b""
            return first
        with self._in_use():
            return await asyncio.get_running_loop().sock_recv(self._socket, CHUNK)

    async def write(self, data: bytes) -> None:
        """Send ``data``, waiting while the other end takes none. Raises ``ConnectionError``."""
        if self._broken:
            raise BrokenPipeError("nothing can be written to this connection any more")
        with self._in_use():
            try:
                await asyncio.get_running_loop().sock_sendall(self._socket, data)
            except BaseException:
                self._broken = True
                raise

    async def close_write(self) -> None:
        """Say that no more will be written; reading goes on."""
        if not self._closed:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    async def close(self) -> None:
        """End it at once; whoever reads or writes is told so."""
        if not self._closed:
            self._closed = True
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            if not self._users:
                self._socket.close()

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[None]:
        """The descriptor stays while the event loop knows it, or it would be taken for another's."""
        if self._closed:
            raise ConnectionResetError("the connection is closed")
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if self._closed and not self._users:
                self._socket.close()
