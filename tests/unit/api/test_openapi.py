"""The OpenAPI documents: what kubectl looks for in them, and that the protobuf form says the same."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tandem.api import openapi
from tandem.api.kinds import REGISTRY

PATCH_TYPES = {"application/json-patch+json", "application/merge-patch+json"}


def core() -> Any:
    return openapi.v3_document(REGISTRY, "", "v1")


def kubevirt() -> Any:
    return openapi.v3_document(REGISTRY, "kubevirt.io", "v1")


def test_the_index_leads_to_each_group_and_version_by_its_contents() -> None:
    paths = openapi.v3_index(REGISTRY)["paths"]
    assert {"api/v1", "apis/apps/v1", "apis/batch/v1", "apis/kubevirt.io/v1"} <= set(paths)
    urls = [entry["serverRelativeURL"] for entry in paths.values()]
    assert urls[0].startswith("/openapi/v3/api/v1?hash=")
    assert urls[0].partition("=")[2] != urls[1].partition("=")[2]


@pytest.mark.parametrize("kind", list(REGISTRY), ids=lambda kind: kind.kind)
def test_clients_find_each_kind_s_patch_and_its_parameters(kind: Any) -> None:
    document = openapi.v3_document(REGISTRY, kind.group, kind.version)
    patches = [
        path["patch"]
        for path in document["paths"].values()
        if "patch" in path and path["patch"]["x-kubernetes-group-version-kind"]["kind"] == kind.kind
    ]
    assert patches
    for patch in patches:
        names = {parameter["name"] for parameter in patch["parameters"]}
        assert {"dryRun", "fieldManager", "fieldValidation"} <= names
        expected = PATCH_TYPES | (
            set() if kind.merge_only else {"application/strategic-merge-patch+json"}
        )
        assert set(patch["requestBody"]["content"]) == expected


def test_namespaced_kinds_are_under_namespaces_and_others_are_not() -> None:
    paths = core()["paths"]
    assert {"/api/v1/pods", "/api/v1/namespaces/{namespace}/pods/{name}/status"} <= set(paths)
    assert "/api/v1/namespaces/{name}" in paths
    assert "/api/v1/namespaces/{namespace}/namespaces" not in paths
    assert "/apis/kubevirt.io/v1/virtualmachines" in kubevirt()["paths"]


@pytest.mark.parametrize("document", [core(), kubevirt(), openapi.v2_json(REGISTRY)])
def test_every_reference_leads_to_a_schema_of_the_same_document(document: Any) -> None:
    schemas = document.get("definitions") or document["components"]["schemas"]
    prefix = "#/definitions/" if "definitions" in document else "#/components/schemas/"

    def references(node: Any) -> set[str]:
        if isinstance(node, list):
            return set().union(*map(references, node))
        if not isinstance(node, dict):
            return set()
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(references, node.values()))

    assert references(document) <= {prefix + name for name in schemas}


def test_operations_have_names_of_their_own() -> None:
    document = openapi.v2_json(REGISTRY)
    names = [
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
        if isinstance(operation, dict)
    ]
    assert len(names) == len(set(names))


def test_a_document_holds_what_its_own_kinds_need_and_no_more() -> None:
    assert "io.kubevirt.v1.VirtualMachine" not in core()["components"]["schemas"]
    assert "io.k8s.api.core.v1.Container" not in kubevirt()["components"]["schemas"]


def test_the_two_scalars_that_json_schema_lacks_are_choices_in_version_3() -> None:
    schemas = core()["components"]["schemas"]
    types = {
        name.rpartition(".")[2]: [choice["type"] for choice in schemas[name]["oneOf"]]
        for name in schemas
        if name.endswith(("IntOrString", "Quantity"))
    }
    assert types == {"IntOrString": ["integer", "string"], "Quantity": ["string", "number"]}


def test_a_field_keeps_its_description_beside_its_reference() -> None:
    schemas = core()["components"]["schemas"]
    field = schemas["io.k8s.api.core.v1.Pod"]["properties"]["spec"]
    assert field["allOf"] == [{"$ref": "#/components/schemas/io.k8s.api.core.v1.PodSpec"}]
    assert field["description"]


def test_the_merge_keys_that_kubectl_apply_needs_are_there() -> None:
    schemas = core()["components"]["schemas"]
    containers = schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]
    assert containers["x-kubernetes-patch-merge-key"] == "name"
    assert containers["x-kubernetes-patch-strategy"] == "merge"


# The protobuf form, read back by the numbers of gnostic's OpenAPIv2.proto.


def fields(data: bytes) -> dict[int, list[Any]]:
    """Field numbers to their values, in order."""
    found: dict[int, list[Any]] = {}
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = varint()
        if tag & 7 == 0:
            found.setdefault(tag >> 3, []).append(varint())
        else:
            size = varint()
            found.setdefault(tag >> 3, []).append(data[at : at + size])
            at += size
    return found


def named(entries: list[bytes]) -> dict[str, dict[int, list[Any]]]:
    pairs = (fields(entry) for entry in entries)
    return {pair[1][0].decode(): fields(pair[2][0]) for pair in pairs}


def schema_of(message: dict[int, list[Any]]) -> Any:
    """A Schema message as the JSON it stands for."""
    texts = {1: "$ref", 2: "format", 4: "description"}
    schema: dict[str, Any] = {
        key: message[number][0].decode() for number, key in texts.items() if number in message
    }
    if 5 in message:
        schema["default"] = msgspec.json.decode(fields(message[5][0])[2][0])
    if 19 in message:
        schema["required"] = [name.decode() for name in message[19]]
    if 21 in message:
        schema["additionalProperties"] = schema_of(fields(fields(message[21][0])[1][0]))
    if 22 in message:
        schema["type"] = fields(message[22][0])[1][0].decode()
    if 23 in message:
        schema["items"] = schema_of(fields(fields(message[23][0])[1][0]))
    if 25 in message:
        properties = named(fields(message[25][0]).get(1, []))
        schema["properties"] = {name: schema_of(field) for name, field in properties.items()}
    for name, value in named(message.get(31, [])).items():
        schema[name] = msgspec.json.decode(value[2][0])
    return schema


def test_the_protobuf_form_has_the_same_definitions() -> None:
    document = fields(openapi.v2_protobuf(REGISTRY))
    assert document[1] == [b"2.0"]
    definitions = named(fields(document[9][0])[1])
    expected = openapi.v2_json(REGISTRY)["definitions"]
    assert {name: schema_of(node) for name, node in definitions.items()} == expected


def test_the_protobuf_form_says_which_parameters_a_patch_takes() -> None:
    document = fields(openapi.v2_protobuf(REGISTRY))
    paths = named(fields(document[8][0])[2])
    assert set(paths) == set(openapi.v2_json(REGISTRY)["paths"])
    patch = fields(paths["/api/v1/namespaces/{namespace}/pods/{name}"][8][0])
    extensions = named(patch[13])
    gvk = msgspec.json.decode(extensions["x-kubernetes-group-version-kind"][2][0])
    assert gvk == {"group": "", "kind": "Pod", "version": "v1"}
    queries = [
        fields(fields(parameter[2][0])[3][0])[4][0].decode()
        for item in patch[8]
        if 2 in (parameter := fields(fields(item)[1][0]))
    ]
    assert queries == ["dryRun", "fieldManager", "fieldValidation"]
