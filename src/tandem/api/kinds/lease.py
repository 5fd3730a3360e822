"""``coordination.k8s.io/v1`` Lease: who leads, told among clients. Nothing here acts upon it."""

from __future__ import annotations

from tandem.api import causes
from tandem.api.kind import Column, Doc, Kind
from tandem.api.meta import get
from tandem.errors import Cause


def _validate(new: Doc, old: Doc | None) -> list[Cause]:
    found = []
    duration, transitions = (
        get(new, f"spec.{field}") for field in ("leaseDurationSeconds", "leaseTransitions")
    )
    if duration is not None and duration <= 0:
        rule = "must be greater than 0"
        found.append(causes.invalid("spec.leaseDurationSeconds", duration, rule))
    if transitions is not None and transitions < 0:
        rule = "must be greater than or equal to 0"
        found.append(causes.invalid("spec.leaseTransitions", transitions, rule))
    return found


LEASE = Kind(
    group="coordination.k8s.io",
    version="v1",
    kind="Lease",
    plural="leases",
    singular="lease",
    schema="io.k8s.api.coordination.v1.Lease",
    status=False,
    columns=(
        Column("Holder", lambda doc: get(doc, "spec.holderIdentity", ""), description="Who leads."),
    ),
    validate=_validate,
)
