"""KubeVirt's admission rules for an instance's spec, in KubeVirt's words, by field.

This module has those of the machine as a whole: its size, its processor, where and as whom it runs.
Its parts have modules of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tandem.api import causes
from tandem.api.kind import Doc
from tandem.api.kinds.checks import choice_causes
from tandem.api.kinds.machine_causes import (
    amount,
    amount_causes,
    invalid,
    label_causes,
    not_supported,
    required,
)
from tandem.api.kinds.machine_defaults import ARCHITECTURE
from tandem.api.kinds.machine_devices import device_causes
from tandem.api.kinds.machine_disks import disk_causes
from tandem.api.kinds.machine_firmware import firmware_causes
from tandem.api.kinds.machine_networks import network_causes
from tandem.api.kinds.machine_volumes import volume_causes
from tandem.api.meta import get
from tandem.errors import Cause

_MIN_MEMORY = 1_000_000
_MAX_VCPUS = 512
_RESERVED_LABELS = frozenset(
    f"kubevirt.io/{name}"
    for name in (
        *("created-by", "migrationJobUID", "nodeName", "migrationTargetNodeName"),
        *("schedulable", "install-strategy"),
    )
)
_GATED_ANNOTATIONS = {
    "hooks.kubevirt.io/hookSidecars": "sidecar",
    "kubevirt.io/ignitiondata": "ExperimentalIgnitionSupport",
}
_NOT_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_FEATURE_POLICIES = ("", "force", "require", "optional", "disable", "forbid")
_EVICTION = ("LiveMigrate", "LiveMigrateIfPossible", "None", "External")
_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")


def instance_causes(spec: Doc, path: str, *, complete: bool) -> list[Cause]:
    """What is wrong with an instance's spec.

    ``complete``: defaults have been filled in (an instance), so that every volume must have its disk;
    False for a VirtualMachine's template, which is completed only when it is started.
    """
    domain = spec.get("domain") or {}
    at = f"{path}.domain"
    return [
        *_name_causes(spec, path),
        *_text_causes(domain, at),
        *_memory_causes(domain, at),
        *_resource_causes(domain, f"{at}.resources"),
        *_cpu_causes(domain, at),
        *firmware_causes(domain, at),
        *volume_causes(spec, path),
        *disk_causes(spec, path, complete=complete),
        *device_causes(spec, path),
        *network_causes(spec, path),
        *_placement_causes(spec, path),
    ]


def metadata_causes(metadata: Doc, path: str) -> list[Cause]:
    """What is wrong with the labels and annotations of an instance, or of a template for some."""
    found = []
    if _RESERVED_LABELS & set(metadata.get("labels") or ()):
        message = (
            "creation of the following reserved kubevirt.io/ labels on a VMI object is prohibited"
        )
        found.append(not_supported(f"{path}.labels", message))
    # Either would let a manifest say anything at all to libvirt or QEMU.
    for annotation, gate in _GATED_ANNOTATIONS.items():
        if (metadata.get("annotations") or {}).get(annotation):
            message = f"{gate} feature gate is not enabled in kubevirt-config, invalid entry"
            found.append(
                invalid(f"{path}.annotations", f"{message} {path}.annotations.{annotation}")
            )
    return found


def changed_metadata_causes(new: Doc, old: Doc) -> list[Cause]:
    """What is wrong with the labels of an instance that is changed."""
    labels, before = new.get("labels") or {}, old.get("labels") or {}
    if all(labels.get(name) == before.get(name) for name in _RESERVED_LABELS):
        return []
    message = (
        "modification of the following reserved kubevirt.io/ labels on a VMI object is prohibited"
    )
    return [not_supported("metadata.labels", message)]


def _name_causes(spec: Doc, path: str) -> list[Cause]:
    found = []
    for field, rule, name in (
        ("hostname", "dns1123label", "DNS_LABEL"),
        ("subdomain", "dns1123subdomain", "DNS_SUBDOMAIN"),
    ):
        at = f"{path}.{field}"
        if spec.get(field) and (wrong := label_causes(spec[field], at, rule)):
            words = ", ".join(cause.message for cause in wrong)
            found.append(
                invalid(at, f"{at} does not conform to the kubernetes {name} rules : {words}")
            )
    return found


def _text_causes(value: Any, path: str) -> Iterator[Cause]:
    """Whether XML can carry every text; whatever else is in one is only ever its content there."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _text_causes(item, f"{path}.{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _text_causes(item, f"{path}[{index}]")
    elif isinstance(value, str) and _NOT_XML.search(value):
        yield invalid(path, f"{path} must not contain control characters")


# -- size ----------------------------------------------------------------------------------------------


def _memory_causes(domain: Doc, path: str) -> list[Cause]:
    memory = domain.get("memory") or {}
    guest = memory.get("guest")
    requests = get(domain, "resources.requests", {})
    limits = get(domain, "resources.limits", {})
    huge = memory.get("hugepages")
    if guest is None and huge is None and "memory" not in requests and "memory" not in limits:
        message = (
            f"no memory requested, at least one of '{path}.memory.guest', "
            f"'{path}.memory.hugepages.pageSize' or '{path}.resources.requests.memory' must be set"
        )
        return [required(f"{path}.memory.guest", message)]
    found = []
    for field in ("guest", "maxGuest"):
        at = f"{path}.memory.{field}"
        if (value := memory.get(field)) is None:
            continue
        if wrong := amount_causes(value, at):
            found += wrong
        elif (amount(value) or 0) < _MIN_MEMORY:
            found.append(invalid(at, f"{at} '{value}': must be greater than or equal to 1M."))
    most = amount(memory.get("maxGuest"))
    if not found and most is not None and most < (amount(guest) or 0):
        message = "Guest memory is greater than the configured maxGuest memory"
        found.append(invalid(f"{path}.memory.guest", message))
    if huge is not None:
        found += _page_causes(huge, amount(guest) or amount(requests.get("memory")), path)
    return found


def _page_causes(huge: Doc, size: Any, path: str) -> list[Cause]:
    at = f"{path}.memory.hugepages.pageSize"
    text = huge.get("pageSize", "")
    page = amount(text)
    if not page or page < 0:
        return [invalid(at, f"{at} '{text}': {causes.describe(amount_causes(text, ''))}")]
    if size and size < page:
        message = f"must be equal to or larger than page size {at} '{text}'"
        return [invalid(at, f"{path}.memory.guest '{size}' {message}")]
    if size and size % page:
        message = f"{path}.memory.guest '{size}' is not a multiple of the page size {at} '{text}'"
        return [invalid(at, message)]
    return []


def _resource_causes(domain: Doc, path: str) -> list[Cause]:
    resources = domain.get("resources") or {}
    found = []
    usable: dict[tuple[str, str], Any] = {}
    for section in ("requests", "limits"):
        for name, value in (resources.get(section) or {}).items():
            at = f"{path}.{section}.{name}"
            if name not in ("cpu", "memory"):
                found.append(causes.not_supported(at, name, ("cpu", "memory")))
            elif wrong := amount_causes(value, at):
                found += wrong
            elif name == "memory" and 0 < (amount(value) or 0) < _MIN_MEMORY:
                found.append(invalid(at, f"{at} '{value}': must be greater than or equal to 1M."))
            else:
                usable[section, name] = value
    for name in ("cpu", "memory"):
        request, limit = usable.get(("requests", name)), usable.get(("limits", name))
        if request is None or not amount(limit) or amount(request) <= amount(limit):  # type: ignore[operator]
            continue
        at = f"{path}.requests.{name}"
        message = f"{at} '{request}' is greater than {path}.limits.{name} '{limit}'"
        found.append(invalid(at, message))
    return found


# -- processor -----------------------------------------------------------------------------------------


def _cpu_causes(domain: Doc, path: str) -> list[Cause]:
    cpu = domain.get("cpu") or {}
    at = f"{path}.cpu"
    found = []
    total = 1
    for part in ("sockets", "cores", "threads", "maxSockets"):
        value = cpu.get(part)
        if value is not None and value < 0:
            message = f"{at}.{part} '{value}': must be greater than or equal to 0."
            found.append(invalid(f"{at}.{part}", message))
        elif part != "maxSockets":
            total *= max(1, value or 1)
    if total > _MAX_VCPUS:
        found.append(invalid(at, f"{at} must not ask for more than {_MAX_VCPUS} vCPUs"))
    if cpu.get("maxSockets") and (cpu.get("sockets") or 1) > cpu["maxSockets"]:
        message = "Number of sockets in CPU topology is greater than the maximum sockets allowed"
        found.append(invalid(f"{at}.sockets", message))
    for index, feature in enumerate(cpu.get("features") or ()):
        where = f"{at}.features[{index}]"
        if (policy := feature.get("policy") or "") not in _FEATURE_POLICIES:
            message = (
                f"CPU feature {feature.get('name')} uses policy {policy} that is not supported."
            )
            found.append(not_supported(f"{where}.policy", message))
        if not feature.get("name"):
            found.append(required(f"{where}.name", f"{where}.name is a required field"))
    if cpu.get("isolateEmulatorThread") and not cpu.get("dedicatedCpuPlacement"):
        message = (
            "IsolateEmulatorThread should be only set in combination with DedicatedCPUPlacement"
        )
        found.append(invalid(f"{at}.isolateEmulatorThread", message))
    if cpu.get("dedicatedCpuPlacement"):
        found += _pinning_causes(domain, path)
    return found + _numa_causes(cpu, domain, path)


def _numa_causes(cpu: Doc, domain: Doc, path: str) -> list[Cause]:
    found = []
    dedicated = f"{path}.cpu.dedicatedCpuPlacement"
    numa = f"{path}.cpu.numa.guestMappingPassthrough"
    passed = get(cpu, "numa.guestMappingPassthrough") is not None
    if passed and not cpu.get("dedicatedCpuPlacement"):
        message = f"{dedicated} must be set to true when NUMA topology strategy is set in {numa}"
        found.append(invalid(numa, message))
    if passed and not get(domain, "memory.hugepages"):
        message = f"{path}.memory.hugepages must be requested when NUMA topology strategy is set in"
        found.append(invalid(numa, f"{message} {numa}"))
    if cpu.get("realtime") is not None:
        used = f"when {path}.cpu.realtime is used"
        if not cpu.get("dedicatedCpuPlacement"):
            found.append(required(dedicated, f"{dedicated} must be set to true {used}"))
        if not passed:
            found.append(required(numa, f"{numa} must be defined {used}"))
    return found


def _pinning_causes(domain: Doc, path: str) -> list[Cause]:
    """Processors of its own are whole ones, and as many as are asked for in any of the ways."""
    cpu = domain["cpu"]
    at, resources = f"{path}.cpu.dedicatedCpuPlacement", f"{path}.resources"
    found = []
    asked = {}
    for section in ("requests", "limits"):
        value = amount(get(domain, f"resources.{section}", {}).get("cpu"))
        if value and value != int(value):
            # Spelled so in KubeVirt.
            message = f"provided resources CPU {section} must be an interger"
            found.append(invalid(f"{resources}.{section}.cpu", message))
        elif value:
            asked[section] = int(value)
    request, limit = f"{resources}.requests", f"{resources}.limits"
    if len(set(asked.values())) > 1:
        message = f"{request}.cpu or {limit}.cpu must be equal when DedicatedCPUPlacement is true "
        found.append(invalid(at, message))
    topology = [cpu[part] for part in ("sockets", "cores", "threads") if cpu.get(part)]
    vcpus = 1
    for part in topology:
        vcpus *= part
    if topology and asked and vcpus not in asked.values():
        message = (
            f"{request}.cpu or {limit}.cpu must not be provided at the same time with "
            f"{path}.cpu.cores when DedicatedCPUPlacement is true "
        )
        found.append(invalid(at, message))
    if not topology and not asked:
        message = (
            f"either {request}.cpu or {limit}.cpu or {path}.cpu.cores must be provided when "
            "DedicatedCPUPlacement is true "
        )
        found.append(invalid(at, message))
    if (threads := cpu.get("threads") or 1) > 2:
        message = (
            f"Not more than two threads must be provided at {path}.cpu.threads (got {threads}) when "
            "DedicatedCPUPlacement is true"
        )
        found.append(invalid(at, message))
    memory = [
        amount(get(domain, f"resources.{section}", {}).get("memory"))
        for section in ("requests", "limits")
    ]
    if all(memory) and memory[0] != memory[1]:
        message = f"{request}.memory must be equal to {limit}.memory"
        found.append(invalid(f"{request}.memory", message))
    return found


# -- where and how it runs -----------------------------------------------------------------------------


def _placement_causes(spec: Doc, path: str) -> list[Cause]:
    found = _probe_causes(spec, path)
    if (architecture := spec.get("architecture")) not in (None, "", ARCHITECTURE):
        at = f"{path}.architecture"
        message = (
            "MultiArchitecture feature gate is not enabled in kubevirt-config, invalid entry "
            f"{at}: {architecture} (this host runs {ARCHITECTURE})"
        )
        found.append(required(at, message))
    if (grace := spec.get("terminationGracePeriodSeconds")) is not None and grace < 0:
        at = f"{path}.terminationGracePeriodSeconds"
        found.append(invalid(at, f"{at} '{grace}': must be greater than or equal to 0."))
    for field, choices in (("evictionStrategy", _EVICTION), ("startStrategy", ("Paused",))):
        if (value := spec.get(field)) and value not in choices:
            at = f"{path}.{field}"
            found.append(invalid(at, f"{at} is set with an unrecognized option: {value}"))
    if spec.get("startStrategy") == "Paused" and spec.get("livenessProbe") is not None:
        message = (
            f"either {path}.startStrategy or {path}.livenessProbe should be provided.Pausing VMI "
            "with LivenessProbe is not supported"
        )
        found.append(invalid(f"{path}.startStrategy", message))
    return found + choice_causes(spec, "dnsPolicy", _DNS_POLICIES, path)


def _probe_causes(spec: Doc, path: str) -> list[Cause]:
    found = []
    on_pods = any(network.get("pod") is not None for network in spec.get("networks") or ())
    # A template says nothing of the network that it will be given.
    on_pods = on_pods or not (spec.get("networks") or get(spec, "domain.devices.interfaces"))
    for field in ("readinessProbe", "livenessProbe"):
        if (probe := spec.get(field)) is None:
            continue
        at = f"{path}.{field}"
        handlers = [
            name
            for name in ("httpGet", "tcpSocket", "exec", "guestAgentPing")
            if probe.get(name) is not None
        ]
        if len(handlers) > 1:
            found.append(invalid(at, f"{at} must have exactly one probe type set"))
        if not handlers:
            message = f"either {at}.tcpSocket, {at}.exec or {at}.httpGet must be set if a {at} is specified"
            found.append(required(at, message))
        found += [
            invalid(f"{at}.{name}", f"{at}.{name} is only allowed if the Pod Network is attached")
            for name in ("httpGet", "tcpSocket")
            if name in handlers and not on_pods
        ]
    return found
