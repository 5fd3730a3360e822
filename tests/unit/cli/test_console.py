"""The console, by a real terminal (a pty) and by a pipe, against a machine that echoes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import termios
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import WSMsgType, web

PATH = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/db/console"


class Machine:
    """A console that echoes; ``refusals`` are answered first, one for each attempt."""

    def __init__(self) -> None:
        self.heard = b""
        self.refusals: list[tuple[int, str, str]] = []
        self.hang_up_after = 1 << 30

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.refusals:
            code, reason, message = self.refusals[0]
            if "Upgrade" not in request.headers:
                self.refusals.pop(0)
            status = {"kind": "Status", "code": code, "reason": reason, "message": message}
            return web.json_response(status, status=code)
        socket = web.WebSocketResponse(protocols=("plain.kubevirt.io",))
        await socket.prepare(request)
        assert socket.ws_protocol == "plain.kubevirt.io"
        async for frame in socket:
            assert frame.type is WSMsgType.BINARY
            self.heard += frame.data
            await socket.send_bytes(frame.data.upper())
            if len(self.heard) >= self.hang_up_after:
                await socket.close()
        return socket


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    machine = Machine()
    application = web.Application()
    application.router.add_get(PATH, machine.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c"}}],
        "clusters": [
            {"name": "c", "cluster": {"server": f"http://127.0.0.1:{runner.addresses[0][1]}"}}
        ],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(document))
    yield machine
    await runner.cleanup()


async def start(folder: Path, stdin: int, *words: str) -> asyncio.subprocess.Process:
    # Less patient than a person, so that the tests are quick.
    code = (
        "import sys; from tandem.cli import console, main;"
        "console._QUIET_SECONDS, console._RETRY_SECONDS = 0.5, 0.1; sys.exit(main.main())"
    )
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, "console", "vm/db", *words,
        stdin=stdin, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={"TANDEM_KUBECONFIG": str(folder / "kubeconfig")},
    )  # fmt: skip


async def piped(folder: Path, *words: str, say: bytes = b"") -> tuple[int | None, bytes, bytes]:
    process = await start(folder, asyncio.subprocess.PIPE, *words)
    out, err = await process.communicate(say)
    return process.returncode, out, err


@pytest.mark.slow
async def test_a_script_is_answered_before_it_leaves(machine: Machine, tmp_path: Path) -> None:
    assert await piped(tmp_path, say=b"ls\n") == (0, b"LS\n", b"")
    assert machine.heard == b"ls\n"


@pytest.mark.slow
async def test_at_a_terminal_every_key_goes_through_but_the_one_that_leaves(
    machine: Machine, tmp_path: Path
) -> None:
    ours, theirs = os.openpty()
    process = await start(tmp_path, theirs)
    assert process.stdout is not None
    assert process.stderr is not None
    assert b"Leave with Ctrl+]" in await process.stderr.readline()
    async with asyncio.timeout(5):
        while termios.tcgetattr(theirs)[3] & termios.ICANON:  # noqa: ASYNC110 - a terminal tells nobody
            await asyncio.sleep(0.01)
    os.write(ours, b"a\x03b\r")  # Ctrl+C is the guest's, and return is not a new line
    assert await process.stdout.readexactly(4) == b"A\x03B\r"
    os.write(ours, b"c\x1dnot sent")
    assert await process.wait() == 0
    assert machine.heard == b"a\x03b\rc"
    os.close(ours)
    os.close(theirs)


@pytest.mark.slow
async def test_the_end_of_the_machine_is_said_and_no_error(
    machine: Machine, tmp_path: Path
) -> None:
    machine.hang_up_after = 3
    process = await start(tmp_path, asyncio.subprocess.PIPE)
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(b"bye")  # and it stays open: we would not leave by ourselves
    assert (await process.stderr.read()).startswith(b"The console of db ended")
    assert await process.wait() == 0
    process.stdin.close()


@pytest.mark.slow
async def test_a_machine_that_is_not_running_yet_is_waited_for(
    machine: Machine, tmp_path: Path
) -> None:
    machine.refusals = [(400, "BadRequest", "VMI is not running")] * 2
    code, out, err = await piped(tmp_path, say=b"x")
    assert (code, out) == (0, b"X")
    assert err == b"VMI is not running; waiting for db to run\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((404, "NotFound", "no db"), b"error: no db\nhint: a machine that is off has no console: tandem start db\n"),
        ((409, "Conflict", "VMI is in failed status"), b"error: VMI is in failed status\n"),
    ],
)  # fmt: skip
async def test_any_other_refusal_is_final(
    machine: Machine, tmp_path: Path, refusal: tuple[int, str, str], words: bytes
) -> None:
    machine.refusals = [refusal]
    assert await piped(tmp_path) == (1, b"", words)


@pytest.mark.slow
async def test_waiting_has_an_end(machine: Machine, tmp_path: Path) -> None:
    machine.refusals = [(400, "BadRequest", "VMI is not running")] * 100
    code, _, err = await piped(tmp_path, "--timeout", "0.15")
    assert code == 1
    assert err.endswith(b"error: VMI is not running\n")
