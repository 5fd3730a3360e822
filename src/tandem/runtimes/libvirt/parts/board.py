"""The board: its identity, how it boots, its features, its clock, its TPM."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from tandem.host.machinefiles import MachineFiles
from tandem.runtimes.libvirt.parts.element import Doc, add, is_on, part
from tandem.runtimes.libvirt.parts.host import Given

# What the SMBIOS tables say to the guest.
_MANUFACTURER, _PRODUCT = "Tandem", "Virtual Machine"

_CHASSIS = ("manufacturer", "version", "serial", "asset", "sku")

# libvirt's name of each enlightenment of Hyper-V, in its order.
_HYPERV = {
    "relaxed": "relaxed",
    "vapic": "vapic",
    "spinlocks": "spinlocks",
    "vpindex": "vpindex",
    "runtime": "runtime",
    "synic": "synic",
    "synictimer": "stimer",
    "reset": "reset",
    "vendorid": "vendor_id",
    "frequencies": "frequencies",
    "reenlightenment": "reenlightenment",
    "tlbflush": "tlbflush",
    "ipi": "ipi",
    "evmcs": "evmcs",
}
_SPINLOCK_RETRIES = 4096
_TIMERS = {"rtc": "rtc", "pit": "pit", "kvm": "kvmclock", "hpet": "hpet", "hyperv": "hypervclock"}


def add_sysinfo(root: Element, identity: str, domain: Doc) -> None:
    """What the guest reads about itself."""
    info = add(root, "sysinfo", type="smbios")
    system = add(info, "system")
    add(system, "entry", _MANUFACTURER, name="manufacturer")
    add(system, "entry", _PRODUCT, name="product")
    if serial := part(domain, "firmware").get("serial"):
        add(system, "entry", str(serial), name="serial")
    add(system, "entry", identity, name="uuid")
    if wanted := part(domain, "chassis"):
        chassis = add(info, "chassis")
        for name in _CHASSIS:
            if text := wanted.get(name):
                add(chassis, "entry", str(text), name=name)


def add_os(root: Element, domain: Doc, files: MachineFiles, given: Given) -> None:
    """The machine type, the firmware, and a kernel that is booted without it."""
    system = add(root, "os")
    machine = str(part(domain, "machine").get("type") or "q35")
    add(system, "type", "hvm", arch="x86_64", machine=machine)
    firmware = part(domain, "firmware")
    efi = part(firmware, "bootloader").get("efi")
    if efi is not None and given.loader and files.nvram:
        secure = "yes" if efi.get("secureBoot") is not False else "no"
        add(system, "loader", str(given.loader), readonly="yes", secure=secure, type="pflash")
        add(system, "nvram", str(files.nvram))
    if files.kernel:
        add(system, "kernel", str(files.kernel))
    if files.initrd:
        add(system, "initrd", str(files.initrd))
    arguments = part(firmware, "kernelBoot").get("kernelArgs")
    if arguments and files.kernel:
        add(system, "cmdline", str(arguments))
    add(system, "smbios", mode="sysinfo")
    if part(firmware, "bootloader", "bios").get("useSerial"):
        add(system, "bios", useserial="yes")


def add_features(root: Element, domain: Doc) -> None:
    """What the board can do beyond a bare PC."""
    wanted = part(domain, "features")
    features = add(root, "features")
    if is_on(wanted.get("acpi"), default=True):
        add(features, "acpi")
    if is_on(wanted.get("apic"), default=True):
        apic = add(features, "apic")
        if part(wanted, "apic").get("endOfInterrupt"):
            apic.set("eoi", "on")
    if is_on(wanted.get("hypervPassthrough")):
        add(features, "hyperv", mode="passthrough")
    elif (asked := wanted.get("hyperv")) is not None:
        _add_hyperv(add(features, "hyperv", mode="custom"), asked)
    if part(wanted, "kvm").get("hidden"):
        add(add(features, "kvm"), "hidden", state="on")
    if (spin := wanted.get("pvspinlock")) is not None:
        add(features, "pvspinlock", state="on" if is_on(spin) else "off")
    add(features, "vmport", state="off")
    if is_on(wanted.get("smm")):
        add(features, "smm", state="on")


def _add_hyperv(hyperv: Element, asked: Doc) -> None:
    for field, name in _HYPERV.items():
        if (feature := asked.get(field)) is None:
            continue
        element = add(hyperv, name, state="on" if is_on(feature) else "off")
        if not is_on(feature):
            continue
        if field == "spinlocks":
            element.set("retries", str(feature.get("spinlocks") or _SPINLOCK_RETRIES))
        elif field == "vendorid":
            element.set("value", str(feature.get("vendorid") or "none"))
        elif field == "synictimer" and feature.get("direct") is not None:
            add(element, "direct", state="on" if is_on(feature["direct"]) else "off")


def add_clock(root: Element, domain: Doc) -> None:
    """What time it is in the guest, and who ticks."""
    wanted = part(domain, "clock")
    clock = add(root, "clock", offset="utc")
    if zone := wanted.get("timezone"):
        clock.attrib = {"offset": "timezone", "timezone": str(zone)}
    elif (utc := wanted.get("utc")) is not None:
        if (offset := utc.get("offsetSeconds")) is None:
            clock.set("adjustment", "reset")
        else:
            clock.attrib = {"offset": "variable", "adjustment": str(offset), "basis": "utc"}
    for field, name in _TIMERS.items():
        if (timer := part(wanted, "timer").get(field)) is None:
            continue
        present = "no" if timer.get("present") is False else "yes"
        element = add(clock, "timer", name=name, present=present)
        for key, attribute in (("tickPolicy", "tickpolicy"), ("track", "track")):
            if value := timer.get(key):
                element.set(attribute, str(value))


def add_tpm(devices: Element, wanted: Doc) -> None:
    """A TPM of version 2, emulated by swtpm; one whose memory is kept has the newer interface, as in
    KubeVirt."""
    tpm = wanted.get("tpm")
    if tpm is None or not is_on(tpm):
        return
    element = add(devices, "tpm", model="tpm-crb" if tpm.get("persistent") else "tpm-tis")
    backend = add(element, "backend", type="emulator", version="2.0")
    if tpm.get("persistent"):
        backend.set("persistent_state", "yes")
