"""The files of virtual machines on this host: disks out of images, empty disks, seeds, kernels.

One directory for each machine, ``machines/<uid>/`` under the data directory, appears complete by one
rename and goes as a whole; a preparation that fails or is cancelled leaves nothing. Nothing big is
copied per machine:

- A disk image stays where the container runtime keeps it, or is copied once for all machines (see
  :mod:`tandem.host.imagecopies`). It is read-only to every machine, which writes to a qcow2 overlay.
- Kernels and initial ramdisks always are such copies: libvirt gives the files it boots from to
  QEMU's user, which must not happen to the container runtime's own.

QEMU runs as a user of its own, so directories here can be passed through but not listed by others;
what a guest writes or a seed's secrets stay readable by root and, while it runs, QEMU alone (libvirt
changes the owner at start and back at the end).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import stat
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakValueDictionary

from tandem.api.quantity import to_bytes
from tandem.errors import Cause, InvalidSpec, TandemError, Unavailable, Unsupported
from tandem.host import cloudinit, iso9660, qcow2
from tandem.host.imagecopies import KEEP_UNUSED_SECONDS, FoundFile, ImageCopies
from tandem.host.run import blocking

_RECORD = "files.json"  # in each machine's directory: what is in it
_RECORD_VERSION = 1
_ALIGNMENT = 1 << 20  # an empty disk has whole MiB, as in KubeVirt
_PASS_THROUGH = 0o711

# Names that become file names: no separators, no leading dot, short.
_UID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_VOLUME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class DiskFile:
    """A volume's disk. ``backing`` is what it lies on: another file, read-only, and its format."""

    path: Path
    format: qcow2.Format
    backing: Path | None = None
    backing_format: qcow2.Format = "raw"


@dataclass(frozen=True, slots=True)
class MachineFiles:
    """The files of one machine: its disks by volume name, and what it boots from directly."""

    disks: Mapping[str, DiskFile] = field(default_factory=dict)
    kernel: Path | None = None
    initrd: Path | None = None


class ImageFile(Protocol):
    """Finds a file in an image, pulling it as ``pull_policy`` says; see the capability ImageFiles."""

    async def __call__(
        self, image: str, path: str | None, *, pull_policy: str = "IfNotPresent"
    ) -> FoundFile: ...


SecretData = Callable[[str], Awaitable[Mapping[str, bytes]]]
"""The data of a Secret by its name, in the machine's namespace."""


