"""KubeVirt's admission rules for an instance's disks and shared file systems."""

from __future__ import annotations

from tandem.api.kind import Doc
from tandem.api.kinds.checks import choice_causes
from tandem.api.kinds.machine_causes import (
    invalid,
    label_causes,
    not_supported,
    required,
    text_causes,
)
from tandem.api.kinds.machine_firmware import is_enabled
from tandem.api.meta import get
from tandem.errors import Cause

TARGETS = ("disk", "cdrom", "lun")
SHARED = ("persistentVolumeClaim", "dataVolume", "configMap", "secret", "serviceAccount")
"""Volumes that may be a guest's shared file system."""

_BUSES = ("virtio", "scsi", "sata", "usb")
_CACHES = ("none", "writethrough", "writeback", "directsync")
_ERROR_POLICIES = ("stop", "ignore", "report", "enospace")
_BLOCK = (512, 2 << 20)
_MAX_TAG = 36  # of a virtiofs device


def disk_causes(spec: Doc, path: str, *, complete: bool) -> list[Cause]:
    """What is wrong with ``disks`` and ``filesystems``, and between them and the volumes.
    ``complete``: see ``instance_causes``."""
    disks = get(spec, "domain.devices.disks", [])
    volumes = {volume.get("name"): volume for volume in spec.get("volumes") or ()}
    base = f"{path}.domain.devices.disks"
    found = []
    seen: dict[str, int] = {}
    for index, disk in enumerate(disks):
        at = f"{base}[{index}]"
        name = disk.get("name") or ""
        if name in seen:
            message = f"{at} and {base}[{seen[name]}] must not have the same Name."
            found.append(invalid(f"{at}.name", message))
        elif name not in volumes and disk.get("cdrom") is None:
            found.append(invalid(f"{at}.name", f"{at}.Name '{name}' not found."))
        found += label_causes(name, f"{at}.name")
        seen.setdefault(name, index)
        found += _disk_causes(disk, volumes.get(name) or {}, at)
    found += _boot_order_causes(spec, path)
    found += _share_causes(spec, volumes, seen, path)
    if complete:
        used = {*seen, *(share.get("name") for share in _shares(spec))}
        found += [
            invalid(at, f"{at} '{name}' not found.")
            for index, volume in enumerate(spec.get("volumes") or ())
            if (name := volume.get("name")) and name not in used
            for at in [f"{path}.domain.volumes[{index}].name"]
        ]
    return found


def _disk_causes(disk: Doc, volume: Doc, path: str) -> list[Cause]:
    found = _target_causes(disk, volume, path)
    if serial := disk.get("serial"):
        found += text_causes(serial, path, f"{path}.serial")
    if (cache := disk.get("cache")) and cache not in _CACHES:
        found.append(invalid(f"{path}.cache", f"{path}.cache has invalid value {cache}"))
    if (mode := disk.get("io")) and mode not in ("native", "threads"):
        message = f"Disk IO mode for {path} is not supported. Supported modes are: native, threads."
        found.append(not_supported(f"{path}.io", message))
    if (policy := disk.get("errorPolicy")) and policy not in _ERROR_POLICIES:
        message = f'{path}.errorPolicy has invalid value "{policy}"'
        found.append(invalid(f"{path}.errorPolicy", message))
    if disk.get("shareable") and disk.get("cache") not in (None, "", "none", "directsync"):
        message = (
            "a sharable disk requires cache = none got: "
            f"{disk['cache']}: what one guest writes must be what the other reads"
        )
        found.append(invalid(f"{path}.cache", message))
    return found + _block_causes(disk, path)


def _target_causes(disk: Doc, volume: Doc, path: str) -> list[Cause]:
    targets = [target for target in TARGETS if disk.get(target) is not None]
    if len(targets) > 1:
        return [invalid(path, f"{path} can only have a single target type defined")]
    found = []
    bus = ""
    for target in targets:
        bus = disk[target].get("bus") or ""
        at = f"{path}.{target}.bus"
        if bus == "ide":
            found.append(invalid(at, "IDE bus is not supported"))
        elif bus and bus not in _BUSES:
            message = f"{path} is set with an unrecognized bus {bus}, must be one of: [{' '.join(_BUSES)}]"
            found.append(invalid(at, message))
        elif bus == "virtio" and target == "cdrom":
            found.append(invalid(at, "Bus type virtio is invalid for CD-ROM device"))
        elif bus == "sata" and target == "disk" and disk[target].get("readonly"):
            found.append(invalid(at, "sata hard-disks do not support read-only."))
        if target == "cdrom":
            found += choice_causes(disk[target], "tray", ("open", "closed"), f"{path}.cdrom")
        if (
            target == "lun"
            and volume
            and not (set(volume) & {"persistentVolumeClaim", "dataVolume"})
        ):
            message = "can only be mapped to a DataVolume or PersistentVolumeClaim volume."
            found.append(invalid(f"{path}.lun", f"{path}.lun {message}"))
        if target == "lun" and disk[target].get("reservation") and bus != "scsi":
            message = f"Persistent reservation requires a SCSI bus, but {bus} was specified"
            found.append(invalid(at, message))
    if disk.get("dedicatedIOThread") and bus not in ("", "virtio"):
        found.append(not_supported(path, f"IOThreads are not supported for disks on a {bus} bus"))
    return found


