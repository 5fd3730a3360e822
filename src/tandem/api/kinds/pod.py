"""``v1`` Pod: containers that share an address and a fate."""

from __future__ import annotations

from typing import Any

from tandem.api import causes
from tandem.api.kind import Column, Doc, Kind
from tandem.api.kinds import pod_support
from tandem.api.kinds.containers import (
    choice_causes,
    containers_causes,
    default_container,
    identity_causes,
)
from tandem.api.kinds.pod_status import display_status, ready_counts, restarts
from tandem.api.meta import get, name_causes
from tandem.errors import Cause

DEFAULT_GRACE_SECONDS = 30

_RESTART_POLICIES = ("Always", "OnFailure", "Never")
_DNS_POLICIES = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
_MUTABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to "
    "existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
    "previously negative)"
)


def _default(doc: Doc) -> None:
    spec = doc.get("spec")
    if not isinstance(spec, dict):
        return
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("enableServiceLinks", True)
    for container in spec.get("containers") or ():
        default_container(container)


def _validate(new: Doc, old: Doc | None) -> list[Cause]:
    spec = new.get("spec")
    if not spec:
        return [causes.required("spec")]
    found = []
    if old is None and new["metadata"].get("name"):
        found += name_causes(new["metadata"]["name"], "metadata.name")
    if old is not None and spec == old.get("spec"):
        return found
    if not spec.get("containers"):
        found.append(causes.required("spec.containers"))
    found += containers_causes(spec.get("containers") or [], "spec.containers")
    found += choice_causes(spec, "restartPolicy", _RESTART_POLICIES, "spec")
    found += choice_causes(spec, "dnsPolicy", _DNS_POLICIES, "spec")
    found += _number_causes(spec)
    for field in ("hostname", "subdomain"):
        if spec.get(field):
            found += name_causes(spec[field], f"spec.{field}", "dns1123label")
    found += _sharing_causes(spec)
    found += identity_causes(spec.get("securityContext") or {}, "spec.securityContext")
    found += pod_support.check(spec).causes
    if old is not None:
        found += _immutability_causes(spec, old.get("spec") or {})
    return found


def _number_causes(spec: Doc) -> list[Cause]:
    found = []
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0:
        message = "must be greater than or equal to 0"
        found.append(causes.invalid("spec.terminationGracePeriodSeconds", grace, message))
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline < 2**31:
        message = "must be between 1 and 2147483647, inclusive"
        found.append(causes.invalid("spec.activeDeadlineSeconds", deadline, message))
    return found


def _sharing_causes(spec: Doc) -> list[Cause]:
    found = []
    if spec.get("hostPID") and spec.get("shareProcessNamespace"):
        message = "ShareProcessNamespace and HostPID cannot both be enabled"
        found.append(causes.invalid("spec.shareProcessNamespace", True, message))
    if spec.get("dnsPolicy") == "None" and not get(spec, "dnsConfig.nameservers"):
        message = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        found.append(causes.required("spec.dnsConfig.nameservers", message))
    return found


def _immutability_causes(new: Doc, old: Doc) -> list[Cause]:
    if _frozen_part(new) != _frozen_part(old):
        return [causes.forbidden("spec", _MUTABLE)]
    return []


def _frozen_part(spec: Doc) -> Doc:
    """The spec without what may change after creation."""
    kept: dict[str, Any] = {
        name: value
        for name, value in spec.items()
        if name not in ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds")
    }
    kept["containers"] = [
        {name: value for name, value in container.items() if name != "image"}
        for container in spec.get("containers") or ()
    ]
    return kept


def _warn(new: Doc, old: Doc | None) -> list[str]:
    if old is not None and new.get("spec") == old.get("spec"):
        return []
    return pod_support.check(new.get("spec")).warnings


def grace(doc: Doc) -> int:
    """The Pod's own grace period in seconds."""
    return int(get(doc, "spec.terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS))


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
    subresources=("log",),
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
            lambda _doc: "<none>",
            priority=1,
            description="Conditions beyond the containers' own.",
        ),
    ),
    default=_default,
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
