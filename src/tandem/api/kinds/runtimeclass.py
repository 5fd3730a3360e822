"""``node.k8s.io/v1`` RuntimeClass: a name for one of the ways in which the runtime can run a Pod."""

from __future__ import annotations

from tandem.api import causes
from tandem.api.kind import Column, Doc, Kind
from tandem.api.kinds.placement import toleration_causes
from tandem.api.kinds.requirements import overhead_causes
from tandem.api.meta import get, label_causes, name_causes
from tandem.errors import Cause


def _validate(new: Doc, old: Doc | None) -> list[Cause]:
    handler = new.get("handler") or ""
    if not handler:
        found = [causes.required("handler")]
    else:
        found = name_causes(handler, "handler", "dns1123label")
    found += overhead_causes(get(new, "overhead.podFixed", {}), "overhead.podFixed")
    scheduling = new.get("scheduling") or {}
    found += label_causes(scheduling.get("nodeSelector") or {}, "scheduling.nodeSelector")
    found += toleration_causes(scheduling.get("tolerations") or [], "scheduling.tolerations")
    if old is not None and handler != old.get("handler"):
        found.append(causes.immutable("handler", handler))
    return found


RUNTIME_CLASS = Kind(
    group="node.k8s.io",
    version="v1",
    kind="RuntimeClass",
    plural="runtimeclasses",
    singular="runtimeclass",
    schema="io.k8s.api.node.v1.RuntimeClass",
    namespaced=False,
    status=False,
    columns=(
        Column(
            "Handler",
            lambda doc: doc.get("handler", ""),
            description="What the runtime's configuration calls it.",
        ),
    ),
    validate=_validate,
    spec_fields=(),
)
