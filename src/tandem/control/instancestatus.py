"""A VirtualMachineInstance's status: phases and conditions in KubeVirt's vocabulary. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tandem.api.kind import Doc
from tandem.api.meta import get, now, set_condition
from tandem.api.quantity import to_bytes
from tandem.control.context import Node
from tandem.runtimes.adapter import Phase, RuntimeStatus

FINAL = ("Succeeded", "Failed")
STARTING = ("", "Pending", "Scheduling", "Scheduled")

_ENDED = {
    Phase.SUCCEEDED: "Succeeded",
    Phase.STOPPED: "Succeeded",
    Phase.FAILED: "Failed",
}


def phase_of(vmi: Doc) -> str:
    """The phase, empty when there is none yet."""
    return str(get(vmi, "status.phase", ""))


def is_final(vmi: Doc) -> bool:
    """Whether the instance has ended; it never starts again."""
    return phase_of(vmi) in FINAL


def was_running(vmi: Doc) -> bool:
    """Whether it ever got as far as running."""
    return any(
        entry.get("phase") == "Running"
        for entry in get(vmi, "status.phaseTransitionTimestamps", [])
    )


def phase_for(observed: RuntimeStatus) -> str | None:
    """The phase that a runtime's status stands for; None where it says nothing new."""
    if observed.phase in (Phase.RUNNING, Phase.PAUSED):
        return "Running"
    return _ENDED.get(observed.phase)


@dataclass(frozen=True, slots=True)
class Problem:
    """What keeps an instance from being as it should; shown in the condition ``type``."""

    reason: str
    message: str
    type: str = "Synchronized"


def instance_status(
    vmi: Doc,
    phase: str,
    *,
    node: Node,
    observed: RuntimeStatus | None = None,
    problem: Problem | None = None,
    emulation: str = "",
) -> Doc:
    """The status of ``vmi`` in ``phase``.

    ``emulation``: why the processor is emulated, empty when it is not, or when that is not known yet.
    """
    status: Doc = dict(vmi.get("status") or {})
    _enter(status, phase)
    if phase in ("Scheduled", "Running", *FINAL):
        status["nodeName"] = node.name
    domain = vmi["spec"]["domain"]
    status.setdefault("machine", {"type": get(domain, "machine.type", "q35")})
    if guest := get(domain, "memory.guest"):
        status.setdefault(
            "memory", dict.fromkeys(("guestAtBoot", "guestCurrent", "guestRequested"), str(guest))
        )
    if cpu := domain.get("cpu"):
        topology = {part: cpu.get(part, 1) for part in ("cores", "sockets", "threads")}
        status.setdefault("currentCPUTopology", topology)
    status.setdefault("qosClass", _qos_class(get(domain, "resources", {})))
    status.setdefault("guestOSInfo", {})
    status["interfaces"] = _interfaces(vmi, observed, status.get("interfaces") or [])
    if volumes := vmi["spec"].get("volumes"):
        status["volumeStatus"] = [{"name": volume["name"], "target": ""} for volume in volumes]
    conditions = [dict(entry) for entry in status.get("conditions") or ()]
    _settle_conditions(conditions, phase, observed, problem, emulation)
    status["conditions"] = conditions
    return status


def out_of_reach(vmi: Doc, why: str) -> Doc:
    """The status of an instance whose runtime does not answer: all as it was, and nobody knows."""
    status: Doc = dict(vmi.get("status") or {})
    conditions = [dict(entry) for entry in status.get("conditions") or ()]
    set_condition(conditions, "Ready", "Unknown", "RuntimeUnavailable", why)
    set_condition(conditions, "Synchronized", "False", "RuntimeUnavailable", why)
    return {**status, "conditions": conditions}


def insufficient(vmi: Doc, node: Node) -> str:
    """What the node could never give, empty when it could."""
    guest = get(vmi, "spec.domain.memory.guest", 0)
    return "Insufficient memory" if to_bytes(guest) > node.memory_bytes else ""


def _enter(status: Doc, phase: str) -> None:
    times = list(status.get("phaseTransitionTimestamps") or [])
    # Pending is where every instance begins, also one whose first status is written only now.
    for name in ("Pending", phase):
        if name and all(entry["phase"] != name for entry in times):
            times.append({"phase": name, "phaseTransitionTimestamp": now()})
    status["phase"] = phase
    status["phaseTransitionTimestamps"] = times


def _interfaces(vmi: Doc, observed: RuntimeStatus | None, old: list[Doc]) -> list[Doc]:
    interfaces: list[Mapping[str, Any]] = get(vmi, "spec.domain.devices.interfaces", [])
    addresses = list(observed.addresses) if observed else []
    result = []
    for index, interface in enumerate(interfaces):
        entry: Doc = dict(old[index]) if index < len(old) else {}
        entry |= {"name": interface.get("name", ""), "infoSource": "domain"}
        if mac := interface.get("macAddress"):
            entry["mac"] = mac
        if index == 0 and addresses:
            entry |= {"ipAddress": addresses[0], "ipAddresses": addresses}
        result.append(entry)
    return result


def _settle_conditions(
    conditions: list[Doc],
    phase: str,
    observed: RuntimeStatus | None,
    problem: Problem | None,
    emulation: str,
) -> None:
    paused = observed is not None and observed.phase is Phase.PAUSED
    if phase == "Running" and not paused:
        set_condition(conditions, "Ready", "True")
    else:
        message = "Guest VM is not reported as running"
        set_condition(conditions, "Ready", "False", "GuestNotRunning", message)
    if paused and observed is not None:
        reason, message = "PausedByUser", "VMI was paused by user"
        if "io" in observed.reason.lower():
            reason, message = "PausedIOError", "VMI was paused, low-level IO error detected"
        set_condition(conditions, "Paused", "True", reason, message)
    else:
        _drop(conditions, "Paused")
    if problem is not None:
        set_condition(conditions, problem.type, "False", problem.reason, problem.message)
    else:
        set_condition(conditions, "Synchronized", "True")
        set_condition(conditions, "PodScheduled", "True")
    if phase == "Running":
        message = "there is one node, so there is nowhere to migrate to"
        set_condition(conditions, "LiveMigratable", "False", "SingleNode", message)
    if emulation:
        set_condition(conditions, "SoftwareEmulation", "True", "KVMNotUsed", emulation)
    elif observed is not None and observed.details.get("accelerator") == "kvm":
        _drop(conditions, "SoftwareEmulation")


def _drop(conditions: list[Doc], type_: str) -> None:
    conditions[:] = [entry for entry in conditions if entry.get("type") != type_]


def _qos_class(resources: Doc) -> str:
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    if limits and all(requests.get(name, limits[name]) == limits[name] for name in limits):
        return "Guaranteed" if {"cpu", "memory"} <= set(limits) else "Burstable"
    return "Burstable"
