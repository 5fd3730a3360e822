"""What the tests of the container adapter on a real containerd share."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

from tandem.runtimes.adapter import RuntimeSpec, RuntimeStatus
from tandem.runtimes.capabilities import LogOptions
from tandem.runtimes.cri.adapter import ContainerAdapter
from tests import world

FOREVER = "trap 'exit 0' TERM; sleep 1000 & wait"
PATIENCE = 20.0


@contextlib.asynccontextmanager
async def opened(
    endpoint: str, folder: Path, **options: Any
) -> AsyncGenerator[ContainerAdapter, None]:
    """An adapter that keeps its files in ``folder``; its Pods are gone at the end, and so are they."""
    async with ContainerAdapter(endpoint, log_dir=folder / "pods", **options) as adapter:
        assert isinstance(adapter, ContainerAdapter)
        yield adapter
        for status in await adapter.list():
            await adapter.delete(status.spec_id, grace_seconds=0)
    assert entries(folder / "pods") == []


def entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.exists() else []


def container(script: str, name: str = "main", **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": world.BUSYBOX, "command": ["sh", "-c", script], **fields}


def pod(id: str, *containers: dict[str, Any], **fields: Any) -> RuntimeSpec:
    return RuntimeSpec(id, container_spec={"containers": [*containers], **fields})


async def until(
    adapter: ContainerAdapter, id: str, good: Callable[[RuntimeStatus], bool]
) -> RuntimeStatus:
    """The status once it is ``good``; the only polling here."""
    async with asyncio.timeout(PATIENCE):
        while True:
            status = await adapter.get_status(id)
            if good(status):
                return status
            await asyncio.sleep(0.01)


async def ended(adapter: ContainerAdapter, id: str) -> RuntimeStatus:
    """The status once nothing of the Pod runs any more."""
    return await until(
        adapter, id, lambda status: all(item.finished_at for item in status.containers)
    )


async def output(adapter: ContainerAdapter, id: str, container: str = "", **options: Any) -> bytes:
    async with asyncio.timeout(PATIENCE):
        log = adapter.logs(id, container=container, options=LogOptions(**options))
        return b"".join([chunk async for chunk in log])


async def call(*command: str) -> str:
    """What a program says; it must succeed."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    assert process.returncode == 0, command
    return said.decode()


def kill_containerd() -> None:
    """Kill containerd, which its keeper starts again."""
    (status,) = (item for item in world.services().status() if item.name == "containerd")
    assert status.keeper_pid, "the keeper runs it, and starts it again"
    for pid in processes("containerd"):
        os.kill(pid, signal.SIGKILL)


def processes(name: str, *words: str) -> list[int]:
    """The processes of this name whose command line has all of ``words``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_text(errors="replace").split("\0")
                if (entry / "comm").read_text().strip() == name and {*words} <= {*command}:
                    found.append(int(entry.name))
    return found
