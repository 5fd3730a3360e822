"""From a Pod to what the runtime is asked for, and to what its numbers mean. Pure."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from tandem.api.kind import Doc
from tandem.api.meta import get, parse_time
from tandem.api.quantity import to_bytes, to_millis
from tandem.control import environment
from tandem.control.context import LABEL_CLUSTER, Node
from tandem.runtimes.adapter import RuntimeSpec, RuntimeStatus

LABEL_RESTARTS = "tandem.dev/restarts"
"""How often each container had been started in earlier workloads of this Pod: ``web=2,log=0``."""

LABEL_IMAGES = "tandem.dev/images"
"""A digest of the containers' images, the one part of them that may change."""

LABEL_NAME = "io.kubernetes.pod.name"
LABEL_NAMESPACE = "io.kubernetes.pod.namespace"
LABEL_UID = "io.kubernetes.pod.uid"
"""The kubelet's own labels, by which other tools know a Pod in the runtime."""

DEFAULT_GRACE_SECONDS = 30


def runtime_spec(
    pod: Doc, lookup: environment.Lookup, node: Node, *, cluster: str, lost: bool = False
) -> RuntimeSpec:
    """What the runtime shall run; ``lost``: an earlier workload of this Pod has disappeared.

    Raises :class:`environment.MissingReference`.
    """
    metadata, spec = pod["metadata"], pod["spec"]
    containers = [
        environment.resolve(pod, container, lookup, host_fields(node))
        for container in spec["containers"]
    ]
    label, images = images_label(pod)
    counts = {
        entry["name"]: int(entry.get("restartCount", 0)) + (1 if lost else 0)
        for entry in get(pod, "status.containerStatuses", [])
    }
    labels = {
        **(metadata.get("labels") or {}),
        LABEL_NAME: metadata["name"],
        LABEL_NAMESPACE: metadata["namespace"],
        LABEL_UID: metadata["uid"],
        label: images,
        LABEL_CLUSTER: cluster,
    }
    if any(counts.values()):
        labels[LABEL_RESTARTS] = ",".join(f"{name}={count}" for name, count in counts.items())
    return RuntimeSpec(
        id=metadata["uid"],
        container_spec={**spec, "containers": containers},
        labels=labels,
    )


def host_fields(node: Node) -> dict[str, str]:
    """What a fieldRef may name that the Pod itself does not say."""
    return {"status.hostIP": node.address, "status.hostIPs": node.address}


def images_label(pod: Doc) -> tuple[str, str]:
    """The label that tells whether an image has changed since the workload was made."""
    images = [f"{c['name']}={c['image']}" for c in get(pod, "spec.containers", [])]
    return LABEL_IMAGES, hashlib.sha256("\n".join(images).encode()).hexdigest()[:16]


def restarts_of(observed: RuntimeStatus) -> dict[str, int]:
    """What :data:`LABEL_RESTARTS` of a workload says."""
    counts = {}
    for pair in observed.labels.get(LABEL_RESTARTS, "").split(","):
        name, _, count = pair.partition("=")
        if count.isdigit():
            counts[name] = int(count)
    return counts


def insufficient(pod: Doc, node: Node) -> str:
    """What the node could never give, as the scheduler says it; empty when it could."""
    memory = cpu = 0
    for container in get(pod, "spec.containers", []):
        requests = get(container, "resources.requests", {})
        memory += to_bytes(requests.get("memory", 0))
        cpu += to_millis(requests.get("cpu", 0))
    if memory > node.memory_bytes:
        return "Insufficient memory"
    return "Insufficient cpu" if cpu > node.cpu_millis else ""


def grace_left(doc: Doc) -> float:
    """Seconds that a workload still has to end by itself.

    All of the grace period when the deletion has just been asked for; what is left of it when a daemon
    takes up a deletion that another one began.
    """
    asked = get(doc, "metadata.deletionGracePeriodSeconds")
    if asked is None:
        asked = get(doc, "spec.terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS)
    grace = float(asked)
    timestamp = get(doc, "metadata.deletionTimestamp")
    if not timestamp:
        return grace
    left = (parse_time(timestamp) - datetime.now(UTC)).total_seconds()
    # Times have whole seconds: up to one second may seem to have passed when none has.
    return grace if left > grace - 1.5 else max(0.0, left)


def deadline_left(pod: Doc) -> float | None:
    """Seconds that the Pod may still be active; None when there is no limit."""
    seconds = get(pod, "spec.activeDeadlineSeconds")
    started = get(pod, "status.startTime")
    if seconds is None or not started:
        return None
    return float(seconds) - (datetime.now(UTC) - parse_time(started)).total_seconds()
