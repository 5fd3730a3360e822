"""SPDY/3.1 without I/O: bytes in, events out, and frames to send in :meth:`Session.take`.

What Kubernetes' own ends (Go's spdystream) do is done here: streams are opened by the client (odd
ids), answered by a reply before data flows back, closed by FIN in each direction or by a reset in
both. Windows are not kept: no end of theirs sends or honours WINDOW_UPDATE, and a receiver that is
full stops reading the connection instead. Frames of no meaning here (SETTINGS, WINDOW_UPDATE,
unknown ones) are skipped.

Whatever arrives, memory is bounded: a control frame by :data:`MAX_CONTROL`, the data of a frame is
handed on as it comes, and :data:`MAX_STREAMS` may be open at a time. A frame that cannot be right
raises ``ProtocolError``, after which the session is of no more use.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from tandem.wire.spdyheaders import Packer, ProtocolError, Unpacker

__all__ = ["Data", "GoAway", "Opened", "ProtocolError", "Replied", "Reset", "Session", "Status"]

MAX_CONTROL = 64 * 1024
"""Bytes of a control frame; those of Kubernetes' clients have some 100."""

MAX_STREAMS = 4096
"""Streams open at a time; a forwarded connection takes two."""

_MAX_ID = 0x7FFFFFFF
_VERSION = 3
_FIN = 1
_HEAD = struct.Struct(">II")
_PAIR = struct.Struct(">II")
_WORD = struct.Struct(">I")


class _Type(IntEnum):
    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    PING = 6
    GOAWAY = 7
    HEADERS = 8


class Status(IntEnum):
    """Why a stream was reset."""

    PROTOCOL_ERROR = 1
    INVALID_STREAM = 2
    REFUSED_STREAM = 3
    CANCEL = 5
    STREAM_ALREADY_CLOSED = 9


@dataclass(frozen=True, slots=True)
class Opened:
    """The other end has opened a stream. ``fin``: it will send nothing in it."""

    stream: int
    headers: Mapping[str, str]
    fin: bool


