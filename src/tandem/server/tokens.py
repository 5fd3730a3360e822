"""``serviceaccounts/token``: a token for who asks in the name of a service account.

Who presents such a token is not let in by it: the API knows administrators by their certificates, and
nobody else yet. Programs that only check a token, or pass it on, get what they expect.
"""

from __future__ import annotations

from datetime import UTC, datetime

from aiohttp import web

from tandem.api.kind import Doc
from tandem.api.kinds.serviceaccount import TOKEN_REQUEST
from tandem.api.meta import get
from tandem.api.rest import prepare_create
from tandem.errors import BadRequest, Conflict, NotFound, Unavailable
from tandem.host.run import blocking
from tandem.host.tokens import AUDIENCE, Claims
from tandem.server import media, respond, writing
from tandem.server.call import Api, Call, Handler
from tandem.store import Key

_BOUND_TO = {"Pod": "pods", "Secret": "secrets", "Node": "nodes"}


async def create(api: Api, call: Call) -> web.StreamResponse:
    """POST: a signed token, which is answered and kept nowhere."""
    doc = await media.read_document(call.request)
    writing.check_dry_run(call)
    account = api.store.get(call.key)
    request = prepare_create(TOKEN_REQUEST, _named(doc, call), namespace=call.key.namespace).doc
    if api.tokens is None:
        raise Unavailable("there is no key to sign tokens with")
    spec = request["spec"]
    claims = Claims(
        namespace=call.target.namespace,
        name=call.target.name,
        uid=account["metadata"]["uid"],
        audiences=tuple(spec["audiences"]),
        seconds=int(spec["expirationSeconds"]),
        bound=_bound(api, call, spec.get("boundObjectRef")),
    )
    token, expires = await blocking(api.tokens.sign, claims)
    request["status"] = {
        "token": token,
        "expirationTimestamp": datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    request["metadata"].pop("uid", None)
    return respond.document(request, call.form, status=201)


def _named(doc: Doc, call: Call) -> Doc:
    """The request with what a client may leave out, and without what only we say."""
    for field in ("metadata", "spec"):
        if not isinstance(doc.get(field), dict):
            doc[field] = {}
    if not doc["metadata"].get("name"):
        doc["metadata"]["name"] = call.target.name
    if doc["metadata"]["name"] != call.target.name:
        raise BadRequest("the name in the token request does not match the name on the URL")
    if not doc["spec"].get("audiences"):
        doc["spec"]["audiences"] = [AUDIENCE]
    doc.pop("status", None)
    return doc


def _bound(api: Api, call: Call, reference: Doc | None) -> dict[str, dict[str, str]] | None:
    """The object that the token is to die with. Raises ``NotFound``, ``Conflict``."""
    if not reference:
        return None
    kind, name = str(reference.get("kind", "")), str(reference.get("name", ""))
    resource = _BOUND_TO.get(kind)
    if resource is None:
        raise BadRequest(f"cannot bind token for serviceaccount to type {kind!r}")
    namespace = "" if kind == "Node" else call.target.namespace
    try:
        uid = str(get(api.store.get(Key(resource, namespace, name)), "metadata.uid", ""))
    except NotFound as error:
        raise NotFound(
            f'{resource} "{name}" not found', details={"name": name, "kind": resource}
        ) from error
    if reference.get("uid") and reference["uid"] != uid:
        raise Conflict(
            f"the UID in the bound object reference ({reference['uid']}) does not match the UID in "
            f"record. The object might have been deleted and then recreated"
        )
    return {kind.lower(): {"name": name, "uid": uid}}


HANDLERS: dict[str, Handler] = {"POST": create}
