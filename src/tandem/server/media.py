"""What a client sends and wants: request bodies into documents, ``Accept`` into a form.

Objects travel as JSON or YAML. kubectl asks for protobuf first for core kinds and names JSON after
it, so protobuf is simply not among what we offer; but it may send it (``kubectl create configmap``),
so it is read. The form says which shape the objects take in
the answer: themselves, a Table (``kubectl get``) or their metadata alone.
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import yaml
from aiohttp import web

from tandem.api import protobuf
from tandem.api.kind import Doc
from tandem.errors import BadRequest, NotAcceptable, TooLarge, UnsupportedMediaType

JSON = "application/json"
YAML = "application/yaml"

MAX_BODY = 3 * 1024 * 1024
"""Bytes of a request body, kube-apiserver's own limit."""

# Many times what the largest manifest has; aliases make more of a few lines.
_MAX_YAML_VALUES = 200_000

# YAML takes a hundred times as long as JSON: more than this is read in a thread.
_LONG_YAML = 32 * 1024

_MEDIA_TYPES = {
    JSON: JSON,
    "application/*": JSON,
    "*/*": JSON,
    YAML: YAML,
    "text/yaml": YAML,
    "application/x-yaml": YAML,
}
_META = "meta.k8s.io"
_SHAPES = {"Table", "PartialObjectMetadata", "PartialObjectMetadataList"}


@dataclass(frozen=True, slots=True)
class Form:
    """How objects are to be written: the media type, and the shape asked for by ``as=``.

    ``shape`` is empty (the objects themselves), ``Table`` or ``PartialObjectMetadata``;
    ``version`` is the version of ``meta.k8s.io`` that the shape is written in.
    """

    media: str = JSON
    shape: str = ""
    version: str = ""

    @property
    def plain(self) -> bool:
        """Whether stored bytes can be sent as they are."""
        return self.media == JSON and not self.shape


PLAIN = Form()


@functools.lru_cache(maxsize=128)
def negotiate(accept: str, *, shapes: bool = True) -> Form:
    """The first form in ``accept``, by its ``q`` and then its order, that we can write.

    ``shapes`` allows Table and PartialObjectMetadata. Raises ``NotAcceptable``.
    """
    if not accept.strip():
        return PLAIN
    for media, parameters in _clauses(accept):
        written = _MEDIA_TYPES.get(media)
        shape = parameters.get("as", "")
        if written is None:
            continue
        if not shape:
            return Form(written)
        version = parameters.get("v", "")
        if (
            shapes
            and shape in _SHAPES
            and parameters.get("g") == _META
            and version in ("v1", "v1beta1")
        ):
            return Form(written, shape.removesuffix("List"), version)
    raise NotAcceptable(
        "only the following media types are accepted: application/json, application/yaml"
    )


def accepts(accept: str, media: str, **parameters: str) -> bool:
    """Whether ``accept`` names ``media`` with at least these parameters."""
    return any(
        clause == media and parameters.items() <= given.items()
        for clause, given in _clauses(accept)
    )


def preferred(accept: str, media_types: Collection[str]) -> str | None:
    """The first of ``media_types`` in ``accept``'s order; None when it names none of them."""
    return next((media for media, _ in _clauses(accept) if media in media_types), None)


def _clauses(accept: str) -> Iterator[tuple[str, dict[str, str]]]:
    clauses = []
    for clause in accept.split(","):
        media, *rest = (part.strip() for part in clause.split(";"))
        parameters = dict(part.split("=", 1) for part in rest if "=" in part)
        try:
            quality = float(parameters.get("q", "1"))
        except ValueError:
            quality = 0.0
        if quality > 0:
            clauses.append((quality, media.lower(), parameters))
    clauses.sort(key=lambda clause: -clause[0])  # stable: equal qualities keep their order
    for _, media, parameters in clauses:
        yield media, parameters


async def read_body(request: web.BaseRequest) -> bytes:
    """The whole body. Raises ``TooLarge`` beyond :data:`MAX_BODY`."""
    declared = request.content_length
    if declared is not None and declared > MAX_BODY:
        raise _too_large()
    if not request.can_read_body:
        return b""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # that was no part of the answer
    chunks, size = [], 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > MAX_BODY:
            raise _too_large()
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large() -> TooLarge:
    return TooLarge(f"Request entity too large: limit is {MAX_BODY}")


async def read_document(request: web.BaseRequest, *, required: bool = True) -> Doc:
    """The body as one object: JSON, YAML or protobuf by its ``Content-Type``, JSON without one.

    An empty body is ``{}`` unless ``required``. Raises ``UnsupportedMediaType``, ``BadRequest``,
    ``TooLarge``.
    """
    data = await read_body(request)
    if not data.strip():
        if required:
            raise BadRequest("the request has no body; an object is expected")
        return {}
    # aiohttp answers application/octet-stream for a request that names no type.
    media = request.content_type if "Content-Type" in request.headers else JSON
    if media == protobuf.MEDIA_TYPE:
        return protobuf.decode_object(data)
    if media not in _MEDIA_TYPES or "*" in media:
        raise UnsupportedMediaType(
            "the body of the request was in an unknown format - accepted media types include: "
            f"{JSON}, {YAML}"
        )
    media = _MEDIA_TYPES[media]
    if media == YAML and len(data) > _LONG_YAML:
        document = await asyncio.to_thread(decode, data, media)
    else:
        document = decode(data, media)
    if not isinstance(document, dict):
        raise BadRequest(f"the body of the request must be an object, not {_article(document)}")
    return document


def decode(data: bytes, media: str) -> Any:
    """``data`` as plain values. Raises ``BadRequest`` with the parser's own words."""
    language = "JSON" if media == JSON else "YAML"
    try:
        if media == JSON:
            return msgspec.json.decode(data)
        return _plain(yaml.load(data, Loader=_Loader))
    except RecursionError as error:
        raise BadRequest(f"the body is not valid {language}: it is nested too deeply") from error
    except (msgspec.DecodeError, yaml.YAMLError, ValueError) as error:
        # A mark in YAML's message has line breaks; a Status message is one line.
        words = " ".join(str(error).split())
        raise BadRequest(f"the body is not valid {language}: {words}") from error


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe YAML whose timestamps stay strings, as in every Kubernetes manifest."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


def _plain(value: Any) -> Any:
    """Copy ``value``, refusing what JSON cannot say: keys that are no strings, NaN, binary, sets.

    Aliases are expanded, up to a bound: a few lines of nested ones would otherwise fill the memory.
    """
    left = _MAX_YAML_VALUES

    def copy(value: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"more than {_MAX_YAML_VALUES} values after expanding aliases")
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    raise ValueError(f"the key {key!r} must be a string")
            return {key: copy(item) for key, item in value.items()}
        if isinstance(value, list):
            return [copy(item) for item in value]
        if value is None or isinstance(value, str | int | bool):
            return value
        if isinstance(value, float) and math.isfinite(value):
            return value
        raise ValueError(f"{value!r} is not a value that JSON knows")

    return copy(value)


def _article(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
