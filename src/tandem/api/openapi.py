"""The OpenAPI documents: what ``kubectl explain`` shows and clients check manifests and patches by.

Version 2 is one document for everything, in JSON or, for kubectl up to 1.26, in the protobuf form of
:mod:`tandem.api.openapi_protobuf`. Version 3 is an index and a document per group and version. All
follow from the registry and the committed definitions; building one takes tens of milliseconds and is
done when somebody asks, so nothing of it stays in memory here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from tandem.api.kind import Doc, Kind, Registry
from tandem.api.kinds.scale import SCALE
from tandem.api.openapi_protobuf import encode_document
from tandem.api.schema import Definition, described_definitions, reference

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_STATUS = f"{_META}Status"
_DELETE_OPTIONS = f"{_META}DeleteOptions"
_PATCH = f"{_META}Patch"
_PATCH_DEFINITION: Definition = {
    "type": "object",
    "description": "A patch, in the language that the request's Content-Type names.",
}

_JSON = "application/json"
_YAML = "application/yaml"
_JSON_PATCH = "application/json-patch+json"
_MERGE_PATCH = "application/merge-patch+json"
_STRATEGIC_PATCH = "application/strategic-merge-patch+json"

_INFO = {"title": "Tandem", "version": "unversioned"}

# OpenAPI 3 has no type for these two; 2 says it by format.
_V3_SCALARS: dict[str, Definition] = {
    "int-or-string": {"oneOf": [{"type": "integer"}, {"type": "string"}]},
    "quantity": {"oneOf": [{"type": "string"}, {"type": "number"}]},
}


@dataclass(frozen=True, slots=True)
class _Parameter:
    """A parameter in the query or, when ``required``, in the path."""

    name: str
    type: str
    description: str
    required: bool = False


_DRY_RUN = _Parameter("dryRun", "string", "All: check everything and change nothing.")
_FIELD_MANAGER = _Parameter("fieldManager", "string", "Who makes the change.")
_FIELD_VALIDATION = _Parameter(
    "fieldValidation", "string", "What unknown fields are: Ignore, Warn or Strict."
)
_WRITE = (_DRY_RUN, _FIELD_MANAGER, _FIELD_VALIDATION)
_SELECT = (
    _Parameter("labelSelector", "string", "Only objects whose labels are so."),
    _Parameter("fieldSelector", "string", "Only objects whose fields are so."),
    _Parameter("limit", "integer", "How many objects a page has at most."),
    _Parameter("continue", "string", "Where the next page begins."),
    _Parameter("resourceVersion", "string", "The state to read, or to watch from."),
    _Parameter("resourceVersionMatch", "string", "How resourceVersion is meant."),
    _Parameter("timeoutSeconds", "integer", "How long a watch lasts at most."),
    _Parameter("watch", "boolean", "Follow the changes instead of listing."),
    _Parameter("allowWatchBookmarks", "boolean", "Send bookmarks while watching."),
)
_DELETE = (
    _DRY_RUN,
    _Parameter("gracePeriodSeconds", "integer", "Seconds until it is stopped by force."),
    _Parameter("propagationPolicy", "string", "Orphan, Background or Foreground."),
)
_NAME = _Parameter("name", "string", "The object's name.", required=True)
_NAMESPACE = _Parameter("namespace", "string", "The object's namespace.", required=True)


@dataclass(frozen=True, slots=True)
class _Operation:
    """One verb on one path. ``body`` and ``result`` name definitions."""

    kind: Kind
    method: str
    action: str
    identity: str
    result: str
    parameters: tuple[_Parameter, ...] = ()
    body: str = ""
    consumes: tuple[str, ...] = (_JSON, _YAML)

    @property
    def extensions(self) -> Doc:
        """What Kubernetes' clients find the operation by."""
        kind = self.kind
        return {
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": {
                "group": kind.group,
                "kind": kind.kind,
                "version": kind.version,
            },
        }


