"""The serial console of a running machine as a stream of bytes, over libvirt's own stream.

libvirt's stream is non-blocking and calls back on libvirt's event thread; nothing else touches it.
What arrives is handed to the asyncio loop; what is written waits here until the stream takes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from typing import Any

from tandem.errors import Conflict

_CHUNK = 1 << 16
_MAX_WAITING = 1 << 20  # bytes that a slow reader may leave; the console then stops being read

_FORCE = 1  # VIR_DOMAIN_CONSOLE_FORCE: cut off whoever has it
_NONBLOCK = 1
_READABLE, _WRITABLE, _ERROR, _HANGUP = 1, 2, 4, 8
_WOULD_BLOCK = -2


class SerialConsole:
    """See ``tandem.runtimes.capabilities.ByteStream``."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._drained = asyncio.Event()
        self._ended = False
        # Shared with libvirt's event thread, under the lock.
        self._lock = threading.Lock()
        self._stream: Any = None
        self._waiting = 0
        self._outgoing = bytearray()
        self._paused = False

    def attach(self, native: Any, uuid: str) -> None:
        """Open the console of the domain. In a thread, once."""
        domain = native.lookupByUUIDString(uuid)
        if not domain.isActive():
            raise Conflict(f"virtual machine {domain.name()!r} is not running")
        stream = native.newStream(_NONBLOCK)
        domain.openConsole(None, stream, _FORCE)
        with self._lock:
            self._stream = stream
            stream.eventAddCallback(_READABLE | _ERROR | _HANGUP, self._ready, None)

    async def read(self) -> bytes:
        """What has arrived; ``b""`` when the console has ended."""
        while not self._arrived:
            if self._ended:
                return b""
            self._news.clear()
            await self._news.wait()
        data = b"".join(self._arrived)
        self._arrived.clear()
        with self._lock:
            self._waiting -= len(data)
            if self._paused:
                self._paused = False
                self._watch()
        return data

    async def write(self, data: bytes) -> None:
        """Send, and wait until the machine has taken it. Raises ``Conflict`` after the end."""
        with self._lock:
            if self._stream is None:
                raise Conflict("the console has ended")
            self._outgoing += data
            self._drained.clear()
            self._watch()
        await self._drained.wait()

    async def close(self) -> None:
        """Let go of the console."""
        await asyncio.get_running_loop().run_in_executor(None, self._end, True)

    # -- on libvirt's event thread ---------------------------------------------------------------

    def _ready(self, _stream: Any, events: int, _opaque: Any) -> None:
        import libvirt

        try:
            with self._lock:
                if self._stream is None:
                    return
                over = self._receive() if events & _READABLE else bool(events & (_ERROR | _HANGUP))
                if events & _WRITABLE:
                    self._send()
                if not over:
                    self._watch()
        except libvirt.libvirtError:
            over = True  # cut off by somebody else, or the machine ended
        if over:
            self._end(False)

    def _receive(self) -> bool:
        """Hand on what has arrived; whether that was the end."""
        while not self._paused:
            data = self._stream.recv(_CHUNK)
            if data == _WOULD_BLOCK:
                return False
            if not data:
                return True
            self._tell(self._arrive, data)
            self._waiting += len(data)
            self._paused = self._waiting > _MAX_WAITING
        return False

    def _send(self) -> None:
        while self._outgoing:
            sent = self._stream.send(bytes(self._outgoing[:_CHUNK]))
            if sent == _WOULD_BLOCK:
                return
            del self._outgoing[:sent]
        self._tell(self._drained.set)

    def _watch(self) -> None:
        """Ask for the events that are wanted now; under the lock."""
        if self._stream is not None:
            wanted = _ERROR | _HANGUP
            wanted |= 0 if self._paused else _READABLE
            wanted |= _WRITABLE if self._outgoing else 0
            self._stream.eventUpdateCallback(wanted)

    def _end(self, by_us: bool) -> None:
        with self._lock:
            stream, self._stream = self._stream, None
        if stream is not None:
            with contextlib.suppress(Exception):  # it is over either way
                stream.eventRemoveCallback()
            with contextlib.suppress(Exception):
                if by_us:
                    stream.finish()
                else:
                    stream.abort()
        self._tell(self._over)

    # -- on the event loop ------------------------------------------------------------------------

    def _tell(self, what: Any, *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads any more
            self._loop.call_soon_threadsafe(what, *args)

    def _arrive(self, data: bytes) -> None:
        self._arrived.append(data)
        self._news.set()

    def _over(self) -> None:
        self._ended = True
        self._news.set()
        self._drained.set()
