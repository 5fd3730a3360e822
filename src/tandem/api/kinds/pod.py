"""``v1`` Pod: containers that share an address and a fate."""

from __future__ import annotations

from tandem.api import causes
from tandem.api.kind import Column, Doc, Kind, Part
from tandem.api.kinds import pod_spec
from tandem.api.kinds.containers import default_host_ports, default_requests
from tandem.api.kinds.pod_admission import admit
from tandem.api.kinds.pod_parts import BINDING, EVICTION
from tandem.api.kinds.pod_status import display_status, readiness_gates, ready_counts, restarts
from tandem.api.kinds.pod_update import (
    ephemeral_causes,
    take_ephemeral_containers,
    update_causes,
)
from tandem.api.kinds.resources import all_containers, qos_class
from tandem.api.meta import get, name_causes
from tandem.errors import Cause


def _default(doc: Doc) -> None:
    spec = doc.get("spec")
    if not isinstance(spec, dict):
        return
    pod_spec.default(spec)
    spec.setdefault("enableServiceLinks", True)
    for container in all_containers(spec):
        default_requests(container)
    default_host_ports(spec)
    # Clients wait by the phase, which is there from the first moment.
    status = doc.setdefault("status", {})
    status.setdefault("phase", "Pending")
    status.setdefault("qosClass", qos_class(spec))


def _validate(new: Doc, old: Doc | None) -> list[Cause]:
    spec = new.get("spec")
    if not spec:
        return [causes.required("spec")]
    if old is not None:
        if spec == old.get("spec"):
            return []
        return pod_spec.causes(spec, "spec", in_pod=True) + update_causes(spec, old["spec"])
    found = pod_spec.causes(spec, "spec", in_pod=True)
    if new["metadata"].get("name"):
        found += name_causes(new["metadata"]["name"], "metadata.name")
    if spec.get("ephemeralContainers"):
        found.append(causes.forbidden("spec.ephemeralContainers", "cannot be set on create"))
    return found


def _validate_ephemeral(new: Doc, old: Doc) -> list[Cause]:
    return pod_spec.causes(new["spec"], "spec", in_pod=True) + ephemeral_causes(new, old)


def _warn(new: Doc, old: Doc | None) -> list[str]:
    if old is not None and new.get("spec") == old.get("spec"):
        return []
    return pod_spec.warnings(new["spec"], "spec")


def grace(doc: Doc) -> int:
    """The Pod's own grace period in seconds."""
    return int(get(doc, "spec.terminationGracePeriodSeconds", pod_spec.DEFAULT_GRACE_SECONDS))


def _ready(doc: Doc) -> str:
    ready, total = ready_counts(doc)
    return f"{ready}/{total}"


POD = Kind(
    group="",
    version="v1",
    kind="Pod",
    plural="pods",
    singular="pod",
    schema="io.k8s.api.core.v1.Pod",
    short_names=("po",),
    categories=("all",),
    subresources={
        "log": ("get",),
        **dict.fromkeys(("attach", "exec", "portforward"), ("create", "get")),
    },
    columns=(
        Column("Ready", _ready, description="Containers that are ready, of all."),
        Column("Status", display_status, description="What the Pod is doing, in one word."),
        Column("Restarts", restarts, description="How often containers were started again."),
        Column(
            "IP",
            lambda doc: get(doc, "status.podIP", "<none>"),
            priority=1,
            description="The Pod's address.",
        ),
        Column(
            "Node",
            lambda doc: get(doc, "spec.nodeName", "<none>"),
            priority=1,
            description="Where it runs.",
        ),
        Column(
            "Nominated Node",
            lambda doc: get(doc, "status.nominatedNodeName", "<none>"),
            priority=1,
            description="Never set here: nothing is preempted.",
        ),
        Column(
            "Readiness Gates",
            readiness_gates,
            priority=1,
            description="Conditions beyond the containers' own that hold, of all that must.",
        ),
    ),
    parts={"ephemeralcontainers": Part(take_ephemeral_containers, _validate_ephemeral)},
    takes={"binding": BINDING, "eviction": EVICTION},
    default=_default,
    admit=admit,
    validate=_validate,
    warn=_warn,
    grace=grace,
    field_labels={
        "spec.nodeName": lambda doc: get(doc, "spec.nodeName", ""),
        "spec.restartPolicy": lambda doc: get(doc, "spec.restartPolicy", ""),
        "spec.schedulerName": lambda doc: get(doc, "spec.schedulerName", ""),
        "spec.serviceAccountName": lambda doc: get(doc, "spec.serviceAccountName", ""),
        "spec.hostNetwork": lambda doc: str(get(doc, "spec.hostNetwork", False)).lower(),
        "status.phase": lambda doc: get(doc, "status.phase", ""),
        "status.podIP": lambda doc: get(doc, "status.podIP", ""),
    },
)
