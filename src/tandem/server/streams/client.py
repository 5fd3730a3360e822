"""The client's side of exec and attach: its streams, over WebSocket channels or over SPDY."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from tandem.server.streams import channels
from tandem.server.streams.session import LINGER, receiving
from tandem.server.streams.target import Wanted
from tandem.server.streams.upgrade import Upgrade, spdy_link, web_socket
from tandem.wire.connection import Connection, Stream

WEBSOCKET_PROTOCOLS = channels.PROTOCOLS
SPDY_PROTOCOLS = (
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
)

_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE = range(5)

# Kubernetes' own bound on the time a client may take to open the streams it has announced.
_CREATION_SECONDS = 30.0

# Bytes that may wait between a client that sends and a process that does not read.
_BUDGET = 256 * 1024


class Remote(Protocol):
    """One stream of the client's. See :class:`tandem.wire.connection.Stream`."""

    async def read(self) -> bytes: ...

    async def write(self, data: bytes) -> None: ...

    async def close_write(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Client:
    """The streams there are. ``version`` is the protocol's: from 4 on, what went wrong is said in a
    ``Status``. ``gone`` is done when the client has left; ``discard`` drops whatever else it sends.
    """

    version: int
    error: Remote
    stdin: Remote | None
    stdout: Remote | None
    stderr: Remote | None
    resize: Remote | None
    gone: asyncio.Task[None]
    discard: Callable[[], None]


@contextlib.asynccontextmanager
async def connected(
    request: web.BaseRequest, upgrade: Upgrade, wanted: Wanted
) -> AsyncIterator[tuple[web.StreamResponse, Client | None]]:
    """Answer the request with its upgrade; the client is None when it does not open its streams."""
    over = _over_spdy if upgrade.spdy else _over_web_socket
    async with over(request, upgrade.protocol, wanted) as found:
        yield found


@contextlib.asynccontextmanager
async def _over_web_socket(
    request: web.BaseRequest, protocol: str, wanted: Wanted
) -> AsyncIterator[tuple[web.StreamResponse, Client | None]]:
    async with web_socket(request, protocol) as socket:
        muxed = channels.Channels(socket, protocol, budget=_BUDGET)
        error = muxed.channel(_ERROR)
        stdin = muxed.channel(_STDIN) if wanted.stdin else None
        stdout = muxed.channel(_STDOUT) if wanted.stdout else None
        stderr = muxed.channel(_STDERR) if wanted.stderr else None
        resize = muxed.channel(_RESIZE) if wanted.tty else None
        async with receiving(muxed.run(), socket.pong) as gone:
            # An empty message tells those who wait for it that the streams are there.
            await (stdout or stderr or error).write(b"")
            yield (
                socket,
                Client(
                    _version(protocol), error, stdin, stdout, stderr, resize, gone, muxed.discard
                ),
            )


@contextlib.asynccontextmanager
async def _over_spdy(
    request: web.BaseRequest, protocol: str, wanted: Wanted
) -> AsyncIterator[tuple[web.StreamResponse, Client | None]]:
    async with spdy_link(request, protocol) as (response, link):
        connection = Connection(link, client=False, budget=_BUDGET)
        async with receiving(connection.run(), connection.ping) as gone:
            version = _version(protocol)
            found = await _collect(connection, _names(wanted, version))
            if found is None:
                yield response, None
                return
            names = ("stdin", "stdout", "stderr", "resize")
            stdin, stdout, stderr, resize = map(found.get, names)
            yield (
                response,
                Client(
                    version,
                    found["error"],
                    stdin,
                    stdout,
                    stderr,
                    resize,
                    gone,
                    connection.discard,
                ),
            )
            await connection.go_away()
            # A connection that is closed while the client still sends loses what it has not read.
            await asyncio.wait([gone], timeout=LINGER)


def _version(protocol: str) -> int:
    return int(protocol[1]) if protocol.startswith("v") else 1


def _names(wanted: Wanted, version: int) -> set[str]:
    """The streams that a client of this version opens."""
    names = {"error"}
    names.update(name for name in ("stdin", "stdout", "stderr") if getattr(wanted, name))
    if wanted.tty and version >= 3:
        names.add("resize")
    return names


async def _collect(connection: Connection, names: set[str]) -> dict[str, Stream] | None:
    """The client's streams by name; None when it leaves, or does not open them in time."""
    found: dict[str, Stream] = {}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_CREATION_SECONDS):
            while found.keys() != names:
                stream = await connection.accept()
                if stream is None:
                    return None
                name = stream.headers.get("streamtype", "")
                if name not in names or name in found:
                    await stream.close()
                else:
                    found[name] = stream
            return found
    return None
