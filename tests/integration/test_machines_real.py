"""Virtual machines for real: a Debian kernel in QEMU under libvirt, from an instance's document on."""

# ruff: noqa: ASYNC110 - small files, and things that only time brings about
from __future__ import annotations

import asyncio
import copy
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tandem.errors import TandemError
from tandem.host.disks import MachineDisks
from tandem.host.run import run
from tandem.runtimes.adapter import EventKind, Phase, RuntimeSpec, RuntimeStatus
from tandem.runtimes.capabilities import ByteStream, LogOptions
from tandem.runtimes.libvirt import accelerator, domains
from tandem.runtimes.libvirt.accelerator import Accelerator
from tandem.runtimes.libvirt.adapter import VirtualMachineAdapter
from tandem.runtimes.libvirt.definition import Definition
from tandem.runtimes.libvirt.machines import now
from tandem.runtimes.libvirt.translate import domain_xml
from tests import guests, world
from tests.golden.libvirt import test_golden_libvirt as golden
from tests.guests import Behaviour

pytestmark = [pytest.mark.libvirt]

BOOT_SECONDS = 60.0  # emulated, on a busy host; 3 s alone


@dataclass
class Found:
    digest: str
    path: Path


class Images:
    """The test images as plain files, in place of a container runtime."""

    async def __call__(
        self, image: str, path: str | None, *, pull_policy: str = "IfNotPresent"
    ) -> Found:
        folder = await asyncio.to_thread(world.images)
        return Found(f"sha256:{image}", folder / Path(path or "machine.qcow2").name)


class Host:
    """An adapter, and disks, with everything in one folder that QEMU's user may pass through."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri = uri
        self.folder = folder
        self.disks = MachineDisks(folder, Images())
        self.adapter = self.make_adapter()

    def make_adapter(self, **options: Any) -> VirtualMachineAdapter:
        return VirtualMachineAdapter(
            self.uri, cache_dir=self.folder / "cache", log_dir=self.folder / "logs", **options
        )

    async def start(self, vmi: dict[str, Any]) -> RuntimeStatus:
        id = vmi["metadata"]["uid"]
        files = await self.disks.prepare(id, vmi)
        return await self.adapter.create(RuntimeSpec(id, vm_xml=domain_xml(vmi, files)))

    async def start_guest(
        self, id: str, behaviour: Behaviour = Behaviour.OBEDIENT
    ) -> RuntimeStatus:
        rom = guests.write_rom(self.folder, behaviour)
        return await self.adapter.create(
            RuntimeSpec(id, vm_xml=guests.domain_xml(f"real-{id}", rom))
        )

    async def log_until(self, id: str, pattern: bytes) -> bytes:
        """The console's log up to and with ``pattern``."""
        seen = b""
        async with (
            asyncio.timeout(BOOT_SECONDS),
            aclosing(self.adapter.logs(id, options=LogOptions(follow=True))) as log,  # type: ignore[type-var]
        ):
            async for chunk in log:
                seen += chunk
                if re.search(pattern, seen):
                    return seen
        raise AssertionError(f"the log ended: {seen!r}")


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="machines-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def host(libvirt_uri: str, folder: Path) -> AsyncIterator[Host]:
    host = Host(libvirt_uri, folder)
    async with host.adapter:
        yield host
        for status in await host.adapter.list():
            await host.adapter.delete(status.id, grace_seconds=0)
        await host.disks.sweep(set())
        assert list((folder / "logs").glob("*")) == []


def _vmi(name: str, *volumes: dict[str, Any], **domain: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}"},
        "spec": {
            "domain": {"memory": {"guest": "256Mi"}, **domain},
            "volumes": [*volumes],
        },
    }


def _from_disk(name: str, bus: str = "virtio", user_data: str = "") -> dict[str, Any]:
    volumes = [{"name": "root", "containerDisk": {"image": "machine"}}]
    disks = [{"name": "root", "disk": {"bus": bus}}]
    if user_data:
        volumes.append({"name": "seed", "cloudInitNoCloud": {"userData": user_data}})
        disks.append({"name": "seed", "disk": {"bus": bus}})
    return _vmi(name, *volumes, devices={"disks": disks})


# -- from a document to a running system -----------------------------------------------------------


async def test_the_smallest_manifest_runs_as_asked(host: Host) -> None:
    status = await host.start(golden._vmi("minimal"))
    assert status.phase is Phase.RUNNING
    assert status.details["accelerator"] in ("kvm", "qemu")
    native = libvirt.open(host.uri)
    _, max_kib, kib, vcpus, *_ = native.lookupByUUIDString(status.id).info()
    native.close()
    assert (max_kib, kib, vcpus) == (2 << 20, 2 << 20, 2)


