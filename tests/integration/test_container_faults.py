"""What becomes of Pods when something below them is killed; nothing may be left of them in the end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from tandem.errors import TandemError
from tandem.runtimes.adapter import EventKind, Phase
from tandem.runtimes.cri.adapter import ContainerAdapter
from tests import world
from tests.integration.containers import (
    FOREVER,
    call,
    container,
    kill_containerd,
    opened,
    pod,
    processes,
    until,
)

pytestmark = pytest.mark.containerd

AWAY = 60.0  # seconds that a busy host may take to have everything back


@pytest.fixture
async def adapter(containerd: str, tmp_path: Path) -> AsyncIterator[ContainerAdapter]:
    async with opened(containerd, tmp_path) as adapter:
        yield adapter


async def test_containerd_killed_in_the_middle_of_fifty_creations(
    adapter: ContainerAdapter,
) -> None:
    before = await asyncio.to_thread(world.leftovers)
    ids = [f"p{number}" for number in range(50)]
    some = asyncio.Event()

    async def listen() -> None:
        async with aclosing(adapter.events()) as events:
            async for event in events:
                if event.kind is EventKind.STARTED and event.id == ids[12]:
                    some.set()

    async def make(id: str) -> None:
        await adapter.create(pod(id))
        for attempt in range(3):  # one that was just being started may have ended with containerd
            status = await adapter.start_container(id, container(FOREVER), attempt=attempt)
            if status.containers[0].phase is Phase.RUNNING:
                return
            assert status.containers[0].exit_code in (128, 255), status

    async def insist(id: str) -> None:
        """As a loop does: what failed is tried again."""
        async with asyncio.timeout(AWAY):
            while True:
                try:
                    return await make(id)
                except TandemError:
                    await asyncio.sleep(0.2)

    listening = asyncio.create_task(listen())
    making = [asyncio.create_task(insist(id)) for id in ids]
    async with asyncio.timeout(AWAY):
        await some.wait()
    kill_containerd()
    await asyncio.gather(*making)
    statuses = {status.spec_id: status for status in await adapter.list()}
    assert set(statuses) == set(ids)
    for status in statuses.values():
        assert status.phase is Phase.RUNNING
        assert [item.phase for item in status.containers] == [Phase.RUNNING]
    assert len({status.addresses for status in statuses.values()}) == len(ids)
    await asyncio.gather(*(adapter.delete(id, grace_seconds=0) for id in ids))
    # What a killed containerd had not recorded is found a moment later.
    async with asyncio.timeout(AWAY):
        while await asyncio.to_thread(world.settled, before):
            pass
    listening.cancel()


async def test_a_killed_shim_takes_its_pod_with_it(adapter: ContainerAdapter) -> None:
    await adapter.create(pod("p"))
    for name in ("one", "two"):
        await adapter.start_container("p", container(FOREVER, name), attempt=0)
    other = await adapter.create(pod("other", container(FOREVER)))
    sandbox = (await adapter.get_status("p")).details["sandbox"]
    (shim,) = processes("containerd-shim", "-id", sandbox)
    os.kill(shim, signal.SIGKILL)
    status = await until(
        adapter, "p", lambda status: all(item.finished_at for item in status.containers)
    )
    status = await until(adapter, "p", lambda status: status.phase is Phase.FAILED)
    assert (status.reason, status.addresses) == ("SandboxLost", ())
    assert all(item.exit_code for item in status.containers)
    assert (await adapter.get_status("other")).containers == other.containers
    await adapter.delete("p", grace_seconds=30)
    assert (await adapter.create(pod("p"))).phase is Phase.RUNNING


async def test_a_container_that_was_made_and_not_started_is_started_by_the_next_call(
    adapter: ContainerAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after the daemon was killed in between."""
    await adapter.create(pod("p"))
    starts = adapter._containers

    async def killed(*_: object) -> bool:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(starts, "_finish", killed)
        with pytest.raises(asyncio.CancelledError):
            await adapter.start_container("p", container(FOREVER), attempt=0)
    (made,) = (await adapter.get_status("p")).containers
    assert made.phase is Phase.PENDING
    async with ContainerAdapter(adapter.endpoint, log_dir=adapter._log_dir) as later:
        assert isinstance(later, ContainerAdapter)
        (started,) = (await later.start_container("p", container(FOREVER), attempt=0)).containers
    assert (started.container_id, started.phase) == (made.container_id, Phase.RUNNING)
    assert made.container_id in await call("ctr", "--namespace", "k8s.io", "tasks", "list")
