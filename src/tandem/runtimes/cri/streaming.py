"""Exec, attach and port-forward: byte streams into a Pod's containers and its network."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
from collections.abc import Sequence
from typing import Any

from tandem.errors import (
    Conflict,
    DeadlineExceeded,
    InvalidSpec,
    NotFound,
    TandemError,
    Unavailable,
)
from tandem.runtimes.capabilities import ExecResult, ExecSession, HalfCloseStream
from tandem.runtimes.cri import netns
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.client import ATTACH, EXEC, EXEC_SYNC, SANDBOX_STATUS, CriClient
from tandem.runtimes.cri.pods import Pods
from tandem.runtimes.cri.status import newest
from tandem.runtimes.cri.streamconnect import Streaming, connect
from tandem.wire.connection import Stream
from tandem.wire.inbox import wait_ready
from tandem.wire.sockets import SocketStream

# After a command's time is up the runtime still has to kill it and to answer.
_KILL_SECONDS = 10.0

# A command that has ended its outputs, and takes no input, may still run: it is given this long.
_STUCK_SECONDS = 10.0

_MAX_STATUS = 1 << 20  # bytes of what a session may end with

# The runtime's own words before what went wrong, which is all that counts to the caller.
_PREFIX = re.compile(
    r"^(Internal error occurred: )?(error (executing command in|attaching to) container: )?"
)
_NOT_STARTED = re.compile(r"OCI runtime exec failed|failed to start exec")


class Streams:
    """The byte streams of the Pods in one runtime."""

    def __init__(self, client: CriClient, pods: Pods) -> None:
        self._client, self._pods = client, pods

    async def exec(
        self,
        id: str,
        command: Sequence[str],
        container: str,
        *,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        tty: bool,
    ) -> ExecSession:
        """See :class:`tandem.runtimes.capabilities.Exec`."""
        request = cri.ExecRequest(
            container_id=await self._running(id, container),
            cmd=command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr and not tty,
            tty=tty,
        )
        response = await self._client.call(EXEC, request)
        return await _begin(response.url, request)

    async def attach(
        self, id: str, container: str, *, stdin: bool, stdout: bool, stderr: bool, tty: bool
    ) -> ExecSession:
        """See :class:`tandem.runtimes.capabilities.Attach`."""
        request = cri.AttachRequest(
            container_id=await self._running(id, container),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr and not tty,
            tty=tty,
        )
        response = await self._client.call(ATTACH, request)
        return await _begin(response.url, request)

    async def exec_sync(
        self, id: str, command: Sequence[str], container: str, *, timeout: float
    ) -> ExecResult:
        """See :class:`tandem.runtimes.capabilities.Exec`."""
        # The runtime counts in whole seconds, and 0 is for ever.
        seconds = max(1, math.ceil(timeout))
        request = cri.ExecSyncRequest(
            container_id=await self._running(id, container), cmd=command, timeout=seconds
        )
        try:
            response = await self._client.call(EXEC_SYNC, request, timeout=seconds + _KILL_SECONDS)
        except DeadlineExceeded as error:
            raise DeadlineExceeded(
                f"command {' '.join(command)!r} did not end within {timeout:g} s"
            ) from error
        except TandemError as error:
            raise _failure(error.message) from error
        return ExecResult(response.exit_code, response.stdout, response.stderr)

    async def port_forward(self, id: str, port: int) -> HalfCloseStream:
        """See :class:`tandem.runtimes.capabilities.PortForward`."""
        sandbox = await self._pods.sandbox(id)
        answer = await self._client.call(
            SANDBOX_STATUS, cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox.id, verbose=True)
        )
        pid = _pid(answer.info)
        if answer.status.state != cri.SANDBOX_READY or not pid:
            raise Conflict(f"Pod {id!r} does not run")
        try:
            made = await netns.connect(pid, port)
        except ProcessLookupError as error:
            raise Conflict(f"Pod {id!r} does not run") from error
        except ConnectionError as error:
            raise Unavailable(
                f'failed to connect to localhost:{port} inside namespace "{sandbox.id}", {error}'
            ) from error
        except OSError as error:
            raise Unavailable(f"cannot enter the network of Pod {id!r}: {error}") from error
        return SocketStream(made)

    async def _running(self, id: str, name: str) -> str:
        """The runtime's id of a container that runs. Raises ``NotFound`` and ``Conflict``."""
        sandbox = await self._pods.sandbox(id)
        found = newest(await self._pods.containers(sandbox.id))
        named = [item for item in found if item.metadata.name == name] if name else found
        if len(named) != 1:
            raise NotFound(f"Pod {id!r} has no container {name!r}")
        if named[0].state != cri.CONTAINER_RUNNING:
            raise Conflict(f"container {named[0].metadata.name!r} of Pod {id!r} does not run")
        return str(named[0].id)


