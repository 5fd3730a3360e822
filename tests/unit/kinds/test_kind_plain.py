"""Namespaces, ConfigMaps, Secrets, Events, and the walk over supported fields."""

from __future__ import annotations

import base64
import copy

import pytest

from tandem.api.kind import Doc
from tandem.api.kinds import CONFIG_MAP, EVENT, NAMESPACE, REGISTRY, SECRET
from tandem.api.kinds.support import YES, Tree, ignored, walk
from tandem.api.rest import prepare_create, prepare_update
from tandem.api.table import columns_of
from tandem.errors import InvalidSpec


def test_every_kind_is_found_by_resource_and_by_name() -> None:
    for kind in REGISTRY:
        assert REGISTRY.by_resource(kind.group, kind.version, kind.plural) is kind
        assert REGISTRY.by_kind(kind.api_version, kind.kind) is kind


def test_a_namespace_is_active_and_knows_its_name() -> None:
    doc = prepare_create(NAMESPACE, {"metadata": {"name": "lab"}}, namespace="").doc
    assert doc["status"]["phase"] == "Active"
    assert doc["metadata"]["labels"] == {"kubernetes.io/metadata.name": "lab"}
    with pytest.raises(InvalidSpec, match="RFC 1123 label"):
        prepare_create(NAMESPACE, {"metadata": {"name": "a.b"}}, namespace="")


@pytest.mark.parametrize(
    ("doc", "field"),
    [
        ({"data": {"a b": "x"}}, "data[a b]"),
        ({"data": {"..": "x"}}, "data[..]"),
        ({"data": {"a": "x"}, "binaryData": {"a": "eA=="}}, "data[a]"),
        ({"data": {"a": "x" * 1048577}}, ""),
    ],
)
def test_rules_of_a_config_map(doc: Doc, field: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        prepare_create(CONFIG_MAP, {"metadata": {"name": "x"}, **doc}, namespace="default")
    assert field in [cause.field for cause in caught.value.causes]


def test_an_immutable_config_map_stays() -> None:
    doc = {"metadata": {"name": "x"}, "data": {"a": "b"}, "immutable": True}
    old = prepare_create(CONFIG_MAP, doc, namespace="default").doc
    for change in ({"data": {"a": "c"}}, {"immutable": False}):
        new = copy.deepcopy(old) | change
        with pytest.raises(InvalidSpec, match="immutable"):
            prepare_update(CONFIG_MAP, new, old)


def test_plain_text_of_a_secret_is_encoded() -> None:
    doc = {"metadata": {"name": "x"}, "stringData": {"a": "ü"}, "data": {"b": "eA=="}}
    secret = prepare_create(SECRET, doc, namespace="default").doc
    assert secret["type"] == "Opaque"
    assert secret["data"] == {"a": base64.b64encode("ü".encode()).decode(), "b": "eA=="}
    assert "stringData" not in secret


@pytest.mark.parametrize(
    ("doc", "field"),
    [
        ({"type": "kubernetes.io/tls"}, "data[tls.crt]"),
        (
            {
                "type": "kubernetes.io/dockerconfigjson",
                "stringData": {".dockerconfigjson": "no json"},
            },
            "data[.dockerconfigjson]",
        ),
    ],
)
def test_rules_of_a_secret(doc: Doc, field: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        prepare_create(SECRET, {"metadata": {"name": "x"}, **doc}, namespace="default")
    assert field in [cause.field for cause in caught.value.causes]


def test_the_type_of_a_secret_stays() -> None:
    old = prepare_create(SECRET, {"metadata": {"name": "x"}}, namespace="default").doc
    new = copy.deepcopy(old) | {"type": "example.org/other"}
    with pytest.raises(InvalidSpec, match="field is immutable"):
        prepare_update(SECRET, new, old)


def test_an_event_is_shown_as_kubectl_shows_it() -> None:
    event = {
        "metadata": {"name": "web.1", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "name": "web"},
        "type": "Normal",
        "reason": "Started",
        "message": "Started container main",
        "lastTimestamp": "2026-01-01T00:00:00Z",
    }
    narrow = {c.name: c.value(event) for c in columns_of(EVENT) if c.priority == 0}
    assert list(narrow) == ["Last Seen", "Type", "Reason", "Object", "Message"]
    assert narrow["Object"] == "pod/web"


def test_the_walk_names_what_it_does_not_know() -> None:
    tree: Tree = {"a": YES, "b": {"c": YES, "*": {"d": YES}}, "e": ignored("why not")}
    value = {"a": {"x": 1}, "b": [{"c": 1}, {"any": {"d": 1, "f": 2}}], "e": 1, "g": 0, "h": 3}
    findings = walk(value, tree, "spec")
    assert [cause.field for cause in findings.causes] == ["spec.b[1].any.f", "spec.h"]
    assert findings.warnings == ["spec.e has no effect: why not"]
