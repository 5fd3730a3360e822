"""``get_status``, ``list``, ``recover`` and ``fingerprint``: the runtime's truth, in our words."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tandem.errors import InvalidSpec, NotFound, Unavailable
from tandem.runtimes import capabilities
from tandem.runtimes.adapter import Phase, RuntimeAdapter, RuntimeHandle
from tests.contract.harness import Harness


async def test_the_status_of_the_missing_is_not_found(adapter: RuntimeAdapter) -> None:
    with pytest.raises(NotFound):
        await adapter.get_status("never-was")


async def test_a_clean_end_is_told_from_a_failure(
    harness: Harness, adapter: RuntimeAdapter
) -> None:
    await adapter.create(harness.ending_spec("good", 0))
    good = await harness.wait_for(adapter, "good", lambda s: s.phase is not Phase.RUNNING)
    assert good.phase is harness.clean_end
    if harness.exit_codes:
        assert good.exit_code == 0
        await adapter.create(harness.ending_spec("bad", 3))
        bad = await harness.wait_for(adapter, "bad", lambda s: s.phase is not Phase.RUNNING)
        assert bad.phase is Phase.FAILED
        assert bad.exit_code == 3
        assert bad.containers[0].exit_code == 3


async def test_a_workload_killed_from_outside_has_failed(
    harness: Harness, adapter: RuntimeAdapter
) -> None:
    await adapter.create(harness.spec("killed"))
    await harness.crash("killed")
    status = await harness.wait_for(adapter, "killed", lambda s: s.phase is not Phase.RUNNING)
    assert status.phase is Phase.FAILED
    assert status.reason


async def test_the_list_has_every_workload_with_its_status(
    harness: Harness, adapter: RuntimeAdapter
) -> None:
    one = await adapter.create(harness.spec("one"))
    await adapter.create(harness.spec("two", labels={"which": "second"}))
    listed = {status.spec_id: status for status in await adapter.list()}
    assert set(listed) == {"one", "two"}
    assert listed["one"].id == one.id
    assert listed["one"].phase is Phase.RUNNING
    assert listed["two"].labels["which"] == "second"


async def test_another_adapter_takes_a_workload_up_by_its_handle(harness: Harness) -> None:
    async with harness.make_adapter() as first:
        created = await first.create(harness.spec("kept"))
    assert created.handle is not None
    stored = json.loads(json.dumps(dataclasses.asdict(created.handle)))
    async with harness.make_adapter() as second:
        status = await second.recover(RuntimeHandle(**stored))
        assert status.spec_id == "kept"
        assert status.phase is Phase.RUNNING
        assert status.created_at == created.created_at


async def test_the_handle_of_a_deleted_workload_is_not_found(
    harness: Harness, adapter: RuntimeAdapter
) -> None:
    created = await adapter.create(harness.spec("gone"))
    assert created.handle is not None
    await adapter.delete("gone", grace_seconds=0)
    with pytest.raises(NotFound):
        await adapter.recover(created.handle)


async def test_a_foreign_handle_is_refused(harness: Harness, adapter: RuntimeAdapter) -> None:
    created = await adapter.create(harness.spec("mine"))
    assert created.handle is not None
    with pytest.raises(InvalidSpec):
        await adapter.recover(dataclasses.replace(created.handle, adapter="somebody"))
    with pytest.raises(InvalidSpec):
        await adapter.recover(dataclasses.replace(created.handle, version=999))


async def test_closing_an_adapter_leaves_its_workloads_running(harness: Harness) -> None:
    async with harness.make_adapter() as first:
        await first.create(harness.spec("goes-on"))
    async with harness.make_adapter() as second:
        assert (await second.get_status("goes-on")).phase is Phase.RUNNING


async def test_the_fingerprint_says_what_the_adapter_can_do(adapter: RuntimeAdapter) -> None:
    fingerprint = await adapter.fingerprint()
    assert fingerprint.healthy
    assert fingerprint.name
    assert fingerprint.version
    for name in fingerprint.capabilities:
        assert isinstance(adapter, getattr(capabilities, name))


async def test_an_absent_runtime_is_said_not_raised(harness: Harness) -> None:
    async with harness.make_absent_adapter() as absent:
        fingerprint = await absent.fingerprint()
        assert not fingerprint.healthy
        assert fingerprint.problem
        assert fingerprint.hint
        with pytest.raises(Unavailable):
            await absent.create(harness.spec("nowhere"))
        with pytest.raises(Unavailable):
            await absent.get_status("nowhere")
        with pytest.raises(Unavailable):
            await absent.delete("nowhere")
        with pytest.raises(Unavailable):
            await absent.list()
