"""Pods: defaults, rules, what is supported, columns."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tandem.api.kind import Doc
from tandem.api.kinds import POD
from tandem.api.rest import prepare_create, prepare_update
from tandem.api.table import columns_of
from tandem.errors import InvalidSpec


def create(spec: Any, name: str = "web") -> Doc:
    doc = {"metadata": {"name": name}, "spec": copy.deepcopy(spec)}
    return prepare_create(POD, doc, namespace="default").doc


def container(**fields: Any) -> Doc:
    return {"name": "main", "image": "demo:1", **fields}


def pod(**fields: Any) -> Doc:
    return {"containers": [container()], **fields}


def causes_of(spec: Any) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        create(spec)
    return {cause.field: cause.message for cause in caught.value.causes}


def test_defaults_are_those_of_kubernetes() -> None:
    spec = create({"containers": [container(ports=[{"containerPort": 80}])]})["spec"]
    assert spec["restartPolicy"] == "Always"
    assert spec["terminationGracePeriodSeconds"] == 30
    assert spec["dnsPolicy"] == "ClusterFirst"
    assert spec["containers"][0] == {
        "name": "main",
        "image": "demo:1",
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"containerPort": 80, "protocol": "TCP"}],
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    }


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("demo", "Always"),
        ("demo:latest", "Always"),
        ("host:5000/demo", "Always"),
        ("host:5000/demo:1", "IfNotPresent"),
        ("demo@sha256:0", "IfNotPresent"),
    ],
)
def test_the_pull_policy_goes_by_the_tag(image: str, policy: str) -> None:
    spec = create({"containers": [container(image=image)]})["spec"]
    assert spec["containers"][0]["imagePullPolicy"] == policy


def test_a_limit_is_a_request() -> None:
    resources = {"limits": {"memory": "1Gi", "cpu": "1"}, "requests": {"cpu": "500m"}}
    spec = create({"containers": [container(resources=resources)]})["spec"]
    assert spec["containers"][0]["resources"]["requests"] == {"memory": "1Gi", "cpu": "500m"}


@pytest.mark.parametrize(
    ("spec", "field", "words"),
    [
        ({"containers": []}, "spec.containers", "Required value"),
        ({"containers": [{"name": "a"}]}, "spec.containers[0].image", "Required value"),
        ({"containers": [container(name="A")]}, "spec.containers[0].name", "RFC 1123 label"),
        ({"containers": [container(), container()]}, "spec.containers[1].name", "Duplicate"),
        ({"containers": [container(image=" x")]}, "spec.containers[0].image", "whitespace"),
        (pod(restartPolicy="Sometimes"), "spec.restartPolicy", '"Sometimes": supported values'),
        (pod(terminationGracePeriodSeconds=-1), "spec.terminationGracePeriodSeconds", "-1"),
        (pod(activeDeadlineSeconds=0), "spec.activeDeadlineSeconds", "between 1 and"),
        (pod(hostname="a.b"), "spec.hostname", "RFC 1123 label"),
        (pod(dnsPolicy="None"), "spec.dnsConfig.nameservers", "at least one"),
        (
            {"containers": [container(imagePullPolicy="Maybe")]},
            "spec.containers[0].imagePullPolicy",
            "Maybe",
        ),
        (
            {"containers": [container(ports=[{"containerPort": 70000}])]},
            "spec.containers[0].ports[0].containerPort",
            "between 1 and 65535, inclusive",
        ),
        (
            {"containers": [container(env=[{"name": "A=B"}])]},
            "spec.containers[0].env[0].name",
            "other than '='",
        ),
        (
            {"containers": [container(env=[{"name": "A", "value": "x", "valueFrom": {}}])]},
            "spec.containers[0].env[0].valueFrom",
            "may not be specified when `value` is not empty",
        ),
        (
            {
                "containers": [
                    container(
                        env=[
                            {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
                        ]
                    )
                ]
            },
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath",
            "status.podIP",
        ),
        (
            {"containers": [container(resources={"requests": {"memory": "-1"}})]},
            "spec.containers[0].resources.requests[memory]",
            "greater than or equal to 0",
        ),
        (
            {
                "containers": [
                    container(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}})
                ]
            },
            "spec.containers[0].resources.requests",
            "must be less than or equal to cpu limit of 1",
        ),
        (
            {"containers": [container(resources={"limits": {"example.com/gpu": "1"}})]},
            "spec.containers[0].resources.limits[example.com/gpu]",
            "Unsupported value",
        ),
    ],
)
def test_a_fault_is_named_by_field_value_and_rule(spec: Doc, field: str, words: str) -> None:
    found = causes_of(spec)
    assert field in found, found
    assert words in found[field]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (pod(volumes=[{"name": "data", "emptyDir": {}}]), "spec.volumes"),
        (pod(initContainers=[container()]), "spec.initContainers"),
        (pod(imagePullSecrets=[{"name": "login"}]), "spec.imagePullSecrets"),
        (
            {"containers": [container(livenessProbe={"exec": {"command": ["true"]}})]},
            "spec.containers[0].livenessProbe",
        ),
        (
            {"containers": [container(lifecycle={"preStop": {"exec": {"command": ["true"]}}})]},
            "spec.containers[0].lifecycle",
        ),
    ],
)
def test_what_is_not_supported_is_refused_by_its_path(spec: Doc, field: str) -> None:
    assert "not supported by Tandem" in causes_of(spec)[field]


def test_empty_values_ask_for_nothing() -> None:
    create(pod(volumes=[], initContainers=None, hostNetwork=False, readinessGates=[]))


def test_what_cannot_matter_on_one_node_is_taken_with_a_warning() -> None:
    doc = {
        "metadata": {"name": "web"},
        "spec": pod(nodeSelector={"disk": "ssd"}, tolerations=[{"operator": "Exists"}]),
    }
    warnings = prepare_create(POD, doc, namespace="default").warnings
    assert warnings == ("spec.nodeSelector has no effect: there is one node",)


def test_the_default_service_account_is_nothing_to_warn_of() -> None:
    doc = {"metadata": {"name": "web"}, "spec": pod(serviceAccountName="default")}
    assert prepare_create(POD, doc, namespace="default").warnings == ()


def test_only_a_few_fields_may_change() -> None:
    old = create(pod())
    new = copy.deepcopy(old)
    new["spec"]["containers"][0]["image"] = "demo:2"
    new["spec"]["activeDeadlineSeconds"] = 60
    assert prepare_update(POD, new, old).doc["metadata"]["generation"] == 2
    new = copy.deepcopy(old)
    new["spec"]["containers"][0]["command"] = ["other"]
    with pytest.raises(InvalidSpec) as caught:
        prepare_update(POD, new, old)
    assert caught.value.causes[0].field == "spec"
    assert "may not change fields other than" in caught.value.causes[0].message


def state(state: Doc, *, ready: bool = False, **more: Any) -> Doc:
    return {"name": "main", "state": state, "ready": ready, "restartCount": 0, **more}


@pytest.mark.parametrize(
    ("status", "marked", "shown"),
    [
        ({"phase": "Pending"}, False, "Pending"),
        (
            {
                "phase": "Pending",
                "containerStatuses": [state({"waiting": {"reason": "ContainerCreating"}})],
            },
            False,
            "ContainerCreating",
        ),
        (
            {"phase": "Running", "containerStatuses": [state({"running": {}}, ready=True)]},
            False,
            "Running",
        ),
        (
            {"phase": "Running", "containerStatuses": [state({"running": {}}, ready=True)]},
            True,
            "Terminating",
        ),
        (
            {
                "phase": "Running",
                "containerStatuses": [state({"waiting": {"reason": "CrashLoopBackOff"}})],
            },
            False,
            "CrashLoopBackOff",
        ),
        (
            {
                "phase": "Succeeded",
                "containerStatuses": [state({"terminated": {"reason": "Completed"}})],
            },
            False,
            "Completed",
        ),
        (
            {"phase": "Failed", "containerStatuses": [state({"terminated": {"exitCode": 7}})]},
            False,
            "ExitCode:7",
        ),
        ({"phase": "Failed", "reason": "DeadlineExceeded"}, False, "DeadlineExceeded"),
    ],
)
def test_the_status_column_says_what_kubectl_says(status: Doc, marked: bool, shown: str) -> None:
    doc: Doc = {"metadata": {"name": "web"}, "spec": pod(), "status": status}
    if marked:
        doc["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    cells = {column.name: column.value(doc) for column in columns_of(POD)}
    assert cells["Status"] == shown


def test_ready_and_restarts() -> None:
    ended = {"terminated": {"finishedAt": "2026-01-01T00:00:00Z"}}
    statuses = [
        state({"running": {}}, ready=True, lastState=ended) | {"restartCount": 3},
        state({"waiting": {}}) | {"name": "side"},
    ]
    doc: Doc = {
        "metadata": {"name": "web"},
        "spec": {"containers": [container(), container(name="side")]},
        "status": {"phase": "Running", "containerStatuses": statuses},
    }
    cells = {column.name: column.value(doc) for column in columns_of(POD)}
    assert cells["Ready"] == "1/2"
    assert cells["Restarts"].startswith("3 (")
    assert cells["Restarts"].endswith(" ago)")