@dataclass(frozen=True, slots=True)
class Replied:
    """The other end has taken a stream that this end opened."""

    stream: int
    fin: bool


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a stream, in order; ``fin``: the last ones."""

    stream: int
    data: bytes
    fin: bool


@dataclass(frozen=True, slots=True)
class Reset:
    """The other end has ended both directions of a stream."""

    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """The other end takes no more streams."""


Event = Opened | Replied | Data | Reset | GoAway


@dataclass(slots=True)
class _State:
    """Which directions of a stream have ended."""

    sent_fin: bool = False
    got_fin: bool = False


class Session:
    """One end of a connection. ``client``: the end that opens streams first."""

    def __init__(self, *, client: bool) -> None:
        self._client = client
        self._next = 1 if client else 2
        self._next_ping = self._next
        self._last_theirs = 0
        self._streams: dict[int, _State] = {}
        self._packer, self._unpacker = Packer(), Unpacker()
        self._out: list[bytes] = []
        self._kept = bytearray()  # the beginning of a frame whose rest is still to come
        self._data_stream = 0  # the data frame that is under way, and how much of it is to come
        self._data_left = 0
        self._data_fin = False

    # -- sending -----------------------------------------------------------------------------

    def take(self) -> bytes:
        """What is to be sent, in order; empty when there is nothing."""
        out, self._out = self._out, []
        return b"".join(out)

    def open(self, headers: Mapping[str, str], *, fin: bool = False) -> int:
        """Open a stream; its id."""
        stream, self._next = self._next, self._next + 2
        if stream > _MAX_ID:
            raise ProtocolError("there are no more stream ids in this connection")
        self._streams[stream] = _State(sent_fin=fin)
        body = struct.pack(">IIH", stream, 0, 0) + self._packer.pack(headers)
        self._control(_Type.SYN_STREAM, body, flags=_FIN if fin else 0)
        return stream

    def reply(self, stream: int) -> None:
        """Take a stream that the other end has opened."""
        self._control(_Type.SYN_REPLY, _WORD.pack(stream) + self._packer.pack({}))

    def send(self, stream: int, data: bytes, *, fin: bool = False) -> None:
        """Send bytes in a stream, less than 16 MiB; ``fin``: the last ones. Nothing is sent in one
        that has ended."""
        state = self._streams.get(stream)
        if state is None or state.sent_fin:
            return
        self._out += [_HEAD.pack(stream, (_FIN << 24 if fin else 0) | len(data)), data]
        if fin:
            state.sent_fin = True
            self._forget_ended(stream, state)

    def reset(self, stream: int, status: Status = Status.CANCEL) -> None:
        """End both directions of a stream, unless it has ended."""
        if self._streams.pop(stream, None) is not None:
            self._reset(stream, status)

    def ping(self) -> None:
        """Ask for a sign of life."""
        self._control(_Type.PING, _WORD.pack(self._next_ping))
        self._next_ping = (self._next_ping + 2) & _MAX_ID

    def go_away(self, status: int = 0) -> None:
        """Say that no more streams are taken; ``status`` 1 says that it is the other end's fault."""
        self._control(_Type.GOAWAY, _PAIR.pack(self._last_theirs, status))

    @property
    def queued(self) -> int:
        """Bytes that :meth:`take` would give."""
        return sum(map(len, self._out))

    def can_send(self, stream: int) -> bool:
        """Whether this end may still send in ``stream``."""
        state = self._streams.get(stream)
        return state is not None and not state.sent_fin

    def has_ended(self, stream: int) -> bool:
        """Whether both directions of ``stream`` have ended."""
        return stream not in self._streams

    def _control(self, kind: _Type, body: bytes, *, flags: int = 0) -> None:
        self._out.append(_HEAD.pack(1 << 31 | _VERSION << 16 | kind, flags << 24 | len(body)))
        self._out.append(body)

    def _reset(self, stream: int, status: Status) -> None:
        self._control(_Type.RST_STREAM, _PAIR.pack(stream, status))

    # -- receiving ---------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[Event]:
        """What ``data``, the next bytes of the connection, says. Raises ``ProtocolError``."""
        source: bytes | bytearray = data
        if self._kept:
            self._kept += data
            source = self._kept
        events: list[Event] = []
        position, end = 0, len(source)
        while True:
            if self._data_left:
                if position == end:
                    break
                size = min(self._data_left, end - position)
                self._data_left -= size
                chunk = bytes(source[position : position + size])
                position += size
                self._data(events, chunk, fin=self._data_fin and not self._data_left)
                continue
            if end - position < _HEAD.size:
                break
            first, second = _HEAD.unpack_from(source, position)
            flags, length = second >> 24, second & 0xFFFFFF
            if not first >> 31:
                position += _HEAD.size
                self._data_stream, self._data_left = first, length
                self._data_fin = bool(flags & _FIN)
                if not length:
                    self._data(events, b"", fin=self._data_fin)
                continue
            if first >> 16 & 0x7FFF != _VERSION:
                raise ProtocolError(f"a frame of SPDY version {first >> 16 & 0x7FFF}")
            if length > MAX_CONTROL:
                raise ProtocolError(f"a control frame of {length} bytes")
            begin = position + _HEAD.size
            if end - begin < length:
                break
            position = begin + length
            self._frame(events, first & 0xFFFF, flags, bytes(source[begin:position]))
        self._kept = bytearray(source[position:])
        return events

    def _data(self, events: list[Event], data: bytes, *, fin: bool) -> None:
        stream = self._data_stream
        state = self._streams.get(stream)
        if state is None:
            # In one that has just ended here, data may still be under way; in one that never
            # was, nothing may.
            if fin and not self._known(stream):
                self._reset(stream, Status.INVALID_STREAM)
            return
        if state.got_fin:
            self._streams.pop(stream)
            self._reset(stream, Status.STREAM_ALREADY_CLOSED)
            events.append(Reset(stream, Status.STREAM_ALREADY_CLOSED))
            return
        if fin:
            self._finish(stream, state)
        if data or fin:
            events.append(Data(stream, data, fin))

    def _frame(self, events: list[Event], kind: int, flags: int, body: bytes) -> None:
        fin = bool(flags & _FIN)
        match kind:
            case _Type.SYN_STREAM:
                self._syn_stream(events, body, fin=fin)
            case _Type.SYN_REPLY:
                stream = _id_of(body, at_least=4)
                self._unpacker.unpack(body[4:])
                if state := self._streams.get(stream):
                    if fin:
                        self._finish(stream, state)
                    events.append(Replied(stream, fin))
            case _Type.HEADERS:
                stream = _id_of(body, at_least=4)
                self._unpacker.unpack(body[4:])
                if fin and (state := self._streams.get(stream)):
                    self._finish(stream, state)
                    events.append(Data(stream, b"", fin=True))
            case _Type.RST_STREAM:
                stream = _id_of(body, at_least=8)
                if self._streams.pop(stream, None) is not None:
                    events.append(Reset(stream, _WORD.unpack_from(body, 4)[0]))
            case _Type.PING:
                number = _id_of(body, at_least=4, zero=True)
                if bool(number & 1) is not self._client:  # theirs; ours come back answered
                    self._control(_Type.PING, _WORD.pack(number))
            case _Type.GOAWAY:
                events.append(GoAway())
            case _:
                pass

    def _syn_stream(self, events: list[Event], body: bytes, *, fin: bool) -> None:
        stream = _id_of(body, at_least=10)
        headers = self._unpacker.unpack(body[10:])
        if bool(stream & 1) is self._client or stream <= self._last_theirs:
            raise ProtocolError(f"stream {stream} cannot be opened by the other end now")
        self._last_theirs = stream
        if len(self._streams) >= MAX_STREAMS:
            self._reset(stream, Status.REFUSED_STREAM)
            return
        self._streams[stream] = _State(got_fin=fin)
        events.append(Opened(stream, headers, fin))

    def _finish(self, stream: int, state: _State) -> None:
        state.got_fin = True
        self._forget_ended(stream, state)

    def _forget_ended(self, stream: int, state: _State) -> None:
        if state.sent_fin and state.got_fin:
            self._streams.pop(stream, None)

    def _known(self, stream: int) -> bool:
        """Whether ``stream`` was open at some time."""
        ours = bool(stream & 1) is self._client
        return 0 < stream < self._next if ours else 0 < stream <= self._last_theirs


def _id_of(body: bytes, *, at_least: int, zero: bool = False) -> int:
    if len(body) < at_least:
        raise ProtocolError(f"a control frame of {len(body)} bytes is too short")
    number = int(_WORD.unpack_from(body)[0])
    if not zero and not 0 < number <= _MAX_ID:
        raise ProtocolError(f"{number} is no stream's id")
    return number
