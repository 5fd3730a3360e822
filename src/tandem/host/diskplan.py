"""Which files a machine gets for which part of its spec.

Everything is made in one directory that is renamed when it is complete. What a guest or a Pod can have
written to is never believed: an image that outlives its machine is raw, or qcow2 by its name and not by
its content, which the guest could write; a file in a claim is taken as itself, not as what a link there
points to.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from tandem.errors import Cause, Unsupported
from tandem.host import cloudinit, diskfiles, firmware, iso9660, qcow2
from tandem.host.imagecopies import FoundFile
from tandem.host.machinefiles import (
    VOLUME,
    Claim,
    DiskFile,
    MachineFiles,
    Sources,
    check_name,
    owner_of,
    write_private,
)
from tandem.host.run import blocking

_MAX_BOOT_FILE = 1 << 30  # QEMU reads a kernel or a ramdisk into its own memory, whole
_IMAGE = "disk.img"  # in a claim
_OBJECTS = {
    "configMap": "cfgdata",
    "secret": "cfgdata",
    "downwardAPI": "cfgdata",
    "serviceAccount": "cfgdata",
    "sysprep": "unattendCfg",
}
"""Volumes made of objects, and the label of the CD that they become."""


class Store(Protocol):
    """Where images come from, and where what is kept goes."""

    async def find(self, image: str, path: str | None, policy: str, where: str) -> FoundFile:
        """The file ``path`` of ``image``; ``where`` names the field for errors."""
        ...

    async def link(self, found: FoundFile, target: Path, *, may_change: bool = False) -> None:
        """Give a machine the file as ``target``; ``may_change`` when its owner may be changed."""
        ...

    def state(self, owner: str) -> Path:
        """The directory of what is kept for a machine from one run to the next."""
        ...


class Plan:
    """One machine's preparation: made in ``work``, to be found in ``target``."""

    def __init__(
        self,
        store: Store,
        work: Path,
        target: Path,
        vmi: Mapping[str, Any],
        sources: Sources | None,
    ) -> None:
        self._store = store
        self._work = work
        self._target = target
        self._vmi = vmi
        self._sources = sources

    async def carry_out(self) -> MachineFiles:
        """Make everything. Raises what ``MachineDisks.prepare`` does."""
        spec = self._vmi["spec"]
        devices = spec["domain"].get("devices") or {}
        shared = {str(share.get("name")) for share in devices.get("filesystems") or ()}
        disks: dict[str, DiskFile] = {}
        shares: dict[str, Path] = {}
        for index, volume in enumerate(spec.get("volumes") or ()):
            where = f"spec.volumes[{index}]"
            name = str(volume.get("name", ""))
            check_name(VOLUME, name, f"{where}.name")
            if name in shared:
                shares[name] = await self._share(volume, name, where)
            else:
                disks[name] = await self._disk(volume, name, where)
        boot = (spec["domain"].get("firmware") or {}).get("kernelBoot") or {}
        container = boot.get("container") or {}
        return MachineFiles(
            disks=disks,
            shares=shares,
            kernel=await self._boot_file(container, "kernelPath", "kernel"),
            initrd=await self._boot_file(container, "initrdPath", "initrd"),
            nvram=await self._variables(),
        )

    async def _disk(self, volume: Mapping[str, Any], name: str, where: str) -> DiskFile:
        (kind, source), *_ = [item for item in volume.items() if item[0] != "name"] or [
            ("none", {})
        ]
        at = f"{where}.{kind}"
        if kind == "containerDisk":
            return await self._container_disk(source, name, at)
        if kind in ("cloudInitNoCloud", "cloudInitConfigDrive"):
            return await self._seed(kind, source, name, at)
        if kind == "emptyDisk":
            return await self._empty_disk(source, name, at)
        if kind == "hostDisk":
            return await blocking(self._host_disk, source, at)
        if kind == "persistentVolumeClaim":
            disk = await self._claimed(str(source["claimName"]), name, at)
            return _read_only(disk) if source.get("readOnly") else disk
        if kind == "dataVolume":
            return await self._claimed(str(source["name"]), name, at)
        if kind == "ephemeral":
            return await self._ephemeral(source, name, at)
        if kind in _OBJECTS:
            label = str(source.get("volumeLabel") or _OBJECTS[kind])
            return await self._cd(name, label, await self._content(volume, at))
        raise _unsupported(where, f"volume source {kind} is not supported")

    # -- out of images -------------------------------------------------------------------------

    async def _container_disk(self, source: Mapping[str, Any], name: str, where: str) -> DiskFile:
        policy = source.get("imagePullPolicy") or "IfNotPresent"
        found = await self._store.find(source["image"], source.get("path"), policy, where)
        info = await blocking(diskfiles.inspect, found.path, where)
        base = f"{name}.{info.format}"
        await self._store.link(found, self._work / base)
        overlay = f"{name}.overlay.qcow2"
        await blocking(qcow2.create, self._work / overlay, info.size, backing=(base, info.format))
        return DiskFile(self._target / overlay, "qcow2", self._target / base, info.format)

    async def _boot_file(self, container: Mapping[str, Any], key: str, file: str) -> Path | None:
        if not (path := container.get(key)):
            return None
        where = f"spec.domain.firmware.kernelBoot.container.{key}"
        policy = container.get("imagePullPolicy") or "IfNotPresent"
        found = await self._store.find(str(container["image"]), str(path), policy, where)
        if (await blocking(found.path.stat)).st_size > _MAX_BOOT_FILE:
            raise diskfiles.invalid(where, f"{path} in the image must not be larger than 1Gi")
        await self._store.link(found, self._work / file, may_change=True)
        return self._target / file

    # -- made here -----------------------------------------------------------------------------

    async def _empty_disk(self, source: Mapping[str, Any], name: str, where: str) -> DiskFile:
        size = diskfiles.size_of(source, f"{where}.capacity")
        file = f"{name}.qcow2"
        await blocking(qcow2.create, self._work / file, size)
        return DiskFile(self._target / file, "qcow2")

    async def _seed(self, kind: str, source: Mapping[str, Any], name: str, where: str) -> DiskFile:
        secrets = {wanted: self._secret(wanted, where) for wanted in cloudinit.secret_names(source)}
        spec, metadata = self._vmi["spec"], self._vmi["metadata"]
        board = spec["domain"].get("firmware") or {}
        no_cloud = kind == "cloudInitNoCloud"
        make = cloudinit.no_cloud_files if no_cloud else cloudinit.config_drive_files
        files = make(
            source,
            field=where,
            instance_id=str(board.get("uuid") or metadata.get("uid", "")),
            hostname=str(spec.get("hostname") or metadata["name"]),
            secrets=secrets,
            keys=self._keys("noCloud" if no_cloud else "configDrive"),
        )
        label = cloudinit.NO_CLOUD_LABEL if no_cloud else cloudinit.CONFIG_DRIVE_LABEL
        return await self._cd(name, label, files)

    def _keys(self, method: str) -> list[str]:
        """The SSH keys of those who may log in, as far as this kind of seed carries them."""
        found = []
        for index, credential in enumerate(self._vmi["spec"].get("accessCredentials") or ()):
            key = credential.get("sshPublicKey") or {}
            if (key.get("propagationMethod") or {}).get(method) is None:
                continue
            where = f"spec.accessCredentials[{index}].sshPublicKey"
            data = self._secret(str(key["source"]["secret"]["secretName"]), where)
            for name in sorted(data):
                lines = data[name].decode("utf-8", "replace").splitlines()
                found += [line.strip() for line in lines if line.strip()]
        return found

    async def _cd(self, name: str, label: str, files: Mapping[str, bytes]) -> DiskFile:
        file = f"{name}.iso"
        image = await blocking(iso9660.build, label, files)
        await blocking(write_private, self._work / file, image)
        return DiskFile(self._target / file, "raw")

    async def _content(self, volume: Mapping[str, Any], where: str) -> Mapping[str, bytes]:
        if self._sources is None:
            raise _unsupported(where, "objects cannot be read here")
        return await blocking(self._sources.files, volume)

    def _secret(self, name: str, where: str) -> Mapping[str, bytes]:
        if self._sources is None:
            raise _unsupported(where, "secrets cannot be read here")
        return self._sources.secret(name)

    async def _variables(self) -> Path | None:
        """EFI's variables: this run's, or the machine's own, which outlive it."""
        board = self._vmi["spec"]["domain"].get("firmware") or {}
        efi = (board.get("bootloader") or {}).get("efi")
        if efi is None:
            return None
        template = (
            await blocking(firmware.efi, secure=efi.get("secureBoot") is not False)
        ).variables
        if not efi.get("persistent"):
            await blocking(diskfiles.copy_private, template, self._work / "nvram.fd")
            return self._target / "nvram.fd"
        kept = self._store.state(owner_of(self._vmi)) / "nvram.fd"
        await blocking(diskfiles.keep, template, kept)
        return kept

    # -- what outlives the machine ---------------------------------------------------------------

    def _host_disk(self, source: Mapping[str, Any], where: str) -> DiskFile:
        path = Path(str(source["path"]))
        if source.get("type") == "DiskOrCreate" and not os.path.lexists(path):
            diskfiles.make_sparse(path, diskfiles.size_of(source, f"{where}.capacity"), where)
        disk = diskfiles.existing(path, f"{where}.path")
        shared = bool(source.get("shared"))
        return DiskFile(disk.path, disk.format, kind=disk.kind, shared=shared)

    async def _claimed(self, claim_name: str, name: str, where: str) -> DiskFile:
        if self._sources is None:
            raise _unsupported(where, "claims cannot be read here")
        claim = self._sources.claim(claim_name)
        return await blocking(self._disk_of, claim, name, where)

    def _disk_of(self, claim: Claim, name: str, where: str) -> DiskFile:
        """The claim's own disk, made or grown to the claim's size."""
        if stat.S_ISBLK(claim.path.stat().st_mode):
            return DiskFile(claim.path, "raw", kind="block")
        path = claim.path / _IMAGE
        size = claim.size // diskfiles.ALIGNMENT * diskfiles.ALIGNMENT
        if not os.path.lexists(path):
            diskfiles.make_sparse(path, size, where)
        # By a link of our own: who may write to the claim could otherwise put another file, or a
        # link to one, in its place before QEMU opens it.
        own = self._work / f"{name}.img"
        try:
            os.link(path, own, follow_symlinks=False)
            found = self._target / own.name
        except OSError:  # another file system
            own, found = path, path
        diskfiles.existing(own, where, raw=True)
        handle = os.open(own, os.O_RDWR | os.O_NOFOLLOW)
        try:
            length = os.fstat(handle).st_size
            if length < size:
                os.ftruncate(handle, size)
        finally:
            os.close(handle)
        return DiskFile(found, "raw")

    async def _ephemeral(self, source: Mapping[str, Any], name: str, where: str) -> DiskFile:
        claim = (source.get("persistentVolumeClaim") or {}).get("claimName")
        base = await self._claimed(str(claim), name, where)
        if base.kind == "block":
            raise _unsupported(where, "only a claim with a disk image can be the base")
        path = self._work / base.path.name if base.path.parent == self._target else base.path
        size = (await blocking(path.stat)).st_size
        overlay = f"{name}.overlay.qcow2"
        backing = (base.path.name if path.parent == self._work else str(path), base.format)
        await blocking(qcow2.create, self._work / overlay, size, backing=backing)
        return DiskFile(self._target / overlay, "qcow2", base.path, base.format, own_backing=True)

    async def _share(self, volume: Mapping[str, Any], name: str, where: str) -> Path:
        """A folder of the host: a claim's own, or one with what the objects hold."""
        source = volume.get("persistentVolumeClaim") or volume.get("dataVolume")
        if source is not None:
            if self._sources is None:
                raise _unsupported(where, "claims cannot be read here")
            return self._sources.claim(str(source.get("claimName") or source.get("name"))).path
        content = await self._content(volume, where)
        await blocking(diskfiles.write_folder, self._work / name, content)
        return self._target / name


def _read_only(disk: DiskFile) -> DiskFile:
    return DiskFile(disk.path, disk.format, kind=disk.kind, readonly=True)


def _unsupported(where: str, message: str) -> Unsupported:
    return Unsupported(f"{where}: {message}", causes=[Cause(where, message)])
