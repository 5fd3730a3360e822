"""What a machine is started from: its files on this host, and the domain XML made of them.

One seam between the instance loop and the host, so that the loop can be tried without disks.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from tandem.api.kind import Doc
from tandem.api.meta import get
from tandem.control.machinesources import MachineSources
from tandem.control.pods.podfields import Lookup
from tandem.host import firmware
from tandem.host.disks import MachineDisks
from tandem.host.machinefiles import owner_of
from tandem.host.run import blocking
from tandem.host.tokens import Tokens
from tandem.runtimes.adapter import RuntimeAdapter
from tandem.runtimes.capabilities import ImageFiles


class MachineFiles(Protocol):
    """Makes and removes what a machine needs; everything by the instance's UID."""

    async def domain_xml(self, uid: str, vmi: Doc, *, lookup: Lookup) -> str:
        """Make the machine's files, if that has not been done, and describe the machine.

        ``lookup`` finds the objects that its volumes are made of. Raises ``MissingSource``, which
        says for which object to wait, ``ImagePullError``, ``InvalidSpec``, and ``Unsupported`` for
        what this host has not.
        """
        ...

    async def remove(self, uid: str) -> None:
        """Take away the files of an instance, or what is kept for a VirtualMachine from one run to
        the next (an instance that is no machine's keeps it for itself); none is success."""
        ...

    async def sweep(self, keep: Collection[str]) -> list[str]:
        """Take away the files of all other instances and machines, and of interrupted
        preparations; returns the UIDs of the instances."""
        ...


class HostMachineFiles:
    """Disks under the data directory, out of images that the container runtime holds."""

    def __init__(self, data_dir: Path, images: RuntimeAdapter | None) -> None:
        image_file = images.image_file if isinstance(images, ImageFiles) else None
        self._disks = MachineDisks(data_dir, image_file)
        self._tokens = Tokens(data_dir / "pki")

    async def domain_xml(self, uid: str, vmi: Doc, *, lookup: Lookup) -> str:
        """See :class:`MachineFiles`."""
        from tandem.runtimes.libvirt.parts.host import Given
        from tandem.runtimes.libvirt.parts.processor import memory_bytes, vcpus
        from tandem.runtimes.libvirt.translate import domain_uuid, domain_xml

        domain = vmi["spec"]["domain"]
        if page := get(domain, "memory.hugepages.pageSize"):
            await blocking(firmware.check_hugepages, page, memory_bytes(domain))
        if (tpm := get(domain, "devices.tpm")) is not None and tpm.get("enabled") is not False:
            await blocking(firmware.check_tpm)
            if tpm.get("persistent"):
                await self._disks.keep_tpm(owner_of(vmi), domain_uuid(vmi))
        sources = MachineSources(vmi, lookup, self._tokens)
        files = await self._disks.prepare(uid, vmi, sources=sources, vcpus=vcpus(domain))
        loader = virtiofsd = None
        if (efi := get(domain, "firmware.bootloader.efi")) is not None:
            secure = efi.get("secureBoot") is not False
            loader = (await blocking(firmware.efi, secure=secure)).code
        if files.shares:
            virtiofsd = await blocking(firmware.virtiofsd)
        own = len(files.cpus) - files.emulator_cpus
        given = Given(
            cpus=files.cpus[:own],
            emulator_cpus=files.cpus[own:],
            shared_cpus=() if files.cpus else await self._disks.shared_cpus(),
            loader=loader,
            virtiofsd=virtiofsd,
        )
        return domain_xml(vmi, files, given)

    async def remove(self, uid: str) -> None:
        """See :class:`MachineFiles`."""
        await self._disks.remove(uid)
        await self._disks.forget(uid)

    async def sweep(self, keep: Collection[str]) -> list[str]:
        """See :class:`MachineFiles`."""
        await self._disks.sweep_state(keep)
        return await self._disks.sweep(keep)