async def _begin(url: str, request: cri.ExecRequest | cri.AttachRequest) -> ExecSession:
    names = ["error"]
    names += [name for name in ("stdin", "stdout", "stderr") if getattr(request, name)]
    if request.tty:
        names.append("resize")
    return _Session(await connect(url, names))


class _Session:
    """An :class:`~tandem.runtimes.capabilities.ExecSession` over the runtime's streams."""

    def __init__(self, streaming: Streaming) -> None:
        self._streaming = streaming
        streams = streaming.streams
        self._stuck_since: float | None = None  # when the write under way was begun
        self._outputs = [
            (number, streams[name])
            for number, name in ((1, "stdout"), (2, "stderr"))
            if name in streams
        ]

    async def read(self) -> tuple[int, bytes] | None:
        while self._outputs:
            await wait_ready([stream.inbox for _, stream in self._outputs])
            for pair in list(self._outputs):
                number, stream = pair
                if not stream.inbox.ready:
                    continue
                self._outputs.remove(pair)
                if data := await _received(stream.read()):
                    self._outputs.append(pair)  # last, so that the other has its turn
                    return number, data
        return None

    async def write(self, data: bytes) -> None:
        await self._send("stdin", data)

    async def close_stdin(self) -> None:
        if stdin := self._streaming.streams.get("stdin"):
            await _sent(stdin.close_write())

    async def resize(self, columns: int, rows: int) -> None:
        await self._send("resize", b'{"Width":%d,"Height":%d}\n' % (columns, rows))

    async def wait(self) -> int:
        error, said = self._streaming.streams["error"], b""
        while True:
            if not await self._may_end(error):
                raise Unavailable(
                    "the container runtime does not say how the command ended, "
                    "which did not read all of its input"
                )
            if not (data := await _received(error.read())):
                return _exit_code(said)
            said = (said + data)[:_MAX_STATUS]

    async def _may_end(self, error: Stream) -> bool:
        """Wait for the end. containerd may wait for ever to get rid of the input of a process that
        has ended, and then never tells: so False when the outputs have ended and the input has been
        stuck for long."""
        since = asyncio.get_running_loop().time()
        while True:
            try:
                async with asyncio.timeout(_STUCK_SECONDS / 10):
                    await wait_ready([error.inbox])
                    return True
            except TimeoutError:
                now = asyncio.get_running_loop().time()
                if self._outputs or self._stuck_since is None:
                    since = now
                elif now - max(since, self._stuck_since) > _STUCK_SECONDS:
                    return False

    async def close(self) -> None:
        await self._streaming.close()

    async def _send(self, name: str, data: bytes) -> None:
        if (stream := self._streaming.streams.get(name)) is None:
            return
        # The runtime stops reading the connection when a process ends before its input does: the
        # end of the stream is what frees the writer.
        writing = asyncio.create_task(stream.write(data))
        dropped = asyncio.create_task(stream.dropped.wait())
        self._stuck_since = asyncio.get_running_loop().time()
        try:
            await asyncio.wait([writing, dropped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stuck_since = None
            dropped.cancel()
            writing.cancel()
            await asyncio.wait([writing])
        if not writing.cancelled():
            await _sent(writing)


async def _received(reading: Any) -> bytes:
    try:
        data: bytes = await reading
    except ConnectionError as error:
        raise Unavailable("the connection to the container runtime was lost") from error
    return data


async def _sent(writing: Any) -> None:
    # A process that takes no more has ended, or the runtime has: reading tells which.
    with contextlib.suppress(ConnectionError):
        await writing


def _exit_code(said: bytes) -> int:
    """The exit code in a ``Status``. Raises what else it says."""
    try:
        status = json.loads(said)
        if status["status"] == "Success":
            return 0
        if status.get("reason") == "NonZeroExitCode":
            causes = status["details"]["causes"]
            return int(next(c["message"] for c in causes if c["reason"] == "ExitCode"))
        message = str(status.get("message", ""))
    except (ValueError, TypeError, KeyError, AttributeError, StopIteration, RecursionError):
        message = said.decode("utf-8", "replace")
    raise _failure(message or "the container runtime did not say how it ended")


def _failure(message: str) -> TandemError:
    plain = _PREFIX.sub("", message)
    return (InvalidSpec if _NOT_STARTED.search(plain) else TandemError)(plain)


def _pid(info: Any) -> int:
    """The sandbox's own process, as the verbose status of containerd and of CRI-O has it."""
    try:
        return int(json.loads(info["info"])["pid"])
    except (ValueError, TypeError, KeyError):
        return 0