@pytest.mark.parametrize("name", golden.NAMES)
async def test_libvirt_takes_every_golden_domain(host: Host, name: str) -> None:
    spec = RuntimeSpec("x", vm_xml=golden._xml(name))
    for kvm in (None, "qemu"):
        definition = Definition(copy.deepcopy(spec), "golden")
        xml, record = definition.build(domain_type=kvm, log_dir=host.folder, now=now())

        def try_out(native: Any, xml: str = xml, uuid: str = record.uuid) -> None:
            domains.define(native, xml, validate=True)
            domains.force_off_and_undefine(native, uuid)

        await host.adapter._call(try_out)


@pytest.mark.slow
@pytest.mark.parametrize("bus", ["virtio", "sata"])
async def test_a_disk_from_an_image_boots_with_its_seed(host: Host, bus: str) -> None:
    vmi = _from_disk(f"disk-{bus}", bus, "#!/bin/sh\necho the seed says $(hostname)\n")
    id = vmi["metadata"]["uid"]
    await host.start(vmi)
    log = await host.log_until(id, rb"ready after")
    assert f"the seed says disk-{bus}".encode() in log
    # Acts on the power button: no force is needed, by far.
    began = time.monotonic()
    await host.adapter.delete(id, grace_seconds=BOOT_SECONDS)
    assert time.monotonic() - began < BOOT_SECONDS / 2
    await host.disks.remove(id)
    assert not any(path.is_file() for path in (host.folder / "machines").rglob("*"))


@pytest.mark.slow
async def test_a_kernel_from_an_image_boots(host: Host) -> None:
    boot = {"kernelPath": "/boot/vmlinuz", "initrdPath": "/boot/initrd", "image": "kernel"}
    arguments = "console=ttyS0 quiet word=<&'\">"
    vmi = _vmi("kernel", firmware={"kernelBoot": {"container": boot, "kernelArgs": arguments}})
    await host.start(vmi)
    await host.log_until("uid-kernel", rb"login: ")
    console = await host.adapter.open_console("uid-kernel")
    await console.write(b"root\n")
    await _read_until(console, rb"# ")
    await console.write(b"cat /proc/cmdline\n")
    assert b"word=<&'\">" in await _read_until(console, rb"word=\S+\s+.*# ")
    await console.close()


@pytest.mark.slow
async def test_two_machines_on_one_image_do_not_see_each_other(host: Host) -> None:
    script = "#!/bin/sh\ndd if=/dev/vda bs=4096 skip=4000 count=1 2>/dev/null | md5sum\n"
    script += "hostname | dd of=/dev/vda bs=4096 seek=4000 conv=fsync 2>/dev/null; echo written\n"
    before = (await asyncio.to_thread(world.images) / "machine.qcow2").read_bytes()
    await asyncio.gather(*(host.start(_from_disk(f"m{n}", user_data=script)) for n in range(2)))
    for number in range(2):
        await host.log_until(f"uid-m{number}", b"written")
    assert (await asyncio.to_thread(world.images) / "machine.qcow2").read_bytes() == before


async def _read_until(console: ByteStream, pattern: bytes) -> bytes:
    seen = b""
    async with asyncio.timeout(BOOT_SECONDS):
        while not re.search(pattern, seen):
            chunk = await console.read()
            assert chunk, f"the console ended: {seen!r}"
            seen += chunk
    return seen


# -- console and log -------------------------------------------------------------------------------


async def test_the_console_is_two_way_and_goes_to_the_last_who_asked(host: Host) -> None:
    await host.start_guest("console")
    first = await host.adapter.open_console("console")
    await first.write(b"x")
    assert guests.ECHO in await _read_until(first, re.escape(guests.ECHO))
    second = await host.adapter.open_console("console")
    async with asyncio.timeout(10):
        while await first.read():
            pass
    await second.write(b"x")
    await _read_until(second, re.escape(guests.ECHO))
    await host.adapter.delete("console", grace_seconds=0)
    async with asyncio.timeout(10):
        while await second.read():
            pass
    with pytest.raises(TandemError):
        await second.write(b"x")


async def test_the_log_has_what_was_said_before_anybody_listened(host: Host) -> None:
    await host.start_guest("log")
    assert await host.log_until("log", b"up") == guests.GREETING
    chunks = [chunk async for chunk in host.adapter.logs("log", options=LogOptions())]
    assert b"".join(chunks) == guests.GREETING


async def test_following_a_log_ends_with_the_machine(host: Host) -> None:
    await host.start_guest("ends", Behaviour.ENDING)
    async with asyncio.timeout(20):
        options = LogOptions(follow=True)
        chunks = [chunk async for chunk in host.adapter.logs("ends", options=options)]
    assert b"".join(chunks) == guests.GREETING


# -- ends, faults and what is left -------------------------------------------------------------------


async def test_more_memory_than_there_is_leaves_nothing(host: Host) -> None:
    vmi = _vmi("huge")
    vmi["spec"]["domain"]["memory"]["guest"] = "64Ti"
    with pytest.raises(TandemError) as caught:
        await host.start(vmi)
    assert caught.value.message
    assert await host.adapter.list() == []