class MachineDisks:
    """The files of all machines under one data directory.

    ``root`` is that directory; ``image_file`` finds files in images, ``None`` where no container
    runtime can (volumes that need it are then refused); ``keep_unused`` is for how many seconds.
    """

    def __init__(
        self,
        root: Path,
        image_file: ImageFile | None = None,
        *,
        keep_unused: float = KEEP_UNUSED_SECONDS,
    ) -> None:
        self._machines = root / "machines"
        self._copies = ImageCopies(root / "images", keep_unused=keep_unused)
        self._image_file = image_file
        self._busy: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def prepare(
        self, uid: str, vmi: Mapping[str, Any], *, secret: SecretData | None = None
    ) -> MachineFiles:
        """Make the files of the VirtualMachineInstance ``vmi``, whose UID is ``uid``; all or none.

        A second call for the same ``uid`` returns the same files as they are now: disks are only
        ever made once, and go with :meth:`remove`. Raises ``InvalidSpec`` and ``Unsupported`` (the
        fields are named), ``ImagePullError``, ``Unavailable``.
        """
        _check_name(_UID, uid, "metadata.uid")
        async with self._lock(uid):
            target = self._machines / uid
            if (files := await blocking(_recorded, target)) is not None:
                return files
            work = self._machines / f".{uid}"
            try:
                await blocking(self._begin, work)
                files = await _Plan(self, work, target, vmi, secret).carry_out()
                await blocking(_complete, work, target, files)
            except BaseException:
                # Whoever cancels waits for this too, so that nothing is left when they are told.
                await asyncio.shield(self._take_away([work.name, uid]))
                raise
            return files

    async def remove(self, uid: str) -> None:
        """Take away all files of the machine. One that has none is success."""
        _check_name(_UID, uid, "metadata.uid")
        async with self._lock(uid):
            await self._take_away([uid])

    async def sweep(self, keep: Collection[str]) -> list[str]:
        """Take away the files of every machine whose UID is not in ``keep``, and what interrupted
        preparations left; returns the UIDs. Only safe while no preparation runs."""
        return await blocking(self._sweep, keep)

    # -- used by a plan ------------------------------------------------------------------------

    async def find(self, image: str, path: str | None, policy: str, where: str) -> FoundFile:
        """The file ``path`` of ``image``; ``where`` names the field for errors."""
        if self._image_file is None:
            message = "the container runtime here cannot give files out of images"
            raise Unsupported(f"{where}: {message}", causes=[Cause(where, message)])
        found = await self._image_file(image, path, pull_policy=policy)
        if not await blocking(_is_regular, found.path):
            message = f"{path or found.path.name!r} in image {image!r} is not a plain file"
            raise InvalidSpec(f"{where}: {message}", causes=[Cause(where, message)])
        return found

    async def link(self, found: FoundFile, target: Path, *, may_change: bool = False) -> None:
        """Give a machine the file as ``target``; ``may_change`` when its owner may be changed."""
        if may_change:
            await self._copies.link_copy(found, target)
        else:
            await self._copies.link(found, target)

    async def _take_away(self, names: Iterable[str]) -> None:
        await blocking(self._remove, names)
        await self._copies.prune()

    def _lock(self, name: str) -> asyncio.Lock:
        return self._busy.setdefault(name, asyncio.Lock())

    # -- blocking ------------------------------------------------------------------------------

    def _begin(self, work: Path) -> None:
        try:
            for directory in (self._machines, self._copies.folder):
                directory.mkdir(parents=True, exist_ok=True)
                directory.chmod(_PASS_THROUGH)
            shutil.rmtree(work, ignore_errors=True)  # of a preparation that was killed
            work.mkdir()
            work.chmod(_PASS_THROUGH)
        except OSError as error:
            raise Unavailable(f"cannot make the files of a machine: {error}") from error

    def _remove(self, uids: Iterable[str]) -> None:
        for uid in uids:
            shutil.rmtree(self._machines / uid, ignore_errors=True)
            if (self._machines / uid).exists():
                raise TandemError(f"cannot remove {self._machines / uid}")

    def _sweep(self, keep: Collection[str]) -> list[str]:
        try:
            found = [entry.name for entry in self._machines.iterdir()]
        except FileNotFoundError:
            return []
        stale = [name for name in found if name not in keep]
        self._remove(stale)
        self._copies.remove_unused(0, partial=True)
        return [name for name in stale if not name.startswith(".")]


