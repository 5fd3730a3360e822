"""Exec and attach against a pretend streaming server: what becomes of all the ways they end in."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tandem.errors import (
    Conflict,
    DeadlineExceeded,
    InvalidSpec,
    NotFound,
    TandemError,
    Unavailable,
    Unsupported,
)
from tandem.runtimes.capabilities import ExecSession
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.client import (
    EXEC,
    EXEC_SYNC,
    LIST_CONTAINERS,
    LIST_SANDBOXES,
    SANDBOX_STATUS,
)
from tandem.runtimes.cri.pods import Pods
from tandem.runtimes.cri.streaming import Streams
from tandem.wire.connection import Connection, Stream, TransportLink
from tests.unit.runtimes.cri.fake import FakeRuntime, serving

Handler = Callable[[dict[str, Stream], Connection], Awaitable[None]]


class StreamingServer:
    """What a CRI runtime has behind its URLs: ``handler`` gets the streams when all are there."""

    def __init__(self, expected: int = 4) -> None:
        self.expected = expected
        self.handler: Handler | None = None
        self.answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n"
        self.heads: list[bytes] = []
        self.url = ""
        self.serving: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self.answer)
        if b" 101 " in self.answer:
            connection = Connection(TransportLink(reader, writer), client=False, budget=100_000)
            receiving = asyncio.create_task(connection.run())
            streams: dict[str, Stream] = {}
            while len(streams) < self.expected and (stream := await connection.accept()):
                streams[stream.headers["streamtype"]] = stream
            if self.handler is not None and len(streams) == self.expected:
                await self.handler(streams, connection)
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.fixture
async def server() -> AsyncIterator[StreamingServer]:
    made = StreamingServer()
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/exec/token"
    yield made
    if made.serving:
        await asyncio.wait(made.serving)
    listening.close()
    await listening.wait_closed()


class Runtime(FakeRuntime):
    """One Pod with a container that runs and one that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Any] = []
        self.url = ""

        async def sandboxes(_: Any) -> cri.ListPodSandboxResponse:
            return cri.ListPodSandboxResponse(items=[cri.PodSandbox(id="s")])

        async def sandbox(_: Any) -> cri.PodSandboxStatusResponse:
            return cri.PodSandboxStatusResponse(status=cri.PodSandboxStatus(id="s"))

        async def containers(_: Any) -> cri.ListContainersResponse:
            made = [
                ("c1", "main", 0, cri.CONTAINER_EXITED),
                ("c2", "main", 1, cri.CONTAINER_RUNNING),
                ("c3", "ended", 0, cri.CONTAINER_EXITED),
            ]
            return cri.ListContainersResponse(
                containers=[
                    cri.Container(
                        id=id,
                        metadata=cri.ContainerMetadata(name=name, attempt=attempt),
                        state=state,
                    )
                    for id, name, attempt, state in made
                ]
            )

        async def exec(request: Any) -> cri.ExecResponse:
            self.requests.append(request)
            return cri.ExecResponse(url=self.url)

        async def exec_sync(request: Any) -> cri.ExecSyncResponse:
            self.requests.append(request)
            if request.cmd[0] == "slow":
                await asyncio.Event().wait()
            return cri.ExecSyncResponse(stdout=b"out", stderr=b"err", exit_code=3)

        self.answer(LIST_SANDBOXES, sandboxes)
        self.answer(SANDBOX_STATUS, sandbox)
        self.answer(LIST_CONTAINERS, containers)
        self.answer(EXEC, exec)
        self.answer(EXEC_SYNC, exec_sync)


@pytest.fixture
async def runtime(
    tmp_path: Path, server: StreamingServer
) -> AsyncIterator[tuple[Runtime, Streams]]:
    fake = Runtime()
    fake.url = server.url
    async with serving(fake, tmp_path / "cri.sock") as client:
        yield fake, Streams(client, Pods(client, "tandem", {}))


