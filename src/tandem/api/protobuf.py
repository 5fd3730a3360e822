"""Kubernetes' protobuf form of its own kinds, into documents.

``kubectl create configmap`` and clients made with Kubernetes' Go library may send objects this way
only, so it is read; it is never written, as all of them read JSON. The table of field numbers
(``schemas/protobuf/kubernetes.json``, made by ``tools/gen_protobuf.py``) is read when the first such
object comes.

What Go would leave out of JSON is left out: strings that are empty, times that are zero, numbers that
count nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec

from tandem.api.kind import Doc
from tandem.api.schema import SCHEMAS
from tandem.errors import BadRequest

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_MAGIC = b"k8s\0"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_Fields = dict[int, tuple[str, str]]


def decode_object(data: bytes) -> Doc:
    """The object in an ``application/vnd.kubernetes.protobuf`` body.

    Raises ``BadRequest`` for what is no such body, and for a kind that has no protobuf form here.
    """
    if not data.startswith(_MAGIC):
        raise BadRequest("the body is not Kubernetes protobuf: it does not begin with k8s")
    try:
        return _unwrap(data[len(_MAGIC) :])
    except (ValueError, IndexError, OverflowError) as error:
        raise BadRequest(f"the body is not valid Kubernetes protobuf: {error}") from error


def _unwrap(data: bytes) -> Doc:
    """Read the envelope: type, contents, and how the contents are encoded."""
    api_version = kind = encoding = content_type = ""
    raw = b""
    for number, value in _wire(data):
        if not isinstance(value, bytes):
            continue
        match number:
            case 1:
                for inner, text in _wire(value):
                    if isinstance(text, bytes) and inner == 1:
                        api_version = text.decode()
                    elif isinstance(text, bytes) and inner == 2:
                        kind = text.decode()
            case 2:
                raw = value
            case 3:
                encoding = value.decode()
            case 4:
                content_type = value.decode()
    if encoding or content_type not in ("", MEDIA_TYPE):
        raise ValueError(f"its contents are {content_type} {encoding}".rstrip())
    package = _META if kind == "DeleteOptions" else _package(api_version)
    fields = _table().get(f"{package}{kind}")
    if fields is None:
        raise ValueError(f"there is no protobuf form of {api_version} {kind}; send JSON")
    return {"apiVersion": api_version, "kind": kind, **_message(raw, fields)}


def _package(api_version: str) -> str:
    """``io.k8s.api.batch.v1.`` for ``batch/v1``; of a group's name only the first part counts."""
    group, _, version = api_version.rpartition("/")
    return f"io.k8s.api.{group.partition('.')[0] or 'core'}.{version}."


@lru_cache(maxsize=1)
def _table() -> dict[str, _Fields]:
    path = SCHEMAS / "protobuf" / "kubernetes.json"
    return msgspec.json.decode(path.read_bytes(), type=dict[str, dict[int, tuple[str, str]]])


def _message(data: bytes, fields: _Fields) -> Doc:
    doc: Doc = {}
    for number, value in _wire(data):
        name, type_ = fields.get(number, ("", ""))
        if not type_:
            continue  # of a newer Kubernetes: unknown fields fall away, as they do from JSON
        if not name:
            doc |= _message(_bytes(value), _table()[type_])
        elif type_[0] == "[":
            doc.setdefault(name, []).append(_value(value, type_[1:-1]))
        elif type_[0] == "{":
            key, entry = _entry(_bytes(value), type_[1:-1])
            doc.setdefault(name, {})[key] = entry
        else:
            decoded = _value(value, type_)
            if decoded is not None and decoded != "" and (decoded or type_ != "count"):
                doc[name] = decoded
    return doc


def _entry(data: bytes, type_: str) -> tuple[str, Any]:
    key, value = "", _value(b"", type_)
    for number, part in _wire(data):
        if number == 1:
            key = _bytes(part).decode()
        elif number == 2:
            value = _value(part, type_)
    return key, value


def _value(value: int | bytes, type_: str) -> Any:
    """One value as JSON has it; None for a time that is not set."""
    match type_:
        case "string":
            return _bytes(value).decode()
        case "int" | "count":
            number = _int(value)
            return number - (1 << 64) if number >= 1 << 63 else number
        case "bool":
            return bool(_int(value))
        case "bytes":
            return base64.b64encode(_bytes(value)).decode()
        case "Quantity":
            return _message(_bytes(value), {1: ("string", "string")}).get("string", "0")
        case "IntOrString":
            choice = _message(
                _bytes(value), {1: ("type", "int"), 2: ("int", "int"), 3: ("string", "string")}
            )
            return choice.get("string", "") if choice.get("type") else choice.get("int", 0)
        case "Time" | "MicroTime":
            return _time(_bytes(value), micro=type_ == "MicroTime")
        case "FieldsV1":
            return {}  # managedFields, which are dropped
    return _message(_bytes(value), _table()[type_])


def _time(data: bytes, *, micro: bool) -> str | None:
    if not data:
        return None
    parts = _message(data, {1: ("seconds", "int"), 2: ("nanos", "int")})
    moment = _EPOCH + timedelta(seconds=parts.get("seconds", 0))
    if not micro:
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    return moment.replace(microsecond=parts.get("nanos", 0) // 1000).strftime(
        "%Y-%m-%dT%H:%M:%S.%fZ"
    )


# The wire ------------------------------------------------------------------------------------


def _wire(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and raw values. Raises ``ValueError`` or ``IndexError`` for broken data."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        match tag & 7:
            case wire if wire == _VARINT:
                value, at = _varint(data, at)
                yield tag >> 3, value
            case wire if wire in (_BYTES, _FIXED64, _FIXED32):
                size = {_FIXED64: 8, _FIXED32: 4}.get(wire)
                if size is None:
                    size, at = _varint(data, at)
                if at + size > len(data):
                    raise ValueError("it ends in the middle of a field")
                yield tag >> 3, data[at : at + size]
                at += size
            case wire:
                raise ValueError(f"it has a field of wire type {wire}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift >= 70:
            raise ValueError("it has a number that never ends")


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("it has a number where text or a message belongs")
    return value


def _int(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise ValueError("it has text or a message where a number belongs")
    return value
