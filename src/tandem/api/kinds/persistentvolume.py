"""``v1`` PersistentVolume: a directory of this host that outlives Pods."""

from __future__ import annotations

from tandem.api import causes
from tandem.api.kind import Column, Doc, Kind
from tandem.api.kinds import storage
from tandem.api.kinds.checks import choice_causes, no_backsteps_causes
from tandem.api.meta import get, name_causes
from tandem.errors import Cause

PROTECTION = "kubernetes.io/pv-protection"

SOURCES = ("hostPath", "local")
"""What a volume may be here; everything else that Kubernetes knows is refused by name."""

_COMMON = (
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
)
_HOST_PATH_TYPES = (
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
)


def _default(doc: Doc) -> None:
    if "status" not in doc:  # a new one
        finalizers = doc["metadata"].setdefault("finalizers", [])
        if PROTECTION not in finalizers:
            finalizers.append(PROTECTION)
        doc["status"] = {"phase": "Pending"}
    spec = doc.get("spec")
    if isinstance(spec, dict):
        spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
        spec.setdefault("volumeMode", "Filesystem")
        if isinstance(spec.get("hostPath"), dict):
            spec["hostPath"].setdefault("type", "")


def _validate(new: Doc, old: Doc | None) -> list[Cause]:
    spec = new.get("spec") or {}
    found = []
    if old is None and new["metadata"].get("name"):
        found += name_causes(new["metadata"]["name"], "metadata.name")
    found += storage.mode_causes(spec, "spec")
    capacity = spec.get("capacity") or {}
    if "storage" not in capacity:
        found.append(causes.required("spec.capacity"))
    for name, value in capacity.items():
        if name != "storage":
            found.append(causes.not_supported("spec.capacity", name, ("storage",)))
        else:
            found += storage.size_causes(value, f"spec.capacity[{name}]")
    policy = "persistentVolumeReclaimPolicy"
    found += choice_causes(spec, policy, storage.RECLAIM_POLICIES, "spec")
    if spec.get("volumeMode") == "Block":
        message = "block devices are not supported here: use Filesystem"
        found.append(causes.forbidden("spec.volumeMode", message))
    found += _source_causes(spec)
    if old is not None and _source(spec) != _source(old.get("spec") or {}):
        message = "spec.persistentvolumesource is immutable after creation"
        found.append(causes.forbidden("spec.persistentvolumesource", message))
    return found


def _source(spec: Doc) -> Doc:
    return {name: value for name, value in spec.items() if name not in _COMMON}


def _source_causes(spec: Doc) -> list[Cause]:
    given = sorted(_source(spec))
    if not given:
        return [causes.required("spec", "must specify a volume type")]
    found = [
        causes.forbidden(f"spec.{name}", "may not specify more than 1 volume type")
        for name in given[1:]
    ]
    name = given[0]
    if name not in SOURCES:
        message = f"volumes of this kind are not supported here: use {' or '.join(SOURCES)}"
        return [*found, causes.forbidden(f"spec.{name}", message)]
    path = f"spec.{name}.path"
    value = str(spec[name].get("path") or "")
    if not value:
        found.append(causes.required(path))
    elif name == "local" and not value.startswith("/"):
        found.append(causes.invalid(path, value, "must be an absolute path"))
    found += no_backsteps_causes(value, path)
    if name == "hostPath":
        found += choice_causes(spec[name], "type", _HOST_PATH_TYPES, "spec.hostPath")
    elif not get(spec, "nodeAffinity.required"):
        message = "Local volume requires node affinity"
        found.append(causes.required("spec.nodeAffinity", message))
    if spec.get("mountOptions"):
        message = "may not specify mount options for this volume type"
        found.append(causes.forbidden("spec.mountOptions", message))
    return found


def phase(doc: Doc) -> str:
    """``Pending``, ``Available``, ``Bound``, ``Released``, ``Failed`` or ``Terminating``."""
    if get(doc, "metadata.deletionTimestamp"):
        return "Terminating"
    return str(get(doc, "status.phase", ""))


def _claim(doc: Doc) -> str:
    reference = get(doc, "spec.claimRef")
    return f"{reference.get('namespace', '')}/{reference.get('name', '')}" if reference else ""


PERSISTENT_VOLUME = Kind(
    group="",
    version="v1",
    kind="PersistentVolume",
    plural="persistentvolumes",
    singular="persistentvolume",
    schema="io.k8s.api.core.v1.PersistentVolume",
    short_names=("pv",),
    namespaced=False,
    columns=(
        Column(
            "Capacity",
            lambda doc: get(doc, "spec.capacity", {}).get("storage", ""),
            description="How much it is said to hold; nobody enforces it.",
        ),
        Column(
            "Access Modes",
            lambda doc: storage.short_modes(get(doc, "spec.accessModes", [])),
            description="How it may be mounted.",
        ),
        Column(
            "Reclaim Policy",
            lambda doc: get(doc, "spec.persistentVolumeReclaimPolicy", ""),
            description="What becomes of it when its claim goes.",
        ),
        Column("Status", phase, description="Available, Bound to a claim, Released or Failed."),
        Column("Claim", _claim, description="Whose it is."),
        Column("StorageClass", lambda doc: storage.class_of(doc) or "", description="Its class."),
        Column("VolumeAttributesClass", lambda _doc: "<unset>", description="Never set here."),
        Column(
            "Reason", lambda doc: get(doc, "status.reason", ""), description="Why it has failed."
        ),
        Column(
            "VolumeMode",
            lambda doc: get(doc, "spec.volumeMode", "<unset>"),
            priority=1,
            description="A file system, or a bare device.",
        ),
    ),
    default=_default,
    validate=_validate,
)
