"""pods/exec and pods/attach: the streams of a process, joined with those of a client.

Each byte waits for whoever takes it: beyond the connections' budgets nothing is kept. What the
process ends with goes to the client as a ``Status``, worded as the kubelet does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator

from aiohttp import web

from tandem.api.kind import Doc
from tandem.api.status import status_from_error, status_success
from tandem.errors import BadRequest, Conflict, NotFound, TandemError, Unavailable
from tandem.runtimes.capabilities import Attach, Exec, ExecSession
from tandem.server.call import Api, Call
from tandem.server.codec import encode
from tandem.server.streams.client import (
    SPDY_PROTOCOLS,
    WEBSOCKET_PROTOCOLS,
    Client,
    Remote,
    connected,
)
from tandem.server.streams.session import end, streaming
from tandem.server.streams.target import Wanted, choose_container, wanted_streams
from tandem.server.streams.upgrade import Upgrade, negotiate

_MAX_SIDE = 0xFFFF  # of a terminal, in the kernel
_MAX_RESIZE = 4096  # bytes of one size, which has about 30


async def pod_exec(api: Api, call: Call) -> web.StreamResponse:
    """GET or POST pods/NAME/exec: run a command in a container."""
    pod = api.store.get(call.key)
    container = str(choose_container(pod, call.query.text("container"))["name"])
    wanted = wanted_streams(call.query)
    command = call.query.texts("command")
    if not command:
        raise BadRequest("you must specify at least one command for the container")
    upgrade = _negotiate(call)
    adapter = api.adapters.get("container")
    if not isinstance(adapter, Exec):
        raise Unavailable("no container runtime here runs commands in containers")
    with _not_running(f'container not found ("{container}")'):
        session = await adapter.exec(
            pod["metadata"]["uid"],
            command,
            container=container,
            stdin=wanted.stdin,
            stdout=wanted.stdout,
            stderr=wanted.stderr,
            tty=wanted.tty,
        )
    return await _serve(api, call, upgrade, wanted, session, "error executing command in container")


async def pod_attach(api: Api, call: Call) -> web.StreamResponse:
    """GET or POST pods/NAME/attach: join a container's own process."""
    pod = api.store.get(call.key)
    chosen = choose_container(pod, call.query.text("container"))
    container, tty = str(chosen["name"]), bool(chosen.get("tty"))
    wanted = wanted_streams(call.query)
    upgrade = _negotiate(call)
    adapter = api.adapters.get("container")
    if not isinstance(adapter, Attach):
        raise Unavailable("no container runtime here attaches to containers")
    name = f"{call.target.name}_{call.target.namespace}"
    with _not_running(f"container {container} not found in pod {name}"):
        session = await adapter.attach(
            pod["metadata"]["uid"],
            container=container,
            stdin=wanted.stdin,
            stdout=wanted.stdout,
            # Whether there is a terminal was settled when the container started.
            stderr=wanted.stderr and not tty,
            tty=tty,
        )
    return await _serve(api, call, upgrade, wanted, session, "error attaching to container")


def _negotiate(call: Call) -> Upgrade:
    return negotiate(call.request, websocket=WEBSOCKET_PROTOCOLS, spdy=SPDY_PROTOCOLS)


@contextlib.contextmanager
def _not_running(words: str) -> Iterator[None]:
    """A container that does not run is, for the kubelet, one that is not there."""
    try:
        yield
    except (NotFound, Conflict) as error:
        raise TandemError(words) from error


async def _serve(
    api: Api, call: Call, upgrade: Upgrade, wanted: Wanted, session: ExecSession, trouble: str
) -> web.StreamResponse:
    try:
        async with streaming(api), connected(call.request, upgrade, wanted) as (response, client):
            if client is not None:
                await _join(session, client, trouble)
        return response
    finally:
        await session.close()


async def _join(session: ExecSession, client: Client, trouble: str) -> None:
    """Carry everything both ways until the process has ended, or the client is gone."""
    ending = asyncio.create_task(_output(session, client, trouble))
    inputs = []
    if client.stdin is not None:
        inputs.append(asyncio.create_task(_input(client.stdin, session)))
    if client.resize is not None:
        inputs.append(asyncio.create_task(_sizes(client.resize, session)))
    try:
        await asyncio.wait([ending, client.gone], return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            with contextlib.suppress(ConnectionError):
                ending.result()
    finally:
        client.discard()
        await end(ending, *inputs)


async def _output(session: ExecSession, client: Client, trouble: str) -> None:
    try:
        while (chunk := await session.read()) is not None:
            number, data = chunk
            if target := client.stdout if number == 1 else client.stderr:
                await target.write(data)
        status = _ended(await session.wait())
    except TandemError as error:
        message = f"Internal error occurred: {trouble}: {error.message}"
        cause = {"reason": "", "message": f"{trouble}: {error.message}", "field": ""}
        status = status_from_error(TandemError(message, details={"causes": [cause]}))
    for stream in (client.stdout, client.stderr):
        if stream is not None:
            await stream.close_write()
    if client.version >= 4:
        await client.error.write(encode(status))
    elif "message" in status:
        await client.error.write(status["message"].encode())
    await client.error.close_write()


def _ended(code: int) -> Doc:
    """What a process that ended with ``code`` comes to."""
    if code == 0:
        return status_success()
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


async def _input(stdin: Remote, session: ExecSession) -> None:
    with contextlib.suppress(ConnectionError, TandemError):
        while data := await stdin.read():
            await session.write(data)
        await session.close_stdin()


async def _sizes(resize: Remote, session: ExecSession) -> None:
    """Hand on each size that the client's terminal takes: one JSON document after the other."""
    decoder, text = json.JSONDecoder(), ""
    with contextlib.suppress(ConnectionError, TandemError):
        while data := await resize.read():
            text = (text + data.decode("utf-8", "replace")).lstrip()
            while text:
                try:
                    size, length = decoder.raw_decode(text)
                except (ValueError, RecursionError):
                    break  # the rest of it is still to come
                text = text[length:].lstrip()
                if sides := _sides(size):
                    await session.resize(*sides)
            if len(text) > _MAX_RESIZE:
                return


def _sides(size: object) -> tuple[int, int] | None:
    if not isinstance(size, dict):
        return None
    columns, rows = size.get("Width"), size.get("Height")
    if not isinstance(columns, int) or not isinstance(rows, int):
        return None
    if not (0 < columns <= _MAX_SIDE and 0 < rows <= _MAX_SIDE):
        return None
    return columns, rows
