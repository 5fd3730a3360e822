"""Structural validation: what is found, where, and what decoding does to a document."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.api import schema
from tandem.api.kinds import REGISTRY

POD = "io.k8s.api.core.v1.Pod"
VM = "io.kubevirt.v1.VirtualMachine"


def container(**fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", **fields}]}}


def faults(doc: dict[str, Any], name: str = POD) -> list[tuple[str, str]]:
    return [(cause.field, cause.message) for cause in schema.check(doc, name).causes]


FULL: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "p",
        "labels": {"a": "b"},
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "u"}],
    },
    "spec": {
        "containers": [
            {
                "name": "c",
                "image": "i",
                "command": ["sh"],
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
                "livenessProbe": {"httpGet": {"port": "web", "path": "/"}, "periodSeconds": 3},
                "readinessProbe": {"tcpSocket": {"port": 80}},
                "securityContext": {"runAsUser": 2**40, "privileged": False},
                "stdin": True,
            }
        ],
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}],
        "nodeSelector": {"a": "b"},
        "terminationGracePeriodSeconds": 5,
    },
    "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]},
}


def test_a_right_document_has_no_fault_and_stays_as_it_is() -> None:
    doc = copy.deepcopy(FULL)
    report = schema.check(doc, POD)
    assert (report.causes, report.unknown_fields) == ([], [])
    report.tidy()
    assert doc == FULL


def test_the_issue_s_virtual_machine_is_right() -> None:
    resources = {"requests": {"memory": "2Gi", "cpu": "2"}}
    template = {"spec": {"domain": {"resources": resources}}}
    doc = {"metadata": {"name": "test-vm"}, "spec": {"running": True, "template": template}}
    report = schema.check(doc, VM)
    assert (report.causes, report.unknown_fields) == ([], [])


def test_the_fields_that_kubevirt_writes_in_a_status_are_known() -> None:
    condition = {
        "type": "Ready",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    network = {"name": "n", "multus": {"networkName": "x", "default": True}}
    probe = {"httpGet": {"port": "web"}, "tcpSocket": {"port": 80}}
    doc = {
        "spec": {"domain": {}, "networks": [network], "readinessProbe": probe},
        "status": {"conditions": [condition], "VSOCKCID": 7, "phase": "Running"},
    }
    report = schema.check(doc, "io.kubevirt.v1.VirtualMachineInstance")
    assert (report.causes, report.unknown_fields) == ([], [])


@pytest.mark.parametrize(
    ("fields", "field", "rule"),
    [
        ({"image": 1}, "image", "must be a string"),
        ({"stdin": "yes"}, "stdin", "must be true or false"),
        ({"stdin": 1}, "stdin", "must be true or false"),
        ({"args": "x"}, "args", "must be an array"),
        ({"args": [1]}, "args[0]", "must be a string"),
        ({"args": [None]}, "args[0]", "must be a string"),
        ({"ports": {}}, "ports", "must be an array"),
        ({"ports": [80]}, "ports[0]", "must be an object"),
        ({"resources": []}, "resources", "must be an object"),
        ({"resources": {"limits": "1"}}, "resources.limits", "must be an object"),
        ({"resources": {"limits": {"cpu": "one"}}}, "resources.limits[cpu]", "must match the reg"),
        ({"resources": {"limits": {"cpu": True}}}, "resources.limits[cpu]", "must be a quantity"),
        ({"terminationMessagePath": ["x"]}, "terminationMessagePath", "must be a string"),
    ],
)
def test_a_wrong_type_is_named_by_path_value_and_rule(
    fields: dict[str, Any], field: str, rule: str
) -> None:
    ((path, message),) = faults(container(**fields))
    assert path == f"spec.containers[0].{field}"
    assert message.startswith("Invalid value: ")
    assert rule in message


@pytest.mark.parametrize("port", ["80", 80.0, True, 2**31, -(2**31) - 1])
def test_integers_of_32_bits_are_held_to_it(port: Any) -> None:
    ((path, message),) = faults(container(ports=[{"containerPort": port}]))
    assert path == "spec.containers[0].ports[0].containerPort"
    assert "must be an integer" in message


@pytest.mark.parametrize("port", [1.5, True, [], {}])
def test_a_port_by_number_or_name_is_nothing_else(port: Any) -> None:
    ((path, message),) = faults(container(livenessProbe={"tcpSocket": {"port": port}}))
    assert path == "spec.containers[0].livenessProbe.tcpSocket.port"
    assert "must be an integer or a string" in message


@pytest.mark.parametrize("time", ["yesterday", "2026-01-01", 5])
def test_a_time_must_be_one(time: Any) -> None:
    ((path, _),) = faults({"metadata": {"creationTimestamp": time}})
    assert path == "metadata.creationTimestamp"


@pytest.mark.parametrize("value", ["!!!", "YQ", 5])
def test_secret_data_must_be_base64(value: Any) -> None:
    ((path, _),) = faults({"data": {"k": value}}, "io.k8s.api.core.v1.Secret")
    assert path == "data[k]"


def test_secret_data_may_have_line_breaks() -> None:
    assert faults({"data": {"k": "YW\nJj\r\n", "empty": ""}}, "io.k8s.api.core.v1.Secret") == []


def test_required_fields_are_named_where_they_are_missing() -> None:
    assert faults({"spec": {}}) == [("spec.containers", "Required value")]
    assert faults({"spec": {"containers": [{"image": "i"}]}}) == [
        ("spec.containers[0].name", "Required value")
    ]
    assert faults({"spec": {"containers": None}}) == [("spec.containers", "Required value")]


def test_a_document_that_is_no_object_is_a_fault_too() -> None:
    assert faults([]) == [("", "Invalid value: []: must be an object")]  # type: ignore[arg-type]


def test_unknown_fields_are_listed_and_tidied_away() -> None:
    doc = container(imag="x")
    doc["spec"]["foo"] = {"bar": 1}
    doc["metadata"]["extra"] = 1
    report = schema.check(doc, POD)
    assert report.unknown_fields == ["metadata.extra", "spec.containers[0].imag", "spec.foo"]
    report.tidy()
    assert doc == {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}}


def test_keys_of_maps_are_not_fields() -> None:
    assert schema.check({"data": {"any.thing": "x"}}, "io.k8s.api.core.v1.ConfigMap") == (
        schema.SchemaReport()
    )


def test_free_form_objects_are_left_alone() -> None:
    interface = {"name": "default", "masquerade": {"anything": [1, None]}}
    template = {"spec": {"domain": {"devices": {"interfaces": [interface]}}}}
    doc = {"spec": {"template": template}}
    report = schema.check(doc, VM)
    report.tidy()
    assert (report.causes, report.unknown_fields) == ([], [])
    assert interface["masquerade"] == {"anything": [1, None]}


def test_null_is_as_good_as_absent() -> None:
    doc = container(image=None, resources={"limits": None})
    doc["metadata"] |= {"creationTimestamp": None, "labels": {"a": None, "b": "c"}}
    doc["status"] = None
    report = schema.check(doc, POD)
    assert report.causes == []
    report.tidy()
    assert doc == {
        "metadata": {"name": "p", "labels": {"a": "", "b": "c"}},
        "spec": {"containers": [{"name": "c", "resources": {}}]},
    }


def test_quantities_take_their_canonical_form() -> None:
    doc = container(resources={"requests": {"cpu": 0.5, "memory": "1024Mi"}, "limits": {"cpu": 2}})
    schema.check(doc, POD).tidy()
    assert doc["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": "500m", "memory": "1Gi"},
        "limits": {"cpu": "2"},
    }


def test_checking_alone_alters_nothing() -> None:
    doc = container(image=None, foo=1, resources={"requests": {"cpu": 0.5}})
    before = copy.deepcopy(doc)
    schema.check(doc, POD)
    assert doc == before


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["metadata", "spec", "containers", "name", "labels", "ports", "env"]),
            inner,
            max_size=4,
        )
    ),
)


@given(st.dictionaries(st.sampled_from(["metadata", "spec", "status", "kind"]), json))
def test_no_document_breaks_the_check_and_tidying_once_is_enough(doc: dict[str, Any]) -> None:
    report = schema.check(doc, POD)
    report.tidy()
    again = schema.check(doc, POD)
    assert again.unknown_fields == []
    if not report.causes:
        tidied = copy.deepcopy(doc)
        again.tidy()
        assert doc == tidied


@pytest.mark.parametrize("kind", list(REGISTRY), ids=lambda kind: kind.kind)
def test_every_served_kind_has_its_definitions(kind: Any) -> None:
    (gvk,) = schema.definition(kind.schema)["x-kubernetes-group-version-kind"]
    assert gvk == {"group": kind.group, "version": kind.version, "kind": kind.kind}
    assert schema.definition(f"{kind.schema}List")["required"] == ["items"]


def test_every_reference_leads_somewhere() -> None:
    definitions = schema.described_definitions()

    def references(node: Any) -> set[str]:
        if isinstance(node, list):
            return set().union(*map(references, node))
        if not isinstance(node, dict):
            return set()
        own = {node["$ref"].rpartition("/")[2]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(references, node.values()))

    assert references(list(definitions.values())) <= definitions.keys()


def test_a_flag_that_is_false_is_as_good_as_none() -> None:
    container = {"name": "main", "tty": False, "stdin": True, "volumeMounts": [{"readOnly": False}]}
    doc = {"spec": {"hostNetwork": False, "enableServiceLinks": False, "containers": [container]}}
    report = schema.check(doc, "io.k8s.api.core.v1.Pod")
    report.tidy()
    left = {"name": "main", "stdin": True, "volumeMounts": [{}]}
    assert doc == {"spec": {"enableServiceLinks": False, "containers": [left]}}
