"""SPDY's header blocks: names and values, compressed with a dictionary that both ends know.

The state of the compression spans all blocks of a connection, so every block that arrives must be
read, and one that cannot be read ends the connection.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

MAX_BLOCK = 64 * 1024
"""Bytes that one block may have when it is unpacked; streams name themselves in less than 200."""

_LENGTH = struct.Struct(">I")

# The dictionary of SPDY/3: words, each after its length, and a tail of text. It is data of the
# specification, down to the byte; its checksum is in every first block.
_PLAIN = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language "
    "accept-ranges age allow authorization cache-control connection content-base "
    "content-encoding content-language content-length content-location content-md5 "
    "content-range content-type date etag expect expires from host if-match if-modified-since "
    "if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer "
    "transfer-encoding upgrade user-agent vary via warning www-authenticate method get status"
)
_MORE = ("200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin")
_WORDS = (*_PLAIN.split(), *_MORE)
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request"
    "401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented"
    "503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, "
    "Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,"
    "application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,"
    "sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = b"".join(_LENGTH.pack(len(word)) + word.encode() for word in _WORDS) + _TAIL.encode()


class ProtocolError(Exception):
    """The other end does not keep to the protocol: the connection cannot go on."""


class Packer:
    """Writes the blocks of one connection."""

    def __init__(self) -> None:
        # The smallest window that holds the dictionary: a connection costs 12 KiB instead of 256.
        self._deflate = zlib.compressobj(wbits=11, memLevel=1, zdict=DICTIONARY)

    def pack(self, headers: Mapping[str, str]) -> bytes:
        """A block of ``headers``."""
        parts = [_LENGTH.pack(len(headers))]
        for name, value in headers.items():
            for text in (name.lower().encode(), value.encode()):
                parts += [_LENGTH.pack(len(text)), text]
        packed = self._deflate.compress(b"".join(parts))
        return packed + self._deflate.flush(zlib.Z_SYNC_FLUSH)


class Unpacker:
    """Reads the blocks of one connection."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    def unpack(self, block: bytes) -> dict[str, str]:
        """The headers of a block, names in lower case. Raises ``ProtocolError``."""
        try:
            plain = self._inflate.decompress(block, MAX_BLOCK + 1)
        except zlib.error as error:
            raise ProtocolError(f"a header block cannot be unpacked: {error}") from error
        if len(plain) > MAX_BLOCK or self._inflate.unconsumed_tail or self._inflate.eof:
            raise ProtocolError("a header block is too large, or ends the compression")
        return _read(plain)


def _read(plain: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    position = 0

    def number() -> int:
        nonlocal position
        if position + 4 > len(plain):
            raise ProtocolError("a header block ends too early")
        (value,) = _LENGTH.unpack_from(plain, position)
        position += 4
        return int(value)

    def text() -> str:
        nonlocal position
        length = number()
        if position + length > len(plain):
            raise ProtocolError("a header block ends too early")
        found = plain[position : position + length]
        position += length
        return found.decode("utf-8", "replace")

    for _ in range(number()):
        name, value = text().lower(), text()
        if not name or name in headers:
            raise ProtocolError(f"a header block has the name {name!r} twice, or an empty one")
        headers[name] = value
    return headers
