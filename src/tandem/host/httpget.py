"""One HTTP GET, as a kubelet's prober makes it: the whole exchange on a connection of its own.

Redirects to the same host are followed, others are the answer. No proxy, no cookies, no compression;
certificates are not checked. Errors read as those of Go's HTTP client, because they end up in Events.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import quote, urljoin, urlsplit

from tandem.errors import DeadlineExceeded, Unavailable
from tandem.host.dial import Connection, TlsConnection, connect, join

MAX_BODY_BYTES = 10 << 10
MAX_HEAD_BYTES = 64 << 10
MAX_REDIRECTS = 10

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DEFAULT_PORTS = {"http": 80, "https": 443}
_PATH_SAFE = "/:@!$&'()*+,;=~"
_QUERY_SAFE = _PATH_SAFE + '?%[]{}|\\^`"<>'
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: |$)")
_BAD_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OURS = frozenset({"host", "connection", "content-length", "transfer-encoding", "trailer"})


class BodyLost(Unavailable):
    """The answer began well, and its body did not come whole."""


@dataclass(frozen=True, slots=True)
class Url:
    """``netloc`` is the host, with a port unless it is the scheme's own; ``target`` the escaped path
    and query."""

    scheme: str
    netloc: str
    target: str

    @classmethod
    def of(cls, scheme: str, host: str, port: int, path: str) -> Self:
        """The URL of a ``path``, which may have a query, and may lack its slash."""
        try:
            parts = urlsplit(path)
            raw, query = parts.path, parts.query
        except ValueError:
            raw, query = path, ""
        return cls(scheme, join(host, port), _target(raw, query))

    def joined(self, location: str) -> Url:
        """Where a ``Location`` header of this URL's answer points to."""
        parts = urlsplit(urljoin(str(self), location))
        return Url(parts.scheme, parts.netloc.rpartition("@")[2], _target(parts.path, parts.query))

    @property
    def hostname(self) -> str:
        """Without port and brackets."""
        return urlsplit(f"//{self.netloc}").hostname or ""

    @property
    def port(self) -> int:
        """The one to connect to."""
        return urlsplit(f"//{self.netloc}").port or _DEFAULT_PORTS[self.scheme]

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.target}"


def _target(path: str, query: str) -> str:
    safe = _PATH_SAFE if _BAD_ESCAPE.search(path) else _PATH_SAFE + "%"
    path = "/" + quote(path, safe=safe).removeprefix("/")
    return f"{path}?{quote(query, safe=_QUERY_SAFE)}" if query else path


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask. ``headers`` are sent as they are; a ``Host`` among them is the virtual host."""

    url: Url
    headers: Sequence[tuple[str, str]] = ()

    def to_bytes(self) -> bytes:
        """As it goes over the wire. Raises ``Unavailable`` for a header that cannot be sent."""
        host = next((v for name, v in self.headers if name.lower() == "host" and v), "")
        lines = [f"GET {self.url.target} HTTP/1.1", f"Host: {host or self.url.netloc}"]
        for name, value in self.headers:
            if _BAD_VALUE.search(value):
                raise Unavailable(f'net/http: invalid header field value for "{name}"')
            if name.lower() not in _OURS:
                lines.append(f"{name}: {value}")
        lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def redirected(self, location: str) -> Request:
        """The request that follows the answer's ``Location``."""
        url = self.url.joined(location)
        if urlsplit(location).netloc:  # the virtual host was this one's, and need not be the next's
            kept = [header for header in self.headers if header[0].lower() != "host"]
            return Request(url, kept)
        return replace(self, url=url)


@dataclass(frozen=True, slots=True)
class Response:
    """The answer; ``body`` is at most its first 10 KiB."""

    status: int
    body: bytes


async def get(request: Request, *, timeout: float) -> Response:
    """Ask, and follow where that leads, within ``timeout`` seconds.

    Raises ``Unavailable`` (no answer), ``DeadlineExceeded`` (none in time) and :class:`BodyLost`.
    """
    exchange = _Exchange(request)
    try:
        async with asyncio.timeout(timeout):
            return await exchange.run()
    except TimeoutError as error:
        raise exchange.late() from error
    except BodyLost:
        raise
    except Unavailable as error:
        raise Unavailable(f'Get "{exchange.request.url}": {error}') from error


