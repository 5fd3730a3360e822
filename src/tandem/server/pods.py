"""Subresources of Pods that change them: ephemeral containers, a scheduler's binding, eviction.

``kubectl debug`` up to 1.21 knows the ephemeral containers as a kind of their own, which was an alpha
of Kubernetes; it is spoken to in that form. Everybody else reads and writes the Pod.
"""

from __future__ import annotations

import re

from aiohttp import web

from tandem.api.kind import Doc, Kind
from tandem.api.kinds.pod_parts import BINDING, EVICTION
from tandem.api.meta import get, set_condition
from tandem.api.rest import Prepared, prepare_create, prepare_update
from tandem.api.status import status_success
from tandem.errors import BadRequest, Conflict, MethodNotAllowed, TandemError
from tandem.server import media, reading, respond, writing
from tandem.server.call import Api, Call, Handler
from tandem.server.codec import clone

_EPHEMERAL = "EphemeralContainers"
_OLD_CLIENT = re.compile(r"kubectl/v1\.(?:1[6-9]|2[01])\.")


async def read_ephemeral(api: Api, call: Call) -> web.StreamResponse:
    """GET: the Pod, or the old form for those who know no other."""
    if not _OLD_CLIENT.match(call.request.headers.get("User-Agent", "")):
        return await reading.get(api, call)
    return respond.document(_old_form(api.store.get(call.key)), call.form)


async def update_ephemeral(api: Api, call: Call) -> web.StreamResponse:
    """PUT: the Pod with its ephemeral containers, or the old form."""
    doc = await media.read_document(call.request)
    writing.check_dry_run(call)
    old_form = doc.get("kind") == _EPHEMERAL

    def replace(old: Doc) -> Prepared:
        new = doc
        if old_form:
            new = clone(old)
            new["metadata"]["resourceVersion"] = get(doc, "metadata.resourceVersion", "")
            new["spec"][_FIELD] = doc.get(_FIELD) or []
        return prepare_update(call.kind, new, old, subresource=call.target.subresource)

    prepared, stored = await writing.change(api, call.kind, call.key, replace, dry_run=call.dry_run)
    if old_form:
        return respond.document(_old_form(stored), call.form)
    return respond.one(call.kind, stored, call.form, warnings=prepared.warnings)


_FIELD = "ephemeralContainers"


def _old_form(pod: Doc) -> Doc:
    return {
        "kind": _EPHEMERAL,
        "apiVersion": "v1",
        "metadata": pod["metadata"],
        _FIELD: get(pod, f"spec.{_FIELD}", []),
    }


async def bind(api: Api, call: Call) -> web.StreamResponse:
    """POST: a scheduler other than ours has chosen the Pod's node."""
    binding = await _posted(call, BINDING)
    writing.check_dry_run(call)
    node, annotations = binding["target"]["name"], get(binding, "metadata.annotations", {})

    def assign(old: Doc) -> Prepared:
        problem = None
        if old["metadata"].get("deletionTimestamp"):
            problem = f"pod {call.target.name} is being deleted, cannot be assigned to a host"
        elif taken := get(old, "spec.nodeName"):
            problem = f'pod {call.target.name} is already assigned to node "{taken}"'
        elif get(old, "spec.schedulingGates"):
            problem = f"pod {call.target.name} has non-empty .spec.schedulingGates"
        if problem is not None:
            raise _conflict(call, BINDING, problem)
        new = clone(old)
        new["spec"]["nodeName"] = node
        if annotations:
            new["metadata"]["annotations"] = {
                **(new["metadata"].get("annotations") or {}),
                **annotations,
            }
        conditions = new.setdefault("status", {}).setdefault("conditions", [])
        set_condition(conditions, "PodScheduled", "True")
        return Prepared(new)

    _, stored = await writing.change(api, call.kind, call.key, assign, dry_run=call.dry_run)
    return respond.document(status_success(call.kind, stored), call.form, status=201)


async def evict(api: Api, call: Call) -> web.StreamResponse:
    """POST: the Pod is to leave, as by a delete; no budget is there to object."""
    eviction = await _posted(call, EVICTION)
    writing.check_dry_run(call)
    options: Doc = eviction.get("deleteOptions") or {}
    dry_run = call.dry_run or bool(options.get("dryRun"))

    def tell(old: Doc) -> Prepared:
        new = clone(old)
        conditions = new.setdefault("status", {}).setdefault("conditions", [])
        message = "Eviction API: evicting"
        set_condition(conditions, "DisruptionTarget", "True", "EvictionByEvictionAPI", message)
        return Prepared(new)

    await writing.change(api, call.kind, call.key, tell, dry_run=dry_run)
    deleted = await writing.delete_object(api, call.kind, call.key, options, dry_run=dry_run)
    return respond.document(status_success(call.kind, deleted.doc), call.form, status=201)


async def resize(api: Api, call: Call) -> web.StreamResponse:
    """Known to newer clients by its name, and refused by it."""
    raise MethodNotAllowed(
        "pods/resize is not supported: containers are not resized in place",
        hint="delete the Pod and create it with the resources that it needs",
    )


async def _posted(call: Call, kind: Kind) -> Doc:
    """The object in the body, which is named as the Pod in the URL is."""
    doc = await media.read_document(call.request)
    metadata = doc.get("metadata")
    if not isinstance(metadata, dict):
        metadata = doc["metadata"] = {}
    name = metadata.setdefault("name", call.target.name)
    if name != call.target.name:
        raise BadRequest(f"name in URL does not match name in {kind.kind} object")
    return prepare_create(kind, doc, namespace=call.target.namespace).doc


def _conflict(call: Call, kind: Kind, problem: str) -> TandemError:
    name = call.target.name
    return Conflict(
        f'Operation cannot be fulfilled on pods/{kind.singular} "{name}": {problem}',
        details={"name": name, "group": "", "kind": f"pods/{kind.singular}"},
    )


HANDLERS: dict[str, dict[str, Handler]] = {
    "binding": {"POST": bind},
    "ephemeralcontainers": {
        "GET": read_ephemeral,
        "PUT": update_ephemeral,
        "PATCH": writing.patch,
    },
    "eviction": {"POST": evict},
    "resize": dict.fromkeys(("GET", "PUT", "PATCH"), resize),
}
"""What answers each of them, by method."""
