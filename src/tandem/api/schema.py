"""Structural validation: types, required and unknown fields, from the OpenAPI definitions.

The definitions are data (``schemas/*.json``, made by ``tools/gen_schemas.py``). Each is compiled on
first use into a closure per field, so that a check is one walk over the document: about as long as
decoding it took. What the definitions cannot say is the kinds' own ``validate``.

A check also finds what decoding into Go structs does to a document in Kubernetes (nulls are as good
as absent, unknown fields fall away, quantities take their canonical form); :meth:`SchemaReport.tidy`
applies it.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from tandem.api import causes
from tandem.api.kind import Doc
from tandem.api.meta import parse_time
from tandem.api.quantity import canonical
from tandem.errors import Cause

Definition = dict[str, Any]

SCHEMAS = Path(__file__).with_name("schemas")

_DROP = object()
"""In place of a value: the field is to go."""

_Check = Callable[[Any, str, "SchemaReport"], Any]
"""Checks a value at a path; returns it, or what is to be in its place."""


@dataclass(slots=True)
class SchemaReport:
    """What is wrong with a document's structure.

    ``causes``: wrong types and values (``FieldValueTypeInvalid``) and missing fields
    (``FieldValueRequired``). ``unknown_fields``: paths of the fields that no definition has.
    """

    causes: list[Cause] = field(default_factory=list)
    unknown_fields: list[str] = field(default_factory=list)
    _edits: list[tuple[dict[str, Any], str, Any]] = field(default_factory=list)

    def tidy(self) -> None:
        """Apply to the document what decoding it does; see the module's docstring."""
        for container, key, value in self._edits:
            if value is _DROP:
                container.pop(key, None)
            else:
                container[key] = value

    def edit(self, container: dict[str, Any], key: str, value: Any) -> None:
        """Note what :meth:`tidy` is to do."""
        self._edits.append((container, key, value))


def check(doc: Doc, schema_name: str) -> SchemaReport:
    """Hold ``doc`` against a definition; ``doc`` is not altered. Raises ``KeyError`` for a definition
    that does not exist."""
    report = SchemaReport()
    _definition_check(schema_name)(doc, "", report)
    return report


def definition(name: str) -> Definition:
    """A definition by its full name, without descriptions. Raises ``KeyError``."""
    return _definitions()[name]


def described_definitions() -> dict[str, Definition]:
    """Every definition with its descriptions, read afresh: they are large and rarely asked for."""
    merged: dict[str, Definition] = {}
    for path in sorted(SCHEMAS.glob("*.json")):
        merged |= msgspec.json.decode(path.read_bytes())
    return merged


def reference(node: Definition) -> str | None:
    """The name of the definition that ``node`` refers to, or None."""
    ref = node.get("$ref")
    return ref.rpartition("/")[2] if ref else None


@lru_cache(maxsize=1)
def _definitions() -> dict[str, Definition]:
    definitions = described_definitions()
    for node in definitions.values():
        node.pop("description", None)
        for property_ in node.get("properties", {}).values():
            property_.pop("description", None)
    return definitions


# Compiling -----------------------------------------------------------------------------------

_compiled: dict[str, _Check] = {}


def _definition_check(name: str) -> _Check:
    found = _compiled.get(name)
    if found is None:
        found = _compile(_definitions()[name], name)
    return found


def _compile(node: Definition, name: str | None = None) -> _Check:
    """The check for a schema; ``name`` puts it in the table before its fields are compiled, so that
    a definition may contain itself."""
    if ref := reference(node):
        return _definition_check(ref)
    if "properties" in node:
        fields: dict[str, tuple[type | None, _Check]] = {}
        compiled = _object(fields, tuple(node.get("required", ())))
        if name:
            _compiled[name] = compiled
        for key, child in node["properties"].items():
            if key in _FLAGS and child.get("type") == "boolean":
                fields[key] = (None, _flag)
            else:
                fields[key] = (_exact_type(child), _compile(child))
        return compiled
    match node["type"], node.get("format"):
        case "object", _ if "additionalProperties" in node:
            compiled = _map(_compile(node["additionalProperties"]), node["additionalProperties"])
        case "array", _:
            compiled = _array(_exact_type(node["items"]), _compile(node["items"]))
        case "string", str(format_) if format_ in _FORMATS:
            compiled = _FORMATS[format_]
        case "integer", "int32":
            compiled = _int32
        case type_, _:
            compiled = _plain(*_PLAIN[type_])
    if name:
        _compiled[name] = compiled
    return compiled


def _exact_type(node: Definition) -> type | None:
    """The class every instance of which is right, where there is nothing more to check."""
    if ref := reference(node):
        return _exact_type(_definitions()[ref])
    if node.get("properties") or "additionalProperties" in node or node.get("format") in _CHECKED:
        return None
    return {"string": str, "boolean": bool, "integer": int, "object": dict}.get(node["type"])


