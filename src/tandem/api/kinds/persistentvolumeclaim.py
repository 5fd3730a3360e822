"""``v1`` PersistentVolumeClaim: a wish for storage that outlives Pods."""

from __future__ import annotations

from tandem.api import causes
from tandem.api.kind import Column, Doc, Kind, Lookup
from tandem.api.kinds import storage
from tandem.api.meta import get, name_causes
from tandem.api.quantity import parse_quantity
from tandem.errors import Cause

PROTECTION = "kubernetes.io/pvc-protection"

_NOT_HERE = ("dataSource", "dataSourceRef", "volumeAttributesClassName")
_IMMUTABLE = (
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for "
    "bound claims"
)


def _default(doc: Doc) -> None:
    if "status" not in doc:  # a new one
        finalizers = doc["metadata"].setdefault("finalizers", [])
        if PROTECTION not in finalizers:
            finalizers.append(PROTECTION)
        doc["status"] = {"phase": "Pending"}
    if isinstance(doc.get("spec"), dict):
        doc["spec"].setdefault("volumeMode", "Filesystem")


def _admit(doc: Doc, lookup: Lookup) -> None:
    """A claim that says nothing of a class is for the default one."""
    if storage.class_of(doc) is None:
        found = storage.default_class(list(lookup.list(storage.CLASS_RESOURCE)))
        if found is not None:
            doc["spec"]["storageClassName"] = found["metadata"]["name"]


def _validate(new: Doc, old: Doc | None) -> list[Cause]:
    spec = new.get("spec") or {}
    if old is not None:
        return _update_causes(spec, old)
    found = []
    if new["metadata"].get("name"):
        found += name_causes(new["metadata"]["name"], "metadata.name")
    return found + spec_causes(spec, "spec")


def spec_causes(spec: Doc, path: str) -> list[Cause]:
    """What is wrong with the spec of a new claim."""
    found = storage.mode_causes(spec, path)
    size = get(spec, "resources.requests", {}).get("storage")
    if size is None:
        found.append(causes.required(f"{path}.resources[storage]"))
    else:
        found += storage.size_causes(size, f"{path}.resources[storage]")
    if spec.get("volumeMode") == "Block":
        message = "block devices are not supported here: use Filesystem"
        found.append(causes.forbidden(f"{path}.volumeMode", message))
    return found + [
        causes.forbidden(f"{path}.{field}", "is not supported here")
        for field in _NOT_HERE
        if spec.get(field)
    ]


def _update_causes(spec: Doc, old: Doc) -> list[Cause]:
    before = old.get("spec") or {}
    bound = get(old, "status.phase") == "Bound"
    if _frozen(spec, bound=bound) != _frozen(before, bound=bound):
        return [causes.forbidden("spec", _IMMUTABLE)]
    path = "spec.resources.requests.storage"
    size = get(spec, "resources.requests", {}).get("storage", "0")
    found = storage.size_causes(size, path)
    had = get(old, "status.capacity", {}).get("storage", "0")
    if not found and bound and parse_quantity(size) < parse_quantity(had):
        found.append(causes.forbidden(path, "field can not be less than status.capacity"))
    return found


def _frozen(spec: Doc, *, bound: bool) -> Doc:
    return {name: value for name, value in spec.items() if not bound or name != "resources"}


def phase(doc: Doc) -> str:
    """``Pending``, ``Bound``, ``Lost`` or ``Terminating``."""
    if get(doc, "metadata.deletionTimestamp"):
        return "Terminating"
    return str(get(doc, "status.phase", ""))


def _modes(doc: Doc) -> str:
    bound = get(doc, "spec.volumeName")
    return storage.short_modes(get(doc, "status.accessModes", [])) if bound else ""


def _capacity(doc: Doc) -> str:
    bound = get(doc, "spec.volumeName")
    return str(get(doc, "status.capacity", {}).get("storage", "")) if bound else ""


PERSISTENT_VOLUME_CLAIM = Kind(
    group="",
    version="v1",
    kind="PersistentVolumeClaim",
    plural="persistentvolumeclaims",
    singular="persistentvolumeclaim",
    schema="io.k8s.api.core.v1.PersistentVolumeClaim",
    short_names=("pvc",),
    columns=(
        Column("Status", phase, description="Pending, Bound to a volume, Lost or Terminating."),
        Column(
            "Volume", lambda doc: get(doc, "spec.volumeName", ""), description="What it has got."
        ),
        Column("Capacity", _capacity, description="How much that is said to hold."),
        Column("Access Modes", _modes, description="How it may be mounted."),
        Column(
            "StorageClass",
            lambda doc: storage.class_of(doc) or "",
            description="Who makes its volume.",
        ),
        Column(
            "VolumeAttributesClass",
            lambda _doc: "<unset>",
            description="Never set here.",
        ),
        Column(
            "VolumeMode",
            lambda doc: get(doc, "spec.volumeMode", "<unset>"),
            priority=1,
            description="A file system, or a bare device.",
        ),
    ),
    default=_default,
    admit=_admit,
    validate=_validate,
)
