"""The adapter on libvirt's own test driver: everything but QEMU, in this process, in no time.

What every adapter must do is in ``tests/contract``; here is what is particular to this one.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tandem.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    InvalidSpec,
    NotFound,
    Unavailable,
    Unsupported,
)
from tandem.runtimes.adapter import (
    LABEL_SHUTDOWN_PHASE,
    EventKind,
    Phase,
    RuntimeSpec,
    RuntimeStatus,
)
from tandem.runtimes.capabilities import LogOptions
from tandem.runtimes.libvirt import accelerator, connection, hypervisor, machines
from tandem.runtimes.libvirt.accelerator import Verdict
from tandem.runtimes.libvirt.adapter import VirtualMachineAdapter
from tandem.runtimes.libvirt.definition import Definition

UUID = "5d307ca9-b3ef-428c-8861-06e72d69f223"
URI = "test:///default"


def _xml(name: str, *, inside: str = "", type: str = "test") -> str:
    return (
        f"<domain type='{type}'><name>{name}</name>{inside}<memory>1024</memory>"
        "<os><type>hvm</type></os></domain>"
    )


def _spec(id: str, *, inside: str = "", **labels: str) -> RuntimeSpec:
    return RuntimeSpec(id, vm_xml=_xml(f"unit-{id}", inside=inside), labels=labels)


@pytest.fixture
async def adapter(tmp_path: Path) -> AsyncIterator[VirtualMachineAdapter]:
    opened = VirtualMachineAdapter(URI, cache_dir=tmp_path / "cache", log_dir=tmp_path / "logs")
    async with opened:
        yield opened
        for status in await opened.list():
            await opened.delete(status.id, grace_seconds=0)


def _native(adapter: VirtualMachineAdapter) -> Any:
    """libvirt's own connection, as somebody else would use it."""
    return adapter._inventory.connection._native


async def _domain(adapter: VirtualMachineAdapter, id: str) -> Any:
    status = await adapter.get_status(id)
    return _native(adapter).lookupByUUIDString(status.id)


async def _until(adapter: VirtualMachineAdapter, id: str, phase: Phase) -> RuntimeStatus:
    await _eventually(lambda: _has_phase(adapter, id, phase))
    return await adapter.get_status(id)


async def _has_phase(adapter: VirtualMachineAdapter, id: str, phase: Phase) -> bool:
    return (await adapter.get_status(id)).phase is phase


async def _eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it holds: libvirt's events come from another thread, soon."""
    async with asyncio.timeout(5):
        while not await holds():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def test_the_id_is_the_domains_uuid_and_either_is_understood(
    adapter: VirtualMachineAdapter,
) -> None:
    status = await adapter.create(_spec("vm", inside=f"<uuid>{UUID}</uuid>"))
    assert status.id == UUID
    assert (await adapter.get_status(UUID.upper())).spec_id == "vm"
    assert status.details == {"name": "unit-vm", "accelerator": "test"}


async def test_an_id_that_looks_like_a_uuid_is_still_an_id(adapter: VirtualMachineAdapter) -> None:
    id = str(uuid.uuid4())
    status = await adapter.create(RuntimeSpec(id, vm_xml=_xml("unit-uuid")))
    assert status.id != id
    assert (await adapter.get_status(id)).id == status.id
    await adapter.delete(id, grace_seconds=0)
    with pytest.raises(NotFound):
        await adapter.get_status(status.id)


@pytest.mark.parametrize(
    ("label", "phase"),
    [("Succeeded", Phase.SUCCEEDED), ("Stopped", Phase.STOPPED), ("", Phase.STOPPED)],
)
async def test_what_a_shutdown_means_is_the_owners_word(
    adapter: VirtualMachineAdapter, label: str, phase: Phase
) -> None:
    labels = {LABEL_SHUTDOWN_PHASE: label} if label else {}
    await adapter.create(_spec("vm", **labels))
    (await _domain(adapter, "vm")).shutdown()
    status = await _until(adapter, "vm", phase)
    assert status.reason == "Shutdown"
    assert status.finished_at is not None


