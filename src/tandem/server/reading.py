"""GET: one object, a list of them, or a list page by page.

A list is answered from the store's own bytes: unless a Table, YAML or metadata is asked for, nothing
is decoded or encoded on its way.
"""

from __future__ import annotations

from aiohttp import web

from tandem.api.kind import Doc, Kind
from tandem.errors import BadRequest, Cause, DeadlineExceeded, Expired
from tandem.server import respond
from tandem.server.call import Api, Call
from tandem.server.codec import decode, encode
from tandem.server.media import Form
from tandem.server.paging import Page
from tandem.server.selection import Selection
from tandem.store import Store

_PIECE = 256 * 1024
"""Bytes of a long list sent at a time: what a slow client may keep waiting in memory."""


async def get(api: Api, call: Call) -> web.StreamResponse:
    """One object."""
    check_revision(call, api.store)
    data = api.store.get_bytes(call.key)
    if call.form.plain:
        return respond.body(data)
    return respond.one(call.kind, decode(data), call.form, call.query.text("includeObject"))


async def list_(api: Api, call: Call) -> web.StreamResponse:
    """A list: all of it, or a page."""
    limit = call.query.integer("limit") or 0
    path = call.request.raw_path.partition("?")[0]
    if token := call.query.text("continue"):
        if call.query.text("resourceVersion") not in ("", "0"):
            raise BadRequest("specifying resource version is not allowed when using continue")
        page = api.pages.resume(token, path)
    else:
        check_revision(call, api.store)
        page = Page(path, Selection(call.kind, call.target, call.query).listing(api.store))
    whole = page.listing.items
    end = page.start + limit if limit > 0 else len(whole)
    metadata: Doc = {"resourceVersion": str(page.listing.revision)}
    if end < len(whole):
        metadata["continue"] = api.pages.token(page, end)
        metadata["remainingItemCount"] = len(whole) - end
    return await _send(call, whole[page.start : end], metadata)


def check_revision(call: Call, store: Store) -> None:
    """Refuse a ``resourceVersion`` that cannot be served.

    Reads are always of the newest state, which satisfies any version up to it except by ``Exact``.
    """
    text = call.query.text("resourceVersion")
    match = call.query.text("resourceVersionMatch")
    if match and not text and not call.query.flag("sendInitialEvents"):
        raise BadRequest("resourceVersionMatch is forbidden unless resourceVersion is provided")
    if match not in ("", "Exact", "NotOlderThan"):
        raise BadRequest(
            f'resourceVersionMatch: Unsupported value: "{match}": '
            'supported values: "Exact", "NotOlderThan"'
        )
    wanted = parse_revision(text)
    if wanted > store.revision:
        raise DeadlineExceeded(
            f"Too large resource version: {wanted}, current: {store.revision}",
            causes=[Cause("", "Too large resource version", "ResourceVersionTooLarge")],
            details={"retryAfterSeconds": 1},
        )
    if match == "Exact" and wanted != store.revision:
        if not wanted:
            raise BadRequest(
                'resourceVersionMatch: Forbidden: resourceVersionMatch "Exact" is forbidden for '
                'resourceVersion "0"'
            )
        raise Expired(f"The provided resource version {wanted} is no longer available.")


def parse_revision(text: str) -> int:
    """A ``resourceVersion`` as the number it is here, 0 for none. Raises ``BadRequest``."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise BadRequest(f'resourceVersion: Invalid value: "{text}": must be a number')
    return int(text)


async def _send(call: Call, items: list[bytes], metadata: Doc) -> web.StreamResponse:
    if call.form.plain:
        return await _splice(call, items, metadata)
    docs = [decode(data) for data in items]
    whole = wrap_list(call.kind, docs, metadata, call.form, call.query.text("includeObject"))
    return respond.document(whole, call.form)


def wrap_list(
    kind: Kind, docs: list[Doc], metadata: Doc, form: Form, include_object: str = ""
) -> Doc:
    """A list of objects in the shape that ``form`` asks for."""
    if form.shape == "Table":
        return respond.as_table(kind, docs, form, include_object, metadata)
    if form.shape:
        return {
            "kind": "PartialObjectMetadataList",
            "apiVersion": f"meta.k8s.io/{form.version}",
            "metadata": metadata,
            "items": [respond.metadata_only(doc, form) for doc in docs],
        }
    return {
        "kind": f"{kind.kind}List",
        "apiVersion": kind.api_version,
        "metadata": metadata,
        "items": docs,
    }


async def _splice(call: Call, items: list[bytes], metadata: Doc) -> web.StreamResponse:
    """A list put together from encoded objects, in pieces when it is long."""
    empty = encode(wrap_list(call.kind, [], metadata, call.form))
    head, tail = empty[:-2], empty[-2:]  # ...,"items":[ and ]}
    length = len(empty) + sum(map(len, items)) + max(0, len(items) - 1)
    if length <= _PIECE:
        return respond.body(b"".join((head, b",".join(items), tail)))
    response = web.StreamResponse(headers=respond.HEADERS)
    response.content_length = length
    await response.prepare(call.request)
    piece, size = [head], len(head)
    for index, item in enumerate(items):
        if index:
            piece.append(b",")
        piece.append(item)
        size += len(item) + 1
        if size >= _PIECE:
            await response.write(b"".join(piece))
            piece, size = [], 0
    await response.write(b"".join((*piece, tail)))
    await response.write_eof()
    return response
