"""Disks, CD-ROMs and LUNs, and the threads that serve them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple
from xml.etree.ElementTree import Element

from tandem.host.machinefiles import DiskFile, MachineFiles
from tandem.runtimes.libvirt.parts.element import Doc, add, part, refused, virtio
from tandem.runtimes.libvirt.parts.processor import vcpus

_PREFIXES = {"virtio": "vd", "sata": "sd", "scsi": "sd", "usb": "sd"}
_DEVICES = ("cdrom", "lun", "disk")
_UNCACHED = ("none", "directsync")


class Entry(NamedTuple):
    """A disk of the spec: where it stands there, what it is, and on which bus."""

    position: int
    disk: Doc
    device: str
    target: Doc
    bus: str


def entries(wanted: Doc) -> Iterator[Entry]:
    """Every disk that is asked for."""
    for index, disk in enumerate(wanted.get("disks") or ()):
        device = next((name for name in _DEVICES if disk.get(name) is not None), "disk")
        target = disk.get(device) or {}
        yield Entry(index, disk, device, target, str(target.get("bus") or "sata"))


class Threads:
    """Which thread of QEMU serves which disk; 0 for the main one. Only virtio disks have a choice."""

    def __init__(self, domain: Doc) -> None:
        able = [entry.disk for entry in entries(part(domain, "devices")) if entry.bus == "virtio"]
        alone = [str(disk["name"]) for disk in able if disk.get("dedicatedIOThread")]
        others = [str(disk["name"]) for disk in able if not disk.get("dedicatedIOThread")]
        policy = domain.get("ioThreadsPolicy")
        shared = 0
        if policy == "auto":
            shared = max(1, min(len(others), 2 * vcpus(domain) - len(alone)))
        elif policy == "supplementalPool":
            shared = part(domain, "ioThreads").get("supplementalPoolThreadCount") or 1
        elif policy or alone:
            shared = 1
        if policy == "supplementalPool":
            others, alone = [*alone, *others], []
        self.count = (shared if others else 0) + len(alone)
        self._of: Mapping[str, int] = {
            **{name: 1 + index % shared for index, name in enumerate(others) if shared},
            **{name: self.count - index for index, name in enumerate(alone)},
        }

    def of(self, name: str) -> int:
        """The number of the thread of the disk ``name``."""
        return self._of.get(name, 0)


def add_threads(root: Element, threads: Threads) -> None:
    """So many threads there are."""
    if threads.count:
        add(root, "iothreads", str(threads.count))


def add_disks(devices: Element, domain: Doc, files: MachineFiles, threads: Threads) -> None:
    """All of them, named for the guest in the order of the spec."""
    taken: dict[str, int] = {}
    for entry in entries(part(domain, "devices")):
        name = str(entry.disk["name"])
        file = files.disks.get(name)
        if file is None and entry.device != "cdrom":
            raise refused(
                f"spec.domain.devices.disks[{entry.position}].name", f"'{name}' not found."
            )
        if entry.device == "lun" and file and file.kind != "block":
            message = "a LUN must be a block device, and what the volume gives is a file"
            raise refused(f"spec.domain.devices.disks[{entry.position}].lun", message)
        prefix = _PREFIXES[entry.bus]
        number = taken[prefix] = taken.get(prefix, -1) + 1
        _add_disk(devices, domain, entry, file, threads.of(name), prefix + _letters(number))


def _add_disk(
    devices: Element, domain: Doc, entry: Entry, file: DiskFile | None, thread: int, target: str
) -> None:
    disk, device, bus = entry.disk, entry.device, entry.bus
    wanted = part(domain, "devices")
    kind = file.kind if file else "file"
    element = add(devices, "disk", type=kind, device=device)
    if bus == "virtio":
        element.set("model", virtio(wanted))
    driver = add(element, "driver", name="qemu", type=file.format if file else "raw")
    if device != "cdrom" or file:
        driver.set("error_policy", str(disk.get("errorPolicy") or "stop"))
    if cache := _cache(disk):
        driver.set("cache", cache)
    if mode := disk.get("io"):
        driver.set("io", str(mode))
    if device != "cdrom":
        driver.set("discard", "unmap")
    if thread:
        driver.set("iothread", str(thread))
    if wanted.get("blockMultiQueue") and bus == "virtio":
        driver.set("queues", str(vcpus(domain)))
    if file:
        add(element, "source", **{"dev" if kind == "block" else "file": str(file.path)})
        _add_backing(element, file)
    where = add(element, "target", dev=target, bus=bus)
    if device == "cdrom" and (tray := entry.target.get("tray")):
        where.set("tray", str(tray))
    if size := part(disk, "blockSize", "custom"):
        block = add(element, "blockio", logical_block_size=str(size["logical"]))
        block.set("physical_block_size", str(size["physical"]))
        if granularity := size.get("discardGranularity"):
            block.set("discard_granularity", str(granularity))
    if entry.target.get("readonly", device == "cdrom") or (file and file.readonly):
        add(element, "readonly")
    if disk.get("shareable") or (file and file.shared):
        add(element, "shareable")
    if serial := disk.get("serial"):
        add(element, "serial", str(serial))
    if order := disk.get("bootOrder"):
        add(element, "boot", order=str(order))
    add(element, "alias", name=f"ua-{disk['name']}")


def _cache(disk: Doc) -> str:
    """What two machines share, and what QEMU hands to the kernel's own queue, must not be cached."""
    asked = str(disk.get("cache") or "")
    if asked not in _UNCACHED and (disk.get("shareable") or disk.get("io") == "native"):
        return "none"
    return asked


def _add_backing(element: Element, file: DiskFile) -> None:
    """Say what a disk lies on, so that libvirt need not look, and must not give it to QEMU's user
    where it belongs to the container runtime and to other machines as well."""
    if file.backing is None:
        # Whatever the file says of itself is not looked at either.
        add(element, "backingStore")
        return
    backing = add(element, "backingStore", type="file")
    add(backing, "format", type=file.backing_format)
    source = add(backing, "source", file=str(file.backing))
    if not file.own_backing:
        add(source, "seclabel", model="dac", relabel="no")
    add(backing, "backingStore")


def _letters(number: int) -> str:
    """a, b, ... z, aa, ab, ...: how the kernel names the disks of a bus."""
    name = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, 26)
        name = chr(ord("a") + digit) + name
    return name
