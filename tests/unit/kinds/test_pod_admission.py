"""What other objects say about a new Pod."""

from __future__ import annotations

from typing import Any

import pytest

from tandem.api.kind import Doc
from tandem.api.kinds import POD, PRIORITY_CLASS, RUNTIME_CLASS
from tandem.api.kinds.priorityclass import SYSTEM_CLASSES
from tandem.api.rest import prepare_create, prepare_update
from tandem.errors import Forbidden, InvalidSpec


class Objects:
    """Objects by resource and name."""

    def __init__(self, **resources: list[Doc]) -> None:
        self._all = {
            {"priority": PRIORITY_CLASS.resource, "runtime": RUNTIME_CLASS.resource}.get(
                name, name
            ): docs
            for name, docs in resources.items()
        }

    def get(self, resource: str, namespace: str, name: str) -> Doc | None:
        return next((doc for doc in self.list(resource) if doc["metadata"]["name"] == name), None)

    def list(self, resource: str) -> list[Doc]:
        return self._all.get(resource, [])


def admitted(objects: Objects | None = None, **spec: Any) -> Doc:
    doc: Doc = {
        "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "main", "image": "demo:1"}], **spec},
    }
    prepared = prepare_create(POD, doc, namespace="default", lookup=objects or Objects())
    found: Doc = prepared.doc["spec"]
    return found


def priority(name: str, value: int, **more: Any) -> Doc:
    return {"metadata": {"name": name}, "value": value, **more}


def test_a_pod_that_names_nothing_has_the_defaults() -> None:
    spec = admitted()
    assert spec["serviceAccountName"] == spec["serviceAccount"] == "default"
    assert (spec["priority"], spec["preemptionPolicy"]) == (0, "PreemptLowerPriority")
    assert "priorityClassName" not in spec


def test_the_priority_is_that_of_the_class() -> None:
    objects = Objects(
        priority=[
            priority("high", 1000, preemptionPolicy="Never"),
            priority("usual", 10, globalDefault=True),
            priority("common", 5, globalDefault=True),
        ]
    )
    spec = admitted(objects, priorityClassName="high")
    assert (spec["priority"], spec["preemptionPolicy"]) == (1000, "Never")
    spec = admitted(objects)
    assert (spec["priorityClassName"], spec["priority"]) == ("common", 5)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"priorityClassName": "gone"}, "no PriorityClass with name gone was found"),
        (
            {"priority": 7},
            r"the integer value of priority \(7\) must not be provided in pod spec; priority "
            "admission controller computed 0 from the given PriorityClass name",
        ),
        ({"preemptionPolicy": "Never"}, "the string value of PreemptionPolicy"),
        ({"runtimeClassName": "gone"}, 'pod rejected: RuntimeClass "gone" not found'),
        (
            {"overhead": {"cpu": "1"}},
            "Pod Overhead set without corresponding RuntimeClass defined Overhead",
        ),
        (
            {"serviceAccountName": "gone"},
            'error looking up service account default/gone: serviceaccount "gone" not found',
        ),
    ],
)
def test_what_leads_nowhere_is_forbidden(spec: Doc, words: str) -> None:
    with pytest.raises(Forbidden, match=f'pods "web" is forbidden: .*{words}'):
        admitted(**spec)


def test_a_runtime_class_brings_its_overhead_and_its_place() -> None:
    runtime: Doc = {
        "metadata": {"name": "gvisor"},
        "handler": "runsc",
        "overhead": {"podFixed": {"memory": "16Mi"}},
        "scheduling": {
            "nodeSelector": {"sandboxed": "yes"},
            "tolerations": [{"key": "sandboxed", "operator": "Exists"}],
        },
    }
    objects = Objects(runtime=[runtime])
    spec = admitted(objects, runtimeClassName="gvisor", nodeSelector={"disk": "ssd"})
    assert spec["overhead"] == {"memory": "16Mi"}
    assert spec["nodeSelector"] == {"disk": "ssd", "sandboxed": "yes"}
    assert spec["tolerations"] == [{"key": "sandboxed", "operator": "Exists"}]
    with pytest.raises(Forbidden, match="doesn't match RuntimeClass's defined Overhead"):
        admitted(objects, runtimeClassName="gvisor", overhead={"memory": "1Mi"})
    with pytest.raises(Forbidden, match=r"conflict: runtimeClass\.scheduling"):
        admitted(objects, runtimeClassName="gvisor", nodeSelector={"sandboxed": "no"})


def test_an_account_s_pull_secrets_are_the_pod_s() -> None:
    account: Doc = {"metadata": {"name": "robot"}, "imagePullSecrets": [{"name": "login"}]}
    objects = Objects(serviceaccounts=[account])
    assert admitted(objects, serviceAccountName="robot")["imagePullSecrets"] == [{"name": "login"}]
    own = admitted(objects, serviceAccount="robot", imagePullSecrets=[{"name": "own"}])
    assert own["imagePullSecrets"] == [{"name": "own"}]
    assert own["serviceAccountName"] == "robot"


def test_priority_classes_of_the_system_are_its_own() -> None:
    for doc in SYSTEM_CLASSES:
        prepare_create(PRIORITY_CLASS, {**doc, "metadata": {**doc["metadata"]}}, namespace="")
    for doc in (priority("system-mine", 5), priority("mine", 2_000_000_000)):
        with pytest.raises(InvalidSpec):
            prepare_create(PRIORITY_CLASS, doc, namespace="")
    old = prepare_create(PRIORITY_CLASS, priority("mine", 5), namespace="").doc
    with pytest.raises(InvalidSpec, match="may not be changed in an update"):
        prepare_update(PRIORITY_CLASS, {**old, "value": 6}, old)


def test_the_handler_of_a_runtime_class_stays() -> None:
    doc: Doc = {"metadata": {"name": "gvisor"}, "handler": "runsc"}
    old = prepare_create(RUNTIME_CLASS, doc, namespace="").doc
    with pytest.raises(InvalidSpec, match="field is immutable"):
        prepare_update(RUNTIME_CLASS, {**old, "handler": "other"}, old)
    with pytest.raises(InvalidSpec, match="handler: Required value"):
        prepare_create(RUNTIME_CLASS, {"metadata": {"name": "a"}}, namespace="")
