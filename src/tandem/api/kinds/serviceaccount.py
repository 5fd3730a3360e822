"""``v1`` ServiceAccount: whom a Pod is to the API."""

from __future__ import annotations

from tandem.api import causes
from tandem.api.kind import Column, Doc, Kind
from tandem.api.meta import get, name_causes
from tandem.errors import Cause

DEFAULT = "default"
"""The one in every namespace, which Pods have that name none."""


def _default_request(doc: Doc) -> None:
    doc.setdefault("spec", {}).setdefault("expirationSeconds", 3600)


def _validate_request(new: Doc, _old: Doc | None) -> list[Cause]:
    path, seconds = "spec.expirationSeconds", get(new, "spec.expirationSeconds", 0)
    if seconds < 600:
        return [causes.invalid(path, seconds, "may not specify a duration less than 10 minutes")]
    if seconds > 1 << 32:
        return [
            causes.invalid(path, seconds, "may not specify a duration larger than 2^32 seconds")
        ]
    return []


TOKEN_REQUEST = Kind(
    group="authentication.k8s.io",
    version="v1",
    kind="TokenRequest",
    plural="tokenrequests",
    singular="tokenrequest",
    schema="io.k8s.api.authentication.v1.TokenRequest",
    default=_default_request,
    validate=_validate_request,
    spec_fields=(),
)
"""What is posted to a service account's ``token``, and answered with one; never stored."""


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
    takes={"token": TOKEN_REQUEST},
    validate=_validate,
    spec_fields=(),
)