async def test_how_it_ended_is_still_known_when_libvirt_has_forgotten(
    adapter: VirtualMachineAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await adapter.create(_spec("vm", **{LABEL_SHUTDOWN_PHASE: "Succeeded"}))
    (await _domain(adapter, "vm")).shutdown()
    ended = await _until(adapter, "vm", Phase.SUCCEEDED)

    async def is_kept() -> bool:
        return "ended=" in (await _domain(adapter, "vm")).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)

    await _eventually(is_kept)
    _forget_reasons(monkeypatch)
    async with VirtualMachineAdapter(URI, log_dir=tmp_path / "logs") as after:
        status = await after.get_status("vm")
    assert (status.phase, status.reason) == (Phase.SUCCEEDED, "Shutdown")
    assert status.finished_at == ended.finished_at


async def test_what_ran_when_the_host_went_down_has_failed(
    adapter: VirtualMachineAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await adapter.create(_spec("vm"))
    async with VirtualMachineAdapter(URI, log_dir=tmp_path / "logs") as after:
        await after.list()
        _forget_reasons(monkeypatch, off=True)
        monkeypatch.setattr(machines, "boot_id", lambda: "another boot")
        status = await after.get_status("vm")
        assert (status.phase, status.reason) == (Phase.FAILED, "HostRebooted")
        assert status.finished_at is not None


def _forget_reasons(monkeypatch: pytest.MonkeyPatch, *, off: bool = False) -> None:
    """What libvirtd says after its own restart: off, and no idea why."""
    original = libvirt.virDomain.state

    def state(self: Any, flags: int = 0) -> list[int]:
        return [5, 0] if off else [original(self, flags)[0], 0]

    monkeypatch.setattr(libvirt.virDomain, "state", state)


async def test_what_an_interrupted_create_left_is_made_anew(
    adapter: VirtualMachineAdapter, tmp_path: Path
) -> None:
    spec = _spec("vm")
    await adapter.list()
    xml, _ = Definition(spec, "tandem").build(
        domain_type=None, log_dir=tmp_path / "logs", now=machines.now()
    )
    _native(adapter).defineXML(xml)
    half = await adapter.get_status("vm")
    assert (half.phase, half.reason) == (Phase.STOPPED, "NeverStarted")
    status = await adapter.create(spec)
    assert status.phase is Phase.RUNNING
    assert status.id != half.id
    assert len(await adapter.list()) == 1


async def test_a_uuid_that_is_taken_is_not_redefined(adapter: VirtualMachineAdapter) -> None:
    inside = f"<uuid>{UUID}</uuid>"
    first = await adapter.create(_spec("first", inside=inside))
    clash = RuntimeSpec("second", vm_xml=_xml("unit-first", inside=inside))
    for spec in (clash, RuntimeSpec("third", vm_xml=_xml("unit-other", inside=inside))):
        with pytest.raises(AlreadyExists):
            await adapter.create(spec)
    assert await adapter.get_status("first") == first
    assert (adapter._log_dir / UUID).is_dir()


async def test_the_name_of_a_stranger_is_not_taken_over(adapter: VirtualMachineAdapter) -> None:
    (stranger,) = await adapter.list(strangers=True)
    name, before = stranger.details["name"], _native(adapter).lookupByName("test").XMLDesc()
    for inside in ("", f"<uuid>{stranger.id}</uuid>"):
        with pytest.raises(AlreadyExists):
            await adapter.create(RuntimeSpec("vm", vm_xml=_xml(name, inside=inside)))
    assert _native(adapter).lookupByName("test").XMLDesc() == before
    assert not list(adapter._log_dir.glob("*"))


async def test_the_schema_is_only_checked_when_asked_for(tmp_path: Path) -> None:
    typo = RuntimeSpec("vm", vm_xml=_xml("unit-vm", inside="<featurs/>"))
    async with VirtualMachineAdapter(URI, log_dir=tmp_path) as strict:
        with pytest.raises(InvalidSpec, match="featurs") as caught:
            await strict.create(typo)
        assert [cause.field for cause in caught.value.causes] == ["vm_xml"]
    async with VirtualMachineAdapter(URI, log_dir=tmp_path, validate=False) as lenient:
        await lenient.create(typo)
        await lenient.delete("vm", grace_seconds=0)


async def test_a_log_directory_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with VirtualMachineAdapter(URI, log_dir=tmp_path / "file" / "logs") as adapter:
        with pytest.raises(Unavailable, match="cannot make"):
            await adapter.create(_spec("vm"))
        assert await adapter.list() == []


async def test_pausing_and_resuming_may_be_repeated(adapter: VirtualMachineAdapter) -> None:
    await adapter.create(_spec("vm"))
    paused = await adapter.pause("vm")
    assert (paused.phase, paused.reason) == (Phase.PAUSED, "PausedByUser")
    assert (await adapter.pause("vm")).phase is Phase.PAUSED
    assert (await adapter.resume("vm")).phase is Phase.RUNNING
    assert (await adapter.resume("vm")).phase is Phase.RUNNING
    (await _domain(adapter, "vm")).destroy()
    with pytest.raises(Conflict, match="not running"):
        await adapter.pause("vm")


async def test_a_paused_machine_is_woken_to_shut_down(adapter: VirtualMachineAdapter) -> None:
    await adapter.create(_spec("vm"))
    await adapter.pause("vm")
    async with aclosing(adapter.events()) as events:  # type: ignore[type-var]
        assert (await anext(events)).kind is EventKind.RESYNC
        async with asyncio.timeout(5):
            await adapter.delete("vm", grace_seconds=30)
            while (await anext(events)).kind is not EventKind.RESUMED:
                pass
            kinds = [(await anext(events)).kind for _ in range(2)]
    assert kinds == [EventKind.STOPPED, EventKind.DELETED]


async def test_a_machine_that_was_started_again_is_running(adapter: VirtualMachineAdapter) -> None:
    first = await adapter.create(_spec("vm"))
    domain = await _domain(adapter, "vm")
    domain.destroy()
    await _until(adapter, "vm", Phase.FAILED)
    domain.create()
    status = await _until(adapter, "vm", Phase.RUNNING)
    assert status.finished_at is None

    async def is_noted() -> bool:
        return (await adapter.get_status("vm")).started_at != first.started_at

    await _eventually(is_noted)


async def test_a_machine_removed_behind_our_back_is_gone(adapter: VirtualMachineAdapter) -> None:
    await adapter.create(_spec("vm"))
    domain = await _domain(adapter, "vm")
    domain.destroy()
    domain.undefine()
    with pytest.raises(NotFound):
        await adapter.get_status("vm")
    await adapter.delete("vm")
    assert (await adapter.create(_spec("vm"))).phase is Phase.RUNNING


async def test_a_machine_without_that_log_says_so(adapter: VirtualMachineAdapter) -> None:
    await adapter.create(_spec("vm", inside="<devices><serial type='null'/></devices>"))
    await adapter.create(_spec("logged"))
    for id, container, options in (
        ("vm", "", LogOptions()),
        ("logged", "main", LogOptions()),
        ("logged", "", LogOptions(previous=True)),
        ("nobody", "", LogOptions()),
    ):
        with pytest.raises(NotFound):
            await anext(adapter.logs(id, container=container, options=options))


# -- KVM or emulation ------------------------------------------------------------------------------


@pytest.fixture
def pretend_qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the test driver pass for QEMU up to the domain's type, which it then refuses."""
    monkeypatch.setattr(hypervisor, "is_qemu", lambda _native: True)
    facts = hypervisor.Facts("QEMU", "QEMU 7")
    monkeypatch.setattr(hypervisor, "ask", lambda _native: facts)


def _verdict(monkeypatch: pytest.MonkeyPatch, verdict: Verdict) -> None:
    async def decide(_self: object) -> Verdict:
        return verdict

    monkeypatch.setattr(accelerator.Accelerator, "decide", decide)


@pytest.mark.parametrize(
    ("emulation", "works", "asked", "becomes"),
    [
        ("auto", True, "kvm", "kvm"),
        ("auto", False, "kvm", "qemu"),
        ("always", True, "kvm", "qemu"),
        ("never", True, "kvm", "kvm"),
        ("never", False, "qemu", None),
        ("auto", True, "qemu", None),
    ],
)
async def test_the_domain_type_follows_the_probe_and_the_setting(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pretend_qemu: None,
    emulation: Any,
    works: bool,
    asked: str,
    becomes: str | None,
) -> None:
    _verdict(monkeypatch, Verdict(works, "broken"))
    async with VirtualMachineAdapter(URI, emulation=emulation, log_dir=tmp_path) as adapter:
        spec = RuntimeSpec("vm", vm_xml=_xml("unit-vm", type=asked))
        assert await adapter._domain_type(Definition(spec, "tandem")) == becomes
        details = (await adapter.fingerprint()).details
        assert details["accelerator"] == ("kvm" if works and emulation != "always" else "qemu")
        assert ("emulation_reason" in details) is (details["accelerator"] == "qemu")


async def test_without_kvm_and_emulation_a_machine_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pretend_qemu: None
) -> None:
    _verdict(monkeypatch, Verdict(False, "it stopped early"))
    async with VirtualMachineAdapter(URI, emulation="never", log_dir=tmp_path) as adapter:
        with pytest.raises(Unsupported, match="it stopped early") as caught:
            await adapter.create(RuntimeSpec("vm", vm_xml=_xml("unit-vm", type="kvm")))
        assert [cause.field for cause in caught.value.causes] == ["vm_xml.type"]


