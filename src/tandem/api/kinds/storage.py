"""What claims, persistent volumes and classes have in common: modes, classes, sizes."""

from __future__ import annotations

from typing import Any

from tandem.api import causes
from tandem.api.kind import Doc
from tandem.api.kinds.checks import choice_causes
from tandem.api.meta import get, name_causes
from tandem.api.quantity import RULE, parse_quantity
from tandem.errors import Cause

ACCESS_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}
"""Each with its short form, in the order in which kubectl lists them."""

VOLUME_MODES = ("Block", "Filesystem")
RECLAIM_POLICIES = ("Delete", "Retain")
BINDING_MODES = ("Immediate", "WaitForFirstConsumer")

CLASS_RESOURCE = "storageclasses.storage.k8s.io"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_OLD_CLASS = "volume.beta.kubernetes.io/storage-class"

_MORE_THAN_ZERO = "must be greater than zero"


def short_modes(modes: list[str]) -> str:
    """``RWO,ROX``"""
    return ",".join(short for mode, short in ACCESS_MODES.items() if mode in modes)


def class_of(doc: Doc) -> str | None:
    """The class that a claim or a volume names: empty for none at all, None when it says nothing."""
    old = get(doc, "metadata.annotations", {}).get(_OLD_CLASS)
    value = old if old is not None else doc.get("spec", {}).get("storageClassName")
    return None if value is None else str(value)


def default_class(classes: list[Doc]) -> Doc | None:
    """The class of claims that name none: of several that are marked, the newest."""
    marked = [
        doc for doc in classes if get(doc, "metadata.annotations", {}).get(DEFAULT_CLASS) == "true"
    ]
    marked.sort(key=lambda doc: str(doc["metadata"]["name"]))
    return max(marked, key=lambda doc: get(doc, "metadata.creationTimestamp", ""), default=None)


def mode_causes(spec: Doc, path: str) -> list[Cause]:
    """What is wrong with the access modes, the volume mode and the class."""
    modes = spec.get("accessModes") or []
    found = [
        causes.not_supported(f"{path}.accessModes", mode, ACCESS_MODES)
        for mode in modes
        if mode not in ACCESS_MODES
    ]
    if not modes:
        found.append(causes.required(f"{path}.accessModes", "at least 1 access mode is required"))
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        message = "may not use ReadWriteOncePod with other access modes"
        found.append(causes.forbidden(f"{path}.accessModes", message))
    found += choice_causes(spec, "volumeMode", VOLUME_MODES, path)
    if name := spec.get("storageClassName"):
        found += name_causes(name, f"{path}.storageClassName")
    return found


def size_causes(value: Any, path: str) -> list[Cause]:
    """Whether ``value`` is a size, and more than nothing."""
    try:
        size = parse_quantity(value)
    except (ValueError, TypeError):
        return [causes.invalid(path, value, RULE)]
    return [] if size > 0 else [causes.invalid(path, value, _MORE_THAN_ZERO)]
