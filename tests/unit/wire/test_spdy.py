"""SPDY/3.1 without I/O: two sessions understand each other, and nothing else does them any harm."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.wire.spdy import (
    MAX_CONTROL,
    MAX_STREAMS,
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
from tandem.wire.spdyheaders import DICTIONARY, MAX_BLOCK, Packer, Unpacker

# By which every other implementation knows the dictionary.
CHECKSUM = b"\xe3\xc6\xa7\xc2"


def pair() -> tuple[Session, Session]:
    return Session(client=True), Session(client=False)


def control(kind: int, body: bytes, *, flags: int = 0, version: int = 3) -> bytes:
    return struct.pack(">II", 1 << 31 | version << 16 | kind, flags << 24 | len(body)) + body


def test_the_dictionary_is_the_specification_s() -> None:
    assert struct.pack(">I", zlib.adler32(DICTIONARY)) == CHECKSUM
    assert CHECKSUM in Packer().pack({"a": "b"})[:8]


@given(
    st.lists(
        st.dictionaries(
            st.text("abcdefghij-", min_size=1, max_size=20), st.text(max_size=50), max_size=5
        ),
        max_size=5,
    )
)
def test_headers_come_back_block_after_block(blocks: list[dict[str, str]]) -> None:
    packer, unpacker = Packer(), Unpacker()
    for headers in blocks:
        assert unpacker.unpack(packer.pack(headers)) == headers


def test_a_stream_from_its_opening_to_its_end() -> None:
    client, server = pair()
    stream = client.open({"streamType": "data", "port": "80"})
    client.send(stream, b"question", fin=True)
    assert server.receive(client.take()) == [
        Opened(1, {"streamtype": "data", "port": "80"}, fin=False),
        Data(1, b"question", fin=True),
    ]
    server.reply(stream)
    server.send(stream, b"answer")
    server.send(stream, b"", fin=True)
    assert client.receive(server.take()) == [
        Replied(1, fin=False),
        Data(1, b"answer", fin=False),
        Data(1, b"", fin=True),
    ]
    assert client.has_ended(stream)
    assert server.has_ended(stream)
    server.send(stream, b"too late")
    assert server.take() == b""
    assert client.open({}) == 3
    assert server.open({}) == 2


def test_resets_pings_and_the_goodbye() -> None:
    client, server = pair()
    stream = client.open({})
    client.ping()
    server.receive(client.take())
    assert client.receive(server.take()) == []  # the ping came back, and is not sent again
    assert client.take() == b""
    server.reset(stream)
    server.go_away()
    assert client.receive(server.take()) == [Reset(1, Status.CANCEL), GoAway()]
    client.send(stream, b"x")
    assert client.take() == b""


@given(st.data())
def test_how_the_bytes_are_cut_makes_no_difference(data: st.DataObject) -> None:
    client = Session(client=True)
    for _ in range(data.draw(st.integers(1, 4))):
        stream = client.open({"streamtype": data.draw(st.sampled_from(["a", "b"]))})
        client.send(stream, data.draw(st.binary(max_size=100)), fin=data.draw(st.booleans()))
        client.ping()
    wire = client.take()

    def said(events: list[Event]) -> list[object]:
        streams: dict[int, bytes] = {}
        others: list[object] = []
        for event in events:
            if isinstance(event, Data):
                streams[event.stream] = streams.get(event.stream, b"") + event.data
                others += [("fin", event.stream)] if event.fin else []
            else:
                others.append(event)
        return [streams, *others]

    whole, cut = Session(client=False), Session(client=False)
    expected = said(whole.receive(wire))
    events: list[Event] = []
    position = 0
    while position < len(wire):
        size = data.draw(st.integers(1, 40))
        events += cut.receive(wire[position : position + size])
        position += size
    assert said(events) == expected
    assert cut.take() == whole.take()


@given(st.lists(st.binary(max_size=200), max_size=20), st.booleans())
def test_noise_is_refused_or_ignored(chunks: list[bytes], client: bool) -> None:
    session = Session(client=client)
    try:
        for chunk in chunks:
            session.receive(chunk)
    except ProtocolError:
        return
    assert len(session._kept) <= MAX_CONTROL + 8


@given(st.integers(0, 12), st.binary(max_size=60), st.integers(0, 255))
def test_any_frame_of_the_right_form_is_refused_or_understood(
    kind: int, body: bytes, flags: int
) -> None:
    session = Session(client=False)
    session.receive(pair_opening())
    try:
        session.receive(control(kind, body, flags=flags))
    except ProtocolError:
        return
    assert session.queued < 1000


def pair_opening() -> bytes:
    client = Session(client=True)
    client.open({"a": "b"})
    return client.take()


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (struct.pack(">II", 1 << 31 | 3 << 16 | 1, MAX_CONTROL + 1), "control frame of"),
        (control(1, b"", version=2), "version 2"),
        (control(1, b"123"), "too short"),
        (control(1, struct.pack(">IIH", 0, 0, 0)), "no stream's id"),
        (control(1, struct.pack(">IIH", 3, 0, 0) + b"not zlib"), "cannot be unpacked"),
        (control(3, struct.pack(">I", 1)), "too short"),
    ],
)
def test_a_frame_that_cannot_be_right_ends_the_connection(frame: bytes, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        Session(client=False).receive(frame)


def test_a_header_that_unpacks_to_too_much_is_not_unpacked() -> None:
    bomb = Packer().pack({"a": "x" * (10 * MAX_BLOCK)})
    assert len(bomb) < MAX_CONTROL
    with pytest.raises(ProtocolError, match="too large"):
        Session(client=False).receive(control(1, struct.pack(">IIH", 1, 0, 0) + bomb))


@pytest.mark.parametrize("count", [2, 0xFFFFFFFF])
def test_a_header_that_promises_more_than_it_has_is_refused(count: int) -> None:
    packed = zlib.compressobj(zdict=DICTIONARY)
    plain = struct.pack(">III", count, 1, 0xFFFFFFFF)
    block = packed.compress(plain) + packed.flush(zlib.Z_SYNC_FLUSH)
    with pytest.raises(ProtocolError, match="too early"):
        Unpacker().unpack(block)


def test_a_stream_cannot_be_opened_twice_nor_by_the_wrong_end() -> None:
    packer = Packer()
    session = Session(client=False)
    session.receive(control(1, struct.pack(">IIH", 5, 0, 0) + packer.pack({})))
    for number in (5, 3, 2):
        with pytest.raises(ProtocolError, match=f"stream {number} "):
            session.receive(control(1, struct.pack(">IIH", number, 0, 0) + packer.pack({})))


def test_too_many_streams_are_refused_one_by_one() -> None:
    client, server = pair()
    for _ in range(MAX_STREAMS):
        client.open({})
    assert len(server.receive(client.take())) == MAX_STREAMS
    extra = client.open({})
    assert server.receive(client.take()) == []
    assert client.receive(server.take()) == [Reset(extra, Status.REFUSED_STREAM)]


def test_data_for_nobody_is_dropped_and_answered() -> None:
    client, server = pair()
    stream = client.open({})
    server.receive(client.take())
    server.reset(stream)
    server.take()
    client.send(stream, b"under way", fin=True)
    assert server.receive(client.take()) == []
    assert server.take() == b""  # it was there once
    server.receive(struct.pack(">II", 77, 1 << 24))
    assert client.receive(server.take()) == []
    server.receive(struct.pack(">II", 77, 3) + b"abc")


def test_data_after_the_end_of_a_stream_resets_it() -> None:
    client, server = pair()
    stream = client.open({}, fin=True)
    assert server.receive(client.take()) == [Opened(stream, {}, fin=True)]
    events = server.receive(struct.pack(">II", stream, 1) + b"x")
    assert events == [Reset(stream, Status.STREAM_ALREADY_CLOSED)]
    assert client.receive(server.take()) == events


def test_a_huge_frame_of_data_is_handed_on_as_it_comes() -> None:
    client, server = pair()
    stream = client.open({})
    server.receive(client.take())
    size = 0xFFFFFF
    assert server.receive(struct.pack(">II", stream, size)) == []
    for _ in range(3):
        assert server.receive(bytes(1000)) == [Data(stream, bytes(1000), fin=False)]
    assert len(server._kept) == 0
