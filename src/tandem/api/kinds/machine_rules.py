"""KubeVirt's admission rules for an instance's spec, in KubeVirt's words, by field."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from tandem.api import causes
from tandem.api.kind import Doc
from tandem.api.kinds.checks import choice_causes, quantity_causes
from tandem.api.kinds.images import PULL_POLICIES
from tandem.api.kinds.machine_defaults import ARCHITECTURE
from tandem.api.kinds.machine_networks import network_causes
from tandem.api.meta import get, name_causes
from tandem.api.quantity import parse_quantity, to_bytes
from tandem.errors import Cause

USER_DATA_LIMIT = 2048
"""Bytes of user data and of network data in a manifest; KubeVirt's, so that manifests stay portable."""

_BUSES = ("virtio", "sata", "scsi", "usb")
_CACHES = ("none", "writethrough", "writeback")
_TARGETS = ("disk", "cdrom", "lun")
_MACHINE_TYPE = re.compile(r"q35|pc-q35[a-zA-Z0-9._-]*")
_SERIAL = re.compile(r"[A-Za-z0-9_.+-]{0,256}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_MIN_MEMORY = 1_000_000
_MAX_VCPUS = 512


def instance_causes(spec: Doc, path: str, *, complete: bool) -> list[Cause]:
    """What is wrong with an instance's spec.

    ``complete``: defaults have been filled in (an instance), so that every volume must have its disk;
    False for a VirtualMachine's template, which is completed only when it is started.
    """
    domain = spec.get("domain") or {}
    found = _memory_causes(domain, f"{path}.domain")
    found += _resource_causes(domain, f"{path}.domain.resources")
    found += _cpu_causes(domain, f"{path}.domain.cpu")
    found += _firmware_causes(domain, f"{path}.domain")
    found += _volume_causes(spec, path)
    found += _disk_causes(spec, path, complete=complete)
    found += network_causes(spec, path)
    if spec.get("hostname"):
        found += name_causes(spec["hostname"], f"{path}.hostname", "dns1123label")
    if (architecture := spec.get("architecture")) not in (None, "", ARCHITECTURE):
        found.append(causes.not_supported(f"{path}.architecture", architecture, [ARCHITECTURE]))
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0:
        message = "must be greater than or equal to 0"
        found.append(causes.invalid(f"{path}.terminationGracePeriodSeconds", grace, message))
    return found


def _memory_causes(domain: Doc, path: str) -> list[Cause]:
    guest = get(domain, "memory.guest")
    requests = get(domain, "resources.requests", {})
    limits = get(domain, "resources.limits", {})
    if guest is None and "memory" not in requests and "memory" not in limits:
        return [
            causes.required(
                f"{path}.memory.guest",
                "no memory requested, at least one of 'spec.domain.memory.guest', "
                "'spec.domain.memory.hugepages.pageSize' or 'spec.domain.resources.requests.memory' "
                "must be set",
            )
        ]
    found = []
    if guest is not None:
        found = quantity_causes(guest, f"{path}.memory.guest")
        if not found and to_bytes(guest) < _MIN_MEMORY:
            message = "must be greater than or equal to 1M."
            found.append(causes.invalid(f"{path}.memory.guest", str(guest), message))
    return found


def _resource_causes(domain: Doc, path: str) -> list[Cause]:
    resources = domain.get("resources") or {}
    found = []
    usable: dict[tuple[str, str], Any] = {}
    for section in ("requests", "limits"):
        for name, value in (resources.get(section) or {}).items():
            at = f"{path}.{section}.{name}"
            if name not in ("cpu", "memory"):
                found.append(causes.not_supported(at, name, ("cpu", "memory")))
            elif wrong := quantity_causes(value, at):
                found += wrong
            elif name == "memory" and to_bytes(value) < _MIN_MEMORY:
                found.append(causes.invalid(at, str(value), "must be greater than or equal to 1M."))
            else:
                usable[section, name] = value
    for name in ("cpu", "memory"):
        request, limit = usable.get(("requests", name)), usable.get(("limits", name))
        if request is None or limit is None or parse_quantity(request) <= parse_quantity(limit):
            continue
        message = f"is greater than {path}.limits.{name} '{limit}'"
        found.append(causes.invalid(f"{path}.requests.{name}", str(request), message))
    return found


def _cpu_causes(domain: Doc, path: str) -> list[Cause]:
    cpu = domain.get("cpu") or {}
    found = []
    total = 1
    for part in ("sockets", "cores", "threads"):
        value = cpu.get(part)
        if value is None:
            continue
        if value < 0:
            found.append(
                causes.invalid(f"{path}.{part}", value, "must be greater than or equal to 0")
            )
        total *= max(1, value)
    if total > _MAX_VCPUS:
        found.append(causes.invalid(path, total, f"must not ask for more than {_MAX_VCPUS} vCPUs"))
    return found


def _firmware_causes(domain: Doc, path: str) -> list[Cause]:
    found = []
    machine = get(domain, "machine.type")
    if machine and not _MACHINE_TYPE.fullmatch(machine):
        message = (
            f"{path}.machine.type is not supported: {machine} (allowed values: [q35* pc-q35*])"
        )
        found.append(causes.invalid(f"{path}.machine.type", machine, message))
    if (uuid := get(domain, "firmware.uuid")) and not _UUID.fullmatch(uuid):
        found.append(causes.invalid(f"{path}.firmware.uuid", uuid, "must be a UUID"))
    if (serial := get(domain, "firmware.serial")) and not _SERIAL.fullmatch(serial):
        message = "must be at most 256 of the characters A-Z a-z 0-9 _ . + -"
        found.append(causes.invalid(f"{path}.firmware.serial", serial, message))
    if (boot := get(domain, "firmware.kernelBoot")) is not None:
        found += _kernel_boot_causes(boot, f"{path}.firmware.kernelBoot")
    return found


def _kernel_boot_causes(boot: Doc, path: str) -> list[Cause]:
    container = boot.get("container")
    if not container:
        if boot.get("kernelArgs"):
            message = "kernel arguments cannot be provided without an external kernel"
            return [causes.invalid(f"{path}.kernelArgs", boot["kernelArgs"], message)]
        return []
    found = []
    if not container.get("image"):
        message = "must be defined with an image"
        found.append(causes.required(f"{path}.container.image", message))
    kernel, initrd = container.get("kernelPath"), container.get("initrdPath")
    if not kernel and not initrd:
        message = "must be defined with at least one of the following: kernelPath, initrdPath"
        found.append(causes.required(f"{path}.container", message))
    if boot.get("kernelArgs") and not kernel:
        message = "kernel arguments cannot be provided without an external kernel"
        found.append(causes.invalid(f"{path}.kernelArgs", boot["kernelArgs"], message))
    for name, value in (("kernelPath", kernel), ("initrdPath", initrd)):
        if value:
            found += _image_path_causes(value, f"{path}.container.{name}")
    return found + choice_causes(container, "imagePullPolicy", PULL_POLICIES, f"{path}.container")


def _image_path_causes(value: str, path: str) -> list[Cause]:
    if not value.startswith("/"):
        return [causes.invalid(path, value, "must be an absolute path to a file")]
    if value == "/":
        return [causes.invalid(path, value, "must not point to root")]
    if any(part in (".", "..") for part in value.split("/")):
        return [causes.invalid(path, value, "must not contain relative path components")]
    return []


def _volume_causes(spec: Doc, path: str) -> list[Cause]:
    found = []
    seen: dict[str, int] = {}
    for index, volume in enumerate(spec.get("volumes") or ()):
        at = f"{path}.volumes[{index}]"
        name = volume.get("name")
        if not name:
            found.append(causes.required(f"{at}.name"))
        else:
            found += name_causes(name, f"{at}.name", "dns1123label")
            if name in seen:
                message = f"{path}.volumes[{seen[name]}] and {at} must not have the same Name."
                found.append(Cause(f"{at}.name", message, "FieldValueDuplicate"))
            seen.setdefault(name, index)
        sources = [
            field for field, value in volume.items() if field != "name" and value is not None
        ]
        if len(sources) != 1:
            found.append(causes.invalid(at, sources, "must have exactly one source type set"))
        if (disk := volume.get("containerDisk")) is not None:
            found += _container_disk_causes(disk, f"{at}.containerDisk")
        if (cloud := volume.get("cloudInitNoCloud")) is not None:
            found += _cloud_init_causes(cloud, f"{at}.cloudInitNoCloud")
        if (empty := volume.get("emptyDisk")) is not None:
            found += _empty_disk_causes(empty, f"{at}.emptyDisk")
    return found


def _container_disk_causes(disk: Doc, path: str) -> list[Cause]:
    found = []
    if not disk.get("image"):
        found.append(causes.required(f"{path}.image"))
    if disk.get("path"):
        found += _image_path_causes(disk["path"], f"{path}.path")
    return found + choice_causes(disk, "imagePullPolicy", PULL_POLICIES, path)


def _empty_disk_causes(disk: Doc, path: str) -> list[Cause]:
    if disk.get("capacity") is None:
        return [causes.required(f"{path}.capacity")]
    found = quantity_causes(disk["capacity"], f"{path}.capacity")
    if not found and to_bytes(disk["capacity"]) < 1024 * 1024:
        found.append(
            causes.invalid(f"{path}.capacity", str(disk["capacity"]), "must be at least 1Mi")
        )
    return found


def _cloud_init_causes(cloud: Doc, path: str) -> list[Cause]:
    found = []
    users = [name for name in ("userData", "userDataBase64", "secretRef") if cloud.get(name)]
    nets = [
        name
        for name in ("networkData", "networkDataBase64", "networkDataSecretRef")
        if cloud.get(name)
    ]
    if not users and not nets:
        message = "must have at least one userdatasource or one networkdatasource set."
        found.append(causes.invalid(path, "", message))
    if len(users) > 1:
        found.append(causes.invalid(path, users, "must have only one userdatasource set."))
    if len(nets) > 1:
        found.append(causes.invalid(path, nets, "must have only one networkdatasource set."))
    for name, what, secret in (
        ("userData", "userdata", "UserDataSecretRef"),
        ("networkData", "networkdata", "NetworkDataSecretRef"),
    ):
        plain, encoded = cloud.get(name), cloud.get(f"{name}Base64")
        size = len(str(plain).encode()) if plain else 0
        if encoded:
            try:
                size = len(base64.b64decode(encoded, validate=True))
            except (binascii.Error, ValueError):
                message = f"is not a valid base64 value of {what}"
                found.append(causes.invalid(f"{path}.{name}Base64", encoded, message))
        if size > USER_DATA_LIMIT:
            message = (
                f"{what} exceeds {USER_DATA_LIMIT} byte limit. Should use {secret} for larger data."
            )
            found.append(Cause(f"{path}.{name}", f"Invalid value: {message}"))
    return found + [
        causes.required(f"{path}.{name}.name")
        for name in ("secretRef", "networkDataSecretRef")
        if cloud.get(name) is not None and not cloud[name].get("name")
    ]


def _disk_causes(spec: Doc, path: str, *, complete: bool) -> list[Cause]:
    disks = get(spec, "domain.devices.disks", [])
    volumes = {volume.get("name") for volume in spec.get("volumes") or ()}
    base = f"{path}.domain.devices.disks"
    found = []
    seen: dict[str, int] = {}
    orders: set[int] = set()
    for index, disk in enumerate(disks):
        at = f"{base}[{index}]"
        name = disk.get("name")
        if not name:
            found.append(causes.required(f"{at}.name"))
        elif name in seen:
            message = f"{base}[{seen[name]}] and {at} must not have the same Name."
            found.append(Cause(f"{at}.name", message, "FieldValueDuplicate"))
        elif name not in volumes:
            found.append(causes.invalid(f"{at}.name", name, f"{at}.Name '{name}' not found."))
        seen.setdefault(name or "", index)
        found += _disk_target_causes(disk, at)
        found += _boot_order_causes(disk, at, orders)
        found += choice_causes(disk, "cache", _CACHES, at)
        if (serial := disk.get("serial")) and not _SERIAL.fullmatch(serial):
            message = (
                "must be made up of the characters A-Z a-z 0-9 _ . + - and be at most 256 long"
            )
            found.append(causes.invalid(f"{at}.serial", serial, message))
    if complete:
        found += [
            causes.invalid(f"{path}.domain.volumes[{index}].name", name, f"'{name}' not found.")
            for index, volume in enumerate(spec.get("volumes") or ())
            if (name := volume.get("name")) and name not in seen
        ]
    return found


def _disk_target_causes(disk: Doc, path: str) -> list[Cause]:
    targets = [target for target in _TARGETS if disk.get(target) is not None]
    if len(targets) > 1:
        return [causes.invalid(path, targets, f"{path} can only have a single target type defined")]
    found = []
    for target in targets:
        bus = disk[target].get("bus")
        at = f"{path}.{target}.bus"
        if bus == "ide":
            found.append(causes.invalid(at, bus, "IDE bus is not supported"))
        elif bus and bus not in _BUSES:
            message = f"{path} is set with an unrecognized bus {bus}, must be one of: [{' '.join(_BUSES)}]"
            found.append(causes.invalid(at, bus, message))
        elif bus == "virtio" and target == "cdrom":
            found.append(causes.invalid(at, bus, "Bus type virtio is invalid for CD-ROM device"))
        elif bus == "sata" and target == "disk" and disk[target].get("readonly"):
            message = "sata hard-disks do not support read-only."
            found.append(causes.invalid(f"{path}.disk.bus", bus, message))
        if target == "cdrom":
            found += choice_causes(disk[target], "tray", ("open", "closed"), f"{path}.cdrom")
    return found


def _boot_order_causes(device: Doc, path: str, taken: set[int]) -> list[Cause]:
    order = device.get("bootOrder")
    if order is None:
        return []
    if order < 1:
        message = f"{path} must have a boot order > 0, if supplied"
        return [causes.invalid(f"{path}.bootOrder", order, message)]
    if order in taken:
        message = f"Boot order for {path} already set for a different device."
        return [causes.invalid(f"{path}.bootOrder", order, message)]
    taken.add(order)
    return []
