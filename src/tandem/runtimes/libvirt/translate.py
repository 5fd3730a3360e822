"""From a VirtualMachineInstance to libvirt domain XML. Pure: no I/O, no clock, no chance.

The same instance and files always give the same XML, held by golden files in ``tests/golden/libvirt``.
The XML asks for KVM; the adapter makes it an emulated machine where KVM does not work. The devices are
KubeVirt's (q35, virtio, a serial console, VNC on a unix socket, the guest agent's channel), so that a
guest finds the same machine here and there. Nothing listens on a TCP port.

What is not supported has been refused at admission; the document is valid and its defaults are filled
in, but an instance that has not been through admission (library use) works as well.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from tandem.api.quantity import to_bytes, to_millis
from tandem.errors import Cause, InvalidSpec
from tandem.host.disks import DiskFile, MachineFiles

Doc = Mapping[str, Any]

_VIRTIO = "virtio-non-transitional"  # modern virtio only, as KubeVirt has it
_PREFIXES = {"virtio": "vd", "sata": "sd", "scsi": "sd", "usb": "sd"}
_AGENT = "org.qemu.guest_agent.0"
_MAC_PREFIX = "52:54:00"  # QEMU's

# What the SMBIOS tables say to the guest.
_MANUFACTURER, _PRODUCT = "Tandem", "Virtual Machine"


def domain_xml(vmi: Doc, files: MachineFiles) -> str:
    """The domain for ``vmi``, whose disks and kernel are ``files``.

    Raises ``InvalidSpec`` for what admission would have refused (no memory, a disk without a file).
    """
    metadata, spec = vmi["metadata"], vmi["spec"]
    domain = spec["domain"]
    firmware = domain.get("firmware") or {}
    identity = str(firmware.get("uuid") or _derived_uuid(metadata))

    root = Element("domain", {"type": "kvm"})
    _add(root, "name", f"{metadata['namespace']}_{metadata['name']}")
    _add(root, "uuid", identity)
    _add(root, "memory", str(_memory(domain)), unit="b")
    _add_cpu(root, domain)
    _add_sysinfo(root, identity, firmware)
    _add_os(root, domain, files)
    features = _add(root, "features")
    if ((domain.get("features") or {}).get("acpi") or {}).get("enabled", True):
        _add(features, "acpi")
    _add(features, "apic")
    _add(features, "vmport", state="off")
    _add(root, "clock", offset="utc")
    _add(root, "on_poweroff", "destroy")
    _add(root, "on_reboot", "restart")
    _add(root, "on_crash", "destroy")

    wanted = domain.get("devices") or {}
    devices = _add(root, "devices")
    _add_disks(devices, wanted, files)
    _add_controllers(devices, wanted)
    _add_interfaces(devices, spec, wanted, identity)
    _add_consoles(devices, wanted)
    if wanted.get("rng") is not None:
        rng = _add(devices, "rng", model=_VIRTIO)
        _add(rng, "backend", "/dev/urandom", model="random")
    if wanted.get("autoattachMemBalloon", True):
        balloon = _add(devices, "memballoon", model=_VIRTIO, freePageReporting="on")
        _add(balloon, "stats", period="10")
    else:
        _add(devices, "memballoon", model="none")
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _add(parent: Element, tag: str, text: str | None = None, **attributes: str) -> Element:
    element = ElementTree.SubElement(parent, tag, attributes)
    element.text = text
    return element


def _invalid(field: str, message: str) -> InvalidSpec:
    return InvalidSpec(f"{field}: {message}", causes=[Cause(field, message)])


def _derived_uuid(metadata: Doc) -> uuid.UUID:
    name = f"{metadata['namespace']}/{metadata['name']}/{metadata.get('uid', '')}"
    return uuid.uuid5(uuid.NAMESPACE_URL, f"https://tandem.dev/machines/{name}")


# -- processor, memory, firmware ----------------------------------------------------------------------


def _memory(domain: Doc) -> int:
    resources = domain.get("resources") or {}
    asked = (
        (domain.get("memory") or {}).get("guest")
        or (resources.get("requests") or {}).get("memory")
        or (resources.get("limits") or {}).get("memory")
    )
    if asked is None:
        raise _invalid("spec.domain.memory.guest", "Required value")
    return to_bytes(asked)


def _topology(domain: Doc) -> tuple[int, int, int]:
    """Sockets, cores, threads; a processor request stands for so many sockets."""
    cpu = domain.get("cpu") or {}
    if not any(cpu.get(part) for part in ("sockets", "cores", "threads")):
        resources = domain.get("resources") or {}
        asked = (resources.get("limits") or {}).get("cpu") or (resources.get("requests") or {}).get(
            "cpu"
        )
        return (max(1, -(-to_millis(asked) // 1000)) if asked else 1), 1, 1
    return cpu.get("sockets") or 1, cpu.get("cores") or 1, cpu.get("threads") or 1


def _add_cpu(root: Element, domain: Doc) -> None:
    sockets, cores, threads = _topology(domain)
    _add(root, "vcpu", str(sockets * cores * threads), placement="static")
    model = str((domain.get("cpu") or {}).get("model") or "host-model")
    if model in ("host-model", "host-passthrough"):
        cpu = _add(root, "cpu", mode=model)
    else:
        cpu = _add(root, "cpu", mode="custom", match="exact")
        _add(cpu, "model", model)
    _add(cpu, "topology", sockets=str(sockets), dies="1", cores=str(cores), threads=str(threads))


def _add_sysinfo(root: Element, identity: str, firmware: Doc) -> None:
    system = _add(_add(root, "sysinfo", type="smbios"), "system")
    _add(system, "entry", _MANUFACTURER, name="manufacturer")
    _add(system, "entry", _PRODUCT, name="product")
    if serial := firmware.get("serial"):
        _add(system, "entry", str(serial), name="serial")
    _add(system, "entry", identity, name="uuid")


def _add_os(root: Element, domain: Doc, files: MachineFiles) -> None:
    system = _add(root, "os")
    machine = str((domain.get("machine") or {}).get("type") or "q35")
    _add(system, "type", "hvm", arch="x86_64", machine=machine)
    if files.kernel:
        _add(system, "kernel", str(files.kernel))
    if files.initrd:
        _add(system, "initrd", str(files.initrd))
    arguments = ((domain.get("firmware") or {}).get("kernelBoot") or {}).get("kernelArgs")
    if arguments and files.kernel:
        _add(system, "cmdline", str(arguments))
    _add(system, "smbios", mode="sysinfo")


# -- disks ---------------------------------------------------------------------------------------------


def _targets(wanted: Doc) -> Iterator[tuple[int, Doc, str, Doc, str]]:
    """Each disk entry: index, entry, device (disk, cdrom), its target's document, and its bus."""
    for index, disk in enumerate(wanted.get("disks") or ()):
        device = "cdrom" if disk.get("cdrom") is not None else "disk"
        target = disk.get(device) or {}
        yield index, disk, device, target, str(target.get("bus") or "sata")


