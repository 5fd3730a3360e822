"""From a Pod to what the runtime is asked for, and to what its numbers mean. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from tandem.api.kind import Doc
from tandem.api.meta import get, parse_time
from tandem.control.context import LABEL_CLUSTER, Node
from tandem.control.pods.plan import Role
from tandem.runtimes.adapter import RuntimeSpec, RuntimeStatus

LABEL_NAME = "io.kubernetes.pod.name"
LABEL_NAMESPACE = "io.kubernetes.pod.namespace"
LABEL_UID = "io.kubernetes.pod.uid"
"""The kubelet's own labels, by which other tools know a Pod in the runtime."""

DEFAULT_GRACE_SECONDS = 30

_NOT_THE_SANDBOXS = {role.value for role in Role} | {
    "activeDeadlineSeconds",
    "terminationGracePeriodSeconds",
    "tolerations",
    "volumes",
}
"""What a sandbox does not depend on: its containers, and what may change while it runs."""

_PLANNED = ("name", "ports", "resources")


def sandbox_spec(pod: Doc, *, cluster: str, handler: str = "") -> RuntimeSpec:
    """The sandbox that the runtime shall make; ``handler`` is its RuntimeClass's."""
    metadata, spec = pod["metadata"], pod["spec"]
    document: Doc = {
        **{name: value for name, value in spec.items() if name not in _NOT_THE_SANDBOXS},
        "containers": [],
        "plannedContainers": [
            _planned(container)
            for role, container in containers_of(pod)
            if role is not Role.EPHEMERAL
        ],
    }
    if handler:
        document["runtimeHandler"] = handler
    labels = {
        **(metadata.get("labels") or {}),
        LABEL_NAME: metadata["name"],
        LABEL_NAMESPACE: metadata["namespace"],
        LABEL_UID: metadata["uid"],
        LABEL_CLUSTER: cluster,
    }
    return RuntimeSpec(id=metadata["uid"], container_spec=document, labels=labels)


def _planned(container: Doc) -> Doc:
    planned = {name: container[name] for name in _PLANNED if container.get(name)}
    if get(container, "securityContext.privileged"):
        planned["securityContext"] = {"privileged": True}
    return planned


def containers_of(pod: Doc) -> Iterator[tuple[Role, Doc]]:
    """Every container of the Pod and its place, in the order in which they begin."""
    for role in Role:
        for container in pod["spec"].get(role.value) or ():
            yield role, container


def container_named(pod: Doc, role: Role, name: str) -> Doc:
    """One of the Pod's containers."""
    found: Doc = next(c for c in pod["spec"][role.value] if c["name"] == name)
    return found


def addresses_of(pod: Doc, observed: RuntimeStatus | None, node: Node) -> Sequence[str]:
    """The Pod's addresses, which are the host's where it has the host's network."""
    if observed is None:
        return ()
    return (node.address,) if pod["spec"].get("hostNetwork") else observed.addresses


def host_fields(node: Node, addresses: Sequence[str] = ()) -> dict[str, str]:
    """What a fieldRef may name that the Pod itself does not say; ``addresses`` are the sandbox's."""
    fields = {"status.hostIP": node.address, "status.hostIPs": node.address}
    if addresses:
        fields |= {"status.podIP": addresses[0], "status.podIPs": ",".join(addresses)}
    return fields


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
