"""KubeVirt's admission rules for an instance's board: machine type, firmware, features, clock."""

from __future__ import annotations

import re
import zoneinfo

from tandem.api.kind import Doc
from tandem.api.kinds.checks import choice_causes
from tandem.api.kinds.images import PULL_POLICIES
from tandem.api.kinds.machine_causes import (
    image_path_causes,
    invalid,
    not_supported,
    required,
    text_causes,
    text_size,
)
from tandem.api.meta import get
from tandem.errors import Cause

_MACHINE_TYPE = re.compile(r"q35|q35[a-zA-Z0-9._-]*|pc-q35[a-zA-Z0-9._-]*")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_MAX_ARGUMENTS = 2048  # what the boot protocol of x86 hands to a kernel
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

# Which enlightenment stands on which; those that are not asked for are switched on along.
HYPERV_REQUIRES = {
    "evmcs": "vapic",
    "ipi": "vpindex",
    "tlbflush": "vpindex",
    "synictimer": "synic",
    "synic": "vpindex",
}
_TICKS = {
    "hpet": ("delay", "catchup", "merge", "discard"),
    "pit": ("delay", "catchup", "discard"),
    "rtc": ("delay", "catchup"),
}


def is_enabled(feature: Doc | None) -> bool:
    """Whether a feature that is given is switched on: it is, unless it says otherwise."""
    return feature is not None and feature.get("enabled") is not False


def is_secure(domain: Doc) -> bool:
    """Whether Secure Boot is asked for: an ``efi`` that does not say has it."""
    efi = get(domain, "firmware.bootloader.efi")
    return efi is not None and efi.get("secureBoot") is not False


def firmware_causes(domain: Doc, path: str) -> list[Cause]:
    """What is wrong with ``machine``, ``firmware``, ``features`` and ``clock`` of a domain."""
    found = []
    machine = get(domain, "machine.type")
    if machine and not _MACHINE_TYPE.fullmatch(machine):
        at = f"{path}.machine.type"
        message = f"{at} is not supported: {machine} (allowed values: [q35* pc-q35*])"
        found.append(invalid(at, message))
    firmware = domain.get("firmware") or {}
    at = f"{path}.firmware"
    if (uuid := firmware.get("uuid")) and not _UUID.fullmatch(uuid):
        found.append(invalid(f"{at}.uuid", f"{at}.uuid '{uuid}' must be a UUID"))
    if serial := firmware.get("serial"):
        found += text_causes(serial, f"{at}.serial", f"{at}.serial")
    if get(firmware, "bootloader.efi") is not None and get(firmware, "bootloader.bios") is not None:
        message = "has both EFI and BIOS configured, but they are mutually exclusive."
        found.append(invalid(f"{at}.bootloader", f"{at}.bootloader {message}"))
    if is_secure(domain) and not is_enabled(get(domain, "features.smm")):
        message = (
            "has EFI SecureBoot enabled. SecureBoot requires SMM, which is currently disabled."
        )
        found.append(invalid(path, f"{path} {message}"))
    if (boot := firmware.get("kernelBoot")) is not None:
        found += _kernel_boot_causes(boot, f"{at}.kernelBoot")
    return [*found, *_feature_causes(domain, path), *_clock_causes(domain, f"{path}.clock")]


def _kernel_boot_causes(boot: Doc, path: str) -> list[Cause]:
    arguments = boot.get("kernelArgs") or ""
    alone = "kernel arguments cannot be provided without an external kernel"
    container = boot.get("container")
    if not container:
        return [invalid(f"{path}.kernelArgs", alone)] if arguments else []
    at = f"{path}.container"
    found = []
    if not container.get("image"):
        found.append(required(f"{at}.image", f"{at} must be defined with an image"))
    kernel, initrd = container.get("kernelPath"), container.get("initrdPath")
    if not kernel and not initrd:
        message = f"{at} must be defined with at least one of the following: kernelPath, initrdPath"
        found.append(required(at, message))
    if arguments and not kernel:
        found.append(invalid(f"{path}.kernelArgs", alone))
    if text_size(arguments) > _MAX_ARGUMENTS or _CONTROL.search(arguments):
        message = f"must be one line of at most {_MAX_ARGUMENTS} bytes"
        found.append(invalid(f"{path}.kernelArgs", f"{path}.kernelArgs {message}"))
    for name, value in (("kernelPath", kernel), ("initrdPath", initrd)):
        if value:
            found += image_path_causes(value, f"{at}.{name}")
    return found + choice_causes(container, "imagePullPolicy", PULL_POLICIES, at)


def _feature_causes(domain: Doc, path: str) -> list[Cause]:
    features = domain.get("features") or {}
    hyperv = features.get("hyperv")
    at = f"{path}.features.hyperv"
    if hyperv is None:
        return []
    if features.get("hypervPassthrough") is not None:
        message = (
            "Cannot explicitly set hyperV features if HypervPassthrough is being used. Please use "
            "either HyperV or HypervPassthrough."
        )
        return [invalid(at, message)]
    found = []
    for name, needed in HYPERV_REQUIRES.items():
        if is_enabled(hyperv.get(name)) and get(hyperv, f"{needed}.enabled") is False:
            message = f"{at}.{name} requires {at}.{needed}, which is disabled"
            found.append(invalid(f"{at}.{name}", message))
    retries = get(hyperv, "spinlocks.spinlocks")
    if retries is not None and not 4095 <= retries <= 0xFFFFFFFF:
        message = f"{at}.spinlocks.spinlocks '{retries}': must be at least 4095"
        found.append(invalid(f"{at}.spinlocks.spinlocks", message))
    vendor = get(hyperv, "vendorid.vendorid", "")
    if text_size(vendor) > 12 or _CONTROL.search(vendor) or "," in vendor:
        message = f"{at}.vendorid.vendorid must be at most 12 characters, without a comma"
        found.append(invalid(f"{at}.vendorid.vendorid", message))
    return found


def _clock_causes(domain: Doc, path: str) -> list[Cause]:
    clock = domain.get("clock") or {}
    found = []
    zone = clock.get("timezone")
    if zone and clock.get("utc") is not None:
        found.append(invalid(path, f"{path} must have only one of utc and timezone set"))
    if zone and zone not in zoneinfo.available_timezones():
        message = f"{path}.timezone '{zone}' is not a known time zone"
        found.append(invalid(f"{path}.timezone", message))
    timers = clock.get("timer") or {}
    for name, choices in _TICKS.items():
        at = f"{path}.timer.{name}.tickPolicy"
        if (policy := get(timers, f"{name}.tickPolicy")) and policy not in choices:
            message = f"{at} '{policy}' is not supported (allowed values: [{' '.join(choices)}])"
            found.append(not_supported(at, message))
    at = f"{path}.timer.rtc.track"
    if (track := get(timers, "rtc.track")) and track not in ("guest", "wall"):
        found.append(not_supported(at, f"{at} '{track}' is not supported (guest or wall)"))
    return found
