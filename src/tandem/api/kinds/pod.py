"""``v1`` Pod: containers that share an address and a fate."""

from __future__ import annotations

from typing import Any

from tandem.api import causes
from tandem.api.kind import Column, Doc, Kind
from tandem.api.kinds import pod_spec
from tandem.api.kinds.pod_status import display_status, ready_counts, restarts
from tandem.api.kinds.resources import qos_class
from tandem.api.meta import get, name_causes
from tandem.errors import Cause

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
    pod_spec.default(spec)
    spec.setdefault("enableServiceLinks", True)
    # Clients wait by the phase, which is there from the first moment.
    status = doc.setdefault("status", {})
    status.setdefault("phase", "Pending")
    status.setdefault("qosClass", qos_class(spec))


def _validate(new: Doc, old: Doc | None) -> list[Cause]:
    spec = new.get("spec")
    if not spec:
        return [causes.required("spec")]
    found = []
    if old is None and new["metadata"].get("name"):
        found += name_causes(new["metadata"]["name"], "metadata.name")
    if old is not None and spec == old.get("spec"):
        return found
    found += pod_spec.causes(spec, "spec")
    if old is not None:
        found += _immutability_causes(spec, old.get("spec") or {})
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