# -- the connection --------------------------------------------------------------------------------


async def test_a_missing_binding_is_unavailable_with_the_fix(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "libvirt", None)
    async with VirtualMachineAdapter(URI, log_dir=tmp_path) as adapter:
        with pytest.raises(Unavailable) as caught:
            await adapter.list()
        assert "python3-libvirt" in (caught.value.hint or "")
        fingerprint = await adapter.fingerprint()
        assert not fingerprint.healthy
        assert "python3-libvirt" in fingerprint.hint


async def test_an_absent_libvirtd_is_unavailable_with_the_fix(tmp_path: Path) -> None:
    uri = f"qemu+unix:///system?socket={tmp_path}/gone"
    async with VirtualMachineAdapter(uri, log_dir=tmp_path) as adapter:
        with pytest.raises(Unavailable, match="gone") as caught:
            await adapter.list()
        assert "tandem up" in (caught.value.hint or "")


async def test_a_call_that_takes_too_long_is_given_up(adapter: VirtualMachineAdapter) -> None:
    release = threading.Event()
    with pytest.raises(DeadlineExceeded):
        await adapter._call(lambda _native: release.wait(5), timeout=0.02)
    release.set()


async def test_a_broken_connection_is_replaced_at_the_next_call(
    adapter: VirtualMachineAdapter,
) -> None:
    await adapter.create(_spec("vm"))
    keeps_the_driver_alive = libvirt.open(URI)
    broken = _native(adapter)

    def fails(_native: Any) -> None:
        error = libvirt.libvirtError("broken")
        error.err = (
            libvirt.VIR_ERR_INTERNAL_ERROR,
            libvirt.VIR_FROM_RPC,
            "client socket is closed",
        )
        raise error

    with pytest.raises(Unavailable, match="client socket is closed"):
        await adapter._call(fails)
    assert (await adapter.get_status("vm")).phase is Phase.RUNNING
    assert _native(adapter) is not broken
    keeps_the_driver_alive.close()


async def test_a_closed_adapter_refuses(tmp_path: Path) -> None:
    adapter = VirtualMachineAdapter(URI, log_dir=tmp_path)
    await adapter.close()
    with pytest.raises(Unavailable, match="closed"):
        await adapter.list()


async def test_events_end_when_the_adapter_is_closed(tmp_path: Path) -> None:
    adapter = VirtualMachineAdapter(URI, log_dir=tmp_path)
    events = adapter.events()
    assert (await anext(events)).kind is EventKind.RESYNC
    await adapter.close()
    with pytest.raises(StopAsyncIteration):
        await anext(events)


def test_making_an_adapter_does_no_io(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "load", lambda: pytest.fail("connected"))
    VirtualMachineAdapter(URI, cache_dir=tmp_path / "cache", log_dir=tmp_path / "logs")
    assert list(tmp_path.iterdir()) == []
