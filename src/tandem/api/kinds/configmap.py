"""``v1`` ConfigMap: named pieces of configuration."""

from __future__ import annotations

import re

from tandem.api import causes
from tandem.api.kind import Column, Doc, Kind
from tandem.api.meta import name_causes
from tandem.errors import Cause

MAX_BYTES = 1024 * 1024
"""Most bytes of all values together, as in Kubernetes."""

_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_KEY_RULE = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  "
    "or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)


def key_causes(key: str, path: str) -> list[Cause]:
    """What is wrong with a key of a ConfigMap or Secret."""
    if len(key) > 253:
        return [causes.invalid(path, key, "must be no more than 253 characters")]
    if not _KEY.fullmatch(key):
        return [causes.invalid(path, key, _KEY_RULE)]
    if key in (".", "..") or key.startswith("../"):
        return [causes.invalid(path, key, f"must not be {key!r}")]
    return []


def immutability_causes(new: Doc, old: Doc, fields: tuple[str, ...]) -> list[Cause]:
    """What an update does to an object marked ``immutable``, which it must not."""
    if not old.get("immutable"):
        return []
    found = []
    if not new.get("immutable"):
        found.append(causes.forbidden("immutable", "field is immutable when `immutable` is set"))
    found += [
        causes.forbidden(field, "field is immutable when `immutable` is set")
        for field in fields
        if (new.get(field) or {}) != (old.get(field) or {})
    ]
    return found


def _validate(new: Doc, old: Doc | None) -> list[Cause]:
    data, binary = new.get("data") or {}, new.get("binaryData") or {}
    found = []
    if old is None and new["metadata"].get("name"):
        found += name_causes(new["metadata"]["name"], "metadata.name")
    for field, values in (("data", data), ("binaryData", binary)):
        for key in values:
            found += key_causes(key, f"{field}[{key}]")
    for key in data:
        if key in binary:
            found.append(
                causes.invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
            )
    size = sum(len(str(v).encode()) for v in data.values())
    size += sum(len(str(v)) * 3 // 4 for v in binary.values())
    if size > MAX_BYTES:
        found.append(causes.too_long("", MAX_BYTES))
    return found + (immutability_causes(new, old, ("data", "binaryData")) if old else [])


CONFIG_MAP = Kind(
    group="",
    version="v1",
    kind="ConfigMap",
    plural="configmaps",
    singular="configmap",
    schema="io.k8s.api.core.v1.ConfigMap",
    short_names=("cm",),
    status=False,
    columns=(
        Column(
            "Data",
            lambda doc: len(doc.get("data") or {}) + len(doc.get("binaryData") or {}),
            type="integer",
            description="How many keys it has.",
        ),
    ),
    validate=_validate,
    spec_fields=(),
)
