"""A container's environment as literal values: ConfigMaps, Secrets, fields and resources looked up.

``$(NAME)`` in ``value``, ``command`` and ``args`` is left for the adapter to expand; in a value that was
looked up it means nothing, so its dollar signs are doubled, which the adapter turns back.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from tandem.api.kind import Doc
from tandem.api.meta import get
from tandem.control.pods import podfields
from tandem.errors import NotFound
from tandem.store import Key

Lookup = podfields.Lookup

_SOURCES = {"configMap": ("configmaps", "configmap"), "secret": ("secrets", "secret")}


class MissingReference(NotFound):
    """A ConfigMap or Secret that a container needs is not there, or lacks the key; ``key`` is where
    it should be."""

    def __init__(self, message: str, key: Key) -> None:
        super().__init__(message)
        self.key = key


def resolve(pod: Doc, container: Doc, lookup: Lookup, fields: Mapping[str, str]) -> Doc:
    """``container`` with nothing left to look up.

    ``fields`` are the values of what a fieldRef may name that the Pod itself does not say yet.
    Raises :class:`MissingReference`, and ``InvalidSpec`` for a resourceFieldRef to no container.
    """
    values: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        found = _all_of(pod, source, lookup)
        values |= {name: _literal(value) for name, value in found.items()}
    for entry in container.get("env") or ():
        if (source := entry.get("valueFrom")) is not None:
            value = _one_of(pod, container, source, lookup, fields)
            if value is None:
                continue
            value = _literal(value)
        else:
            value = str(entry.get("value") or "")
        # A name given again takes its new place: it may refer to what came in between.
        values.pop(entry["name"], None)
        values[entry["name"]] = value
    resolved = {name: value for name, value in container.items() if name not in ("env", "envFrom")}
    if values:
        resolved["env"] = [{"name": name, "value": value} for name, value in values.items()]
    return resolved


def _literal(value: str) -> str:
    return value.replace("$", "$$")


def references(pod: Doc) -> set[Key]:
    """Every ConfigMap and Secret that the Pod's containers name."""
    found = set()
    containers = [
        container
        for part in ("initContainers", "containers", "ephemeralContainers")
        for container in get(pod, f"spec.{part}", [])
    ]
    for container in containers:
        named = [
            (what, source.get(f"{what}Ref"))
            for source in container.get("envFrom") or ()
            for what in _SOURCES
        ]
        named += [
            (what, (entry.get("valueFrom") or {}).get(f"{what}KeyRef"))
            for entry in container.get("env") or ()
            for what in _SOURCES
        ]
        found |= {_key(pod, what, reference) for what, reference in named if reference}
    return found


def _key(pod: Doc, what: str, reference: Mapping[str, Any]) -> Key:
    return Key(_SOURCES[what][0], pod["metadata"]["namespace"], str(reference.get("name", "")))


def _all_of(pod: Doc, source: Mapping[str, Any], lookup: Lookup) -> dict[str, str]:
    prefix = source.get("prefix") or ""
    values: dict[str, str] = {}
    for what in _SOURCES:
        if (reference := source.get(f"{what}Ref")) is None:
            continue
        key = _key(pod, what, reference)
        doc = lookup(key)
        if doc is None:
            if not reference.get("optional"):
                raise MissingReference(f'{_SOURCES[what][1]} "{key.name}" not found', key)
            continue
        values |= {f"{prefix}{name}": value for name, value in _data(what, doc).items()}
    return values


def _one_of(
    pod: Doc,
    container: Doc,
    source: Mapping[str, Any],
    lookup: Lookup,
    fields: Mapping[str, str],
) -> str | None:
    if reference := source.get("fieldRef"):
        return podfields.field(pod, str(reference.get("fieldPath", "")), fields)
    if reference := source.get("resourceFieldRef"):
        return podfields.resource(pod, container, reference, lookup)
    for what, (_, shown) in _SOURCES.items():
        if (reference := source.get(f"{what}KeyRef")) is None:
            continue
        key = _key(pod, what, reference)
        doc = lookup(key)
        values = _data(what, doc) if doc is not None else {}
        if reference["key"] in values:
            return values[reference["key"]]
        if reference.get("optional"):
            return None
        if doc is None:
            raise MissingReference(f'{shown} "{key.name}" not found', key)
        where = (
            f"{shown.capitalize() if what == 'secret' else 'ConfigMap'} {key.namespace}/{key.name}"
        )
        raise MissingReference(f"couldn't find key {reference['key']} in {where}", key)
    return None


def _data(what: str, doc: Doc) -> dict[str, str]:
    data = {name: str(value) for name, value in (doc.get("data") or {}).items()}
    if what == "secret":
        return {
            name: base64.b64decode(value).decode("utf-8", "surrogateescape")
            for name, value in data.items()
        }
    return data
