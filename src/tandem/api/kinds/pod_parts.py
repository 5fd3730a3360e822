"""What is posted to a Pod's subresources: ``v1`` Binding and ``policy/v1`` Eviction, never stored."""

from __future__ import annotations

from tandem.api import causes
from tandem.api.kind import Doc, Kind
from tandem.api.meta import get
from tandem.errors import Cause


def _validate_binding(new: Doc, _old: Doc | None) -> list[Cause]:
    found = []
    kind = get(new, "target.kind", "")
    if kind not in ("", "Node"):
        found.append(causes.not_supported("target.kind", kind, ("<empty>", "Node")))
    if not get(new, "target.name"):
        found.append(causes.required("target.name"))
    return found


BINDING = Kind(
    group="",
    version="v1",
    kind="Binding",
    plural="bindings",
    singular="binding",
    schema="io.k8s.api.core.v1.Binding",
    status=False,
    validate=_validate_binding,
    spec_fields=(),
)
"""By which a scheduler gives a Pod its node."""

EVICTION = Kind(
    group="policy",
    version="v1",
    kind="Eviction",
    plural="evictions",
    singular="eviction",
    schema="io.k8s.api.policy.v1.Eviction",
    status=False,
    spec_fields=(),
)
"""By which a Pod is asked to leave; nothing here makes a budget of disruptions that could object."""
