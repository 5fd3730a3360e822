"""``v1`` Node: the host, as what Pods are placed on.

Its status is the daemon's to write; labels, annotations, taints and ``spec.unschedulable`` are the
users'.
"""

from __future__ import annotations

from collections.abc import Callable

from tandem.api import causes
from tandem.api.kind import Column, Doc, Kind
from tandem.api.meta import condition, get, label_value_causes, qualified_name_causes
from tandem.api.table import age
from tandem.errors import Cause

EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")

_ROLE_LABEL = "kubernetes.io/role"
_ROLE_PREFIX = "node-role.kubernetes.io/"


def _default(doc: Doc) -> None:
    doc.setdefault("spec", {})


def _validate(new: Doc, old: Doc | None) -> list[Cause]:
    found: list[Cause] = []
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(get(new, "spec.taints", [])):
        path = f"spec.taints[{index}]"
        key, effect = taint.get("key") or "", taint.get("effect") or ""
        found += qualified_name_causes(key, f"{path}.key")
        found += label_value_causes(taint.get("value") or "", f"{path}.value")
        if not effect:
            found.append(causes.required(f"{path}.effect"))
        elif effect not in EFFECTS:
            found.append(causes.not_supported(f"{path}.effect", effect, EFFECTS))
        if (key, effect) in seen:
            found.append(causes.duplicate(path, taint))
        seen.add((key, effect))
    for field in ("podCIDR", "providerID"):
        before = get(old or {}, f"spec.{field}")
        if before and get(new, f"spec.{field}") != before:
            rule = 'node updates may not change it except from "" to valid'
            found.append(causes.forbidden(f"spec.{field}", rule))
    return found


def status(doc: Doc) -> str:
    """The STATUS column: ``Ready``, ``NotReady`` or ``Unknown``, and whether it takes new Pods."""
    ready = condition(doc, "Ready")
    told = "Unknown" if ready is None else "Ready" if ready["status"] == "True" else "NotReady"
    return f"{told},SchedulingDisabled" if get(doc, "spec.unschedulable") else told


def _roles(doc: Doc) -> str:
    labels = get(doc, "metadata.labels", {})
    found = {key.removeprefix(_ROLE_PREFIX) for key in labels if key.startswith(_ROLE_PREFIX)}
    found.add(labels.get(_ROLE_LABEL, ""))
    return ",".join(sorted(found - {""})) or "<none>"


def _address(type_: str) -> Callable[[Doc], str]:
    def find(doc: Doc) -> str:
        addresses = get(doc, "status.addresses", [])
        return next((str(a["address"]) for a in addresses if a.get("type") == type_), "<none>")

    return find


def _info(field: str, unknown: str = "<unknown>") -> Callable[[Doc], str]:
    return lambda doc: get(doc, f"status.nodeInfo.{field}") or unknown


NODE = Kind(
    group="",
    version="v1",
    kind="Node",
    plural="nodes",
    singular="node",
    schema="io.k8s.api.core.v1.Node",
    short_names=("no",),
    namespaced=False,
    columns=(
        Column("Status", status, description="Whether it runs Pods, and takes new ones."),
        Column("Roles", _roles, description="By the labels node-role.kubernetes.io/ROLE."),
        Column("Age", lambda doc: age(get(doc, "metadata.creationTimestamp"))),
        Column("Version", _info("kubeletVersion", ""), description="Of the daemon."),
        Column("Internal-IP", _address("InternalIP"), priority=1, description="Its address."),
        Column("External-IP", _address("ExternalIP"), priority=1, description="Never set here."),
        Column("OS-Image", _info("osImage"), priority=1, description="The host's system."),
        Column("Kernel-Version", _info("kernelVersion"), priority=1, description="Its kernel."),
        Column(
            "Container-Runtime",
            _info("containerRuntimeVersion"),
            priority=1,
            description="What runs the containers, and its version.",
        ),
    ),
    default=_default,
    validate=_validate,
    field_labels={
        "spec.unschedulable": lambda doc: str(bool(get(doc, "spec.unschedulable"))).lower(),
    },
)