def v2_protobuf(registry: Registry) -> bytes:
    """``/openapi/v2`` as kubectl asks for it."""
    return encode_document(v2_json(registry))


def v2_json(registry: Registry) -> Doc:
    """``/openapi/v2``: a Swagger 2.0 document of everything that is served."""
    return {
        "swagger": "2.0",
        "info": _INFO,
        "paths": {
            path: {
                "parameters": [_v2_parameter(parameter) for parameter in parameters],
                **{operation.method: _v2_operation(operation) for operation in operations},
            }
            for kind in registry
            for path, parameters, operations in _paths(kind)
        },
        "definitions": _needed_definitions(registry),
    }


def v3_index(registry: Registry) -> Doc:
    """``/openapi/v3``: where the document of each group and version is, by a hash of its contents."""
    paths = {}
    for kind in registry:
        if (root := _root(kind)) not in paths:
            document = v3_document(registry, kind.group, kind.version)
            digest = hashlib.sha256(msgspec.json.encode(document)).hexdigest().upper()
            paths[root] = {"serverRelativeURL": f"/openapi/v3/{root}?hash={digest}"}
    return {"paths": paths}


def v3_document(registry: Registry, group: str, version: str) -> Doc:
    """The OpenAPI 3 document of one group and version."""
    kinds = [kind for kind in registry if (kind.group, kind.version) == (group, version)]
    return {
        "openapi": "3.0.0",
        "info": _INFO,
        "paths": {
            path: {
                "parameters": [_v3_parameter(parameter) for parameter in parameters],
                **{operation.method: _v3_operation(operation) for operation in operations},
            }
            for kind in kinds
            for path, parameters, operations in _paths(kind)
        },
        "components": {
            "schemas": {name: _v3_schema(node) for name, node in _needed_definitions(kinds).items()}
        },
    }


# What is served ------------------------------------------------------------------------------

_Path = tuple[str, tuple[_Parameter, ...], list[_Operation]]


def _paths(kind: Kind) -> Iterator[_Path]:
    """The paths of a kind, their own parameters and their operations."""
    base = f"/{_root(kind)}"
    scope: tuple[_Parameter, ...] = ()
    if kind.namespaced:
        everywhere = [_Operation(kind, "get", "list", "listAll", f"{kind.schema}List", _SELECT)]
        yield f"{base}/{kind.plural}", (), everywhere
        base, scope = f"{base}/namespaces/{{namespace}}", (_NAMESPACE,)
    collection = f"{base}/{kind.plural}"
    yield collection, scope, list(_collection_operations(kind))
    yield f"{collection}/{{name}}", (_NAME, *scope), list(_object_operations(kind))
    if kind.status:
        yield (
            f"{collection}/{{name}}/status",
            (_NAME, *scope),
            list(_state_operations(kind, "Status")),
        )
    if kind.scale:
        scale = [
            replace(operation, kind=SCALE, identity=f"{operation.identity}{kind.kind}")
            for operation in _state_operations(SCALE, "")
        ]
        yield f"{collection}/{{name}}/scale", (_NAME, *scope), scale


def _collection_operations(kind: Kind) -> Iterator[_Operation]:
    yield _Operation(kind, "get", "list", "list", f"{kind.schema}List", _SELECT)
    yield _Operation(kind, "post", "post", "create", kind.schema, _WRITE, kind.schema)
    parameters = (*_DELETE, *_SELECT)
    yield _Operation(
        kind, "delete", "deletecollection", "deleteAll", _STATUS, parameters, _DELETE_OPTIONS
    )


def _object_operations(kind: Kind) -> Iterator[_Operation]:
    yield from _state_operations(kind, "")
    yield _Operation(kind, "delete", "delete", "delete", _STATUS, _DELETE, _DELETE_OPTIONS)


