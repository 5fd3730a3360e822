"""Create, update, patch and delete: a request's document, prepared by the API's rules, to the store.

Every change of an existing object is made inside the store's own read-modify-write, on the newest
state and with no other write in between; so a patch never loses against a concurrent one, and only a
``resourceVersion`` that the client itself names can conflict.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from aiohttp import web

from tandem.api import meta
from tandem.api.kind import Doc, Kind
from tandem.api.patch import json_patch, merge_patch, strategic_merge_patch
from tandem.api.rest import (
    FieldValidation,
    Prepared,
    prepare_create,
    prepare_delete,
    prepare_update,
)
from tandem.api.status import status_success
from tandem.errors import (
    AlreadyExists,
    BadRequest,
    Cause,
    Conflict,
    Forbidden,
    NotFound,
    TandemError,
    UnsupportedMediaType,
)
from tandem.server import media, respond
from tandem.server.call import NAMESPACES, Api, Call
from tandem.server.codec import clone, decode
from tandem.server.reading import wrap_list
from tandem.server.selection import Selection
from tandem.store import Key
from tandem.store.lookup import StoreLookup

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

_FIELD_VALIDATION: dict[str, FieldValidation] = {
    "": "Warn",
    "Warn": "Warn",
    "Strict": "Strict",
    "Ignore": "Ignore",
}
# Of five random letters; a few tries get past any collision that is one.
_GENERATE_TRIES = 8
# A collection is deleted in parallel so that the store commits many at once, and not all at once so
# that other requests get their turn.
_DELETE_AT_ONCE = 64

Change = Callable[[Doc], Prepared]
Patch = Callable[[Doc], Doc]


async def create(api: Api, call: Call) -> web.StreamResponse:
    """POST: a new object."""
    doc = await media.read_document(call.request)
    check_dry_run(call)
    namespace = call.target.namespace
    if call.kind.namespaced:
        _require_namespace(api, call.kind, namespace, doc)
    prepared = prepare_create(
        call.kind,
        doc,
        namespace=namespace,
        field_validation=_field_validation(call),
        lookup=StoreLookup(api.store),
    )
    stored = await _create(api, call, prepared.doc)
    return respond.one(call.kind, stored, call.form, status=201, warnings=prepared.warnings)


async def _create(api: Api, call: Call, doc: Doc) -> Doc:
    metadata = doc["metadata"]
    for attempt in range(_GENERATE_TRIES):
        key = Key(call.kind.resource, call.target.namespace, metadata["name"])
        try:
            if not call.dry_run:
                return await api.store.create(key, doc)
            if not _exists(api, key):
                return doc
            raise AlreadyExists(
                f'{key.resource} "{key.name}" already exists', details=_details(call.kind, key)
            )
        except AlreadyExists:
            base = metadata.get("generateName")
            if not (base and metadata["name"].startswith(base)) or attempt == _GENERATE_TRIES - 1:
                raise
            metadata["name"] = meta.generate_name(base)
    raise AssertionError("the loop returns or raises")


async def update(api: Api, call: Call) -> web.StreamResponse:
    """PUT: the whole object, or its status."""
    doc = await media.read_document(call.request)
    check_dry_run(call)
    validation = _field_validation(call)

    def replace(old: Doc) -> Prepared:
        return prepare_update(
            call.kind, doc, old, subresource=call.target.subresource, field_validation=validation
        )

    return await _change(api, call, replace)


async def patch(api: Api, call: Call) -> web.StreamResponse:
    """PATCH: changes to an object, in one of three languages."""
    apply = await read_patch(call, call.kind)
    check_dry_run(call)
    validation = _field_validation(call)

    def patched(old: Doc) -> Prepared:
        return prepare_update(
            call.kind,
            # A patched document may share parts with the one it was made from, and is then altered.
            apply(clone(old)),
            old,
            subresource=call.target.subresource,
            field_validation=validation,
        )

    return await _change(api, call, patched)


async def read_patch(call: Call, kind: Kind) -> Patch:
    """What the request's body does to a document of ``kind``. Raises ``UnsupportedMediaType``, and
    ``BadRequest`` for what is no patch."""
    content_type = call.request.content_type
    accepted = [JSON_PATCH, MERGE_PATCH] + ([] if kind.merge_only else [STRATEGIC_PATCH])
    if content_type == APPLY_PATCH:
        raise UnsupportedMediaType(
            "server-side apply is not supported; accepted patch types: " + ", ".join(accepted),
            hint="use kubectl apply without --server-side",
        )
    if content_type not in accepted:
        raise UnsupportedMediaType(
            "the body of the request was in an unknown format - accepted media types include: "
            + ", ".join(accepted)
        )
    content = media.decode(await media.read_body(call.request), media.JSON)
    if content_type == JSON_PATCH:
        if not isinstance(content, list):
            raise BadRequest("a JSON patch must be a list of operations")
        return lambda doc: json_patch(doc, content)
    if not isinstance(content, dict):
        raise BadRequest("a merge patch must be an object")
    if content_type == MERGE_PATCH:
        return lambda doc: merge_patch(doc, content)
    return lambda doc: strategic_merge_patch(doc, content, kind.schema)


async def _change(api: Api, call: Call, prepare: Change) -> web.StreamResponse:
    prepared, stored = await change(api, call.kind, call.key, prepare, dry_run=call.dry_run)
    return respond.one(call.kind, stored, call.form, warnings=prepared.warnings)


async def change(
    api: Api, kind: Kind, key: Key, prepare: Change, *, dry_run: bool = False
) -> tuple[Prepared, Doc]:
    """Make the next state of an object and store it; an object that thereby lost the last thing it
    waited for is removed. Raises ``NotFound``, ``Conflict`` and whatever ``prepare`` raises."""
    while True:
        result: list[tuple[Prepared, str]] = []

        def next_state(old: Doc, result: list[tuple[Prepared, str]] = result) -> Doc | None:
            revision = old["metadata"]["resourceVersion"]
            prepared = prepare(old)
            wanted = prepared.doc["metadata"].get("resourceVersion")
            if wanted and wanted != revision:
                raise _modified(kind, key)
            result.append((prepared, revision))
            return None if prepared.remove or dry_run else prepared.doc

        if dry_run:
            next_state(api.store.get(key))
            return result[0][0], result[0][0].doc
        stored = await api.store.mutate(key, next_state)
        prepared, revision = result[0]
        if not prepared.remove:
            return prepared, stored
        try:
            return prepared, await api.store.delete(key, resource_version=revision)
        except Conflict:
            continue  # it changed since: what is to be done is decided anew


async def delete(api: Api, call: Call) -> web.StreamResponse:
    """DELETE: one object, at once or marked for its controller and finalizers."""
    options, dry_run = await _delete_options(call)
    deleted = await delete_object(api, call.kind, call.key, options, dry_run=dry_run)
    if deleted.removed:
        return respond.document(status_success(call.kind, deleted.doc), call.form)
    return respond.one(call.kind, deleted.doc, call.form)


async def delete_collection(api: Api, call: Call) -> web.StreamResponse:
    """DELETE on a collection: every object of a selection."""
    options, dry_run = await _delete_options(call)
    listing = Selection(call.kind, call.target, call.query).listing(api.store)
    deleted: list[Doc] = []
    for start in range(0, len(listing.items), _DELETE_AT_ONCE):
        docs = [decode(data) for data in listing.items[start : start + _DELETE_AT_ONCE]]
        results = await asyncio.gather(
            *(
                delete_object(api, call.kind, _key_of(call.kind, doc), options, dry_run=dry_run)
                for doc in docs
            ),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, Deleted):
                deleted.append(result.doc)
            elif not isinstance(result, NotFound):  # somebody else was first
                raise result
    metadata = {"resourceVersion": str(api.store.revision)}
    return respond.document(wrap_list(call.kind, deleted, metadata, call.form), call.form)


class Deleted(NamedTuple):
    """The outcome of one delete: ``doc`` as it was last, or as it is now, marked."""

    doc: Doc
    removed: bool


async def delete_object(
    api: Api, kind: Kind, key: Key, options: Mapping[str, Any], *, dry_run: bool
) -> Deleted:
    """Delete an object now, or mark it for its controller and finalizers. Raises ``NotFound``,
    ``Conflict`` and ``Forbidden``."""
    if key.resource == NAMESPACES and key.name == "default":
        raise Forbidden(
            'namespaces "default" is forbidden: this namespace may not be deleted',
            details=_details(kind, key),
        )

    def mark(old: Doc) -> Prepared:
        decision = prepare_delete(kind, old, options)
        return Prepared(decision.doc, remove=decision.remove_now)

    prepared, doc = await change(api, kind, key, mark, dry_run=dry_run)
    return Deleted(doc, prepared.remove)


async def _delete_options(call: Call) -> tuple[Doc, bool]:
    """The options, from the body or, without one, the query; and whether it is a dry run."""
    options = await media.read_document(call.request, required=False)
    if options.get("kind", "DeleteOptions") != "DeleteOptions":
        raise BadRequest(f"the body of a delete must be DeleteOptions, not {options['kind']}")
    if not options:
        query = call.query
        options = {
            name: value
            for name, value in (
                ("gracePeriodSeconds", query.integer("gracePeriodSeconds")),
                ("propagationPolicy", query.text("propagationPolicy") or None),
                ("orphanDependents", query.flag("orphanDependents") or None),
            )
            if value is not None
        }
    check_dry_run(call)
    dry_run = options.get("dryRun") or []
    if not isinstance(dry_run, list) or any(value != "All" for value in dry_run):
        raise _bad_dry_run(dry_run)
    return options, bool(dry_run) or call.dry_run


def check_dry_run(call: Call) -> None:
    """Refuse a ``dryRun`` that we would not honour, rather than write for real."""
    if call.query.text("dryRun") not in ("", "All"):
        raise _bad_dry_run(call.query.text("dryRun"))


def _bad_dry_run(value: object) -> BadRequest:
    return BadRequest(f'dryRun: Unsupported value: {value!r}: supported values: "All"')


def _field_validation(call: Call) -> FieldValidation:
    text = call.query.text("fieldValidation")
    if text not in _FIELD_VALIDATION:
        raise BadRequest(
            f'fieldValidation: Unsupported value: "{text}": supported values: '
            '"", "Ignore", "Strict", "Warn"'
        )
    return _FIELD_VALIDATION[text]


def _require_namespace(api: Api, kind: Kind, name: str, doc: Doc) -> None:
    """Refuse to create in a namespace that is not there, or is on its way out."""
    key = Key(NAMESPACES, "", name)
    try:
        namespace = api.store.get(key)
    except NotFound:
        raise NotFound(
            f'namespaces "{name}" not found', details={"name": name, "kind": NAMESPACES}
        ) from None
    if namespace["metadata"].get("deletionTimestamp"):
        wanted = meta.get(doc, "metadata.name", "")
        reason = f"namespace {name} is being terminated"
        raise Forbidden(
            f'{kind.resource} "{wanted}" is forbidden: unable to create new content in '
            f"namespace {name} because it is being terminated",
            causes=[Cause("metadata.namespace", reason, "NamespaceTerminating")],
            details={"name": wanted, "group": kind.group, "kind": kind.plural},
        )


def _exists(api: Api, key: Key) -> bool:
    try:
        api.store.get_bytes(key)
    except NotFound:
        return False
    return True


def _key_of(kind: Kind, doc: Doc) -> Key:
    metadata = doc["metadata"]
    return Key(kind.resource, metadata.get("namespace", ""), metadata["name"])


def _modified(kind: Kind, key: Key) -> TandemError:
    return Conflict(
        f'Operation cannot be fulfilled on {key.resource} "{key.name}": the object has been modified; '
        "please apply your changes to the latest version and try again",
        details=_details(kind, key),
    )


def _details(kind: Kind, key: Key) -> dict[str, str]:
    return {"name": key.name, "group": kind.group, "kind": kind.plural}
