"""ReplicaSets and ReplicationControllers: a number of equal Pods, whoever interferes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tandem.api.kind import Doc
from tandem.api.meta import controller_of, get
from tandem.control import clock
from tests.unit.control.plant import FAKE_TIME, Plant

pytestmark = FAKE_TIME

LABELS = {"app": "web"}


def template(**labels: str) -> Doc:
    container = {"name": "main", "image": "demo:1", "command": ["serve"]}
    return {"metadata": {"labels": labels or LABELS}, "spec": {"containers": [container]}}


async def replica_set(plant: Plant, name: str = "web", replicas: int = 3, **spec: Any) -> Doc:
    spec.setdefault("selector", {"matchLabels": LABELS})
    spec.setdefault("template", template())
    doc = {"metadata": {"name": name}, "spec": {"replicas": replicas, **spec}}
    made = await plant.create("replicasets", doc)
    await plant.settle()
    return made


def pods_of(plant: Plant, owner: str) -> list[Doc]:
    return [
        pod
        for pod in plant.store.list("pods").items
        if (controller_of(pod) or {}).get("name") == owner
    ]


async def scale(plant: Plant, plural: str, name: str, replicas: int) -> None:
    def alter(doc: Doc) -> None:
        doc["spec"]["replicas"] = replicas

    await plant.update(plural, name, alter)
    await plant.settle()


async def test_as_many_pods_as_are_wanted(plant: Plant) -> None:
    await replica_set(plant)
    pods = pods_of(plant, "web")
    assert len(pods) == 3
    assert all(pod["metadata"]["name"].startswith("web-") for pod in pods)
    status = plant.get("replicasets", "web")["status"]
    assert status == {
        "replicas": 3,
        "fullyLabeledReplicas": 3,
        "readyReplicas": 3,
        "availableReplicas": 3,
        "observedGeneration": 1,
    }
    created = [event[2] for event in plant.events("web") if event[1] == "SuccessfulCreate"]
    assert sorted(created) == sorted(f"Created pod: {pod['metadata']['name']}" for pod in pods)


async def test_more_and_fewer(plant: Plant) -> None:
    await replica_set(plant, replicas=2)
    await scale(plant, "replicasets", "web", 5)
    assert len(pods_of(plant, "web")) == 5
    await scale(plant, "replicasets", "web", 0)
    assert pods_of(plant, "web") == []
    assert plant.get("replicasets", "web")["status"] == {"replicas": 0, "observedGeneration": 3}
    assert plant.reasons("web").count("SuccessfulDelete") == 5


async def test_what_is_lost_is_replaced(plant: Plant) -> None:
    await replica_set(plant)
    lost = pods_of(plant, "web")[0]["metadata"]["name"]
    await plant.delete("pods", lost, gracePeriodSeconds=0)
    await plant.settle()
    names = {pod["metadata"]["name"] for pod in pods_of(plant, "web")}
    assert len(names) == 3
    assert lost not in names


async def test_the_cheapest_and_the_least_ready_go_first(plant: Plant) -> None:
    await replica_set(plant, replicas=3)
    cheap, other, third = (pod["metadata"]["name"] for pod in pods_of(plant, "web"))

    def cost(doc: Doc) -> None:
        doc["metadata"]["annotations"] = {"controller.kubernetes.io/pod-deletion-cost": "-1"}

    def unready(doc: Doc) -> None:
        for condition in doc["status"]["conditions"]:
            condition["status"] = "False"

    await plant.update("pods", cheap, cost)
    await plant.update("pods", other, unready, subresource="status")
    await plant.settle()
    await scale(plant, "replicasets", "web", 2)
    assert not plant.exists("pods", other)
    await scale(plant, "replicasets", "web", 1)
    assert not plant.exists("pods", cheap)
    assert plant.exists("pods", third)


async def test_an_orphan_that_matches_is_taken_in(plant: Plant) -> None:
    orphan = {"metadata": {"name": "orphan", "labels": LABELS}, "spec": template()["spec"]}
    await plant.create("pods", orphan)
    await replica_set(plant, replicas=2)
    assert (controller_of(plant.get("pods", "orphan")) or {})["name"] == "web"
    assert len(pods_of(plant, "web")) == 2
    # One that comes later is one too many.
    await plant.create("pods", orphan | {"metadata": {"name": "late", "labels": LABELS}})
    await plant.settle()
    assert len(pods_of(plant, "web")) == 2


async def test_a_pod_that_matches_no_more_is_let_go_and_replaced(plant: Plant) -> None:
    await replica_set(plant, replicas=2)
    strange = pods_of(plant, "web")[0]["metadata"]["name"]

    def relabel(doc: Doc) -> None:
        doc["metadata"]["labels"] = {"app": "other"}

    await plant.update("pods", strange, relabel)
    await plant.settle()
    assert controller_of(plant.get("pods", strange)) is None
    assert len(pods_of(plant, "web")) == 2


async def test_a_selector_without_a_value_selects_too(plant: Plant) -> None:
    selector = {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "api"]}]}
    orphan = {"metadata": {"name": "orphan", "labels": {"app": "api"}}, "spec": template()["spec"]}
    await plant.create("pods", orphan)
    await replica_set(plant, replicas=2, selector=selector)
    assert {pod["metadata"]["name"] for pod in pods_of(plant, "web")} >= {"orphan"}


async def test_a_pod_is_available_after_its_time(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "since", lambda _: 0.0)
    await replica_set(plant, replicas=2, minReadySeconds=30)
    status = plant.get("replicasets", "web")["status"]
    assert (status["readyReplicas"], status.get("availableReplicas", 0)) == (2, 0)
    monkeypatch.setattr(clock, "since", lambda _: 31.0)
    await _pass(plant, 31)
    assert plant.get("replicasets", "web")["status"]["availableReplicas"] == 2


async def _pass(plant: Plant, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await plant.settle()


async def test_what_cannot_be_made_is_told_and_tried_again(plant: Plant) -> None:
    bad = template()
    bad["spec"]["priorityClassName"] = "no-such-class"
    await replica_set(plant, replicas=3, template=bad)
    condition = plant.condition("replicasets", "web", "ReplicaFailure")
    assert (condition["status"], condition["reason"]) == ("True", "FailedCreate")
    assert "no-such-class" in condition["message"]
    # One is tried, not all of them.
    assert [reason for _, reason, _ in plant.events("web")] == ["FailedCreate"]
    await plant.create("priorityclasses", {"metadata": {"name": "no-such-class"}, "value": 7})
    await _pass(plant, 60)
    assert len(pods_of(plant, "web")) == 3
    assert not plant.condition("replicasets", "web", "ReplicaFailure")


async def test_a_restart_makes_nothing_twice(plant: Plant) -> None:
    await replica_set(plant)
    before = {pod["metadata"]["uid"] for pod in pods_of(plant, "web")}
    await plant.restart()
    assert {pod["metadata"]["uid"] for pod in pods_of(plant, "web")} == before


async def test_a_replication_controller_does_the_same(plant: Plant) -> None:
    doc = {"metadata": {"name": "web"}, "spec": {"replicas": 2, "template": template()}}
    await plant.create("replicationcontrollers", doc)
    await plant.settle()
    assert len(pods_of(plant, "web")) == 2
    assert get(plant.get("replicationcontrollers", "web"), "status.readyReplicas") == 2
    await scale(plant, "replicationcontrollers", "web", 1)
    assert len(pods_of(plant, "web")) == 1


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
async def test_pods_go_with_their_owner(plant: Plant, policy: str) -> None:
    await replica_set(plant)
    await plant.delete("replicasets", "web", propagationPolicy=policy)
    await plant.settle()
    assert not plant.exists("replicasets", "web")
    assert plant.store.list("pods").items == []


async def test_orphans_stay_and_are_taken_in_by_the_next(plant: Plant) -> None:
    await replica_set(plant)
    before = {pod["metadata"]["uid"] for pod in pods_of(plant, "web")}
    await plant.delete("replicasets", "web", propagationPolicy="Orphan")
    await plant.settle()
    assert not plant.exists("replicasets", "web")
    assert all(controller_of(pod) is None for pod in plant.store.list("pods").items)
    await replica_set(plant, "next")
    assert {pod["metadata"]["uid"] for pod in pods_of(plant, "next")} == before
