"""Who am I, and what may I do: ``kubectl auth whoami`` and ``kubectl auth can-i``.

Whoever gets as far as to ask is an administrator and may do everything.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from tandem.api import causes
from tandem.api.kind import Doc
from tandem.errors import InvalidSpec, MethodNotAllowed
from tandem.server import media, respond
from tandem.server.call import no_such_path
from tandem.server.discovery import Listed
from tandem.server.paths import Target
from tandem.server.query import Query

AUTHENTICATION, AUTHORIZATION = "authentication.k8s.io", "authorization.k8s.io"
VERSION = "v1"

LISTED: Mapping[str, tuple[Listed, ...]] = {
    AUTHENTICATION: (Listed("selfsubjectreviews", "SelfSubjectReview", ("create",)),),
    AUTHORIZATION: (
        Listed("selfsubjectaccessreviews", "SelfSubjectAccessReview", ("create",)),
        Listed("selfsubjectrulesreviews", "SelfSubjectRulesReview", ("create",)),
    ),
}

_EVERYTHING = {
    "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    "incomplete": False,
}


async def answer(request: web.BaseRequest, target: Target, query: Query) -> web.StreamResponse:
    """POST: what was asked, with the answer as its status. Nothing is kept."""
    listed = next((x for x in LISTED[target.group] if x.resource == target.resource), None)
    if listed is None or target.version != VERSION or target.name or target.namespace:
        raise no_such_path()
    if request.method != "POST":
        raise MethodNotAllowed("the server does not allow this method on the requested resource")
    asked = await media.read_document(request)
    spec = asked.get("spec") or {}
    status: Doc = {"allowed": True}
    if listed.kind == "SelfSubjectRulesReview":
        status = _EVERYTHING
    elif listed.kind == "SelfSubjectReview":
        status = {"userInfo": _user(request)}
    elif bool(spec.get("resourceAttributes")) == bool(spec.get("nonResourceAttributes")):
        rule = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        cause = causes.invalid("spec.resourceAttributes", spec, rule)
        raise InvalidSpec(f"{listed.kind} is invalid: {causes.describe([cause])}", causes=[cause])
    head = {"kind": listed.kind, "apiVersion": f"{target.group}/{VERSION}", "metadata": {}}
    form = media.negotiate(request.headers.get("Accept", ""))
    return respond.document(head | {"spec": spec, "status": status}, form, status=201)


def _user(request: web.BaseRequest) -> Doc:
    """As the client's certificate says."""
    certificate = request.transport.get_extra_info("peercert") if request.transport else None
    subject = [pair for relative in (certificate or {}).get("subject", ()) for pair in relative]
    groups = [value for field, value in subject if field == "organizationName"]
    name = next((value for field, value in subject if field == "commonName"), "")
    return {"username": name, "groups": [*groups, "system:authenticated"]}
