"""Environment, labels and numbers of a Pod."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tandem.control.environment import MissingReference, references, resolve
from tandem.control.podspec import LABEL_RESTARTS, insufficient, restarts_of, runtime_spec
from tandem.control.podstatus import qos_class
from tandem.runtimes.adapter import Phase, RuntimeStatus
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


def test_restarts_are_carried_into_a_new_workload() -> None:
    doc = pod()
    doc["status"] = {"containerStatuses": [{"name": "main", "restartCount": 2}]}
    spec = runtime_spec(doc, OBJECTS.get, NODE, cluster="c1", lost=True)
    assert spec.labels[LABEL_RESTARTS] == "main=3"
    status = RuntimeStatus(Phase.RUNNING, "u1", labels=spec.labels)
    assert restarts_of(status) == {"main": 3}
    assert LABEL_RESTARTS not in runtime_spec(pod(), OBJECTS.get, NODE, cluster="c1").labels


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        (
            {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
            "Burstable",
        ),
    ],
)
def test_quality_of_service(resources: dict[str, Any], expected: str) -> None:
    assert qos_class(pod(resources=resources)) == expected


def test_what_the_node_cannot_give() -> None:
    assert insufficient(pod(resources={"requests": {"memory": "8Gi"}}), NODE) == ""
    assert insufficient(pod(resources={"requests": {"memory": "8.1Gi"}}), NODE) == (
        "Insufficient memory"
    )
    assert insufficient(pod(resources={"requests": {"cpu": "4001m"}}), NODE) == "Insufficient cpu"
