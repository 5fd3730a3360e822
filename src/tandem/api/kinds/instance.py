"""``kubevirt.io/v1`` VirtualMachineInstance: one run of a machine, from start to end."""

from __future__ import annotations

from typing import Any

from tandem.api import causes
from tandem.api.kind import Column, Doc, Kind
from tandem.api.kinds.machine import network_warnings
from tandem.api.kinds.machine_defaults import (
    DEFAULT_GRACE_SECONDS,
    default_identity,
    default_instance,
)
from tandem.api.kinds.machine_portability import portability_warnings
from tandem.api.kinds.machine_rules import (
    changed_metadata_causes,
    instance_causes,
    metadata_causes,
)
from tandem.api.kinds.machine_support import VMI_SPEC
from tandem.api.kinds.support import walk
from tandem.api.meta import condition, get, name_causes
from tandem.api.table import age
from tandem.errors import Cause


def _default(doc: Doc) -> None:
    spec = doc.get("spec")
    if isinstance(spec, dict):
        default_identity(spec, doc["metadata"].get("uid", ""))
        default_instance(spec)
    doc.setdefault("status", {}).setdefault("phase", "Pending")


def _validate(new: Doc, old: Doc | None) -> list[Cause]:
    spec = new.get("spec")
    if not spec:
        return [causes.required("spec")]
    if old is not None:
        if spec != old.get("spec"):
            return [causes.forbidden("spec", "update of VMI object is restricted")]
        return changed_metadata_causes(new["metadata"], old["metadata"])
    found: list[Cause] = metadata_causes(new["metadata"], "metadata")
    if new["metadata"].get("name"):
        found += name_causes(new["metadata"]["name"], "metadata.name")
    found += instance_causes(spec, "spec", complete=True)
    return found + walk(spec, VMI_SPEC, "spec").causes


def _warn(new: Doc, old: Doc | None) -> list[str]:
    if old is not None:
        return []
    spec = new.get("spec") or {}
    return [
        *walk(spec, VMI_SPEC, "spec").warnings,
        *portability_warnings(spec, "spec"),
        *network_warnings(spec, "spec", implicit=True),
    ]


def grace(doc: Doc) -> int:
    """Seconds a guest is given to shut down."""
    return int(get(doc, "spec.terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS))


def address(doc: Doc) -> str:
    """The first interface's address, empty while there is none."""
    interfaces: list[dict[str, Any]] = get(doc, "status.interfaces", [])
    return str(interfaces[0].get("ipAddress", "")) if interfaces else ""


def _condition_status(doc: Doc, type_: str) -> str:
    return str((condition(doc, type_) or {}).get("status", ""))


VIRTUAL_MACHINE_INSTANCE = Kind(
    group="kubevirt.io",
    version="v1",
    kind="VirtualMachineInstance",
    plural="virtualmachineinstances",
    singular="virtualmachineinstance",
    schema="io.kubevirt.v1.VirtualMachineInstance",
    short_names=("vmi", "vmis"),
    categories=("all",),
    columns=(
        Column(
            "Age",
            lambda doc: age(get(doc, "metadata.creationTimestamp")),
            description="How long ago the object was created.",
        ),
        Column(
            "Phase",
            lambda doc: get(doc, "status.phase", ""),
            description="Where it is in its life.",
        ),
        Column("IP", address, description="The guest's address."),
        Column(
            "NodeName", lambda doc: get(doc, "status.nodeName", ""), description="Where it runs."
        ),
        Column(
            "Ready", lambda doc: _condition_status(doc, "Ready"), description="Whether it is ready."
        ),
        Column(
            "Live-Migratable",
            lambda doc: _condition_status(doc, "LiveMigratable"),
            priority=1,
            description="Whether it could move to another node.",
        ),
        Column(
            "Paused",
            lambda doc: _condition_status(doc, "Paused"),
            priority=1,
            description="Whether it is frozen.",
        ),
    ),
    default=_default,
    validate=_validate,
    warn=_warn,
    grace=grace,
    field_labels={
        "status.phase": lambda doc: get(doc, "status.phase", ""),
        "status.nodeName": lambda doc: get(doc, "status.nodeName", ""),
    },
    merge_only=True,
)
