"""``/scale``: how many, asked and told in the same words for every kind that has replicas.

The ``autoscaling/v1`` Scale of an object is made of it when it is asked for; to write one is to write
the object's ``spec.replicas``, by the object's own rules.
"""

from __future__ import annotations

from aiohttp import web

from tandem.api.kind import Doc, Kind
from tandem.api.kinds.scale import SCALE
from tandem.api.meta import get
from tandem.api.rest import Prepared, prepare_update
from tandem.server import media, respond, writing
from tandem.server.call import Api, Call, Handler
from tandem.server.codec import clone

_SHOWN = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


async def read(api: Api, call: Call) -> web.StreamResponse:
    """GET."""
    return respond.one(SCALE, scale_of(call.kind, api.store.get(call.key)), call.form)


async def update(api: Api, call: Call) -> web.StreamResponse:
    """PUT."""
    doc = await media.read_document(call.request)
    writing.check_dry_run(call)
    return await _change(api, call, lambda _old: doc)


async def patch(api: Api, call: Call) -> web.StreamResponse:
    """PATCH."""
    apply = await writing.read_patch(call, SCALE)
    writing.check_dry_run(call)
    return await _change(api, call, lambda old: apply(clone(old)))


async def _change(api: Api, call: Call, wanted: writing.Patch) -> web.StreamResponse:
    def replicas(old: Doc) -> Prepared:
        before = scale_of(call.kind, old)
        scale = prepare_update(SCALE, wanted(before), before).doc
        new = clone(old)
        new["spec"]["replicas"] = scale["spec"]["replicas"]
        if version := scale["metadata"].get("resourceVersion"):
            new["metadata"]["resourceVersion"] = version
        return prepare_update(call.kind, new, old)

    prepared, stored = await writing.change(
        api, call.kind, call.key, replicas, dry_run=call.dry_run
    )
    scale = scale_of(call.kind, stored)
    return respond.one(SCALE, scale, call.form, warnings=prepared.warnings)


def scale_of(kind: Kind, doc: Doc) -> Doc:
    """The Scale of an object of ``kind``."""
    assert kind.scale is not None, f"a {kind.kind} cannot be scaled"
    metadata = doc["metadata"]
    wanted = get(doc, "spec.replicas", 0)
    selector = kind.scale.selector(doc)
    return {
        "apiVersion": SCALE.api_version,
        "kind": SCALE.kind,
        "metadata": {field: metadata[field] for field in _SHOWN if field in metadata},
        "spec": {"replicas": wanted} if wanted else {},
        "status": {
            "replicas": get(doc, "status.replicas", 0),
            **({"selector": selector} if selector else {}),
        },
    }


HANDLERS: dict[str, Handler] = {"GET": read, "PUT": update, "PATCH": patch}
