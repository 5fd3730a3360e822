"""Environment, labels and numbers of a Pod."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tandem.control.pods.environment import MissingReference, references, resolve
from tandem.control.pods.spec import sandbox_spec
from tandem.store import Key
from tests.unit.control.plant import NODE

OBJECTS = {
    Key("configmaps", "lab", "settings"): {"data": {"color": "red", "price": "$(5)"}},
    Key("secrets", "lab", "login"): {"data": {"password": base64.b64encode(b"s$cret").decode()}},
}


def pod(*env: dict[str, Any], **container: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "web",
            "namespace": "lab",
            "uid": "u1",
            "labels": {"app": "shop"},
        },
        "spec": {
            "nodeName": "node-1",
            "containers": [{"name": "main", "image": "demo:1", "env": list(env), **container}],
        },
    }


def env_of(doc: dict[str, Any]) -> dict[str, str]:
    fields = {"status.hostIP": NODE.address}
    resolved = resolve(doc, doc["spec"]["containers"][0], OBJECTS.get, fields)
    assert "envFrom" not in resolved
    return {entry["name"]: entry["value"] for entry in resolved.get("env", [])}


def test_values_are_looked_up() -> None:
    doc = pod(
        {"name": "A", "value": "plain $(B)"},
        {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}},
        {"name": "C", "valueFrom": {"secretKeyRef": {"name": "login", "key": "password"}}},
        {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "F", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
        {"name": "G", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    )
    assert env_of(doc) == {
        "A": "plain $(B)",  # expanded by the adapter
        "B": "red",
        "C": "s$$cret",  # and this is what keeps it from being
        "D": "web",
        "E": "shop",
        "F": "192.0.2.10",
        "G": "node-1",
    }


def test_all_of_a_config_map_with_a_prefix_and_env_wins() -> None:
    source = {"prefix": "X_", "configMapRef": {"name": "settings"}}
    doc = pod({"name": "X_color", "value": "blue"}, envFrom=[source])
    assert env_of(doc) == {"X_color": "blue", "X_price": "$$(5)"}


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"configMapKeyRef": {"name": "no", "key": "k"}}, 'configmap "no" not found'),
        ({"secretKeyRef": {"name": "no", "key": "k"}}, 'secret "no" not found'),
        (
            {"configMapKeyRef": {"name": "settings", "key": "k"}},
            "couldn't find key k in ConfigMap lab/settings",
        ),
        (
            {"secretKeyRef": {"name": "login", "key": "k"}},
            "couldn't find key k in Secret lab/login",
        ),
    ],
)
def test_what_is_missing_is_named(reference: dict[str, Any], message: str) -> None:
    doc = pod({"name": "A", "valueFrom": reference})
    with pytest.raises(MissingReference, match=message) as caught:
        env_of(doc)
    assert caught.value.key in references(doc)


def test_what_is_optional_may_be_missing() -> None:
    key = {"name": "no", "key": "k", "optional": True}
    source = {"secretRef": {"name": "no", "optional": True}}
    assert env_of(pod({"name": "A", "valueFrom": {"configMapKeyRef": key}}, envFrom=[source])) == {}


def test_a_sandbox_is_told_of_its_containers_and_not_of_what_may_change() -> None:
    doc = pod(
        resources={"limits": {"memory": "1Gi"}}, ports=[{"containerPort": 80, "hostPort": 80}]
    )
    doc["spec"] |= {
        "hostNetwork": True,
        "volumes": [{"name": "v"}],
        "initContainers": [
            {"name": "first", "image": "i", "securityContext": {"privileged": True}}
        ],
    }
    spec = sandbox_spec(doc, cluster="c1", handler="gvisor")
    assert spec.container_spec == {
        "nodeName": "node-1",
        "hostNetwork": True,
        "containers": [],
        "plannedContainers": [
            {"name": "first", "securityContext": {"privileged": True}},
            {
                "name": "main",
                "resources": {"limits": {"memory": "1Gi"}},
                "ports": [{"containerPort": 80, "hostPort": 80}],
            },
        ],
        "runtimeHandler": "gvisor",
    }
    assert spec.labels["io.kubernetes.pod.name"] == "web"
    assert spec.labels["app"] == "shop"
    doc["spec"]["containers"][0]["image"] = "demo:2"
    doc["spec"]["activeDeadlineSeconds"] = 5
    assert sandbox_spec(doc, cluster="c1", handler="gvisor") == spec
