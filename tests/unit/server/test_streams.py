"""exec, attach and port-forward: what the server says to clients of each protocol, and when."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType

from tandem.runtimes.adapter import RuntimeSpec
from tandem.runtimes.capabilities import HalfCloseStream
from tandem.runtimes.memory.processes import Process
from tandem.server import pki
from tandem.server.streams import session
from tandem.store import Key
from tandem.wire.connection import Connection, Stream, TransportLink
from tests.unit.server.conftest import Answer, Doc, World, eventually

POD = "/api/v1/namespaces/default/pods/web"
CONTAINERS = [
    {"name": "main", "image": "busybox", "command": ["sh", "-c", "echo before; sleep 1000"]},
    {"name": "side", "image": "busybox", "command": ["false"]},
]
EVERYTHING = {"stdin": "1", "stdout": "1", "stderr": "1"}
PATIENCE = 20.0


@pytest.fixture
async def served(world: World) -> World:
    """A Pod of one container that runs and one that has ended."""
    await world.adapter.create(RuntimeSpec("uid-web", container_spec={"containers": CONTAINERS}))
    spec = {"containers": CONTAINERS, "initContainers": [{"name": "first", "image": "busybox"}]}
    metadata = {"name": "web", "namespace": "default", "uid": "uid-web"}
    await world.store.create(Key("pods", "default", "web"), {"metadata": metadata, "spec": spec})
    return world


def path(verb: str, *command: str, **query: str) -> str:
    pairs = [*({"container": "main"} | query).items(), *(("command", word) for word in command)]
    return f"{POD}/{verb}?{urlencode(pairs)}"


# WebSocket ------------------------------------------------------------------------------------------


@dataclass
class Channels:
    """A client of channel.k8s.io: what it has received, by channel, once the socket is closed."""

    socket: ClientWebSocketResponse
    got: dict[int, bytes] = field(default_factory=dict)

    async def send(self, channel: int, data: bytes) -> None:
        await self.socket.send_bytes(bytes([channel]) + data)

    async def rest(self) -> dict[int, bytes]:
        async with asyncio.timeout(PATIENCE):
            async for message in self.socket:
                assert message.type is WSMsgType.BINARY
                number = message.data[0]
                self.got[number] = self.got.get(number, b"") + message.data[1:]
        return self.got

    async def status(self) -> Doc:
        decoded: Doc = json.loads((await self.rest())[3])
        return decoded


@asynccontextmanager
async def channels(world: World, url: str, protocol: str = "v5") -> AsyncIterator[Channels]:
    async with world.client.session.ws_connect(
        url, protocols=[f"{protocol}.channel.k8s.io"], max_msg_size=0
    ) as socket:
        assert socket.protocol == f"{protocol}.channel.k8s.io"
        yield Channels(socket)


async def test_a_command_s_output_and_success(served: World) -> None:
    async with channels(served, path("exec", "sh", "-c", "echo hi", stdout="1")) as client:
        got = await client.rest()
        assert got[1] == b"hi\n"
        assert json.loads(got[3])["status"] == "Success"
        assert client.socket.close_code == 1000


async def test_a_command_s_exit_code_is_a_status(served: World) -> None:
    async with channels(served, path("exec", "sh", "-c", "exit 3", stderr="1"), "v4") as client:
        status = await client.status()
    assert status["status"] == "Failure"
    assert status["reason"] == "NonZeroExitCode"
    assert status["message"] == "command terminated with non-zero exit code: exit status 3"
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


async def test_a_program_that_is_not_there_is_told_on_the_error_channel(served: World) -> None:
    async with channels(served, path("exec", "nonsense", stdout="1")) as client:
        status = await client.status()
    assert status["reason"] == "InternalError"
    start = "Internal error occurred: error executing command in container: failed to start exec"
    assert status["message"].startswith(start)


async def test_version_5_ends_the_input(served: World) -> None:
    data = os.urandom(1_000_000)
    async with channels(served, path("exec", "cat", **EVERYTHING)) as client:
        for begin in range(0, len(data), 30_000):
            await client.send(0, data[begin : begin + 30_000])
        await client.send(255, b"\x00")
        assert (await client.rest())[1] == data


async def test_text_and_base64_and_no_protocol_at_all(served: World) -> None:
    url = path("exec", "sizes", stdin="1", stdout="1", tty="1")
    connect = served.client.session.ws_connect
    async with connect(url, protocols=["v4.base64.channel.k8s.io"]) as socket:
        size = base64.b64encode(b'{"Width":80,"Height":24}').decode()
        await socket.send_str("4" + size)
        await socket.send_str("4!not base64")
        await socket.send_str("")
        async with asyncio.timeout(PATIENCE):
            assert await socket.receive_str() == "1"  # the streams are there
            assert base64.b64decode((await socket.receive_str())[1:]) == b"80 24\n"
    async with connect(path("exec", "cat", stdin="1", stdout="1")) as socket:
        assert socket.protocol is None
        await socket.send_str("\x00typed")  # as the Python client does
        async with asyncio.timeout(PATIENCE):
            assert await socket.receive_bytes() == b"\x01"
            assert await socket.receive_bytes() == b"\x01typed"


async def test_sizes_of_the_terminal_arrive_and_nonsense_does_no_harm(served: World) -> None:
    url = path("exec", "sizes", stdin="1", stdout="1", stderr="1", tty="1")
    async with channels(served, url) as client:
        for text in (b'{"Width":1,', b'"Height":2}{"Width":3,"Height":4}\n', b"[]", b'{"Width":0}'):
            await client.send(4, text)
        await client.send(4, b'{"Width":"a","Height":1}{"Width":5,"Height":70000}')
        await client.send(77, b"no such channel")
        await client.send(4, b'{"Width":5,"Height":6}')
        said = b""
        async with asyncio.timeout(PATIENCE):
            while not said.endswith(b"5 6\n"):
                said += (await client.socket.receive_bytes())[1:]
    assert said == b"1 2\n3 4\n5 6\n"


async def test_a_client_that_leaves_leaves_nothing(served: World) -> None:
    started = asyncio.Event()
    ended = asyncio.Event()

    async def hold(process: Process) -> int:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return 0

    served.adapter.runtime.programs["hold"] = hold
    async with channels(served, path("exec", "hold", **EVERYTHING)):
        await started.wait()
        assert len(served.server._api.streams) == 1
    await eventually(lambda: ended.is_set() and not served.server._api.streams)


async def test_a_client_that_dies_while_its_input_waits_is_noticed(
    served: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_BEAT_SECONDS", 0.01)
    served.adapter.runtime.programs["hold"] = _hold
    async with channels(served, path("exec", "hold", **EVERYTHING)) as client:
        async with asyncio.timeout(PATIENCE):
            for _ in range(40):  # more than everything on the way holds, but for the kernel
                await client.send(0, bytes(20_000))
        transport = client.socket._response.connection
        assert transport is not None
        assert transport.transport is not None
        transport.transport.abort()
    await eventually(lambda: not served.server._api.streams)


async def _hold(_process: Process) -> int:
    await asyncio.Event().wait()
    return 0


async def test_the_server_s_stop_ends_streams_at_once(served: World) -> None:
    served.adapter.runtime.programs["hold"] = _hold
    async with channels(served, path("exec", "hold", **EVERYTHING)) as client:
        await eventually(lambda: len(served.server._api.streams) == 1)
        async with asyncio.timeout(PATIENCE):
            await served.server.stop()
        assert (await client.rest()).keys() <= {1}


async def test_attach_joins_the_container_s_own_process(served: World) -> None:
    async with channels(served, path("attach", stdin="1", stdout="1")) as client:
        await client.send(0, b"typed\n")
        async with asyncio.timeout(PATIENCE):
            assert await client.socket.receive_bytes() == b"\x01"
            assert await client.socket.receive_bytes() == b"\x01typed\n"  # nothing of before
        served.adapter.runtime.end("uid-web", "main", code=5)
        assert (await client.status())["status"] == "Success"


# Refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("exec?command=a&stdout=1&container=main", 400, "Upgrade request required"),
        ("exec?command=a&container=main", 400, "at least 1 of stdin, stdout, stderr"),
        ("exec?stdout=1&container=main", 400, "at least one command"),
        (
            "exec?command=a&stdout=1",
            400,
            "a container name must be specified for pod web, choose one of: [main side] "
            "or one of the init containers: [first]",
        ),
        ("attach?stdout=1&container=x", 400, "container x is not valid for pod web"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_cannot_be_is_told_before_any_stream(
    served: World, method: str, url: str, code: int, words: str
) -> None:
    answer = await served.client.ask(method, f"{POD}/{url}")
    assert answer.status == code
    assert words in answer.doc["message"]


async def _refused(world: World, url: str, **headers: str) -> Answer:
    given = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1"} | headers
    return await world.client.ask("POST", url, **given)


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        (path("exec", "a", stdout="1", container="side"), 500, 'container not found ("side")'),
        (path("exec", "a", stdout="1", container="first"), 500, 'container not found ("first")'),
        (
            path("attach", stdout="1", container="side"),
            500,
            "container side not found in pod web_default",
        ),
    ],
)
async def test_a_container_that_does_not_run_is_not_found(
    served: World, url: str, code: int, words: str
) -> None:
    answer = await _refused(served, url, **{"X-Stream-Protocol-Version": "v4.channel.k8s.io"})
    assert answer.status == code
    assert answer.doc["message"] == words


async def test_protocols_that_nobody_speaks_are_refused(served: World) -> None:
    url = path("exec", "a", stdout="1")
    answer = await _refused(served, url, **{"X-Stream-Protocol-Version": "v9.channel.k8s.io, x"})
    assert answer.status == 403
    assert "client supports [v9.channel.k8s.io x], server accepts [v4." in answer.doc["message"]
    assert (await _refused(served, url)).status == 400
    assert (await _refused(served, url, Upgrade="h2c")).status == 400
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await served.client.session.ws_connect(url, protocols=["v6.channel.k8s.io"])
    assert refusal.value.status == 403


async def test_a_pod_that_is_gone_from_the_runtime_has_no_ports(served: World) -> None:
    served.adapter.runtime.vanish("uid-web")
    answer = await _refused(
        served, f"{POD}/portforward", **{"X-Stream-Protocol-Version": "portforward.k8s.io"}
    )
    assert answer.status == 500
    assert answer.doc["message"] == 'pod not found ("web_default")'


# SPDY -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def spdy(
    world: World, certificates: pki.Pki, url: str, protocol: str
) -> AsyncIterator[Connection]:
    address = world.server.url.rpartition(":")
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", int(address[2]), ssl=certificates.client_context()
    )
    head = (
        f"POST {url} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: Upgrade\r\n"
        f"Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {protocol}\r\n\r\n"
    )
    writer.write(head.encode())
    async with asyncio.timeout(PATIENCE):
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
    assert answer.startswith("HTTP/1.1 101 "), answer
    assert f"X-Stream-Protocol-Version: {protocol}\r\n" in answer
    assert "Transfer-Encoding" not in answer
    connection = Connection(TransportLink(reader, writer), client=True, budget=100_000)
    receiving = asyncio.create_task(connection.run())
    try:
        async with asyncio.timeout(PATIENCE):
            yield connection
    finally:
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)
        await connection.close()


async def streams(connection: Connection, *names: str) -> list[Stream]:
    return [await connection.open({"streamType": name}) for name in names]


async def whole(stream: Stream) -> bytes:
    found = b""
    while data := await stream.read():
        found += data
    return found


async def test_a_command_over_spdy(served: World, certificates: pki.Pki) -> None:
    url, data = path("exec", "cat", **EVERYTHING), os.urandom(1_000_000)
    async with spdy(served, certificates, url, "v4.channel.k8s.io") as connection:
        names = ("error", "stdin", "stdout", "stderr")
        error, stdin, stdout, stderr = await streams(connection, *names)

        async def feed() -> None:
            await stdin.write(data)
            await stdin.close_write()

        feeding = asyncio.create_task(feed())
        assert await whole(stdout) == data
        assert await whole(stderr) == b""
        assert json.loads(await whole(error))["status"] == "Success"
        await feeding
    await eventually(lambda: not served.server._api.streams)


@pytest.mark.parametrize("protocol", ["channel.k8s.io", "v2.channel.k8s.io"])
async def test_old_versions_are_told_in_plain_words(
    served: World, certificates: pki.Pki, protocol: str
) -> None:
    for code, words in (
        (0, b""),
        (3, b"command terminated with non-zero exit code: exit status 3"),
    ):
        url = path("exec", "sh", "-c", f"exit {code}", stdout="1")
        async with spdy(served, certificates, url, protocol) as connection:
            error, stdout = await streams(connection, "error", "stdout")
            assert await whole(stdout) == b""
            assert await whole(error) == words


async def test_a_terminal_over_spdy(served: World, certificates: pki.Pki) -> None:
    url = path("exec", "sizes", stdin="1", stdout="1", stderr="1", tty="1")
    async with spdy(served, certificates, url, "v4.channel.k8s.io") as connection:
        _, _, stdout, resize = await streams(connection, "error", "stdin", "stdout", "resize")
        await resize.write(b'{"Width":80,"Height":24}\n')
        assert await stdout.read() == b"80 24\n"


async def test_streams_of_no_use_are_reset(served: World, certificates: pki.Pki) -> None:
    url = path("exec", "sh", "-c", "echo hi", stdout="1")
    async with spdy(served, certificates, url, "v4.channel.k8s.io") as connection:
        odd, error, again = await streams(connection, "odd", "error", "error")
        (stdout,) = await streams(connection, "stdout")
        await odd.dropped.wait()
        await again.dropped.wait()
        assert await whole(stdout) == b"hi\n"
        assert json.loads(await whole(error))["status"] == "Success"


async def test_a_client_of_spdy_that_leaves_or_talks_nonsense(
    served: World, certificates: pki.Pki
) -> None:
    served.adapter.runtime.programs["hold"] = _hold
    url = path("exec", "hold", **EVERYTHING)
    async with spdy(served, certificates, url, "v4.channel.k8s.io") as connection:
        await streams(connection, "error", "stdin")  # and never the others
        assert len(served.server._api.streams) == 1
    await eventually(lambda: not served.server._api.streams)
    async with spdy(served, certificates, url, "v4.channel.k8s.io") as connection:
        names = ("error", "stdin", "stdout", "stderr")
        error, *_ = await streams(connection, *names)
        await connection._link.write(b"\xff" * 100)
        with pytest.raises(ConnectionError):
            await whole(error)
    await eventually(lambda: not served.server._api.streams)


# Ports ----------------------------------------------------------------------------------------------


async def _echo(inner: HalfCloseStream) -> None:
    """Says back all of it, once it has all of it."""
    found = b""
    while data := await inner.read():
        found += data
    await inner.write(found)


async def _forward(connection: Connection, port: int, request: int) -> tuple[Stream, Stream]:
    headers = {"port": str(port), "requestID": str(request)}
    error = await connection.open(headers | {"streamType": "error"})
    await error.close_write()
    return await connection.open(headers | {"streamType": "data"}), error


async def test_connections_to_several_ports_at_once(served: World, certificates: pki.Pki) -> None:
    served.adapter.runtime.ports = {80: _echo, 81: _echo}
    async with spdy(served, certificates, f"{POD}/portforward", "portforward.k8s.io") as connection:
        pairs = [await _forward(connection, 80 + number % 2, number) for number in range(20)]
        for number, (data, _) in enumerate(pairs):
            await data.write(b"%d" % number)
            await data.close_write()
        for number, (data, error) in enumerate(pairs):
            assert await whole(data) == b"%d" % number
            assert await whole(error) == b""
        data, error = await _forward(connection, 82, 99)
        said = (await whole(error)).decode()
        assert said.startswith(
            "error forwarding port 82 to pod web, uid uid-web: failed to connect"
        )
        assert await whole(data) == b""
        data, _ = await _forward(connection, 80, 100)  # the session goes on
        await data.close_write()
        assert await whole(data) == b""
    await eventually(lambda: not served.server._api.streams)


async def test_half_pairs_and_bad_ports_are_reset(served: World, certificates: pki.Pki) -> None:
    served.adapter.runtime.ports = {80: _echo}
    async with spdy(served, certificates, f"{POD}/portforward", "portforward.k8s.io") as connection:
        for headers in (
            {"streamType": "data", "port": "0"},
            {"streamType": "data", "port": "9" * 5000},
            {"streamType": "other", "port": "80"},
            {"streamType": "data"},
        ):
            stream = await connection.open(headers)
            await stream.dropped.wait()
        # Without an id, the two that follow each other belong together.
        await connection.open({"streamType": "error", "port": "80"})
        data = await connection.open({"streamType": "data", "port": "80"})
        await data.write(b"x")
        await data.close_write()
        assert await whole(data) == b"x"


async def test_a_reset_of_the_client_ends_the_connection_inside(
    served: World, certificates: pki.Pki
) -> None:
    ended = asyncio.Event()

    async def silent(inner: HalfCloseStream) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    served.adapter.runtime.ports = {80: silent}
    async with spdy(served, certificates, f"{POD}/portforward", "portforward.k8s.io") as connection:
        data, _ = await _forward(connection, 80, 1)
        await data.write(b"x")
        await data.close()
        await ended.wait()


async def test_a_pod_that_goes_away_ends_the_session(served: World, certificates: pki.Pki) -> None:
    served.adapter.runtime.ports = {80: _echo}
    async with spdy(served, certificates, f"{POD}/portforward", "portforward.k8s.io") as connection:
        served.adapter.runtime.vanish("uid-web")
        _, error = await _forward(connection, 80, 1)
        assert b"no workload" in await whole(error)
        await eventually(lambda: connection._session._last_theirs == 0)


async def test_ports_in_channels_of_older_clients(served: World) -> None:
    served.adapter.runtime.ports = {80: _first_words}
    async with channels(served, f"{POD}/portforward?ports=80&ports=81", "v4") as client:
        await client.send(0, b"hello")
        got = await client.rest()
    assert got[0] == b"\x50\x00HELLO"
    assert got[1] == b"\x50\x00"
    assert got[2] == b"\x51\x00"
    assert got[3].startswith(b"\x51\x00error forwarding port 81 to pod web")


async def _first_words(inner: HalfCloseStream) -> None:
    await inner.write((await inner.read()).upper())


@pytest.mark.parametrize("query", ["", "ports=x", "ports=0", "port=80,70000"])
async def test_ports_that_are_none_are_refused(served: World, query: str) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await served.client.session.ws_connect(
            f"{POD}/portforward?{query}", protocols=["v4.channel.k8s.io"]
        )
    assert refusal.value.status == 400


async def test_a_tunnel_is_spdy_in_a_web_socket(served: World) -> None:
    served.adapter.runtime.ports = {80: _echo}
    async with served.client.session.ws_connect(
        f"{POD}/portforward", protocols=["SPDY/3.1+portforward.k8s.io"]
    ) as socket:
        connection = Connection(_Tunnel(socket), client=True, budget=100_000)
        receiving = asyncio.create_task(connection.run())
        async with asyncio.timeout(PATIENCE):
            data, _ = await _forward(connection, 80, 1)
            await data.write(bytes(300_000))
            await data.close_write()
            assert await whole(data) == bytes(300_000)
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)


@dataclass
class _Tunnel:
    socket: Any

    async def read(self) -> bytes:
        message = await self.socket.receive()
        return message.data if message.type is WSMsgType.BINARY else b""

    async def write(self, data: bytes) -> None:
        await self.socket.send_bytes(data)

    async def close(self) -> None:
        await self.socket.close()
