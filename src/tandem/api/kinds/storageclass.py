"""``storage.k8s.io/v1`` StorageClass: who makes volumes, and what becomes of them."""

from __future__ import annotations

from tandem.api import causes
from tandem.api.kind import Column, Doc, Kind
from tandem.api.kinds import storage
from tandem.api.meta import get, name_causes
from tandem.api.table import age
from tandem.errors import Cause


def _default(doc: Doc) -> None:
    doc.setdefault("reclaimPolicy", "Delete")
    doc.setdefault("volumeBindingMode", "Immediate")


def _validate(new: Doc, old: Doc | None) -> list[Cause]:
    found = []
    if old is None and new["metadata"].get("name"):
        found += name_causes(new["metadata"]["name"], "metadata.name")
    if not new.get("provisioner"):
        found.append(causes.required("provisioner"))
    found += _choices(new)
    if old is None:
        return found
    found += [
        causes.forbidden(field, f"updates to {field} are forbidden.")
        for field in ("parameters", "provisioner", "reclaimPolicy")
        if (new.get(field) or {}) != (old.get(field) or {})
    ]
    if new.get("volumeBindingMode") != old.get("volumeBindingMode"):
        found.append(causes.immutable("volumeBindingMode", new.get("volumeBindingMode")))
    return found


def _choices(doc: Doc) -> list[Cause]:
    found = []
    for field, choices in (
        ("reclaimPolicy", storage.RECLAIM_POLICIES),
        ("volumeBindingMode", storage.BINDING_MODES),
    ):
        value = doc.get(field)
        if value not in choices:
            found.append(causes.not_supported(field, value, choices))
    return found


def _name(doc: Doc) -> str:
    marked = get(doc, "metadata.annotations", {}).get(storage.DEFAULT_CLASS) == "true"
    return f"{doc['metadata']['name']} (default)" if marked else str(doc["metadata"]["name"])


STORAGE_CLASS = Kind(
    group="storage.k8s.io",
    version="v1",
    kind="StorageClass",
    plural="storageclasses",
    singular="storageclass",
    schema="io.k8s.api.storage.v1.StorageClass",
    short_names=("sc",),
    namespaced=False,
    status=False,
    columns=(
        Column(
            "Name", _name, format="name", description="Its name, and whether it is the default."
        ),
        Column(
            "Provisioner", lambda doc: doc.get("provisioner", ""), description="Who makes volumes."
        ),
        Column(
            "ReclaimPolicy",
            lambda doc: doc.get("reclaimPolicy", "Delete"),
            description="What becomes of a volume when its claim goes.",
        ),
        Column(
            "VolumeBindingMode",
            lambda doc: doc.get("volumeBindingMode", "Immediate"),
            description="Whether a claim waits for a Pod.",
        ),
        Column(
            "AllowVolumeExpansion",
            lambda doc: bool(doc.get("allowVolumeExpansion")),
            type="boolean",
            description="Whether claims may grow.",
        ),
        Column(
            "Age",
            lambda doc: age(get(doc, "metadata.creationTimestamp")),
            description="How long ago the object was created.",
        ),
    ),
    default=_default,
    validate=_validate,
    spec_fields=(),
)