def _add_disks(devices: Element, wanted: Doc, files: MachineFiles) -> None:
    taken: dict[str, int] = {}
    for index, disk, device, target, bus in _targets(wanted):
        name = str(disk["name"])
        if (file := files.disks.get(name)) is None:
            raise _invalid(f"spec.domain.devices.disks[{index}].name", f"'{name}' not found.")
        prefix = _PREFIXES[bus]
        number = taken[prefix] = taken.get(prefix, -1) + 1
        element = _add(devices, "disk", type="file", device=device)
        if bus == "virtio":
            element.set("model", _VIRTIO)
        driver = _add(element, "driver", name="qemu", type=file.format, error_policy="stop")
        if cache := disk.get("cache"):
            driver.set("cache", str(cache))
        if device == "disk":
            driver.set("discard", "unmap")
        _add(element, "source", file=str(file.path))
        _add_backing(element, file)
        where = _add(element, "target", dev=prefix + _letters(number), bus=bus)
        if device == "cdrom" and (tray := target.get("tray")):
            where.set("tray", str(tray))
        if target.get("readonly", device == "cdrom"):
            _add(element, "readonly")
        if serial := disk.get("serial"):
            _add(element, "serial", str(serial))
        if order := disk.get("bootOrder"):
            _add(element, "boot", order=str(order))
        _add(element, "alias", name=f"ua-{name}")


