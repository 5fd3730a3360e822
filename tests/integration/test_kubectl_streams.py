"""exec, attach and port-forward by each kubectl: WebSocket, and SPDY, on the in-memory runtime."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tandem.api.kinds import REGISTRY
from tandem.runtimes.adapter import RuntimeSpec
from tandem.runtimes.capabilities import HalfCloseStream
from tandem.runtimes.memory import MemoryAdapter
from tandem.server import pki
from tandem.server.app import Server
from tandem.store import Key, Store
from tests.terminal import Terminal

pytestmark = [pytest.mark.slow, pytest.mark.kubectl]

MEGABYTE = 1 << 20
PATIENCE = 30.0
CONTAINERS = [
    {"name": "main", "image": "busybox", "command": ["sleep", "1000"], "stdin": True},
    {"name": "side", "image": "busybox", "command": ["sleep", "1000"]},
]
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "default", "uid": "uid-web"},
    "spec": {"containers": CONTAINERS, "nodeName": "here"},
    "status": {"phase": "Running"},
}


@dataclass
class Kube:
    """A server on the in-memory runtime with one Pod, and a kubectl that talks to it."""

    binary: Path
    home: Path
    server: Server
    adapter: MemoryAdapter

    def command(self, *words: str) -> list[str]:
        kubeconfig, cache = self.home / "kubeconfig", self.home / "cache"
        return [str(self.binary), f"--kubeconfig={kubeconfig}", f"--cache-dir={cache}", *words]

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self.command(*words),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *words: str, stdin: bytes = b"", code: int = 0) -> tuple[bytes, str]:
        """What a kubectl that ends with ``code`` printed, and its complaints."""
        process = await self.start(*words)
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate(stdin)
        assert process.returncode == code, f"{words}: {out[:500]!r}{err.decode()}"
        return out, err.decode()

    @property
    def sessions(self) -> int:
        """The streams that the server carries."""
        return len(self.server._api.streams)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> pki.Pki:
    return pki.ensure(tmp_path_factory.mktemp("pki"))[0]


@pytest.fixture
async def kube(kubectl: Path, tmp_path: Path, keys: pki.Pki) -> AsyncIterator[Kube]:
    adapter = MemoryAdapter()
    await adapter.create(RuntimeSpec("uid-web", container_spec={"containers": CONTAINERS}))
    async with await Store.open(None) as store:
        await store.create(Key("pods", "default", "web"), POD)
        server = Server(store, REGISTRY, {"container": adapter}, tls=keys.server_context(), port=0)
        await server.start()
        document = keys.kubeconfig(server.url)
        pki.write_private(tmp_path / "kubeconfig", yaml.safe_dump(document).encode())
        try:
            yield Kube(kubectl, tmp_path, server, adapter)
        finally:
            await server.stop()


async def test_a_command_s_output_and_exit_code_come_back(kube: Kube) -> None:
    out, _ = await kube.run("exec", "web", "-c", "main", "--", "sh", "-c", "echo hello")
    assert out == b"hello\n"
    command = ("exec", "web", "-c", "main", "--", "sh", "-c", "echo bye; exit 7")
    out, err = await kube.run(*command, code=7)
    assert out == b"bye\n"
    assert "command terminated with exit code 7" in err
    _, err = await kube.run("exec", "web", "-c", "main", "--", "nonsense", code=1)
    assert "executable file not found" in err
    _, err = await kube.run("exec", "web", "-c", "none", "--", "cat", code=1)
    assert "container none is not valid for pod web" in err


async def test_the_end_of_the_input_reaches_the_command(kube: Kube) -> None:
    data = os.urandom(3 * MEGABYTE + 1)
    words = ("exec", "-i", "web", "-c", "main", "--")
    assert (await kube.run(*words, "wc", "-c", stdin=data))[0] == b"%d\n" % len(data)
    back, _ = await kube.run(*words, "cat", stdin=data)
    assert hashlib.sha256(back).digest() == hashlib.sha256(data).digest()


async def test_ten_at_once_and_nothing_left(kube: Kube) -> None:
    data = os.urandom(MEGABYTE)
    words = ("exec", "-i", "web", "-c", "main", "--", "cat")
    answers = await asyncio.gather(*(kube.run(*words, stdin=data) for _ in range(10)))
    assert all(out == data for out, _ in answers)
    await eventually(lambda: kube.sessions == 0)


async def test_a_terminal_has_a_size_and_keeps_it_right(kube: Kube) -> None:
    command = kube.command("exec", "-it", "web", "-c", "main", "--", "sizes")
    with Terminal(command) as terminal:
        await asyncio.to_thread(terminal.shows, "80 24")
        terminal.resize(100, 40)
        await asyncio.to_thread(terminal.shows, "100 40")
    await eventually(lambda: kube.sessions == 0)  # kubectl was killed


async def test_attach_shows_what_is_written_from_now_on(kube: Kube) -> None:
    kube.adapter.runtime.write_log("uid-web", "early\n", "main")
    process = await kube.start("attach", "-i", "web", "-c", "main")
    assert process.stdin is not None
    assert process.stdout is not None
    await eventually(lambda: kube.sessions == 1)
    process.stdin.write(b"typed\n")
    async with asyncio.timeout(PATIENCE):
        assert await process.stdout.readline() == b"typed\n"
        kube.adapter.runtime.write_log("uid-web", "late\n", "main")
        assert await process.stdout.readline() == b"late\n"
        kube.adapter.runtime.end("uid-web", "main")
        await process.communicate()
    assert process.returncode == 0


async def test_ports_are_forwarded_and_a_refused_one_is_told(kube: Kube) -> None:
    kube.adapter.runtime.ports = {80: _count, 81: _count}
    process = await kube.start("port-forward", "pod/web", ":80", ":81", ":82")
    assert process.stdout is not None
    assert process.stderr is not None
    ports: dict[int, int] = {}
    async with asyncio.timeout(PATIENCE):
        while len(ports) < 3:
            line = (await process.stdout.readline()).decode()
            if found := re.search(r"127.0.0.1:(\d+) -> (\d+)", line):
                ports[int(found[2])] = int(found[1])
        sent = [(ports[80 + number % 2], 100_000 + number) for number in range(10)]
        got = await asyncio.gather(*(_send(port, size) for port, size in sent))
        assert got == [b"%d" % size for _, size in sent]
        assert await _send(ports[82], 1) == b""
        said = b""
        while b"failed to connect to localhost:82" not in said:
            more = await process.stderr.readline()
            assert more, said
            said += more
        process.kill()
        await process.communicate()
    await eventually(lambda: kube.sessions == 0)


async def _count(inner: HalfCloseStream) -> None:
    total = 0
    while data := await inner.read():
        total += len(data)
    await inner.write(b"%d" % total)


async def _send(port: int, size: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(bytes(size))
        with contextlib.suppress(ConnectionError):
            writer.write_eof()
            return await reader.read()
        return b""
    finally:
        writer.close()


async def eventually(holds: Callable[[], bool]) -> None:
    for _ in range(3000):
        if holds():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not come about")
