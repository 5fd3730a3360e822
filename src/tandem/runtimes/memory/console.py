"""A serial console with nobody behind it: every byte written comes back."""

from __future__ import annotations

import asyncio


class EchoConsole:
    """A :class:`tandem.runtimes.capabilities.ByteStream` that echoes, until it is closed."""

    def __init__(self) -> None:
        self._incoming: asyncio.Queue[bytes] = asyncio.Queue()
        self._closed = False

    async def read(self) -> bytes:
        """The next bytes; ``b""`` once closed."""
        if self._closed and self._incoming.empty():
            return b""
        return await self._incoming.get()

    async def write(self, data: bytes) -> None:
        """Send ``data`` to the guest, which sends it back."""
        if data and not self._closed:
            self._incoming.put_nowait(data)

    async def close(self) -> None:
        """End the stream; whoever reads is told so."""
        if not self._closed:
            self._closed = True
            self._incoming.put_nowait(b"")
