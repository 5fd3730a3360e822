"""``v1`` Namespace: a name that other objects live under. Emptied and removed by its controller."""

from __future__ import annotations

from tandem.api.kind import Column, Doc, Kind
from tandem.api.meta import get, name_causes
from tandem.errors import Cause

NAME_LABEL = "kubernetes.io/metadata.name"


def _default(doc: Doc) -> None:
    spec = doc.setdefault("spec", {})
    spec.setdefault("finalizers", ["kubernetes"])
    name = doc["metadata"].get("name")
    if name:
        labels = doc["metadata"].get("labels") or {}
        doc["metadata"]["labels"] = {**labels, NAME_LABEL: name}
    # Clients judge a namespace by its phase, which is there from the first moment in Kubernetes too.
    doc.setdefault("status", {}).setdefault("phase", "Active")


def _validate(new: Doc, old: Doc | None) -> list[Cause]:
    name = new["metadata"].get("name")
    return name_causes(name, "metadata.name", "dns1123label") if name and old is None else []


def phase(doc: Doc) -> str:
    """``Active`` or ``Terminating``."""
    if get(doc, "metadata.deletionTimestamp"):
        return "Terminating"
    return str(get(doc, "status.phase", "Active"))


NAMESPACE = Kind(
    group="",
    version="v1",
    kind="Namespace",
    plural="namespaces",
    singular="namespace",
    schema="io.k8s.api.core.v1.Namespace",
    short_names=("ns",),
    namespaced=False,
    columns=(Column("Status", phase, description="Active, or Terminating while it is emptied."),),
    default=_default,
    validate=_validate,
    # Marked by DELETE and removed by the controller once it is empty, which takes no set time.
    grace=lambda _doc: 0,
    field_labels={"status.phase": phase},
)