def _add_backing(element: Element, file: DiskFile) -> None:
    """Say what a disk lies on, so that libvirt need not look, and must not give it to QEMU's user:
    it belongs to the container runtime and to other machines as well."""
    if file.backing is None:
        return
    backing = _add(element, "backingStore", type="file")
    _add(backing, "format", type=file.backing_format)
    source = _add(backing, "source", file=str(file.backing))
    _add(source, "seclabel", model="dac", relabel="no")
    _add(backing, "backingStore")


def _letters(number: int) -> str:
    """a, b, ... z, aa, ab, ...: how the kernel names the disks of a bus."""
    name = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, 26)
        name = chr(ord("a") + digit) + name
    return name


# -- other devices -------------------------------------------------------------------------------------


def _add_controllers(devices: Element, wanted: Doc) -> None:
    buses = {bus for *_, bus in _targets(wanted)}
    _add(
        devices,
        "controller",
        type="usb",
        index="0",
        model="qemu-xhci" if "usb" in buses else "none",
    )
    _add(devices, "controller", type="virtio-serial", index="0", model=_VIRTIO)
    if "scsi" in buses:
        _add(devices, "controller", type="scsi", index="0", model=_VIRTIO)


def _add_interfaces(devices: Element, spec: Doc, wanted: Doc, identity: str) -> None:
    """User-mode networking for every interface on the Pod network: outward connections work, and
    nothing on the host is needed for it."""
    pod = {network["name"] for network in spec.get("networks") or () if "pod" in network}
    for index, interface in enumerate(wanted.get("interfaces") or ()):
        name = str(interface["name"])
        if name not in pod:
            raise _invalid(f"spec.domain.devices.interfaces[{index}].name", f"'{name}' not found.")
        element = _add(devices, "interface", type="user")
        mac = str(interface.get("macAddress") or _mac(identity, name))
        _add(element, "mac", address=mac.replace("-", ":").lower())
        model = str(interface.get("model") or "virtio")
        _add(element, "model", type=_VIRTIO if model == "virtio" else model)
        if order := interface.get("bootOrder"):
            _add(element, "boot", order=str(order))
        else:
            _add(element, "rom", enabled="no")
        _add(element, "alias", name=f"ua-{name}")


def _mac(identity: str, name: str) -> str:
    """The same address for the same interface of the same machine, at every start."""
    tail = hashlib.sha256(f"{identity}/{name}".encode()).digest()[:3]
    return f"{_MAC_PREFIX}:{tail.hex(':')}"


def _add_consoles(devices: Element, wanted: Doc) -> None:
    if wanted.get("autoattachSerialConsole", True):
        serial = _add(devices, "serial", type="pty")
        if wanted.get("logSerialConsole") is False:
            # Otherwise the adapter adds the log of every machine's console.
            _add(serial, "log", file="/dev/null", append="on")
        _add(serial, "target", type="isa-serial", port="0")
    else:
        _add(devices, "serial", type="null")
    agent = _add(devices, "channel", type="unix")
    _add(agent, "target", type="virtio", name=_AGENT)
    if wanted.get("autoattachGraphicsDevice", True):
        graphics = _add(devices, "graphics", type="vnc")
        _add(graphics, "listen", type="socket")
        video = _add(devices, "video")
        _add(video, "model", type="vga", vram="16384", heads="1")
