"""Commands in real containers, at the adapter: time limits, back pressure, ends of all kinds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tandem.errors import Conflict, DeadlineExceeded, InvalidSpec, NotFound, Unavailable
from tandem.runtimes.adapter import RuntimeSpec
from tandem.runtimes.cri.adapter import ContainerAdapter
from tests import world

pytestmark = pytest.mark.containerd

PATIENCE = 30.0


@pytest.fixture
async def adapter(containerd: str, tmp_path: Path) -> AsyncIterator[ContainerAdapter]:
    """An adapter with a Pod ``p``: ``main`` runs, ``ended`` has, ``screen`` has a terminal."""
    containers = [
        {"name": "main", "image": world.BUSYBOX, "command": ["sleep", "1000"]},
        {"name": "ended", "image": world.BUSYBOX, "command": ["true"]},
        {
            "name": "screen",
            "image": world.BUSYBOX,
            "command": ["sh"],
            "stdin": True,
            "tty": True,
        },
    ]
    async with ContainerAdapter(containerd, log_dir=tmp_path / "pods") as opened:
        assert isinstance(opened, ContainerAdapter)
        spec = {"containers": containers, "hostNetwork": True}
        await opened.create(RuntimeSpec("p", container_spec=spec))
        yield opened
        await opened.delete("p", grace_seconds=0)


async def sync(adapter: ContainerAdapter, script: str, *, timeout: float = PATIENCE) -> bytes:
    result = await adapter.exec_sync("p", ["sh", "-c", script], container="main", timeout=timeout)
    assert result.exit_code == 0, result
    return result.stdout


async def test_commands_to_their_end(adapter: ContainerAdapter) -> None:
    script = "echo out; echo err >&2; exit 3"
    result = await adapter.exec_sync("p", ["sh", "-c", script], container="main", timeout=10)
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"out\n", b"err\n")
    assert len(await sync(adapter, "head -c 5000000 /dev/zero")) == 5_000_000
    with pytest.raises(InvalidSpec, match="executable file not found"):
        await adapter.exec_sync("p", ["no-such-program"], container="main", timeout=10)
    with pytest.raises(DeadlineExceeded):
        await adapter.exec_sync("p", ["sleep", "777"], container="main", timeout=1)
    assert b"sleep 777" not in await sync(adapter, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")

    while (await adapter.get_status("p")).containers[1].finished_at is None:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    with pytest.raises(Conflict):
        await adapter.exec_sync("p", ["true"], container="ended", timeout=10)
    with pytest.raises(NotFound):
        await adapter.exec("p", ["true"], container="none")
    with pytest.raises(NotFound):
        await adapter.attach("q", container="main")
    with pytest.raises(
        Unavailable, match=r"IPv4: dial tcp4 127.0.0.1:1: connect: connection refused"
    ):
        await adapter.port_forward("p", 1)


async def test_whoever_is_slow_is_waited_for(adapter: ContainerAdapter) -> None:
    # Nobody reads: the process comes to a halt with what the pipes and sockets on the way hold.
    writing = "for i in $(seq 800); do head -c 65536 /dev/zero; echo >>/tmp/written; done"
    session = await adapter.exec("p", ["sh", "-c", writing], container="main")
    count, before = b"", None
    while before is None or count != before or not count.strip():
        before, count = count, await sync(adapter, "sleep 0.5; wc -l </tmp/written || true")
    assert int(count) < 400
    total = 0
    while chunk := await session.read():
        total += len(chunk[1])
    assert total == 800 * 65536
    assert await session.wait() == 0
    await session.close()

    # Nobody takes the input: the writer waits, until the process goes on.
    reading = "until [ -e /tmp/go ]; do sleep 0.1; done; wc -c"
    session = await adapter.exec("p", ["sh", "-c", reading], container="main", stdin=True)
    data = bytes(50_000_000)
    sending = asyncio.create_task(session.write(data))
    done, _ = await asyncio.wait([sending], timeout=1)
    assert not done
    await sync(adapter, "touch /tmp/go")
    await sending
    await session.close_stdin()
    assert await session.read() == (1, b"50000000\n")
    assert await session.read() is None
    await session.close()

    # A process that ends before its input does. (How it ended, containerd 1.6 does not always say.)
    session = await adapter.exec("p", ["head", "-c", "1"], container="main", stdin=True)
    sending = asyncio.create_task(session.write(data))
    assert await session.read() == (1, b"\0")
    assert await session.read() is None
    sending.cancel()
    await asyncio.wait([sending])
    await session.close()


async def test_a_container_s_terminal(adapter: ContainerAdapter) -> None:
    session = await adapter.attach("p", container="screen", stdin=True, tty=True)
    await session.resize(91, 37)
    await session.write(b"until stty size | grep '37 91'; do sleep 0.1; done; echo so''so\n")
    seen = b""
    while b"soso" not in seen:
        chunk = await session.read()
        assert chunk is not None
        assert chunk[0] == 1
        seen += chunk[1]
    assert b"37 91" in seen
    await session.write(b"exit\n")
    while await session.read():
        pass
    assert await session.wait() == 0
    await session.close()
