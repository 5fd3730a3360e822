"""Everything else that is plugged in: controllers, consoles, screen, input, and what guests rely on."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from tandem.host.machinefiles import MachineFiles
from tandem.runtimes.libvirt.parts.disks import entries
from tandem.runtimes.libvirt.parts.element import Doc, add, refused, virtio
from tandem.runtimes.libvirt.parts.host import Given

_AGENT = "org.qemu.guest_agent.0"
_VRAM_KIB = {"vga": "16384", "bochs": "16384"}


def add_controllers(devices: Element, wanted: Doc) -> None:
    """The buses. The SCSI one is there for disks that are plugged in later, too."""
    buses = {entry.bus for entry in entries(wanted)}
    inputs = {str(device.get("bus") or "usb") for device in wanted.get("inputs") or ()}
    usb = "qemu-xhci" if "usb" in buses | inputs else "none"
    add(devices, "controller", type="usb", index="0", model=usb)
    add(devices, "controller", type="virtio-serial", index="0", model=virtio(wanted))
    if "scsi" in buses or not wanted.get("disableHotplug"):
        add(devices, "controller", type="scsi", index="0", model=virtio(wanted))


def add_filesystems(devices: Element, wanted: Doc, files: MachineFiles, given: Given) -> None:
    """Folders of the host, by virtiofs."""
    for index, share in enumerate(wanted.get("filesystems") or ()):
        name = str(share["name"])
        if (folder := files.shares.get(name)) is None:
            field = f"spec.domain.devices.filesystems[{index}].name"
            raise refused(field, f"'{name}' not found.")
        element = add(devices, "filesystem", type="mount", accessmode="passthrough")
        add(element, "driver", type="virtiofs")
        if given.virtiofsd:
            add(element, "binary", path=str(given.virtiofsd))
        add(element, "source", dir=str(folder))
        add(element, "target", dir=name)
        add(element, "alias", name=f"ua-{name}")


def add_consoles(devices: Element, wanted: Doc) -> None:
    """The serial console, the guest agent's channel, and the screen. Nothing listens on TCP."""
    if wanted.get("autoattachSerialConsole", True):
        serial = add(devices, "serial", type="pty")
        if wanted.get("logSerialConsole") is False:
            # Otherwise the adapter adds the log of every machine's console.
            add(serial, "log", file="/dev/null", append="on")
        add(serial, "target", type="isa-serial", port="0")
    else:
        add(devices, "serial", type="null")
    agent = add(devices, "channel", type="unix")
    add(agent, "target", type="virtio", name=_AGENT)
    for device in wanted.get("inputs") or ():
        bus = str(device.get("bus") or "usb")
        element = add(devices, "input", type=str(device.get("type") or "tablet"), bus=bus)
        if name := device.get("name"):
            add(element, "alias", name=f"ua-{name}")
    if wanted.get("autoattachGraphicsDevice", True):
        graphics = add(devices, "graphics", type="vnc")
        add(graphics, "listen", type="socket")
        kind = str((wanted.get("video") or {}).get("type") or "vga")
        model = add(add(devices, "video"), "model", type=kind, heads="1")
        if vram := _VRAM_KIB.get(kind):
            model.set("vram", vram)
    if (sound := wanted.get("sound")) is not None:
        element = add(devices, "sound", model=str(sound.get("model") or "ich9"))
        add(element, "alias", name=f"ua-{sound['name']}")


def add_helpers(devices: Element, wanted: Doc) -> None:
    """Entropy, a watchdog, the balloon, and somebody to tell of a panic."""
    if (watchdog := wanted.get("watchdog")) is not None:
        action = str((watchdog.get("i6300esb") or {}).get("action") or "reset")
        element = add(devices, "watchdog", model="i6300esb", action=action)
        if name := watchdog.get("name"):
            add(element, "alias", name=f"ua-{name}")
    if wanted.get("autoattachMemBalloon", True):
        balloon = add(devices, "memballoon", model=virtio(wanted), freePageReporting="on")
        add(balloon, "stats", period="10")
    else:
        add(devices, "memballoon", model="none")
    if wanted.get("rng") is not None:
        rng = add(devices, "rng", model=virtio(wanted))
        add(rng, "backend", "/dev/urandom", model="random")
    for device in wanted.get("panicDevices") or ():
        add(devices, "panic", model=str(device.get("model") or "isa"))
