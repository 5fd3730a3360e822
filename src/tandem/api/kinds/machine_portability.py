"""Where Tandem and KubeVirt part: what a user should know before the same manifest meets a cluster.

Each sentence is a Warning. What Tandem takes and KubeVirt would refuse, or takes only behind a feature
gate, is told; and what is taken here with less effect than a cluster would give it.
"""

from __future__ import annotations

from tandem.api.kind import Doc
from tandem.api.meta import get

# Field of the domain's devices, and the gate that KubeVirt has before it.
_GATED_DEVICES = {"video": "VideoConfig", "panicDevices": "PanicDevices"}


def portability_warnings(spec: Doc, path: str) -> list[str]:
    """What should be told of an instance's spec, by field."""
    found = []
    for index, volume in enumerate(spec.get("volumes") or ()):
        if volume.get("hostDisk") is not None:
            found.append(_gate(f"{path}.volumes[{index}].hostDisk", "HostDisk"))
    devices = get(spec, "domain.devices", {})
    for field, gate in _GATED_DEVICES.items():
        if devices.get(field):
            found.append(_gate(f"{path}.domain.devices.{field}", gate))
    volumes = {volume.get("name"): volume for volume in spec.get("volumes") or ()}
    for index, share in enumerate(devices.get("filesystems") or ()):
        stored = set(volumes.get(share.get("name")) or ()) & {"persistentVolumeClaim", "dataVolume"}
        gate = "EnableVirtioFsStorageVolumes" if stored else "EnableVirtioFsConfigVolumes"
        found.append(_gate(f"{path}.domain.devices.filesystems[{index}]", gate))
    cpu = get(spec, "domain.cpu", {})
    if cpu.get("dedicatedCpuPlacement"):
        found.append(
            f"{path}.domain.cpu.dedicatedCpuPlacement: the processors are this machine's alone among "
            "machines; Pods and the host's own processes may run on them as well"
        )
        resources = get(spec, "domain.resources", {})
        if not any((resources.get(part) or {}).get("memory") for part in ("requests", "limits")):
            found.append(
                f"{path}.domain.resources.requests.memory or {path}.domain.resources.limits.memory "
                "should be provided: some releases of KubeVirt refuse dedicated processors without"
            )
    return found


def _gate(field: str, gate: str) -> str:
    return f"{field}: KubeVirt takes it only where its feature gate {gate} is enabled"
