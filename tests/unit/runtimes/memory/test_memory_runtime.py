"""What the in-memory runtime has beyond the contract: its little language, faults, logs, a console."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tandem.errors import Conflict, ImagePullError, InvalidSpec, NotFound, Unavailable
from tandem.runtimes.adapter import EventKind, Phase, RuntimeSpec
from tandem.runtimes.capabilities import LogOptions
from tandem.runtimes.memory import MemoryAdapter
from tandem.runtimes.memory.script import plan
from tandem.runtimes.memory.world import LAG_LIMIT


def spec(*command: str, id: str = "it", name: str = "main") -> RuntimeSpec:
    container = {"name": name, "image": "demo", "command": list(command)}
    return RuntimeSpec(id, container_spec={"containers": [container]})


@pytest.mark.parametrize(
    ("command", "end"),
    [
        (["true"], (0.0, 0)),
        (["false"], (0.0, 1)),
        (["exit", "7"], (0.0, 7)),
        (["sleep", "2.5"], (2.5, 0)),
        (["sh", "-c", "sleep 1; sleep 2; exit 3; sleep 9"], (3.0, 3)),
        (["serve"], None),
        ([], None),
        (["sh", "-c", "echo up; while true; do sleep 1; done"], None),
        (["sh", "-c", "echo 'open"], None),
    ],
)
def test_a_command_says_how_it_ends(command: list[str], end: tuple[float, int] | None) -> None:
    assert plan(command).end == end


def test_a_command_says_what_it_writes_and_whether_it_obeys() -> None:
    found = plan(["sh", "-c", "trap '' TERM; echo one two; sleep 1; echo three"])
    assert found.ignores_stop
    assert found.outputs == [(0.0, b"one two\n"), (1.0, b"three\n")]


async def test_a_fault_hits_the_nth_visit_and_is_used_up() -> None:
    adapter = MemoryAdapter()
    adapter.faults.fail("list", Unavailable("injected"), nth=2, times=2)
    await adapter.list()
    for _ in range(2):
        with pytest.raises(Unavailable):
            await adapter.list()
    await adapter.list()
    assert adapter.faults.visits["list"] == 4


async def test_a_held_step_goes_on_when_it_is_released() -> None:
    adapter = MemoryAdapter()
    hold = adapter.faults.hold("create.start")
    task = asyncio.create_task(adapter.create(spec("serve")))
    await hold.reached.wait()
    assert not adapter.runtime.workloads
    hold.release()
    assert (await task).phase is Phase.RUNNING


async def collect(adapter: MemoryAdapter, **options: object) -> bytes:
    stream = adapter.logs("it", options=LogOptions(**options))  # type: ignore[arg-type]
    return b"".join([chunk async for chunk in stream])


async def test_a_log_is_cut_as_it_is_asked_for() -> None:
    adapter = MemoryAdapter()
    await adapter.create(spec("serve"))
    for text in ("one\n", "two\n", "three\n"):
        adapter.runtime.write_log("it", text)
    assert await collect(adapter) == b"one\ntwo\nthree\n"
    assert await collect(adapter, tail_lines=2) == b"two\nthree\n"
    assert await collect(adapter, tail_lines=0) == b""
    assert await collect(adapter, limit_bytes=5) == b"one\nt"
    assert await collect(adapter, since=datetime.now(UTC) + timedelta(hours=1)) == b""
    assert (await collect(adapter, timestamps=True, tail_lines=1)).endswith(b"Z three\n")
    with pytest.raises(NotFound):
        await anext(aiter(adapter.logs("it", container="other", options=LogOptions())))


async def test_a_followed_log_ends_with_its_container() -> None:
    adapter = MemoryAdapter()
    await adapter.create(spec("serve"))
    task = asyncio.create_task(collect(adapter, follow=True))
    await asyncio.sleep(0)
    adapter.runtime.write_log("it", "one\n")
    await asyncio.sleep(0)
    adapter.runtime.write_log("it", "two\n")
    adapter.runtime.end("it")
    async with asyncio.timeout(1):
        assert await task == b"one\ntwo\n"


async def test_a_container_is_started_again_and_its_earlier_log_kept() -> None:
    adapter = MemoryAdapter()
    await adapter.create(spec("sh", "-c", "echo first; exit 1"))
    await asyncio.sleep(0.01)
    container = {"name": "main", "image": "demo", "command": ["serve"]}
    await adapter.start_container("it", container, attempt=1)
    again = await adapter.start_container("it", container, attempt=1)
    assert again.phase is Phase.RUNNING
    assert [c.attempt for c in again.containers] == [1]
    assert await collect(adapter, previous=True) == b"first\n"
    with pytest.raises(Conflict):
        await adapter.start_container("it", container, attempt=2)
    with pytest.raises(NotFound):
        await adapter.start_container("other", container, attempt=1)


async def test_a_consumer_that_lags_is_told_to_list_again() -> None:
    adapter = MemoryAdapter()
    async with aclosing(adapter.events()) as stream:  # type: ignore[type-var]
        assert (await anext(stream)).kind is EventKind.RESYNC
        await adapter.create(spec("serve"))
        for _ in range(LAG_LIMIT):
            await adapter.pause("it")
            await adapter.resume("it")
        assert (await anext(stream)).kind is EventKind.RESYNC


async def test_the_console_echoes_and_the_last_one_to_come_has_it() -> None:
    adapter = MemoryAdapter()
    await adapter.create(RuntimeSpec("vm", vm_xml="<domain><name>vm</name></domain>"))
    first = await adapter.open_console("vm")
    await first.write(b"hello")
    assert await first.read() == b"hello"
    second = await adapter.open_console("vm")
    assert await first.read() == b""
    await second.write(b"again")
    assert await second.read() == b"again"
    adapter.runtime.end("vm")
    with pytest.raises(Conflict):
        await adapter.open_console("vm")


async def test_files_come_out_of_images_that_it_was_given() -> None:
    adapter = MemoryAdapter()
    adapter.runtime.images["disk", None] = Path("/disk/a.qcow2")
    assert (await adapter.image_file("disk", None)).path == Path("/disk/a.qcow2")
    with pytest.raises(InvalidSpec):
        await adapter.image_file("disk", "/other")
    adapter.runtime.unpullable.add("absent")
    with pytest.raises(ImagePullError):
        await adapter.image_file("absent", None)


@pytest.mark.slow
async def test_ten_thousand_workloads_are_no_burden() -> None:
    adapter = MemoryAdapter()
    for number in range(10_000):
        await adapter.create(spec("serve", id=f"w{number}"))
    statuses = await adapter.list()
    assert len(statuses) == 10_000
    assert len({status.addresses for status in statuses}) == 10_000
    for number in range(10_000):
        await adapter.delete(f"w{number}")
    assert await adapter.list() == []
