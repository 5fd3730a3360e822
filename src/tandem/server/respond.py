"""Answers: bytes, documents in the form asked for, errors as ``Status``, warnings as headers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml
from aiohttp import web
from multidict import CIMultiDict

from tandem.api.kind import Doc, Kind
from tandem.api.status import status_from_error
from tandem.api.table import IncludeObject, table
from tandem.errors import BadRequest, TandemError
from tandem.server.codec import encode
from tandem.server.media import JSON, PLAIN, YAML, Form

# Control characters would break the header; the length keeps a hostile name from filling it.
_UNPRINTABLE = dict.fromkeys((*range(32), 127), " ")
_MAX_WARNING = 2048

_META = "meta.k8s.io"
_INCLUDES: dict[str, IncludeObject] = {
    "": "Metadata",
    "Metadata": "Metadata",
    "Object": "Object",
    "None": "None",
}

HEADERS = {"Content-Type": JSON, "Cache-Control": "no-cache, private"}
"""Headers of every answer in JSON."""


def written(document: Any, media: str = JSON) -> bytes:
    """``document`` as JSON or YAML."""
    if media == YAML:
        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        text: bytes = yaml.dump(
            document, Dumper=dumper, sort_keys=False, allow_unicode=True, encoding="utf-8"
        )
        return text
    return encode(document)


def body(
    data: bytes | str, content_type: str = JSON, *, status: int = 200, warnings: Iterable[str] = ()
) -> web.Response:
    """An answer of ready bytes."""
    headers = CIMultiDict(HEADERS | {"Content-Type": content_type})
    for warning in warnings:
        headers.add("Warning", _warning(warning))
    return web.Response(
        body=data.encode() if isinstance(data, str) else data, status=status, headers=headers
    )


def document(
    value: Any, form: Form = PLAIN, *, status: int = 200, warnings: Iterable[str] = ()
) -> web.Response:
    """An answer of one document that has no shape of its own to choose (discovery, Status)."""
    return body(written(value, form.media), form.media, status=status, warnings=warnings)


def one(
    kind: Kind,
    doc: Doc,
    form: Form,
    include_object: str = "",
    *,
    status: int = 200,
    warnings: Iterable[str] = (),
) -> web.Response:
    """An answer of one object, in the shape that ``form`` asks for."""
    shaped = shape(kind, doc, form, include_object)
    return document(shaped, form, status=status, warnings=warnings)


def shape(kind: Kind, doc: Doc, form: Form, include_object: str = "") -> Doc:
    """One object as itself, as a Table of one row, or as its metadata."""
    if form.shape == "Table":
        metadata = {"resourceVersion": doc["metadata"].get("resourceVersion", "")}
        return as_table(kind, [doc], form, include_object, metadata)
    if form.shape:
        return metadata_only(doc, form)
    return doc


def as_table(
    kind: Kind, docs: list[Doc], form: Form, include_object: str = "", metadata: Doc | None = None
) -> Doc:
    """A Table in the version of ``meta.k8s.io`` that ``form`` names. Raises ``BadRequest``."""
    include = _INCLUDES.get(include_object)
    if include is None:
        raise BadRequest(
            f'includeObject: Unsupported value: "{include_object}": '
            'supported values: "Metadata", "None", "Object"'
        )
    result = table(kind, docs, include_object=include, metadata=metadata)
    return result if form.version == "v1" else result | {"apiVersion": f"{_META}/{form.version}"}


def metadata_only(doc: Doc, form: Form) -> Doc:
    """A PartialObjectMetadata."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"{_META}/{form.version}",
        "metadata": doc["metadata"],
    }


def failure(error: TandemError) -> web.Response:
    """The ``Status`` that ``error`` becomes, always JSON."""
    response = body(encode(status_from_error(error)), status=error.code)
    retry_after = error.details.get("retryAfterSeconds")
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    return response


def _warning(text: str) -> str:
    clean = text.translate(_UNPRINTABLE)[:_MAX_WARNING]
    quoted = clean.replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{quoted}"'