@pytest.fixture
def streams(runtime: tuple[Runtime, Streams]) -> Streams:
    return runtime[1]


async def begin(streams: Streams, *, tty: bool = False) -> ExecSession:
    return await streams.exec(
        "p", ["a", "b"], "main", stdin=True, stdout=True, stderr=True, tty=tty
    )


def status(**fields: Any) -> bytes:
    return json.dumps({"metadata": {}} | fields).encode()


async def output(session: ExecSession) -> dict[int, bytes]:
    found = {1: b"", 2: b""}
    while chunk := await session.read():
        found[chunk[0]] += chunk[1]
    return found


async def test_bytes_go_both_ways_and_the_input_ends(
    server: StreamingServer, runtime: tuple[Runtime, Streams]
) -> None:
    fake, made = runtime

    async def echo(streams: dict[str, Stream], connection: Connection) -> None:
        while data := await streams["stdin"].read():
            await streams["stdout"].write(data)
        await streams["stderr"].write(b"done")
        await streams["error"].write(status(status="Success"))
        for stream in streams.values():  # as Go's server ends a session
            await stream.close()

    server.handler = echo
    session = await begin(made)
    data = bytes(range(256)) * 4000

    async def send() -> None:
        await session.write(data)
        await session.close_stdin()

    sending = asyncio.create_task(send())
    assert await output(session) == {1: data, 2: b"done"}
    await sending
    assert await session.wait() == 0
    await session.write(b"nobody takes it")
    await session.close()
    await session.close()
    (request,) = fake.requests
    assert (request.container_id, list(request.cmd)) == ("c2", ["a", "b"])
    assert server.heads[0].startswith(b"POST /exec/token HTTP/1.1\r\n")
    assert b"X-Stream-Protocol-Version: v4.channel.k8s.io\r\n" in server.heads[0]


async def test_a_terminal_has_one_output_and_a_size(
    server: StreamingServer, streams: Streams
) -> None:
    async def sizes(streams: dict[str, Stream], connection: Connection) -> None:
        assert streams.keys() == {"error", "stdin", "stdout", "resize"}
        await streams["stdout"].write(await streams["resize"].read())
        await streams["stdout"].close_write()

    server.handler = sizes
    session = await begin(streams, tty=True)
    await session.resize(80, 24)
    assert await output(session) == {1: b'{"Width":80,"Height":24}\n', 2: b""}
    await session.close()


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (
            status(
                status="Failure",
                reason="InternalError",
                message="Internal error occurred: error executing command in container: failed to "
                'exec in container: failed to start exec "1": OCI runtime exec failed: not found',
            ),
            InvalidSpec,
            "failed to exec in container: failed to start exec",
        ),
        (status(status="Failure", message="no such thing"), TandemError, "no such thing"),
        (status(status="Failure", reason="NonZeroExitCode"), TandemError, "NonZero"),
        (b"[1]", TandemError, "[1]"),
        (b"plain words", TandemError, "plain words"),
        (b"", TandemError, "did not say how it ended"),
    ],
)
async def test_what_else_a_session_ends_with_is_an_error(
    server: StreamingServer, streams: Streams, said: bytes, kind: type[TandemError], words: str
) -> None:
    async def fail(streams: dict[str, Stream], connection: Connection) -> None:
        await streams["error"].write(said)
        for stream in streams.values():
            await stream.close()

    server.handler = fail
    session = await begin(streams)
    assert await output(session) == {1: b"", 2: b""}
    with pytest.raises(kind) as failure:
        await session.wait()
    assert type(failure.value) is kind
    assert words in failure.value.message
    assert not failure.value.message.startswith("Internal error")
    await session.close()


async def test_what_was_said_last_arrives_though_the_input_was_not_read(
    server: StreamingServer, streams: Streams
) -> None:
    async def enough(streams: dict[str, Stream], connection: Connection) -> None:
        await streams["stdout"].write(b"enough")
        await streams["error"].write(status(status="Success"))
        for stream in streams.values():
            await stream.close()

    server.handler = enough
    session = await begin(streams)
    await session.write(bytes(20_000_000))
    assert await output(session) == {1: b"enough", 2: b""}
    assert await session.wait() == 0
    await session.close()


