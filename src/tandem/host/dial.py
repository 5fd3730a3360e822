"""Connections from this host to a port, for probes and hooks: cheap, and with Go's words for failures.

The words are what people search for when a probe fails, so they are the ones that a kubelet, which is
written in Go, puts into its Events. Nothing here bounds time: whoever calls does, by cancelling.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import ipaddress
import os
import socket
import ssl

from tandem.errors import Unavailable

_CHUNK = 16 << 10
_WORDS = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset by peer",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network is unreachable",
    errno.ETIMEDOUT: "connection timed out",
    errno.EPIPE: "broken pipe",
}

SPOKE_PLAIN = "http: server gave HTTP response to HTTPS client"


def join(host: str, port: int) -> str:
    """``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def words(error: OSError) -> str:
    """What went wrong, as Go says it."""
    if error.errno in _WORDS:
        return _WORDS[error.errno]
    return os.strerror(error.errno).lower() if error.errno else str(error)


async def connect(host: str, port: int) -> socket.socket:
    """A TCP connection, which the caller closes; an empty ``host`` is this host.

    Raises ``Unavailable`` (``dial tcp 10.88.0.5:80: connect: connection refused``).
    """
    failure: Unavailable | None = None
    for family, address in await _addresses(host, port):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, address)
            # A peer that never ends its half does not keep the connection in the kernel. (The
            # kubelet sets SO_LINGER to the same end, which on Linux has close() wait instead.)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, 1)
            return sock
        except OSError as error:
            sock.close()
            where = join(address[0] if host else "", port)
            said = Unavailable(f"dial tcp {where}: connect: {words(error)}")
            said.__cause__ = error
            failure = failure or said
        except BaseException:
            sock.close()
            raise
    assert failure is not None, "a name has at least one address"
    raise failure


async def _addresses(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
    if not host:
        return [(socket.AF_INET, ("127.0.0.1", port))]
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        pass
    else:
        return [(socket.AF_INET if version == 4 else socket.AF_INET6, (host, port))]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"dial tcp: lookup {host}: no such host") from error
    return [(family, (str(address[0]), port)) for family, _, _, _, address in found]


class Connection:
    """Bytes both ways. Failures are ``Unavailable``, in Go's words."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._where = ""

    async def send(self, data: bytes) -> None:
        """Write all of it."""
        try:
            await self._loop.sock_sendall(self._sock, data)
        except OSError as error:
            raise self._failed("write", error) from error

    async def receive(self) -> bytes:
        """The next bytes; none at the end."""
        try:
            return await self._loop.sock_recv(self._sock, _CHUNK)
        except OSError as error:
            raise self._failed("read", error) from error

    def close(self) -> None:
        """At once."""
        self._sock.close()

    def _failed(self, verb: str, error: OSError) -> Unavailable:
        try:
            ends = [join(*end[:2]) for end in (self._sock.getsockname(), self._sock.getpeername())]
            return Unavailable(f"{verb} tcp {ends[0]}->{ends[1]}: {verb}: {words(error)}")
        except OSError:  # it has no ends any more
            return Unavailable(f"{verb} tcp: {verb}: {words(error)}")


class TlsConnection(Connection):
    """The same inside TLS. Nobody's certificate is checked: a probe asks whether somebody answers."""

    def __init__(
        self, sock: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        super().__init__(sock)
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, sock: socket.socket, host: str) -> TlsConnection:
        """Shake hands over ``sock``, which is closed when that fails."""
        try:
            reader, writer = await asyncio.open_connection(
                sock=sock, ssl=_tls_context(), server_hostname=host or "localhost", limit=_CHUNK
            )
        except ssl.SSLEOFError as error:
            raise Unavailable("EOF") from error
        except ssl.SSLError as error:
            raise Unavailable(_tls_words(error)) from error
        except ConnectionError as error:
            raise Unavailable("EOF" if not error.errno else words(error)) from error
        return cls(sock, reader, writer)

    async def send(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise Unavailable(f"write tcp: write: {words(error)}") from error

    async def receive(self) -> bytes:
        try:
            return await self._reader.read(_CHUNK)
        except ssl.SSLError as error:
            raise Unavailable(_tls_words(error)) from error
        except OSError as error:
            raise Unavailable(f"read tcp: read: {words(error)}") from error

    def close(self) -> None:
        self._writer.transport.abort()


def _tls_words(error: ssl.SSLError) -> str:
    reason = error.reason or "handshake failure"
    if reason == "WRONG_VERSION_NUMBER":  # what OpenSSL makes of bytes that are not TLS
        return SPOKE_PLAIN
    _, alert, what = reason.partition("_ALERT_")
    if alert:
        return f"remote error: tls: {what.lower().replace('_', ' ')}"
    return f"tls: {reason.lower().replace('_', ' ')}"


@functools.cache
def _tls_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # nothing secret is said to a container's old server
    return context
