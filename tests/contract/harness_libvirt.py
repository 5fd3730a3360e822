"""The virtual machine adapter in the contract suite, on a real libvirtd and QEMU."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import libvirt
import pytest

from tandem.host.run import run
from tandem.runtimes.adapter import Phase, RuntimeAdapter, RuntimeSpec
from tandem.runtimes.libvirt.adapter import VirtualMachineAdapter
from tests import guests, world
from tests.contract.harness import Harness
from tests.guests import Behaviour

_STEPS = ("_domain_type", "_define", "_start")
_STRANGER = "contract-stranger"


class LibvirtHarness(Harness):
    """Machines on libvirt, with the smallest guests."""

    name = "libvirt"
    marks = (pytest.mark.libvirt,)
    # Each step, and the moment after it: libvirt has done it, and nobody has heard the answer.
    steps: ClassVar[Sequence[str]] = (*_STEPS, "_define-answer", "_start-answer")
    cancel_after: ClassVar[Sequence[float]] = (0.0, 0.002, 0.005, 0.02, 0.1, 0.3)
    clean_end = Phase.STOPPED
    exit_codes = False

    def __init__(self, world: Any, tmp_path: Path) -> None:
        super().__init__(world, tmp_path)
        self.uri, self.roms = world
        self.log_dir = tmp_path / "machines"

    @classmethod
    @contextlib.contextmanager
    def open_world(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
        roms = Path(tempfile.mkdtemp(prefix="tandem-guests-"))
        roms.chmod(0o755)  # QEMU's user reads them
        for behaviour in Behaviour:
            guests.write_rom(roms, behaviour)
        yield world.libvirt(), roms
        shutil.rmtree(roms)

    def make_adapter(self, owner: str = "tandem") -> RuntimeAdapter:
        return VirtualMachineAdapter(
            self.uri, owner=owner, cache_dir=self.tmp_path / "cache", log_dir=self.log_dir
        )

    def make_absent_adapter(self) -> RuntimeAdapter:
        return VirtualMachineAdapter(
            f"qemu+unix:///system?socket={self.tmp_path}/nobody.sock", log_dir=self.log_dir
        )

    def _xml(self, name: str, behaviour: Behaviour = Behaviour.OBEDIENT, extra: str = "") -> str:
        rom = self.roms / f"{behaviour.name.lower()}.rom"
        return guests.domain_xml(name, rom, extra=extra)

    def spec(self, id: str, *, labels: dict[str, str] | None = None) -> RuntimeSpec:
        return RuntimeSpec(id, vm_xml=self._xml(f"contract-{id}"), labels=labels or {})

    def other_spec(self, id: str) -> RuntimeSpec:
        return RuntimeSpec(id, vm_xml=self._xml(f"contract-other-{id}"))

    def stubborn_spec(self, id: str) -> RuntimeSpec:
        return RuntimeSpec(id, vm_xml=self._xml(f"contract-{id}", Behaviour.STUBBORN))

    def ending_spec(self, id: str, code: int) -> RuntimeSpec:
        return RuntimeSpec(id, vm_xml=self._xml(f"contract-{id}", Behaviour.ENDING))

    def failing_spec(self, id: str) -> RuntimeSpec:
        missing = "<disk type='file'><source file='/no/such/disk'/><target dev='vda'/></disk>"
        return RuntimeSpec(id, vm_xml=self._xml(f"contract-{id}", extra=missing))

    def invalid_specs(self) -> Sequence[tuple[RuntimeSpec, str]]:
        good = self._xml("contract-x")
        entity = f'<!DOCTYPE domain [<!ENTITY e SYSTEM "file:///etc/passwd">]>{good}'
        return [
            (RuntimeSpec("x"), "vm_xml"),
            (RuntimeSpec("x", container_spec={"image": "a"}), "container_spec"),
            (RuntimeSpec("x", container_spec={"image": "a"}, vm_xml=good), "container_spec"),
            (RuntimeSpec("x", vm_xml="<domain"), "vm_xml"),
            (RuntimeSpec("x", vm_xml="<network/>"), "vm_xml"),
            (RuntimeSpec("x", vm_xml=entity), "vm_xml"),
            (RuntimeSpec("x", vm_xml="<domain/>"), "vm_xml.name"),
            (RuntimeSpec("x", vm_xml=good.replace("contract-x", "a/b")), "vm_xml"),
            (RuntimeSpec("x", vm_xml=good.replace("<os>", "<uuid>1</uuid><os>")), "vm_xml.uuid"),
            (RuntimeSpec("x", vm_xml=good.replace("q35", "c64")), "vm_xml"),
            (RuntimeSpec("x", vm_xml=good.replace("<features>", "<featurs/><features>")), "vm_xml"),
            (RuntimeSpec("x", vm_xml=good, labels={"a": "\0"}), "labels[a]"),
        ]

    async def settle(self) -> None:
        """The guest needs a few milliseconds of its own, which here may take longer."""
        await asyncio.sleep(0.2)

    # -- the world outside -------------------------------------------------------------------

    @contextlib.contextmanager
    def _libvirt(self) -> Iterator[Any]:
        native = libvirt.open(self.uri)
        try:
            yield native
        finally:
            native.close()

    async def add_stranger(self) -> str:
        def add() -> str:
            with self._libvirt() as native:
                xml = self._xml(_STRANGER).replace("<domain>", "<domain type='qemu'>")
                domain = native.defineXML(xml)
                domain.create()
                return str(domain.UUIDString())

        return await asyncio.to_thread(add)

    async def stranger_runs(self, id: str) -> bool:
        def ask() -> bool:
            with self._libvirt() as native:
                return bool(native.lookupByUUIDString(id).isActive())

        return await asyncio.to_thread(ask)

    async def remove_stranger(self, id: str) -> None:
        def remove() -> None:
            with self._libvirt() as native:
                domain = native.lookupByUUIDString(id)
                domain.destroy()
                domain.undefine()

        await asyncio.to_thread(remove)

    async def crash(self, id: str) -> None:
        file = Path(f"/run/libvirt/qemu/contract-{id}.pid")
        os.kill(int(await asyncio.to_thread(file.read_text)), signal.SIGKILL)

    async def leftovers(self) -> Sequence[str]:
        def look() -> list[str]:
            with self._libvirt() as native:
                names = [domain.name() for domain in native.listAllDomains()]
            found = [f"domain {name}" for name in names if name != _STRANGER]
            return found + [str(path) for path in self.log_dir.glob("*")]

        return await asyncio.to_thread(look)

    # -- optional ----------------------------------------------------------------------------

    def intercept(
        self, adapter: RuntimeAdapter, step: str, action: Callable[[], Awaitable[None]]
    ) -> None:
        name, _, answer = step.partition("-")
        original = getattr(adapter, name)

        async def intercepted(*args: Any) -> Any:
            setattr(adapter, name, original)
            if not answer:
                await action()
            result = await original(*args)
            if answer:
                await action()
            return result

        setattr(adapter, name, intercepted)

    async def drop_events(self, adapter: RuntimeAdapter) -> None:
        """Have libvirtd hang up on this process."""
        clients = await run("virt-admin", "-c", "libvirtd:///system", "client-list", "libvirtd")
        for line in clients.stdout.decode().splitlines()[2:]:
            if number := line.split()[:1]:
                await self._hang_up_if_ours(number[0])

    async def _hang_up_if_ours(self, client: str) -> None:
        virt_admin = ("virt-admin", "-c", "libvirtd:///system")
        info = await run(*virt_admin, "client-info", "libvirtd", client, accept=None)
        if f"unix_process_id: {os.getpid()}" in info.stdout.decode().splitlines():
            await run(*virt_admin, "client-disconnect", "libvirtd", client)
