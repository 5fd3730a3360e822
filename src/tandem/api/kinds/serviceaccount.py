"""``v1`` ServiceAccount: whom a Pod is to the API."""

from __future__ import annotations

from tandem.api.kind import Column, Doc, Kind
from tandem.api.meta import name_causes
from tandem.errors import Cause

DEFAULT = "default"
"""The one in every namespace, which Pods have that name none."""


def _validate(new: Doc, old: Doc | None) -> list[Cause]:
    name = new["metadata"].get("name")
    return name_causes(name, "metadata.name") if name and old is None else []


SERVICE_ACCOUNT = Kind(
    group="",
    version="v1",
    kind="ServiceAccount",
    plural="serviceaccounts",
    singular="serviceaccount",
    schema="io.k8s.api.core.v1.ServiceAccount",
    short_names=("sa",),
    status=False,
    columns=(
        Column(
            "Secrets",
            lambda doc: len(doc.get("secrets") or ()),
            type="integer",
            description="How many Secrets it names.",
        ),
    ),
    validate=_validate,
    spec_fields=(),
)