class _Exchange:
    """Requests until there is an answer to keep; knows how far it got."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self._dialling = True
        self._in_body = False

    async def run(self) -> Response:
        first = self.request.url.hostname
        for _ in range(MAX_REDIRECTS):
            response, location = await self._once()
            if response.status not in _REDIRECTS or not location:
                return response
            try:
                following = self.request.redirected(location)
                elsewhere = following.url.hostname != first
                _ = following.url.port
            except (ValueError, KeyError) as error:
                raise Unavailable(f'failed to parse Location header "{location}"') from error
            if elsewhere:
                return response
            self.request = following
        raise Unavailable(f"stopped after {MAX_REDIRECTS} redirects")

    def late(self) -> DeadlineExceeded | BodyLost:
        """The words for an exchange that was cut off."""
        url = self.request.url
        if self._in_body:
            what = "Client.Timeout or context cancellation while reading body"
            return BodyLost(f"context deadline exceeded ({what})")
        what = "context deadline exceeded"
        if self._dialling:
            what = f"dial tcp {join(url.hostname, url.port)}: i/o timeout"
        return DeadlineExceeded(
            f'Get "{url}": {what} (Client.Timeout exceeded while awaiting headers)'
        )

    async def _once(self) -> tuple[Response, str]:
        url, data = self.request.url, self.request.to_bytes()
        self._dialling, self._in_body = True, False
        sock = await connect(url.hostname, url.port)
        self._dialling = False
        connection: Connection
        if url.scheme == "https":
            connection = await TlsConnection.over(sock, url.hostname)
        else:
            connection = Connection(sock)
        try:
            await connection.send(data)
            reader = _Reader(connection)
            status, headers = await reader.head()
            self._in_body = True
            body = await reader.body(status, headers)
        finally:
            connection.close()
        return Response(status, body), headers.get("location", "")


class _Reader:
    """An answer, taken from a connection as it comes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._buffer = b""
        self._taken = 0  # bytes of lines, which are bounded; those of the body are besides

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers, by their names in lower case; of the final answer."""
        while True:
            first = await self._line()
            match = _STATUS_LINE.match(first)
            if match is None:
                shown = first[:256].decode("utf-8", "replace")
                raise Unavailable(
                    "net/http: HTTP/1.x transport connection broken: "
                    f'malformed HTTP response "{shown}"'
                )
            headers: dict[str, str] = {}
            while line := await self._line():
                name, _, value = line.decode("utf-8", "replace").partition(":")
                headers[name.strip().lower()] = value.strip()
            status = int(match[1])
            if status >= 200 or status == 101:
                return status, headers

    async def body(self, status: int, headers: dict[str, str]) -> bytes:
        """As much of the body as is kept. Raises :class:`BodyLost`."""
        try:
            if status in (101, 204, 304):
                return b""
            if headers.get("transfer-encoding", "").lower().endswith("chunked"):
                return await self._chunks()
            length = headers.get("content-length")
            if length is None:
                return await self._rest()
            return await self._take(min(int(length), MAX_BODY_BYTES))
        except (ValueError, Unavailable) as error:
            raise BodyLost(str(error)) from error

    async def _line(self) -> bytes:
        while (at := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                break
            began = self._taken or self._buffer
            if not await self._more():
                raise Unavailable("unexpected EOF" if began else "EOF")
        self._taken += at + 1
        if self._taken > MAX_HEAD_BYTES:
            raise Unavailable(
                f"net/http: server response headers exceeded {MAX_HEAD_BYTES} bytes; aborted"
            )
        line, self._buffer = self._buffer[:at], self._buffer[at + 1 :]
        return line.removesuffix(b"\r")

    async def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            if not await self._more():
                raise Unavailable("unexpected EOF")
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    async def _rest(self) -> bytes:
        while len(self._buffer) < MAX_BODY_BYTES and await self._more():
            pass
        return self._buffer[:MAX_BODY_BYTES]

    async def _chunks(self) -> bytes:
        body = b""
        while len(body) < MAX_BODY_BYTES:
            size = int((await self._line()).split(b";")[0], 16)
            if size == 0:
                break
            body += await self._take(min(size, MAX_BODY_BYTES - len(body)))
            if len(body) < MAX_BODY_BYTES:
                await self._line()
        return body

    async def _more(self) -> bool:
        data = await self._connection.receive()
        self._buffer += data
        return bool(data)