def _object(fields: dict[str, tuple[type | None, _Check]], required: tuple[str, ...]) -> _Check:
    def check_object(value: Any, path: str, report: SchemaReport) -> Any:
        if value.__class__ is not dict:
            return _wrong(value, path, report, "must be an object")
        for key, item in value.items():
            known = fields.get(key)
            if known is None:
                report.unknown_fields.append(_join(path, key))
                report.edit(value, key, _DROP)
            elif item.__class__ is known[0]:
                continue
            elif item is None:
                report.edit(value, key, _DROP)
            else:
                after = known[1](item, _join(path, key), report)
                if after is not item:
                    report.edit(value, key, after)
        for key in required:
            if value.get(key) is None:
                report.causes.append(causes.required(_join(path, key)))
        return value

    return check_object


def _map(check_item: _Check, item_schema: Definition) -> _Check:
    # Go decodes null in a map to the zero value of its elements.
    null = "" if _exact_type(item_schema) is str else _DROP

    def check_map(value: Any, path: str, report: SchemaReport) -> Any:
        if value.__class__ is not dict:
            return _wrong(value, path, report, "must be an object")
        for key, item in value.items():
            after = null if item is None else check_item(item, f"{path}[{key}]", report)
            if after is not item:
                report.edit(value, key, after)
        return value

    return check_map


def _array(exact: type | None, check_item: _Check) -> _Check:
    def check_array(value: Any, path: str, report: SchemaReport) -> Any:
        if value.__class__ is not list:
            return _wrong(value, path, report, "must be an array")
        for index, item in enumerate(value):
            if item.__class__ is not exact:
                check_item(item, f"{path}[{index}]", report)
        return value

    return check_array


def _plain(type_: type, rule: str) -> _Check:
    def check_plain(value: Any, path: str, report: SchemaReport) -> Any:
        return value if value.__class__ is type_ else _wrong(value, path, report, rule)

    return check_plain


_PLAIN: dict[str, tuple[type, str]] = {
    "string": (str, "must be a string"),
    "boolean": (bool, "must be true or false"),
    "integer": (int, "must be an integer"),
    "object": (dict, "must be an object"),
}


_FLAGS = frozenset(
    ("hostIPC", "hostNetwork", "hostPID", "paused", "readOnly", "stdin", "stdinOnce", "tty")
)
"""What is false in Go when it is not there, and not there when it is false: the same template must be
the same document, whichever way a client has written it."""


def _flag(value: Any, path: str, report: SchemaReport) -> Any:
    if value.__class__ is not bool:
        return _wrong(value, path, report, "must be true or false")
    return value or _DROP


def _int32(value: Any, path: str, report: SchemaReport) -> Any:
    if value.__class__ is not int:
        return _wrong(value, path, report, "must be an integer")
    if not -(2**31) <= value < 2**31:
        return _wrong(value, path, report, "must be an integer of 32 bits")
    return value


def _int_or_string(value: Any, path: str, report: SchemaReport) -> Any:
    if value.__class__ is int:
        return _int32(value, path, report)
    if value.__class__ is not str:
        return _wrong(value, path, report, "must be an integer or a string")
    return value


def _quantity(value: Any, path: str, report: SchemaReport) -> Any:
    if value.__class__ not in (str, int, float):
        return _wrong(value, path, report, "must be a quantity, such as 500m or 2Gi")
    try:
        return canonical(value)
    except ValueError as error:
        return _wrong(value, path, report, str(error))


def _date_time(value: Any, path: str, report: SchemaReport) -> Any:
    try:
        parse_time(value)
    except (ValueError, TypeError):
        return _wrong(value, path, report, "must be a time such as 2026-01-31T13:45:00Z")
    return value


def _byte(value: Any, path: str, report: SchemaReport) -> Any:
    if value.__class__ is not str:
        return _wrong(value, path, report, "must be a string of base64")
    try:
        # Go's decoder skips line breaks; nothing else may be in between.
        binascii.a2b_base64(value.replace("\n", "").replace("\r", ""), strict_mode=True)
    except (binascii.Error, ValueError):
        return _wrong(value, path, report, "must be base64")
    return value


_FORMATS: dict[str, _Check] = {
    "int-or-string": _int_or_string,
    "quantity": _quantity,
    "date-time": _date_time,
    "byte": _byte,
}
_CHECKED = frozenset({*_FORMATS, "int32"})
"""Formats that say more than the type."""


def _wrong(value: Any, path: str, report: SchemaReport, rule: str) -> Any:
    report.causes.append(causes.type_invalid(path, value, rule))
    return value


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
