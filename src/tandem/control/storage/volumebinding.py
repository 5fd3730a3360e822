"""Which claim gets which volume: the binding rules of Kubernetes. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from tandem.api.kind import Doc
from tandem.api.kinds.storage import class_of
from tandem.api.meta import get
from tandem.api.quantity import parse_quantity
from tandem.api.selectors import label_selector_from_doc

BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
BOUND_BY_US = "pv.kubernetes.io/bound-by-controller"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"


def requested(claim: Doc) -> str:
    """How much the claim asks for."""
    return str(get(claim, "spec.resources.requests", {}).get("storage", "0"))


def capacity(volume: Doc) -> str:
    """How much the volume is said to hold."""
    return str(get(volume, "spec.capacity", {}).get("storage", "0"))


def is_for(volume: Doc, claim: Doc) -> bool:
    """Whether the volume is bound to the claim, or kept for it by name."""
    reference = get(volume, "spec.claimRef", {})
    metadata = claim["metadata"]
    return (
        reference.get("name") == metadata["name"]
        and reference.get("namespace") == metadata["namespace"]
        and reference.get("uid", "") in ("", metadata["uid"])
    )


def mismatch(volume: Doc, claim: Doc) -> str:
    """Why a volume that was named cannot serve the claim; empty when it can."""
    if parse_quantity(capacity(volume)) < parse_quantity(requested(claim)):
        return "requested PV is too small"
    if (class_of(volume) or "") != (class_of(claim) or ""):
        return "storageClassName does not match"
    if get(volume, "spec.volumeMode", "Filesystem") != get(claim, "spec.volumeMode", "Filesystem"):
        return "incompatible volumeMode"
    if not set(get(claim, "spec.accessModes", [])) <= set(get(volume, "spec.accessModes", [])):
        return "incompatible accessMode"
    return ""


def best(claim: Doc, volumes: Iterable[Doc]) -> Doc | None:
    """The volume for the claim: one that is kept for it, else the smallest that will do."""
    found = []
    selector = get(claim, "spec.selector")
    matches = None if selector is None else label_selector_from_doc(selector)
    for volume in volumes:
        if get(volume, "metadata.deletionTimestamp") or mismatch(volume, claim):
            continue
        if get(volume, "spec.claimRef"):
            if is_for(volume, claim):
                return volume
            continue
        if get(volume, "status.phase") != "Available":
            continue
        if matches is not None and not matches.matches(get(volume, "metadata.labels", {})):
            continue
        found.append(volume)
    return min(
        found, key=lambda v: (parse_quantity(capacity(v)), v["metadata"]["name"]), default=None
    )