def _block_causes(disk: Doc, path: str) -> list[Cause]:
    size = get(disk, "blockSize.custom")
    at = f"{path}.blockSize"
    if size is None:
        return []
    if is_enabled(get(disk, "blockSize.matchVolume")):
        message = "Block size matching can't be enabled together with a custom value"
        return [invalid(at, message)]
    logical, physical = size.get("logical") or 0, size.get("physical") or 0
    if logical > physical:
        message = (
            f"Logical size {logical} must be the same or less than the physical size of {physical}"
        )
        return [invalid(f"{at}.custom.logical", message)]
    if get(disk, "disk.bus") == "sata" and logical != _BLOCK[0]:
        message = f"Logical size {logical} must be {_BLOCK[0]} for SATA devices"
        return [invalid(f"{at}.custom.logical", message)]
    if logical and (size.get("discardGranularity") or 0) % logical:
        message = (
            f"Discard granularity {size['discardGranularity']} must be multiples of logical size "
            f"{logical}"
        )
        return [invalid(f"{at}.custom.discardGranularity", message)]
    found = []
    for name, value in (("logical", logical), ("physical", physical)):
        words = f"Provided size of {value} is"
        if value < _BLOCK[0]:
            message = f"{words} less than the supported minimum size of {_BLOCK[0]}"
        elif value > _BLOCK[1]:
            message = f"{words} greater than the supported maximum size of {_BLOCK[1]}"
        elif value & (value - 1):
            message = f"{words} not a power of 2"
        else:
            continue
        found.append(invalid(f"{at}.custom.{name}", message))
    return found


def _boot_order_causes(spec: Doc, path: str) -> list[Cause]:
    """Disks and interfaces boot in one order."""
    found = []
    taken: set[int] = set()
    for kind in ("disks", "interfaces"):
        base = f"{path}.domain.devices.{kind}"
        for index, device in enumerate(get(spec, f"domain.devices.{kind}", [])):
            at = f"{base}[{index}].bootOrder"
            if (order := device.get("bootOrder")) is None:
                continue
            if order < 1:
                message = f"{base}[{index}] must have a boot order > 0, if supplied"
                found.append(invalid(at, message))
            elif order in taken:
                message = f"Boot order for {at} already set for a different device."
                found.append(invalid(at, message))
            taken.add(order)
    return found


def _shares(spec: Doc) -> list[Doc]:
    shares: list[Doc] = get(spec, "domain.devices.filesystems", [])
    return shares


def _share_causes(
    spec: Doc, volumes: dict[str, Doc], disks: dict[str, int], path: str
) -> list[Cause]:
    found = []
    seen: set[str] = set()
    for index, share in enumerate(_shares(spec)):
        at = f"{path}.domain.devices.filesystems[{index}]"
        name = share.get("name") or ""
        if name not in volumes:
            found.append(invalid(f"{at}.name", f"{at}.name '{name}' not found."))
        elif not set(volumes[name]) & set(SHARED):
            kinds = ", ".join(sorted(set(volumes[name]) - {"name"}))
            message = f"{at} cannot be a volume of the kind {kinds}, only of: [{' '.join(SHARED)}]"
            found.append(not_supported(f"{at}.name", message))
        if name in seen or name in disks:
            message = f"{at} and another device must not have the same Name."
            found.append(invalid(f"{at}.name", message))
        if len(name) > _MAX_TAG:
            message = f"{at}.name must be no more than {_MAX_TAG} characters"
            found.append(invalid(f"{at}.name", message))
        if share.get("virtiofs") is None:
            found.append(required(f"{at}.virtiofs", f"{at}.virtiofs is a required field"))
        seen.add(name)
    return found
