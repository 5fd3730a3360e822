"""What KubeVirt fills in: on a VirtualMachine's template little, on an instance everything.

Where KubeVirt draws a random identity, it is derived here from the object's UID: an object always gets
the same one, however often and by whichever verb it is written.
"""

from __future__ import annotations

import uuid

from tandem.api.kind import Doc
from tandem.api.kinds.images import pull_policy
from tandem.api.kinds.machine_firmware import HYPERV_REQUIRES, is_enabled
from tandem.api.quantity import to_millis

DEFAULT_GRACE_SECONDS = 30
MACHINE_TYPE = "q35"
ARCHITECTURE = "amd64"

_TARGETS = ("disk", "cdrom", "lun")


def default_identity(spec: Doc, owner_uid: str) -> None:
    """Firmware identity, architecture and machine type: stable for the life of ``owner_uid``."""
    domain = spec.setdefault("domain", {})
    firmware = domain.setdefault("firmware", {})
    if owner_uid:
        base = (
            uuid.UUID(owner_uid)
            if _is_uuid(owner_uid)
            else uuid.uuid5(uuid.NAMESPACE_OID, owner_uid)
        )
        firmware.setdefault("uuid", str(uuid.uuid5(base, "firmware.uuid")))
        firmware.setdefault("serial", str(uuid.uuid5(base, "firmware.serial")))
    domain.setdefault("machine", {}).setdefault("type", MACHINE_TYPE)
    domain.setdefault("resources", {})
    domain.setdefault("devices", {})
    spec.setdefault("architecture", ARCHITECTURE)


def default_instance(spec: Doc) -> None:
    """Everything an instance needs to be started, beyond its identity."""
    domain = spec["domain"]
    _default_size(domain)
    for volume in spec.get("volumes") or ():
        if disk := volume.get("containerDisk"):
            disk.setdefault("imagePullPolicy", pull_policy(str(disk.get("image", ""))))
    container = ((domain["firmware"].get("kernelBoot") or {}).get("container")) or {}
    if container.get("image"):
        container.setdefault("imagePullPolicy", pull_policy(str(container["image"])))
    _default_network(spec)
    _default_disks(spec)
    _default_devices(domain["devices"])
    domain["cpu"].setdefault("model", "host-model")
    features = domain.setdefault("features", {})
    features.setdefault("acpi", {}).setdefault("enabled", True)
    if hyperv := features.get("hyperv"):
        for name, needed in HYPERV_REQUIRES.items():
            if is_enabled(hyperv.get(name)):
                hyperv.setdefault(needed, {}).setdefault("enabled", True)
    spec.setdefault("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS)


def _default_size(domain: Doc) -> None:
    resources = domain["resources"]
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    if "cpu" in limits and "cpu" not in requests:
        requests = {**requests, "cpu": limits["cpu"]}
        resources["requests"] = requests
    memory = domain.setdefault("memory", {})
    page = (memory.get("hugepages") or {}).get("pageSize")
    if asked := requests.get("memory") or limits.get("memory") or page:
        memory.setdefault("guest", asked)
    cpu = domain.setdefault("cpu", {})
    if not any(cpu.get(part) for part in ("sockets", "cores", "threads")):
        asked = limits.get("cpu") or requests.get("cpu")
        cpu["sockets"] = max(1, -(-_millis(asked) // 1000)) if asked else 1
    for part in ("sockets", "cores", "threads"):
        if not cpu.get(part):
            cpu[part] = 1


def _default_network(spec: Doc) -> None:
    devices = spec["domain"]["devices"]
    if spec.get("networks") or devices.get("interfaces"):
        return
    if devices.get("autoattachPodInterface") is not False:
        spec["networks"] = [{"name": "default", "pod": {}}]
        devices["interfaces"] = [{"name": "default", "bridge": {}}]


def _default_disks(spec: Doc) -> None:
    devices = spec["domain"]["devices"]
    disks = devices.get("disks") or []
    named = {disk.get("name") for disk in (*disks, *(devices.get("filesystems") or ()))}
    disks += [
        {"name": volume["name"]}
        for volume in spec.get("volumes") or ()
        if volume.get("name") and volume["name"] not in named
    ]
    for disk in disks:
        if not any(disk.get(target) is not None for target in _TARGETS):
            disk["disk"] = {}
        for target in _TARGETS:
            if disk.get(target) is not None:
                disk[target].setdefault("bus", "sata")
        if (cdrom := disk.get("cdrom")) is not None:
            cdrom.setdefault("readonly", True)
            cdrom.setdefault("tray", "closed")
    if disks:
        devices["disks"] = disks


def _default_devices(devices: Doc) -> None:
    if devices.get("autoattachInputDevice") and not devices.get("inputs"):
        devices["inputs"] = [{"name": "default-0"}]
    for device in devices.get("inputs") or ():
        device.setdefault("bus", "usb")
        device.setdefault("type", "tablet")
    if (watchdog := (devices.get("watchdog") or {}).get("i6300esb")) is not None:
        watchdog.setdefault("action", "reset")


def _millis(quantity: object) -> int:
    try:
        return to_millis(quantity)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return 1000  # what is wrong with it is said by the rules


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
