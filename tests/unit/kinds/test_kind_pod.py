"""Pods: defaults, rules, what is supported, columns."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tandem.api.kind import Doc
from tandem.api.kinds import POD
from tandem.api.rest import prepare_create
from tandem.api.table import columns_of


def create(spec: Any, name: str = "web") -> Doc:
    doc = {"metadata": {"name": name}, "spec": copy.deepcopy(spec)}
    return prepare_create(POD, doc, namespace="default").doc


def container(**fields: Any) -> Doc:
    return {"name": "main", "image": "demo:1", **fields}


def pod(**fields: Any) -> Doc:
    return {"containers": [container()], **fields}


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


def test_empty_values_ask_for_nothing() -> None:
    create(pod(volumes=[], initContainers=None, hostNetwork=False, readinessGates=[]))


def test_the_default_service_account_is_nothing_to_warn_of() -> None:
    doc = {"metadata": {"name": "web"}, "spec": pod(serviceAccountName="default")}
    assert prepare_create(POD, doc, namespace="default").warnings == ()


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
        ({"phase": "Failed", "reason": "Evicted"}, False, "Evicted"),
        (
            {
                "phase": "Pending",
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}
                ],
            },
            False,
            "SchedulingGated",
        ),
        (
            {
                "phase": "Running",
                "containerStatuses": [
                    state({"terminated": {"reason": "Completed"}}),
                    state({"running": {}}, ready=True) | {"name": "other"},
                ],
            },
            False,
            "NotReady",
        ),
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


def init(state: Doc, name: str = "first", **more: Any) -> Doc:
    return {"name": name, "state": state, "ready": False, "restartCount": 1, **more}


DONE = {"terminated": {"exitCode": 0, "reason": "Completed"}}
CREATING = [{"name": "main", "state": {"waiting": {"reason": "PodInitializing"}}}]


@pytest.mark.parametrize(
    ("statuses", "shown"),
    [
        ([init({"waiting": {"reason": "PodInitializing"}})], "Init:0/2"),
        ([init({"running": {}})], "Init:0/2"),
        ([init(DONE), init({"running": {}}, "side")], "Init:1/2"),
        ([init(DONE), init({"running": {}}, "side", started=True)], "PodInitializing"),
        ([init({"terminated": {"exitCode": 1, "reason": "Error"}})], "Init:Error"),
        ([init({"terminated": {"exitCode": 3}})], "Init:ExitCode:3"),
        ([init({"terminated": {"exitCode": 137, "signal": 9}})], "Init:Signal:9"),
        ([init({"waiting": {"reason": "CrashLoopBackOff"}})], "Init:CrashLoopBackOff"),
        ([init({"waiting": {"reason": "ImagePullBackOff"}})], "Init:ImagePullBackOff"),
    ],
)
def test_the_status_column_tells_of_init_containers(statuses: list[Doc], shown: str) -> None:
    doc: Doc = {
        "metadata": {"name": "web"},
        "spec": pod(
            initContainers=[
                container(name="first"),
                container(name="side", restartPolicy="Always"),
            ]
        ),
        "status": {
            "phase": "Pending",
            "initContainerStatuses": statuses,
            "containerStatuses": CREATING,
        },
    }
    cells = {column.name: column.value(doc) for column in columns_of(POD)}
    assert cells["Status"] == shown
    assert cells["Ready"] == "0/2"


def test_a_sidecar_counts_among_the_ready_and_the_restarts() -> None:
    running: Doc = {"running": {}}
    doc: Doc = {
        "metadata": {"name": "web"},
        "spec": pod(
            initContainers=[
                container(name="first"),
                container(name="side", restartPolicy="Always"),
            ],
            readinessGates=[{"conditionType": "a.dev/open"}, {"conditionType": "a.dev/more"}],
        ),
        "status": {
            "phase": "Running",
            "conditions": [{"type": "a.dev/open", "status": "True"}],
            "initContainerStatuses": [
                init(DONE),
                init(running, "side", started=True, restartCount=2) | {"ready": True},
            ],
            "containerStatuses": [state(running, ready=True) | {"restartCount": 4}],
        },
    }
    cells = {column.name: column.value(doc) for column in columns_of(POD)}
    assert cells["Ready"] == "2/2"
    assert cells["Status"] == "Running"
    assert cells["Restarts"] == "6"
    assert cells["Readiness Gates"] == "1/2"
