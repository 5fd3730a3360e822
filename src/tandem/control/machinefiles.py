"""What a machine is started from: its files on this host, and the domain XML made of them.

One seam between the instance loop and the host, so that the loop can be tried without disks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Protocol

from tandem.api.kind import Doc
from tandem.host.disks import MachineDisks
from tandem.runtimes.adapter import RuntimeAdapter
from tandem.runtimes.capabilities import ImageFiles

SecretData = Callable[[str], Awaitable[Mapping[str, bytes]]]
"""The data of a Secret by its name, in the machine's namespace."""


class MachineFiles(Protocol):
    """Makes and removes what a machine needs; everything by the instance's UID."""

    async def domain_xml(self, uid: str, vmi: Doc, *, secret: SecretData) -> str:
        """Make the machine's files, if that has not been done, and describe the machine."""
        ...

    async def remove(self, uid: str) -> None:
        """Take the machine's files away; none is success."""
        ...

    async def sweep(self, keep: Collection[str]) -> list[str]:
        """Take away the files of all other machines, and of interrupted preparations."""
        ...


class HostMachineFiles:
    """Disks under the data directory, out of images that the container runtime holds."""

    def __init__(self, data_dir: Path, images: RuntimeAdapter | None) -> None:
        image_file = images.image_file if isinstance(images, ImageFiles) else None
        self._disks = MachineDisks(data_dir, image_file)

    async def domain_xml(self, uid: str, vmi: Doc, *, secret: SecretData) -> str:
        """See :class:`MachineFiles`."""
        from tandem.runtimes.libvirt.translate import domain_xml

        files = await self._disks.prepare(uid, vmi, secret=secret)
        return domain_xml(vmi, files)

    async def remove(self, uid: str) -> None:
        """See :class:`MachineFiles`."""
        await self._disks.remove(uid)

    async def sweep(self, keep: Collection[str]) -> list[str]:
        """See :class:`MachineFiles`."""
        return await self._disks.sweep(keep)
