"""Swagger 2.0 documents in the protobuf form that kubectl reads (``openapi.v2.Document``).

The message types are those of gnostic's OpenAPIv2.proto; only the few dozen fields that our documents
have are written, so a table of their numbers stands in for generated code.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from tandem.api.kind import Doc

_LENGTH_DELIMITED = 2
_VARINT = 0


def encode_document(document: Doc) -> bytes:
    """The document as an ``openapi.v2.Document``."""
    info = _text(1, document["info"]["title"]) + _text(2, document["info"]["version"])
    paths = b"".join(
        _message(2, _named(path, _path_item(item))) for path, item in document["paths"].items()
    )
    return b"".join(
        (
            _text(1, document["swagger"]),
            _message(2, info),
            _message(8, paths),
            _message(9, _named_schemas(document["definitions"])),
        )
    )


# Definitions ---------------------------------------------------------------------------------


def _named_schemas(schemas: dict[str, Doc]) -> bytes:
    return b"".join(_message(1, _named(name, _schema(node))) for name, node in schemas.items())


def _schema(node: Doc) -> bytes:
    parts = []
    for key, value in node.items():
        match key:
            case "$ref":
                parts.append(_text(1, value))
            case "format":
                parts.append(_text(2, value))
            case "description":
                parts.append(_text(4, value))
            case "default":
                parts.append(_message(5, _any(value)))
            case "required":
                parts += [_text(19, name) for name in value]
            case "additionalProperties":
                parts.append(_message(21, _message(1, _schema(value))))
            case "type":
                parts.append(_message(22, _text(1, value)))
            case "items":
                parts.append(_message(23, _message(1, _schema(value))))
            case "properties":
                parts.append(_message(25, _named_schemas(value)))
            case _:
                parts.append(_extension(31, key, value))
    return b"".join(parts)


# Paths ---------------------------------------------------------------------------------------

_METHODS = {"get": 2, "put": 3, "post": 4, "delete": 5, "patch": 8}


def _path_item(item: Doc) -> bytes:
    operations = b"".join(
        _message(number, _operation(item[method]))
        for method, number in _METHODS.items()
        if method in item
    )
    return operations + _parameters(9, item["parameters"])


def _operation(operation: Doc) -> bytes:
    responses = b"".join(
        _message(1, _named(code, _message(1, _response(response))))
        for code, response in operation["responses"].items()
    )
    return b"".join(
        (
            _text(5, operation["operationId"]),
            *(_text(6, media_type) for media_type in operation["produces"]),
            *(_text(7, media_type) for media_type in operation["consumes"]),
            _parameters(8, operation["parameters"]),
            _message(9, responses),
            *(
                _extension(13, name, value)
                for name, value in operation.items()
                if name.startswith("x-")
            ),
        )
    )


def _response(response: Doc) -> bytes:
    return _text(1, response["description"]) + _message(2, _message(1, _schema(response["schema"])))


def _parameters(number: int, parameters: Iterable[Doc]) -> bytes:
    return b"".join(_message(number, _message(1, _parameter(each))) for each in parameters)


def _parameter(parameter: Doc) -> bytes:
    if parameter["in"] == "body":
        body = _text(2, parameter["name"]) + _text(3, "body")
        return _message(1, body + _message(5, _schema(parameter["schema"])))
    in_path = parameter["in"] == "path"
    described = b"".join(
        (
            _flag(1, parameter.get("required", False)),
            _text(2, parameter["in"]),
            _text(3, parameter["description"]),
            _text(4, parameter["name"]),
            _text(5 if in_path else 6, parameter["type"]),
        )
    )
    return _message(2, _message(4 if in_path else 3, described))


# The wire ------------------------------------------------------------------------------------


def _named(name: str, value: bytes) -> bytes:
    """The entry that stands for one key of a map, in every map of these messages."""
    return _text(1, name) + _message(2, value)


def _extension(number: int, name: str, value: Any) -> bytes:
    return _message(number, _named(name, _any(value)))


def _any(value: Any) -> bytes:
    """``openapi.v2.Any``, of which clients read the YAML alone; JSON is YAML."""
    return _text(2, msgspec.json.encode(value).decode())


def _text(number: int, text: str) -> bytes:
    return _message(number, text.encode())


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def _flag(number: int, value: bool) -> bytes:
    return _varint(number << 3 | _VARINT) + b"\x01" if value else b""


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