async def test_a_saved_machine_is_deleted_with_its_state(host: Host) -> None:
    status = await host.start_guest("saved")
    await host.adapter._call(lambda native: native.lookupByUUIDString(status.id).managedSave())
    saved = await host.adapter.get_status("saved")
    assert (saved.phase, saved.reason) == (Phase.STOPPED, "Saved")
    await host.adapter.delete("saved")
    assert await host.adapter.list() == []


async def test_a_machine_outlives_libvirtd_and_is_known_again_at_once(host: Host) -> None:
    status = await host.start_guest("lives")
    dies = await host.start_guest("dies")
    qemu, victim = (_pid_of(f"real-{id}") for id in ("lives", "dies"))
    async with aclosing(host.adapter.events()) as events:  # type: ignore[type-var]
        assert (await anext(events)).kind is EventKind.RESYNC
        os.kill(_libvirtd_pid(), signal.SIGKILL)
        os.kill(victim, signal.SIGKILL)
        async with asyncio.timeout(BOOT_SECONDS):
            while (await anext(events)).kind is not EventKind.RESYNC:
                pass
        began = time.monotonic()
        assert (await host.adapter.get_status("lives")).phase is Phase.RUNNING
        assert (await host.adapter.get_status(dies.id)).phase is Phase.FAILED
        assert time.monotonic() - began < 1.0
        assert _pid_of("real-lives") == qemu
        await host.adapter.delete("lives", grace_seconds=BOOT_SECONDS)
        async with asyncio.timeout(BOOT_SECONDS):
            while (await anext(events)).kind is not EventKind.DELETED:
                pass
    assert status.id not in {other.id for other in await host.adapter.list()}


def _pid_of(name: str) -> int:
    return int(Path(f"/run/libvirt/qemu/{name}.pid").read_text())


def _libvirtd_pid() -> int:
    (pid,) = (
        status.keeper_pid for status in world.services().status() if status.name == "libvirtd"
    )
    return pid


async def test_a_frozen_libvirtd_does_not_freeze_us(host: Host) -> None:
    await host.start_guest("frozen")
    pid = _libvirtd_pid()
    async with host.make_adapter(timeout=0.5) as impatient:
        await impatient.list()
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(TandemError, match="in time"):
                await impatient.get_status("frozen")
            fingerprint = await impatient.fingerprint()
            assert not fingerprint.healthy
        finally:
            os.kill(pid, signal.SIGCONT)
        await _eventually(lambda: _is_running(impatient, "frozen"))


async def _is_running(adapter: VirtualMachineAdapter, id: str) -> bool:
    try:
        return (await adapter.get_status(id)).phase is Phase.RUNNING
    except TandemError:
        return False


async def _eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await holds():
            await asyncio.sleep(0.05)


async def test_a_closed_adapter_leaves_no_connection(host: Host) -> None:
    async def connections() -> int:
        command = ("virt-admin", "-c", "libvirtd:///system", "client-list", "libvirtd")
        return (await run(*command)).stdout.count(b"unix")

    before = await connections()
    for _ in range(3):
        async with host.make_adapter() as adapter:
            async with aclosing(adapter.events()) as events:  # type: ignore[type-var]
                await anext(events)
            await adapter.list(strangers=True)
    assert await connections() == before


# -- KVM ---------------------------------------------------------------------------------------------


def test_the_probes_image_is_made_from_its_source() -> None:
    folder = Path(accelerator.__file__).parent / "probe"
    assert (folder / "probe.bin").read_bytes() == guests.assemble(folder / "probe.S")


async def test_the_probe_passes_where_machines_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Emulated machines run everywhere; the image must not tell them from KVM's."""
    probe = Accelerator(Path("/usr/bin/qemu-system-x86_64"), None, tmp_path)

    async def emulated(*words: Any, **options: Any) -> Any:
        replaced = {"kvm": "tcg", "host": "max"}
        return await run(*(replaced.get(word, word) for word in words), **options)

    monkeypatch.setattr(accelerator, "run", emulated)
    monkeypatch.setattr(accelerator, "_DEVICE", tmp_path)
    assert await probe.decide() == accelerator.Verdict(True)


@pytest.mark.slow
async def test_the_verdict_is_what_a_real_kernel_finds(host: Host) -> None:
    """Debian's kernel starts under KVM exactly where the probe says that machines do."""
    verdict = await host.adapter.accelerator()
    images = await asyncio.to_thread(world.images)
    finished = await run(
        "timeout", str(BOOT_SECONDS if verdict.works else 5.0), "qemu-system-x86_64",
        "-machine", "q35", "-accel", "kvm", "-cpu", "host", "-m", "256",
        "-nodefaults", "-display", "none", "-serial", "stdio",
        "-kernel", images / "vmlinuz", "-initrd", images / "initrd", "-append", "console=ttyS0",
        timeout=BOOT_SECONDS * 2, accept=None,
    )  # fmt: skip
    assert (b"Linux version" in finished.stdout) is verdict.works, (verdict, finished)