def _state_operations(kind: Kind, part: str) -> Iterator[_Operation]:
    languages: tuple[str, ...] = (_JSON_PATCH, _MERGE_PATCH)
    if not kind.merge_only:  # clients take the language that they find here
        languages = (*languages, _STRATEGIC_PATCH)
    yield _Operation(kind, "get", "get", f"read{part}", kind.schema)
    yield _Operation(kind, "put", "put", f"replace{part}", kind.schema, _WRITE, kind.schema)
    yield _Operation(
        kind, "patch", "patch", f"patch{part}", kind.schema, _WRITE, _PATCH, consumes=languages
    )


def _root(kind: Kind) -> str:
    return f"apis/{kind.group}/{kind.version}" if kind.group else f"api/{kind.version}"


def _operation_id(operation: _Operation) -> str:
    return f"{operation.identity}{operation.kind.kind}{operation.kind.version.upper()}"


# Version 2 -----------------------------------------------------------------------------------


def _v2_operation(operation: _Operation) -> Doc:
    parameters = [_v2_parameter(parameter) for parameter in operation.parameters]
    if operation.body:
        body = {"name": "body", "in": "body", "schema": {"$ref": f"#/definitions/{operation.body}"}}
        parameters.append(body)
    return {
        "operationId": _operation_id(operation),
        "consumes": list(operation.consumes),
        "produces": [_JSON, _YAML],
        "parameters": parameters,
        "responses": {
            "200": {
                "description": "OK",
                "schema": {"$ref": f"#/definitions/{operation.result}"},
            }
        },
        **operation.extensions,
    }


def _v2_parameter(parameter: _Parameter) -> Doc:
    described: Doc = {
        "name": parameter.name,
        "in": "path" if parameter.required else "query",
        "type": parameter.type,
        "description": parameter.description,
    }
    return described | ({"required": True} if parameter.required else {})


# Version 3 -----------------------------------------------------------------------------------


def _v3_operation(operation: _Operation) -> Doc:
    described: Doc = {
        "operationId": _operation_id(operation),
        "parameters": [_v3_parameter(parameter) for parameter in operation.parameters],
        "responses": {
            "200": {"description": "OK", "content": {_JSON: _v3_content(operation.result)}}
        },
        **operation.extensions,
    }
    if operation.body:
        described["requestBody"] = {
            "content": {language: _v3_content(operation.body) for language in operation.consumes}
        }
    return described


def _v3_content(name: str) -> Doc:
    return {"schema": {"$ref": f"#/components/schemas/{name}"}}


def _v3_parameter(parameter: _Parameter) -> Doc:
    described = _v2_parameter(parameter)
    described["schema"] = {"type": described.pop("type")}
    return described


def _v3_schema(node: Definition) -> Definition:
    if name := reference(node):
        target = {"$ref": f"#/components/schemas/{name}"}
        rest = {key: value for key, value in node.items() if key != "$ref"}
        # Beside a $ref nothing counts in OpenAPI 3, so a field's own description needs the detour.
        return {**rest, "allOf": [target]} if rest else target
    described = dict(node)
    if scalar := _V3_SCALARS.get(node.get("format", "")):
        del described["type"], described["format"]
        described |= scalar
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            described[key] = _v3_schema(node[key])
    if "properties" in node:
        described["properties"] = {
            name: _v3_schema(field) for name, field in node["properties"].items()
        }
    return described


# Definitions ---------------------------------------------------------------------------------


def _needed_definitions(kinds: Iterable[Kind]) -> dict[str, Definition]:
    """The definitions that the paths of ``kinds`` refer to, and what those refer to in turn."""
    known = described_definitions() | {_PATCH: _PATCH_DEFINITION}
    found: dict[str, Definition] = {}
    pending = [_STATUS, _DELETE_OPTIONS, _PATCH]
    for kind in kinds:
        pending += [kind.schema, f"{kind.schema}List", *([SCALE.schema] if kind.scale else [])]
    while pending:
        name = pending.pop()
        if name not in found:
            found[name] = known[name]
            pending += _references(known[name])
    return dict(sorted(found.items()))


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"].rpartition("/")[2]
        for value in node.values():
            yield from _references(value)
