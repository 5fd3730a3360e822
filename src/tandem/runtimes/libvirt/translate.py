"""From a VirtualMachineInstance to libvirt domain XML. Pure: no I/O, no clock, no chance.

The same instance and files always give the same XML, held by golden files in ``tests/golden/libvirt``.
The XML asks for KVM; the adapter makes it an emulated machine where KVM does not work. The devices are
KubeVirt's (q35, virtio, a serial console, VNC on a unix socket, the guest agent's channel), so that a
guest finds the same machine here and there. Nothing listens on a TCP port. Each part of a domain has a
module in :mod:`tandem.runtimes.libvirt.parts`.

What is not supported has been refused at admission; the document is valid and its defaults are filled
in, but an instance that has not been through admission (library use) works as well.
"""

from __future__ import annotations

import uuid
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from tandem.host.machinefiles import MachineFiles
from tandem.runtimes.libvirt.parts import board, devices, disks, interfaces, processor
from tandem.runtimes.libvirt.parts.element import Doc, add, part
from tandem.runtimes.libvirt.parts.host import Given


def domain_xml(vmi: Doc, files: MachineFiles, given: Given | None = None) -> str:
    """The domain for ``vmi``, whose disks and kernel are ``files``, and to which the host has
    ``given`` what it asked for.

    Raises ``InvalidSpec`` for what admission would have refused (no memory, a disk without a file).
    """
    given = given or Given()
    metadata, spec = vmi["metadata"], vmi["spec"]
    domain = spec["domain"]
    wanted = part(domain, "devices")
    identity = domain_uuid(vmi)
    threads = disks.Threads(domain)

    root = Element("domain", {"type": "kvm"})
    add(root, "name", f"{metadata['namespace']}_{metadata['name']}")
    add(root, "uuid", identity)
    processor.add_memory(root, domain, shared=bool(wanted.get("filesystems")))
    processor.add_processor(root, domain, given)
    disks.add_threads(root, threads)
    board.add_sysinfo(root, identity, domain)
    board.add_os(root, domain, files, given)
    board.add_features(root, domain)
    board.add_clock(root, domain)
    add(root, "on_poweroff", "destroy")
    add(root, "on_reboot", "restart")
    add(root, "on_crash", "destroy")
    plugged = add(root, "devices")
    disks.add_disks(plugged, domain, files, threads)
    devices.add_controllers(plugged, wanted)
    devices.add_filesystems(plugged, wanted, files, given)
    interfaces.add_interfaces(plugged, spec, identity)
    devices.add_consoles(plugged, wanted)
    board.add_tpm(plugged, wanted)
    devices.add_helpers(plugged, wanted)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def domain_uuid(vmi: Doc) -> str:
    """The firmware's UUID, which is the domain's as well."""
    firmware = part(vmi["spec"], "domain", "firmware")
    return str(firmware.get("uuid") or _derived_uuid(vmi["metadata"]))


def _derived_uuid(metadata: Doc) -> uuid.UUID:
    name = f"{metadata['namespace']}/{metadata['name']}/{metadata.get('uid', '')}"
    return uuid.uuid5(uuid.NAMESPACE_URL, f"https://tandem.dev/machines/{name}")
