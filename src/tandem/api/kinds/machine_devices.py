"""KubeVirt's admission rules for an instance's other devices, and what of them no host has."""

from __future__ import annotations

from tandem.api.kind import Doc
from tandem.api.kinds.machine_causes import invalid, not_supported
from tandem.api.kinds.support import unsupported
from tandem.api.meta import get
from tandem.errors import Cause

WATCHDOG_ACTIONS = ("reset", "poweroff", "shutdown")
_IO_POLICIES = ("shared", "auto", "supplementalPool")
_VIDEO = ("vga", "cirrus", "virtio", "ramfb", "bochs")
_BY_PRESENCE = (
    "domain.devices.downwardMetrics",
    "domain.devices.clientPassthrough",
    "domain.cpu.realtime",
    "domain.cpu.numa.guestMappingPassthrough",
    "domain.launchSecurity",
)
_PANIC = ("hyperv", "isa", "pvpanic")


def device_causes(spec: Doc, path: str) -> list[Cause]:
    """What is wrong with the devices that are neither disks nor interfaces."""
    devices = get(spec, "domain.devices", {})
    at = f"{path}.domain.devices"
    found = []
    for index, device in enumerate(devices.get("inputs") or ()):
        where = f"{at}.inputs[{index}]"
        if device.get("bus") not in (None, "", "virtio", "usb"):
            found.append(invalid(f"{where}.bus", "Input device can have only virtio or usb bus."))
        if device.get("type") not in (None, "", "tablet"):
            found.append(invalid(f"{where}.type", "Input device can have only tablet type."))
    if (sound := devices.get("sound")) is not None:
        if sound.get("model") not in (None, "", "ich9", "ac97"):
            message = "Sound device type is not supported. Options: 'ich9' or 'ac97'"
            found.append(invalid(f"{at}.sound.model", message))
        if not sound.get("name"):
            found.append(invalid(f"{at}.sound.name", "Sound device requires a name field."))
    found += _watchdog_causes(devices, f"{at}.watchdog")
    found += _video_causes(devices, f"{at}.video")
    for index, device in enumerate(devices.get("panicDevices") or ()):
        if (model := device.get("model")) and model not in _PANIC:
            message = f"invalid PanicDeviceModel({model})"
            found.append(invalid(f"{at}.panicDevices[{index}].model", message))
    return [*found, *_thread_causes(spec, path), *_absent_causes(spec, path)]


def _watchdog_causes(devices: Doc, path: str) -> list[Cause]:
    watchdog = devices.get("watchdog")
    if watchdog is None:
        return []
    if watchdog.get("i6300esb") is None:
        return [invalid(path, f"{path} must have a watchdog of the model i6300esb on amd64")]
    action = watchdog["i6300esb"].get("action")
    if action and action not in WATCHDOG_ACTIONS:
        at = f"{path}.i6300esb.action"
        message = (
            f"{at} '{action}' is not supported (allowed values: [{' '.join(WATCHDOG_ACTIONS)}])"
        )
        return [not_supported(at, message)]
    return []


def _video_causes(devices: Doc, path: str) -> list[Cause]:
    video = devices.get("video")
    if video is None:
        return []
    found = []
    if (model := video.get("type")) and model not in _VIDEO:
        message = f"video model '{model}' is not supported on amd64 architecture"
        found.append(not_supported(f"{path}.type", message))
    if devices.get("autoattachGraphicsDevice") is False:
        message = "Video configuration is not allowed when autoattachGraphicsDevice is set to false"
        found.append(invalid(path, message))
    return found


def _thread_causes(spec: Doc, path: str) -> list[Cause]:
    policy = get(spec, "domain.ioThreadsPolicy")
    at = f"{path}.domain"
    if policy is None:
        return []
    if policy not in _IO_POLICIES:
        return [invalid(f"{at}.ioThreadsPolicy", f"Invalid IOThreadsPolicy ({policy})")]
    count = get(spec, "domain.ioThreads.supplementalPoolThreadCount") or 0
    if policy == "supplementalPool" and count < 1:
        message = "the number of iothreads needs to be set and positive for the dedicated policy"
        return [invalid(f"{at}.ioThreads.count", message)]
    return []


def _absent_causes(spec: Doc, path: str) -> list[Cause]:
    """Devices that a cluster's device plugins would give, and that no plugin gives here; and what is
    asked for by its mere presence, which no table of support sees."""
    found = [
        unsupported(f"{path}.{field}") for field in _BY_PRESENCE if get(spec, field) is not None
    ]
    found += [
        unsupported(f"{path}.volumes[{index}].downwardMetrics")
        for index, volume in enumerate(spec.get("volumes") or ())
        if volume.get("downwardMetrics") is not None
    ]
    base = f"{path}.domain.devices"
    for field in ("gpus", "hostDevices"):
        for index, device in enumerate(get(spec, f"domain.devices.{field}", [])):
            at = f"{base}.{field}[{index}]"
            what = device.get("deviceName") or device.get("claimName") or device.get("name") or ""
            message = (
                f"this host offers no device '{what}': no devices are permitted for machines here"
            )
            found.append(not_supported(f"{at}.deviceName", message))
    for index, claim in enumerate(spec.get("resourceClaims") or ()):
        at = f"{path}.resourceClaims[{index}]"
        message = f"this host has no driver for the resource claim '{claim.get('name', '')}'"
        found.append(not_supported(at, message))
    return found