async def test_a_runtime_that_is_stuck_with_the_input_is_not_waited_for(
    server: StreamingServer, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tandem.runtimes.cri.streaming._STUCK_SECONDS", 0.1)
    over = asyncio.Event()

    async def stuck(streams: dict[str, Stream], connection: Connection) -> None:
        await streams["stdout"].close_write()
        await streams["stderr"].close_write()
        await over.wait()

    server.handler = stuck
    session = await begin(streams)
    writing = asyncio.create_task(session.write(bytes(20_000_000)))
    assert await output(session) == {1: b"", 2: b""}
    with pytest.raises(Unavailable, match="does not say how the command ended"):
        await session.wait()
    writing.cancel()
    await asyncio.wait([writing])
    await session.close()
    over.set()


async def test_an_exit_code_is_found_in_the_status(
    server: StreamingServer, streams: Streams
) -> None:
    async def fail(streams: dict[str, Stream], connection: Connection) -> None:
        causes = [{"reason": "ExitCode", "message": "42"}]
        said = status(status="Failure", reason="NonZeroExitCode", details={"causes": causes})
        await streams["error"].write(said)
        for stream in streams.values():
            await stream.close()

    server.handler = fail
    session = await begin(streams)
    assert await session.wait() == 42
    await session.close()


async def test_a_runtime_that_dies_is_told_to_whoever_waits(
    server: StreamingServer, streams: Streams
) -> None:
    async def die(streams: dict[str, Stream], connection: Connection) -> None:
        await streams["stdout"].write(b"some")
        await connection.close()

    server.handler = die
    session = await begin(streams)
    with pytest.raises(Unavailable, match="lost"):
        await output(session)
    with pytest.raises(Unavailable, match="lost"):
        await session.wait()
    await session.write(b"x")  # whoever writes need not know
    await session.resize(80, 24)
    await session.close_stdin()
    await session.close()


async def test_streams_that_cannot_be_had(
    server: StreamingServer, runtime: tuple[Runtime, Streams]
) -> None:
    fake, made = runtime
    server.answer = b"HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\npage not found\n"
    with pytest.raises(TandemError, match="refused the streams: page not found"):
        await begin(made)
    server.answer = b"nonsense" * 10_000 + b"\r\n\r\n"
    with pytest.raises(Unavailable):
        await begin(made)
    server.answer = b""
    with pytest.raises(Unavailable):
        await begin(made)
    fake.url = "http://127.0.0.1:1/exec/x"
    with pytest.raises(Unavailable, match="cannot reach"):
        await begin(made)
    fake.url = "https://127.0.0.1:1/exec/x"
    with pytest.raises(Unsupported):
        await begin(made)


async def test_only_what_runs_can_be_entered(streams: Streams) -> None:
    async def enter(name: str) -> None:
        await streams.exec("p", ["a"], name, stdin=False, stdout=True, stderr=True, tty=False)

    with pytest.raises(Conflict, match="does not run"):
        await enter("ended")
    for name in ("none", ""):  # without a name there must be only one
        with pytest.raises(NotFound):
            await enter(name)


async def test_a_command_without_streams(runtime: tuple[Runtime, Streams]) -> None:
    fake, made = runtime
    result = await made.exec_sync("p", ["a"], "main", timeout=0.2)
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"out", b"err")
    assert fake.requests[0].timeout == 1  # 0 would be for ever


async def test_a_command_that_takes_too_long_is_a_deadline(
    runtime: tuple[Runtime, Streams], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tandem.runtimes.cri.streaming._KILL_SECONDS", -0.9)
    with pytest.raises(DeadlineExceeded, match="did not end within"):
        await runtime[1].exec_sync("p", ["slow"], "main", timeout=0.5)
