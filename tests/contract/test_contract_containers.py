"""``Containers``: workloads whose containers come one by one, and go one by one."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tandem.errors import Conflict, NotFound
from tandem.runtimes.adapter import ContainerStatus, Phase, RuntimeAdapter, RuntimeStatus
from tandem.runtimes.capabilities import LogOptions
from tests.contract.harness import Harness

pytestmark = pytest.mark.needs("sandbox_spec")

FOREVER = "trap 'exit 0' TERM; sleep 1000 & wait"
STUBBORN = "trap '' TERM; sleep 1000"


@pytest.fixture
async def pod(harness: Harness, adapter: RuntimeAdapter) -> Any:
    """The adapter, with a sandbox ``pod`` in its runtime; typed by what it can do."""
    await adapter.create(harness.sandbox_spec("pod"))
    return adapter


def by_name(status: RuntimeStatus) -> dict[str, ContainerStatus]:
    return {item.name: item for item in status.containers}


async def ended(harness: Harness, adapter: Any, name: str) -> ContainerStatus:
    status = await harness.wait_for(
        adapter, "pod", lambda status: by_name(status)[name].finished_at is not None
    )
    return by_name(status)[name]


async def test_a_sandbox_runs_without_containers(harness: Harness, pod: Any) -> None:
    status = await pod.get_status("pod")
    assert (status.phase, status.containers) == (Phase.RUNNING, ())
    assert status.addresses
    assert (await pod.create(harness.sandbox_spec("pod"))).created_at == status.created_at
    assert [item.phase for item in await pod.list()] == [Phase.RUNNING]


async def test_a_sandbox_goes_on_whatever_its_containers_do(harness: Harness, pod: Any) -> None:
    first = await pod.start_container("pod", harness.container("first", "exit 3"), attempt=0)
    assert first.addresses == (await pod.get_status("pod")).addresses
    assert (await ended(harness, pod, "first")).exit_code == 3
    second = await pod.start_container("pod", harness.container("second", FOREVER), attempt=0)
    assert [item.name for item in second.containers] == ["first", "second"]
    assert second.phase is Phase.RUNNING
    await pod.delete("pod", grace_seconds=0)
    assert await harness.leftovers() == []


async def test_containers_may_be_started_at_once(harness: Harness, pod: Any) -> None:
    names = ["a", "b", "c"]
    await asyncio.gather(
        *(pod.start_container("pod", harness.container(name, FOREVER), attempt=0) for name in names)
    )
    status = await pod.get_status("pod")
    assert {item.name: item.phase for item in status.containers} == dict.fromkeys(
        names, Phase.RUNNING
    )


async def test_a_start_is_done_once(harness: Harness, pod: Any) -> None:
    document = harness.container("main", FOREVER)
    both = await asyncio.gather(
        *(pod.start_container("pod", document, attempt=0) for _ in range(2))
    )
    ids = {status.containers[0].container_id for status in both}
    assert len(ids) == 1
    async with harness.make_adapter() as other:  # as after a restart
        again = await other.start_container("pod", document, attempt=0)  # type: ignore[attr-defined]
        assert {again.containers[0].container_id} == ids
        with pytest.raises(Conflict, match="still running"):
            await other.start_container("pod", document, attempt=1)  # type: ignore[attr-defined]


async def test_an_attempt_replaces_the_one_before(harness: Harness, pod: Any) -> None:
    await pod.start_container("pod", harness.container("main", "echo first; exit 3"), attempt=0)
    await ended(harness, pod, "main")
    async with harness.make_adapter() as other:  # which has seen nothing of it
        document = harness.container("main", "echo second; exit 4")
        await other.start_container("pod", document, attempt=1)  # type: ignore[attr-defined]
    second = await ended(harness, pod, "main")
    assert (second.attempt, second.exit_code) == (1, 4)
    third = await pod.start_container("pod", harness.container("main", FOREVER), attempt=2)
    assert [(item.name, item.attempt) for item in third.containers] == [("main", 2)]
    log = pod.logs("pod", container="main", options=LogOptions(previous=True))
    assert b"".join([chunk async for chunk in log]) == b"second\n"


async def test_what_cannot_be_started_is_an_attempt_that_has_ended(
    harness: Harness, pod: Any
) -> None:
    missing = harness.container("main", "") | {"command": ["/no/such/program"]}
    status = await pod.start_container("pod", missing, attempt=0)
    main = status.containers[0]
    assert (main.phase, main.exit_code, main.reason) == (Phase.FAILED, 128, "StartError")
    assert "/no/such/program" in main.message
    assert main.finished_at is not None
    assert status.phase is Phase.RUNNING
    again = await pod.start_container("pod", missing, attempt=0)
    assert again.containers[0].container_id == main.container_id
    later = await pod.start_container("pod", harness.container("main", FOREVER), attempt=1)
    assert later.containers[0].phase is Phase.RUNNING


async def test_one_container_is_stopped_and_the_others_go_on(harness: Harness, pod: Any) -> None:
    for name in ("goes", "stays"):
        await pod.start_container("pod", harness.container(name, FOREVER), attempt=0)
    await harness.settle()
    await pod.stop_container("pod", "goes", grace_seconds=60)
    found = by_name(await pod.get_status("pod"))
    assert found["goes"].finished_at is not None
    assert found["stays"].phase is Phase.RUNNING
    for name in ("goes", "never-was"):
        await pod.stop_container("pod", name, grace_seconds=60)
    await pod.stop_container("nobody", "goes", grace_seconds=60)


async def test_a_stubborn_container_is_killed_after_its_grace(harness: Harness, pod: Any) -> None:
    await pod.start_container("pod", harness.container("main", STUBBORN), attempt=0)
    started = time.monotonic()
    await pod.stop_container("pod", "main", grace_seconds=harness.grace)
    assert time.monotonic() - started >= harness.grace * 0.9
    main = by_name(await pod.get_status("pod"))["main"]
    assert (main.phase, main.exit_code) == (Phase.FAILED, 137)


async def test_a_lost_sandbox_is_told_and_takes_no_more(harness: Harness, pod: Any) -> None:
    await pod.start_container("pod", harness.container("main", FOREVER), attempt=0)
    await harness.lose_sandbox("pod")
    status = await harness.wait_for(
        pod, "pod", lambda status: by_name(status)["main"].finished_at is not None
    )
    assert (status.phase, status.reason) == (Phase.FAILED, "SandboxLost")
    assert (status.addresses, status.exit_code) == ((), None)
    for name, attempt in (("main", 1), ("other", 0)):
        with pytest.raises(Conflict, match="gone"):
            await pod.start_container("pod", harness.container(name, FOREVER), attempt=attempt)
    assert [item.attempt for item in (await pod.get_status("pod")).containers] == [0]


async def test_a_container_needs_a_pod(harness: Harness, adapter: Any) -> None:
    with pytest.raises(NotFound):
        await adapter.start_container("nobody", harness.container("main", FOREVER), attempt=0)
    await adapter.create(harness.sandbox_spec("pod"))
    await adapter.delete("pod", grace_seconds=0)
    with pytest.raises(NotFound):  # also of one that was known
        await adapter.start_container("pod", harness.container("main", FOREVER), attempt=0)


async def test_images_are_had_before_they_are_needed(harness: Harness, pod: Any) -> None:
    image = harness.container("main", "")["image"]
    first = await pod.pull_image(image, pull_policy="Always")
    assert first.pulled
    assert first.size > 0
    second = await pod.pull_image(image, pull_policy="IfNotPresent")
    assert (second.id, second.pulled) == (first.id, False)


async def test_a_workload_that_is_over_is_released_and_keeps_its_logs(
    harness: Harness, pod: Any
) -> None:
    await pod.start_container("pod", harness.container("first", "echo bye"), attempt=0)
    await ended(harness, pod, "first")
    await pod.release("pod")
    status = await harness.wait_for(pod, "pod", lambda status: status.phase is Phase.FAILED)
    assert status.addresses == ()
    assert by_name(status)["first"].exit_code == 0
    log = pod.logs("pod", container="first", options=LogOptions())
    assert b"".join([chunk async for chunk in log]) == b"bye\n"
    await pod.release("pod")
    await pod.release("another")
    await pod.delete("pod", grace_seconds=0)
    assert await harness.leftovers() == []