class _Plan:
    """One machine's preparation: made in ``work``, to be found in ``target``."""

    def __init__(
        self,
        disks: MachineDisks,
        work: Path,
        target: Path,
        vmi: Mapping[str, Any],
        secret: SecretData | None,
    ) -> None:
        self._disks = disks
        self._work = work
        self._target = target
        self._vmi = vmi
        self._secret = secret

    async def carry_out(self) -> MachineFiles:
        spec = self._vmi["spec"]
        made: dict[str, DiskFile] = {}
        for index, volume in enumerate(spec.get("volumes") or ()):
            where = f"spec.volumes[{index}]"
            name = str(volume.get("name", ""))
            _check_name(_VOLUME, name, f"{where}.name")
            made[name] = await self._volume(volume, name, where)
        boot = (spec["domain"].get("firmware") or {}).get("kernelBoot") or {}
        container = boot.get("container") or {}
        return MachineFiles(
            disks=made,
            kernel=await self._boot_file(container, "kernelPath", "kernel"),
            initrd=await self._boot_file(container, "initrdPath", "initrd"),
        )

    async def _volume(self, volume: Mapping[str, Any], name: str, where: str) -> DiskFile:
        if "containerDisk" in volume:
            return await self._container_disk(volume["containerDisk"], name, where)
        if "cloudInitNoCloud" in volume:
            return await self._seed(volume["cloudInitNoCloud"], name, where)
        if "emptyDisk" in volume:
            return await self._empty_disk(volume["emptyDisk"], name, where)
        kinds = ", ".join(sorted(set(volume) - {"name"})) or "none"
        message = f"volume source {kinds} is not supported"
        raise Unsupported(f"{where}: {message}", causes=[Cause(where, message)])

    async def _container_disk(self, source: Mapping[str, Any], name: str, where: str) -> DiskFile:
        where = f"{where}.containerDisk"
        policy = source.get("imagePullPolicy") or "IfNotPresent"
        found = await self._disks.find(source["image"], source.get("path"), policy, where)
        try:
            info = await blocking(qcow2.inspect, found.path)
        except InvalidSpec as error:
            raise InvalidSpec(
                f"{where}: {error.message}", causes=[Cause(where, error.message)]
            ) from error
        base = f"{name}.{info.format}"
        await self._disks.link(found, self._work / base)
        overlay = f"{name}.overlay.qcow2"
        await blocking(qcow2.create, self._work / overlay, info.size, backing=(base, info.format))
        return DiskFile(self._target / overlay, "qcow2", self._target / base, info.format)

    async def _empty_disk(self, source: Mapping[str, Any], name: str, where: str) -> DiskFile:
        where = f"{where}.emptyDisk.capacity"
        try:
            size = to_bytes(source["capacity"]) // _ALIGNMENT * _ALIGNMENT
        except (KeyError, ValueError) as error:
            raise InvalidSpec(f"{where}: {error}", causes=[Cause(where, str(error))]) from error
        if not 0 < size <= qcow2.MAX_SIZE:
            message = "must be at least 1Mi and at most 64Ti"
            raise InvalidSpec(f"{where}: {message}", causes=[Cause(where, message)])
        file = f"{name}.qcow2"
        await blocking(qcow2.create, self._work / file, size)
        return DiskFile(self._target / file, "qcow2")

    async def _seed(self, source: Mapping[str, Any], name: str, where: str) -> DiskFile:
        where = f"{where}.cloudInitNoCloud"
        secrets = {}
        for wanted in cloudinit.secret_names(source):
            if self._secret is None:
                message = "secrets cannot be read here"
                raise Unsupported(f"{where}: {message}", causes=[Cause(where, message)])
            secrets[wanted] = await self._secret(wanted)
        spec, metadata = self._vmi["spec"], self._vmi["metadata"]
        firmware = spec["domain"].get("firmware") or {}
        files = cloudinit.no_cloud_files(
            source,
            field=where,
            instance_id=str(firmware.get("uuid") or metadata.get("uid", "")),
            hostname=str(spec.get("hostname") or metadata["name"]),
            secrets=secrets,
        )
        file = f"{name}.iso"
        image = iso9660.build(cloudinit.NO_CLOUD_LABEL, files)
        await blocking(_write_private, self._work / file, image)
        return DiskFile(self._target / file, "raw")

    async def _boot_file(self, container: Mapping[str, Any], key: str, file: str) -> Path | None:
        if not (path := container.get(key)):
            return None
        where = f"spec.domain.firmware.kernelBoot.container.{key}"
        policy = container.get("imagePullPolicy") or "IfNotPresent"
        found = await self._disks.find(str(container["image"]), str(path), policy, where)
        await self._disks.link(found, self._work / file, may_change=True)
        return self._target / file


def _check_name(rule: re.Pattern[str], name: str, where: str) -> None:
    if not rule.fullmatch(name):
        message = f'Invalid value: "{name}": must match {rule.pattern}'
        raise InvalidSpec(f"{where}: {message}", causes=[Cause(where, message)])


def _is_regular(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def _write_private(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _complete(work: Path, target: Path, files: MachineFiles) -> None:
    record = {
        "version": _RECORD_VERSION,
        "disks": {
            name: [
                disk.path.name,
                disk.format,
                disk.backing.name if disk.backing else None,
                disk.backing_format,
            ]
            for name, disk in files.disks.items()
        },
        "kernel": files.kernel.name if files.kernel else None,
        "initrd": files.initrd.name if files.initrd else None,
    }
    _write_private(work / _RECORD, json.dumps(record).encode())
    work.rename(target)


def _recorded(target: Path) -> MachineFiles | None:
    """What an earlier preparation made; a directory that is there is complete."""
    try:
        record = json.loads((target / _RECORD).read_bytes())
    except FileNotFoundError:
        return None
    assert record["version"] == _RECORD_VERSION, "no other version was ever written"
    return MachineFiles(
        disks={
            name: DiskFile(target / file, kind, target / backing if backing else None, under)
            for name, (file, kind, backing, under) in record["disks"].items()
        },
        kernel=target / record["kernel"] if record["kernel"] else None,
        initrd=target / record["initrd"] if record["initrd"] else None,
    )
