"""``create``: all or nothing, once per id, and clear about what is wrong with a spec."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from tandem.errors import AlreadyExists, InvalidSpec, TandemError, Unavailable
from tandem.runtimes.adapter import LABEL_ID, LABEL_OWNER, Phase, RuntimeAdapter
from tests.contract.harness import Harness


async def test_a_created_workload_runs(harness: Harness, adapter: RuntimeAdapter) -> None:
    status = await adapter.create(harness.spec("runs"))
    assert status.phase is Phase.RUNNING
    assert status.spec_id == "runs"
    assert status.id
    assert status.handle is not None
    again = await adapter.get_status("runs")
    assert again.phase is Phase.RUNNING
    assert again.id == status.id


async def test_times_are_utc_and_in_order(harness: Harness, adapter: RuntimeAdapter) -> None:
    status = await adapter.create(harness.spec("times"))
    assert status.created_at is not None
    assert status.created_at.utcoffset() is not None
    if status.started_at is not None:
        assert status.started_at >= status.created_at
    assert status.finished_at is None
    assert status.exit_code is None


async def test_labels_are_kept_beside_ours(harness: Harness, adapter: RuntimeAdapter) -> None:
    labels = {"app": "web", "example.org/odd": "a<b>&\"c'"}
    await adapter.create(harness.spec("labelled", labels=labels))
    found = (await adapter.get_status("labelled")).labels
    assert labels.items() <= found.items()
    assert found[LABEL_ID] == "labelled"
    assert found[LABEL_OWNER] == "tandem"


async def test_a_second_create_with_the_same_spec_returns_the_first(
    harness: Harness, adapter: RuntimeAdapter
) -> None:
    first = await adapter.create(harness.spec("twice"))
    second = await adapter.create(harness.spec("twice"))
    assert second.id == first.id
    assert second.created_at == first.created_at
    assert len(await adapter.list()) == 1


async def test_a_second_create_with_another_spec_is_refused(
    harness: Harness, adapter: RuntimeAdapter
) -> None:
    first = await adapter.create(harness.spec("taken"))
    with pytest.raises(AlreadyExists):
        await adapter.create(harness.other_spec("taken"))
    assert (await adapter.get_status("taken")).created_at == first.created_at


async def test_another_adapter_of_the_same_owner_sees_the_same_spec(harness: Harness) -> None:
    async with harness.make_adapter() as first, harness.make_adapter() as second:
        created = await first.create(harness.spec("shared"))
        assert (await second.create(harness.spec("shared"))).id == created.id
        with pytest.raises(AlreadyExists):
            await second.create(harness.other_spec("shared"))


async def test_creates_of_one_id_at_once_make_one_workload(
    harness: Harness, adapter: RuntimeAdapter
) -> None:
    statuses = await asyncio.gather(*(adapter.create(harness.spec("race")) for _ in range(4)))
    assert len({status.id for status in statuses}) == 1
    assert len(await adapter.list()) == 1


async def test_many_workloads_at_once(harness: Harness, adapter: RuntimeAdapter) -> None:
    ids = [f"many-{number}" for number in range(6)]
    await asyncio.gather(*(adapter.create(harness.spec(id)) for id in ids))
    assert {status.spec_id for status in await adapter.list()} == set(ids)
    await asyncio.gather(*(adapter.delete(id, grace_seconds=0) for id in ids))
    assert await adapter.list() == []


@pytest.mark.parametrize(
    "id",
    ["", "-leading", "trailing-", "a/b", "../../etc/passwd", "with space", "ü", "a\n", "x" * 64],
    ids=repr,
)
async def test_a_bad_id_is_refused_by_field(
    harness: Harness, adapter: RuntimeAdapter, id: str
) -> None:
    with pytest.raises(InvalidSpec) as caught:
        await adapter.create(dataclasses.replace(harness.spec("good"), id=id))
    assert any(cause.field == "id" for cause in caught.value.causes)
    assert await adapter.list() == []


@pytest.mark.parametrize("id", ["a", "A.b_c-9", "x" * 63], ids=["shortest", "all", "longest"])
async def test_a_good_id_is_taken_as_it_is(
    harness: Harness, adapter: RuntimeAdapter, id: str
) -> None:
    await adapter.create(harness.spec(id))
    assert (await adapter.get_status(id)).spec_id == id


async def test_invalid_specs_are_refused_by_field(
    harness: Harness, adapter: RuntimeAdapter
) -> None:
    for spec, word in harness.invalid_specs():
        with pytest.raises(InvalidSpec) as caught:
            await adapter.create(spec)
        fields = [cause.field for cause in caught.value.causes]
        assert any(word in field for field in fields), f"{fields} do not name {word}"
        assert all(cause.message for cause in caught.value.causes)
    assert await adapter.list() == []


async def test_what_the_runtime_cannot_start_leaves_nothing(
    harness: Harness, adapter: RuntimeAdapter
) -> None:
    with pytest.raises(TandemError) as caught:
        await adapter.create(harness.failing_spec("doomed"))
    assert caught.value.message
    assert await harness.leftovers() == []
    await adapter.create(harness.spec("doomed"))


async def test_a_failure_at_any_step_leaves_nothing(
    harness: Harness, adapter: RuntimeAdapter, step: str
) -> None:
    async def fail() -> None:
        raise Unavailable("injected")

    harness.intercept(adapter, step, fail)
    with pytest.raises(TandemError):
        await adapter.create(harness.spec("halfway"))
    assert await harness.leftovers() == []
    assert (await adapter.create(harness.spec("halfway"))).phase is Phase.RUNNING


async def test_a_cancellation_at_any_step_leaves_nothing(
    harness: Harness, adapter: RuntimeAdapter, step: str
) -> None:
    reached = asyncio.Event()

    async def wait_forever() -> None:
        reached.set()
        await asyncio.Event().wait()

    harness.intercept(adapter, step, wait_forever)
    task = asyncio.create_task(adapter.create(harness.spec("halfway")))
    async with asyncio.timeout(harness.patience):
        await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await harness.leftovers() == []
    assert (await adapter.create(harness.spec("halfway"))).phase is Phase.RUNNING


async def test_a_cancellation_at_any_time_leaves_all_or_nothing(
    harness: Harness, adapter: RuntimeAdapter
) -> None:
    for number, delay in enumerate(harness.cancel_after):
        id = f"cancelled-{number}"
        task = asyncio.create_task(adapter.create(harness.spec(id)))
        await asyncio.sleep(delay)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            assert await harness.leftovers() == [], f"cancelled after {delay} s"
        else:
            assert (await adapter.get_status(id)).phase is Phase.RUNNING
            await adapter.delete(id, grace_seconds=0)
