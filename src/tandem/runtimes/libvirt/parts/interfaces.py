"""Network interfaces."""

from __future__ import annotations

import hashlib
from xml.etree.ElementTree import Element

from tandem.runtimes.libvirt.parts.element import Doc, add, part, refused, virtio

_MAC_PREFIX = "52:54:00"  # QEMU's


def add_interfaces(devices: Element, spec: Doc, identity: str) -> None:
    """User-mode networking for every interface on the Pod network: outward connections work, and
    nothing on the host is needed for it."""
    wanted = part(spec, "domain", "devices")
    pod = {network["name"] for network in spec.get("networks") or () if "pod" in network}
    for index, interface in enumerate(wanted.get("interfaces") or ()):
        name = str(interface["name"])
        if name not in pod:
            raise refused(f"spec.domain.devices.interfaces[{index}].name", f"'{name}' not found.")
        element = add(devices, "interface", type="user")
        mac = str(interface.get("macAddress") or derived_mac(identity, name))
        add(element, "mac", address=mac.replace("-", ":").lower())
        model = str(interface.get("model") or "virtio")
        add(element, "model", type=virtio(wanted) if model == "virtio" else model)
        if order := interface.get("bootOrder"):
            add(element, "boot", order=str(order))
        else:
            add(element, "rom", enabled="no")
        if number := interface.get("acpiIndex"):
            add(element, "acpi", index=str(number))
        add(element, "alias", name=f"ua-{name}")


def derived_mac(identity: str, name: str) -> str:
    """The same address for the same interface of the same machine, at every start."""
    tail = hashlib.sha256(f"{identity}/{name}".encode()).digest()[:3]
    return f"{_MAC_PREFIX}:{tail.hex(':')}"
