"""``scheduling.k8s.io/v1`` PriorityClass: a name for a priority, which Pods are given when created."""

from __future__ import annotations

from tandem.api import causes
from tandem.api.kind import Column, Doc, Kind
from tandem.api.kinds.checks import choice_causes
from tandem.errors import Cause

HIGHEST_USER_PRIORITY = 1_000_000_000
"""Beyond it are the system's own."""

SYSTEM_CLASSES: tuple[Doc, ...] = (
    {
        "metadata": {"name": "system-cluster-critical"},
        "value": 2_000_000_000,
        "description": "Used for system critical pods that must run in the cluster, but can be moved "
        "to another node if necessary.",
    },
    {
        "metadata": {"name": "system-node-critical"},
        "value": 2_000_001_000,
        "description": "Used for system critical pods that must not be moved from their current node.",
    },
)
"""Those that are always there."""

_SYSTEM = {doc["metadata"]["name"]: doc["value"] for doc in SYSTEM_CLASSES}


def _default(doc: Doc) -> None:
    doc.setdefault("preemptionPolicy", "PreemptLowerPriority")


def _validate(new: Doc, old: Doc | None) -> list[Cause]:
    found: list[Cause] = []
    name, value = new["metadata"].get("name", ""), new.get("value", 0)
    if name.startswith("system-"):
        if _SYSTEM.get(name) != value or new.get("globalDefault"):
            message = (
                "priority class names with 'system-' prefix are reserved for system use only. "
                f"error: {name} is not a known system priority class"
            )
            found.append(causes.forbidden("metadata.name", message))
    elif value > HIGHEST_USER_PRIORITY:
        message = f"maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}"
        found.append(causes.forbidden("value", message))
    policies = ("Never", "PreemptLowerPriority")
    found += choice_causes(new, "preemptionPolicy", policies, "")
    if old is not None:
        if value != old.get("value", 0):
            found.append(causes.forbidden("value", "may not be changed in an update."))
        if new.get("preemptionPolicy") != old.get("preemptionPolicy"):
            policy = new.get("preemptionPolicy")
            found.append(causes.immutable("preemptionPolicy", policy))
    return found


PRIORITY_CLASS = Kind(
    group="scheduling.k8s.io",
    version="v1",
    kind="PriorityClass",
    plural="priorityclasses",
    singular="priorityclass",
    schema="io.k8s.api.scheduling.v1.PriorityClass",
    short_names=("pc",),
    namespaced=False,
    status=False,
    columns=(
        Column(
            "Value",
            lambda doc: doc.get("value", 0),
            type="integer",
            description="Higher ones come first.",
        ),
        Column(
            "Global-Default",
            lambda doc: str(bool(doc.get("globalDefault"))).lower(),
            type="boolean",
            description="Whether Pods that name no class are of this one.",
        ),
        Column(
            "PreemptionPolicy",
            lambda doc: doc.get("preemptionPolicy", ""),
            description="Whether its Pods may displace others.",
        ),
    ),
    default=_default,
    validate=_validate,
    spec_fields=(),
)
